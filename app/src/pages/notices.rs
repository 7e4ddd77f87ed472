//! Notices: the channels that failed jobs are told by, and what went through one of them.

use super::query;
use crate::components::button::{self, Button, copy};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::list::{ROWS, throttled};
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, pill};
use crate::components::time::ago;
use crate::env::{flash, may};
use crate::feed::on_change;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, ListNoticeChannels, ListNotices, ListQuery, NoticeChannelPage, NoticePage};
use shared::can::Verdict;
use shared::feed::Noun;
use shared::notice::{
    ChannelKind, DeliveryOutcome, Notice, NoticeChannel, NoticeEvent, NoticeState, can_roll, can_test,
};

const HERE: &str = "/notices";

struct Data {
    channels: Vec<NoticeChannel>,
    /// What went through the channel that is looked at, with its number.
    notices: Option<(Vec<Notice>, u64)>,
}

pub fn page() -> AnyView {
    // A channel is looked at in the address: the list stays beside it.
    let (of, looks) = (query("of"), RwSignal::new(0_u32));
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if change.noun() == Noun::NoticeChannel {
            look();
        }
    });
    // A form of this page changes what the page shows, also where there is no feed.
    let flash = flash();
    Effect::new(move |_| {
        if flash.with(|f| f.as_ref().is_some_and(|f| f.error.is_none())) {
            looks.update(|n| *n += 1);
        }
    });
    view! {
        <Title text=w().notices/>
        {bar(Vec::new(), w().notices.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().notices}</h1>
        </div>
        <p class="soft">{w().notices_lead}</p>
        {load(
            move || format!("{} {}", looks.get(), of.get()),
            move |_| {
                let channels = ListNoticeChannels { query: ListQuery::default() }.raw();
                let channel = of.get_untracked();
                let query = ListQuery { page_size: Some(ROWS), ..ListQuery::default() };
                let notices = (!channel.is_empty()).then(|| ListNotices { channel, query }.raw());
                all(std::iter::once(channels).chain(notices))
            },
            read,
            |old, new| *old = new,
            move |data| shown(data, of),
        )}
    }
    .into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let notices = if bodies.len() > 1 {
        let page: NoticePage = body(bodies, 1)?;
        Some((page.notices, page.total_size))
    } else {
        None
    };
    Ok(Data {
        channels: body::<NoticeChannelPage>(bodies, 0)?.notice_channels,
        notices,
    })
}

fn shown(data: RwSignal<Data>, of: Memo<String>) -> AnyView {
    let rows = move || {
        data.with(|d| {
            if d.channels.is_empty() {
                return view! { <p class="none">{w().no_channels}</p> }.into_any();
            }
            let rows: Vec<_> = d.channels.iter().map(row).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    let went = move || {
        data.with(|d| {
            d.notices
                .as_ref()
                .map(|(all, total)| went_through(&of.get_untracked(), all, *total))
        })
    };
    // Drawn when another is looked at, and not with each delivery: what is being typed stays.
    let edited = move || {
        let of = of.get();
        data.with_untracked(|d| d.channels.iter().find(|c| c.name.as_str() == of).map(edit))
    };
    view! {
        {secret()}
        <div class="cols">
            <div class="stack">
                <section class="panel list" aria-label=w().channels>
                    {rows}
                </section>
                {went}
            </div>
            <div class="stack">{edited} {new()}</div>
        </div>
    }
    .into_any()
}

/// The secret of a webhook that was just made or rolled: this once.
fn secret() -> AnyView {
    let flash = flash();
    (move || {
        let secret = flash.with(|f| {
            f.as_ref()
                .filter(|f| f.action.starts_with("/do/notices/"))?
                .secret
                .clone()
        })?;
        Some(view! {
            <div class="alert good" role="status">
                <p>
                    <b>{w().channel_secret_once}</b>
                </p>
                <div class="secret">
                    <code>{secret.clone()}</code>
                    {copy(secret, w().copy)}
                </div>
            </div>
        })
    })
    .into_any()
}

fn kind(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Webhook => w().channel_webhook,
        ChannelKind::Mail => w().channel_mail,
    }
}

fn event(event: NoticeEvent) -> &'static str {
    match event {
        NoticeEvent::JobFailed => w().notice_failed,
        NoticeEvent::JobOnHold => w().notice_on_hold,
        NoticeEvent::JobUndoBlocked => w().notice_undo_blocked,
        NoticeEvent::CopyWarning => w().notice_copy_warning,
        NoticeEvent::CopyMissed => w().notice_copy_missed,
        NoticeEvent::TargetAway => w().notice_target_away,
        NoticeEvent::Test => w().notice_test,
    }
}

fn row(channel: &NoticeChannel) -> AnyView {
    let name = channel.name.as_str();
    let back = looked_at(name);
    let act = |action: &str, label, class| Button {
        to: format!("/do/notices/{name}/{action}"),
        label,
        class,
        back: back.clone(),
        of: name.to_owned(),
        ..Button::default()
    };
    let delete = Button {
        back: HERE.to_owned(),
        ..act("delete", w().remove, "danger quiet")
    };
    let (switch, label) = if channel.enabled {
        ("off", w().switch_off)
    } else {
        ("on", w().switch_on)
    };
    let may = may_tell();
    let roll = (channel.kind == ChannelKind::Webhook).then(|| {
        let verdict = can_roll(channel).and(may.clone());
        button::post(act("roll", w().new_secret, "quiet"), &verdict)
    });
    let state = match (&channel.last_delivery, channel.enabled) {
        (_, false) => pill(Tone::Still, w().switched_off),
        (None, true) => pill(Tone::Still, w().never_told),
        (Some(last), true) => match last.outcome {
            DeliveryOutcome::Delivered => pill(Tone::Good, w().notice_delivered),
            DeliveryOutcome::Failed => pill(Tone::Bad, w().notice_not_taken),
        },
    };
    let last = channel.last_delivery.as_ref().map(|last| {
        let why = last.error.clone().map(|why| format!(" · {why}"));
        view! { <span class="sub">{ago(last.time)} {why}</span> }
    });
    let to = channel.url.clone().unwrap_or_else(|| channel.to.join(", "));
    let on: Vec<_> = channel.on.iter().map(|e| event(*e)).collect();
    let count = |n: u64, word: &str| (n > 0).then(|| format!(" · {}", put(word, &[&format::count(n)])));
    view! {
        <li>
            <span class="what">
                <a href=back.clone()>
                    <b>{channel.name.to_string()}</b>
                </a>
                " " {state}
                <span class="sub">{kind(channel.kind)} " · " {to}</span>
                <span class="sub">
                    {on.join(", ")} {count(channel.waiting, w().notices_wait)}
                    {count(channel.given_up, w().notices_given_up)}
                </span>
                {last}
            </span>
            <span class="inline">
                {button::post(act("test", w().send_test, "quiet"), &can_test(channel))}
                {button::post(act(switch, label, "quiet"), &may)}
                {roll}
                {button::post(delete, &Ok(()))}
            </span>
        </li>
    }
    .into_any()
}

/// Events to tick.
fn events(fields: &Fields, ticked: &[NoticeEvent]) -> AnyView {
    let boxes: Vec<_> = NoticeEvent::ASKED
        .iter()
        .map(|of| {
            let on = fields.ticked_of("event", of.word(), ticked.contains(of));
            view! {
                <label class="check">
                    <input type="checkbox" name="event" value=of.word() checked=on/>
                    <span>{event(*of)}</span>
                </label>
            }
        })
        .collect();
    view! {
        <fieldset>
            <legend>{w().tell_when}</legend>
            {boxes}
        </fieldset>
    }
    .into_any()
}

/// What can be changed of a channel.
fn edit(channel: &NoticeChannel) -> AnyView {
    let action = format!("/do/notices/{}/edit", channel.name);
    let fields = Fields::of(&action);
    let (name, label, now) = match channel.kind {
        ChannelKind::Webhook => ("url", w().channel_url, channel.url.clone().unwrap_or_default()),
        ChannelKind::Mail => ("to", w().channel_to, channel.to.join(" ")),
    };
    let value = fields.typed(name).unwrap_or(now);
    view! {
        <section class="panel" aria-labelledby="edit-title">
            <header>
                <h2 id="edit-title">{put(w().change_channel, &[channel.name.as_str()])}</h2>
            </header>
            <div class="in">
                <form method="post" action=action class="stack">
                    {fields.error(&looked_at(channel.name.as_str()))}
                    <div class="field">
                        <label for="channel-address">{label}</label>
                        <input
                            id="channel-address"
                            name=name
                            value=value
                            required
                            autocomplete="off"
                            spellcheck="false"
                        />
                    </div>
                    {events(&fields, &channel.on)}
                    {fields.submit("go", w().save, may_tell)}
                </form>
            </div>
        </section>
    }
    .into_any()
}

/// Whether the person may have others told of jobs: of all of them, so they have to be seen.
fn may_tell() -> Verdict {
    may(Privilege::JobRead, None)
}

/// The page with a channel that is looked at.
fn looked_at(channel: &str) -> String {
    format!("{HERE}?of={channel}")
}

fn went_through(of: &str, notices: &[Notice], total: u64) -> AnyView {
    let title = put(w().went_through, &[of]);
    if notices.is_empty() {
        return view! {
            <section class="panel" aria-label=title>
                <p class="none">{w().no_notices}</p>
            </section>
        }
        .into_any();
    }
    let more = (total > notices.len() as u64).then(|| {
        let shown = [&*format::count(notices.len() as u64), &*format::count(total)].map(str::to_owned);
        view! { <p class="none">{put(w().notices_newest, &[&shown[0], &shown[1]])}</p> }
    });
    let rows: Vec<_> = notices.iter().map(notice).collect();
    view! {
        <section class="panel list" aria-labelledby="went-title">
            <header>
                <h2 id="went-title">{title}</h2>
            </header>
            <table>
                <thead>
                    <tr>
                        <th scope="col">{w().what}</th>
                        <th scope="col">{w().result}</th>
                        <th scope="col">{w().notice_tries}</th>
                        <th scope="col">{w().when}</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
            {more}
        </section>
    }
    .into_any()
}

fn notice(notice: &Notice) -> AnyView {
    let (tone, word) = match notice.state {
        NoticeState::Delivered => (Tone::Good, w().notice_delivered),
        NoticeState::Waiting => (Tone::Busy, w().notice_waits),
        NoticeState::GivenUp => (Tone::Bad, w().notice_given_up),
    };
    let what = match notice.job {
        Some(job) => view! { <a href=format!("/jobs/{job}")>{event(notice.event)}</a> }.into_any(),
        None => event(notice.event).into_any(),
    };
    view! {
        <tr>
            <td class="head wrap">
                {what}
                <small class="soft">{notice.error.clone()}</small>
            </td>
            <td data-label=w().result>{pill(tone, word)}</td>
            <td data-label=w().notice_tries>{notice.attempts}</td>
            <td class="soft" data-label=w().when>
                {ago(notice.create_time)}
            </td>
        </tr>
    }
    .into_any()
}

fn new() -> AnyView {
    let action = "/do/notices/create";
    let fields = Fields::of(action);
    let kinds = ChannelKind::ALL
        .iter()
        .map(|k| (k.word().to_owned(), kind(*k).to_owned()))
        .collect();
    let line = |name, label, hint: &str, placeholder: &str| {
        fields.line(Line {
            name,
            label,
            hint: hint.to_owned(),
            placeholder: placeholder.to_owned(),
            required: name == "name",
            is_name: name == "name",
            ..Line::default()
        })
    };
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h2>{w().add_channel}</h2>
                {fields.error(HERE)}
                {line("name", w().name, w().name_hint, "")}
                {fields.choice("kind", w().kind, String::new(), kinds, ChannelKind::Webhook.word())}
                {line("url", w().channel_url, w().channel_url_hint, "https://example.org/hook")}
                {line("to", w().channel_to, w().channel_to_hint, "ops@example.org")}
                {events(&fields, &[NoticeEvent::JobFailed])}
            </div>
            <footer>
                {fields.submit("go", w().add_it, may_tell)}
            </footer>
        </form>
    }
    .into_any()
}
