//! The forms that speak of notices.

use super::parse::Form;
use crate::words::w;
use shared::Status;
use shared::api::{
    Call, DeleteNoticeChannel, PostNoticeChannel, RawCall, RollNoticeSecret, TestNoticeChannel,
    UpdateNoticeChannel,
};
use shared::notice::{ChannelKind, CreateNoticeChannel, NoticeEvent, PatchNoticeChannel};

/// Addresses, with commas or spaces between.
fn addresses(form: Form<'_>) -> Vec<String> {
    let typed = form.get("to").unwrap_or_default();
    let all = typed.split([',', ' ']).filter(|a| !a.is_empty());
    all.map(str::to_owned).collect()
}

fn ticked(form: Form<'_>) -> Result<Vec<NoticeEvent>, Status> {
    let all = form.0.iter().filter(|(name, _)| name == "event");
    all.map(|(_, word)| word.parse().map_err(|e| Status::invalid("on", e)))
        .collect()
}

pub fn parse(rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let change = |channel: &str, request| {
        let channel = channel.to_owned();
        UpdateNoticeChannel { channel, request }.raw()
    };
    Ok(match *rest {
        ["create"] => {
            let kind = form.need("kind")?;
            let mail = kind == ChannelKind::Mail;
            let request = CreateNoticeChannel {
                name: form.need("name")?,
                kind,
                // Both fields are there: the one of the other kind is not meant.
                url: form.get("url").filter(|_| !mail).map(str::to_owned),
                to: if mail { addresses(form) } else { Vec::new() },
                on: ticked(form)?,
                enabled: true,
            };
            PostNoticeChannel { request }.raw()
        }
        [channel, "edit"] => {
            let request = PatchNoticeChannel {
                url: form.get("url").map(str::to_owned),
                to: form.get("to").map(|_| addresses(form)),
                on: Some(ticked(form)?),
                ..PatchNoticeChannel::default()
            };
            change(channel, request)
        }
        [channel, switch @ ("on" | "off")] => {
            let request = PatchNoticeChannel {
                enabled: Some(switch == "on"),
                ..PatchNoticeChannel::default()
            };
            change(channel, request)
        }
        [channel, "test"] => TestNoticeChannel {
            channel: channel.to_owned(),
        }
        .raw(),
        [channel, "roll"] => RollNoticeSecret {
            channel: channel.to_owned(),
        }
        .raw(),
        [channel, "delete"] => DeleteNoticeChannel {
            channel: channel.to_owned(),
        }
        .raw(),
        _ => return Err(Status::not_found("form", rest.join("/"))),
    })
}

/// What a page says when it was done.
pub fn done(rest: &[&str]) -> &'static str {
    match rest {
        ["create"] => w().flash_added,
        [_, "delete"] => w().flash_removed,
        [_, "test"] => w().flash_notice_test,
        [_, "roll"] => w().flash_notice_secret,
        _ => w().flash_described,
    }
}
