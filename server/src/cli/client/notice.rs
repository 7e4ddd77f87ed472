//! `offshoot notice …`: who is told of jobs that fail.

use super::table::Table;
use super::{Api, List, joined};
use crate::cli::Failure;
use clap::{ArgGroup, Args, Subcommand};
use shared::Name;
use shared::api::{
    DeleteNoticeChannel, GetNoticeChannel, ListNoticeChannels, ListNotices, PostNoticeChannel,
    RollNoticeSecret, TestNoticeChannel, UpdateNoticeChannel,
};
use shared::notice::{
    ChannelKind, CreateNoticeChannel, NewNoticeChannel, NoticeChannel, NoticeEvent, PatchNoticeChannel,
};

/// `offshoot notice …`
#[derive(Subcommand)]
pub enum NoticeCommand {
    /// Lists channels, with how the last delivery went.
    List(#[command(flatten)] List),
    /// Shows a channel.
    Show {
        /// Name or id.
        channel: String,
    },
    /// Makes a channel, and prints the secret of a webhook, this once.
    Create(CreateArgs),
    /// Changes a channel; what is not given stays.
    Update {
        /// Name or id.
        channel: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Gives a webhook another secret, and prints it, this once. For a day the one before signs as well.
    RollSecret {
        /// Name or id.
        channel: String,
    },
    /// Sends a test through a channel; `deliveries` shows how it went.
    Test {
        /// Name or id.
        channel: String,
    },
    /// Lists what went through a channel and what waits there, newest first.
    Deliveries {
        /// Name or id.
        channel: String,
        #[command(flatten)]
        list: List,
    },
    /// Deletes a channel, with what waits there.
    Delete {
        /// Name or id.
        channel: String,
    },
}

/// What a new channel is.
#[derive(Args)]
#[command(group = ArgGroup::new("target").args(["webhook", "mail"]).required(true))]
pub struct CreateArgs {
    /// Its name.
    name: Name,
    /// Have a webhook post here.
    // Not called `url`: that is where the server is.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Mail to these, with commas between.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    mail: Vec<String>,
    /// What to tell, with commas between: JOB_FAILED, JOB_ON_HOLD, JOB_UNDO_BLOCKED, COPY_WARNING, COPY_MISSED, TARGET_AWAY.
    #[arg(long, value_delimiter = ',', default_value = "JOB_FAILED")]
    on: Vec<NoticeEvent>,
}

/// What becomes of a channel.
#[derive(Args)]
pub struct ChangeArgs {
    /// Another name.
    #[arg(long)]
    name: Option<Name>,
    /// Where a webhook posts to.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Whom it mails to, all of them, with commas between.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    mail: Option<Vec<String>>,
    /// What to tell, all of it, with commas between.
    #[arg(long, value_delimiter = ',')]
    on: Option<Vec<NoticeEvent>>,
    /// Whether it tells anything: true or false.
    #[arg(long)]
    enabled: Option<bool>,
}

fn target(channel: &NoticeChannel) -> String {
    channel.url.clone().unwrap_or_else(|| joined(&channel.to))
}

fn last(channel: &NoticeChannel) -> String {
    let Some(last) = &channel.last_delivery else {
        return String::new();
    };
    let why = last.error.as_ref().map(|why| format!(": {why}"));
    format!("{} {}{}", last.time, last.outcome, why.unwrap_or_default())
}

fn shown(channel: &NoticeChannel) -> String {
    let off = if channel.enabled { "" } else { " (switched off)" };
    let mut text = format!("{}{off}\n  {} {}", channel.name, channel.kind, target(channel));
    text.push_str(&format!("\n  tells {}", joined(&channel.on)));
    text.push_str(&format!(
        "\n  {} wait, {} given up",
        channel.waiting, channel.given_up
    ));
    if channel.last_delivery.is_some() {
        text.push_str(&format!("\n  last {}", last(channel)));
    }
    text
}

fn with_secret(new: &NewNoticeChannel) -> String {
    match &new.secret {
        None => shown(&new.channel),
        Some(secret) => format!("{}\n{secret}", shown(&new.channel)),
    }
}

impl NoticeCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListNoticeChannels { query }, |page| {
                    let mut table = Table::new(["NAME", "KIND", "TO", "WAIT", "LAST"]);
                    for channel in &page.notice_channels {
                        table.row([
                            channel.name.to_string(),
                            channel.kind.to_string(),
                            target(channel),
                            channel.waiting.to_string(),
                            last(channel),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { channel } => api.show(&GetNoticeChannel { channel }, |c| shown(&c)).await,
            Self::Create(args) => {
                let request = CreateNoticeChannel {
                    name: args.name,
                    kind: match args.webhook {
                        Some(_) => ChannelKind::Webhook,
                        None => ChannelKind::Mail,
                    },
                    url: args.webhook,
                    to: args.mail,
                    on: args.on,
                    enabled: true,
                };
                api.show(&PostNoticeChannel { request }, |new| with_secret(&new))
                    .await
            }
            Self::Update { channel, change } => {
                let request = PatchNoticeChannel {
                    name: change.name,
                    url: change.webhook,
                    to: change.mail,
                    on: change.on,
                    enabled: change.enabled,
                };
                api.show(&UpdateNoticeChannel { channel, request }, |c| shown(&c))
                    .await
            }
            Self::RollSecret { channel } => {
                api.show(&RollNoticeSecret { channel }, |new| with_secret(&new))
                    .await
            }
            Self::Test { channel } => {
                let told = format!("a test is on its way through {channel}");
                api.show(&TestNoticeChannel { channel }, |_| told).await
            }
            Self::Deliveries { channel, list } => {
                let query = list.into();
                api.show(&ListNotices { channel, query }, |page| {
                    let mut table = Table::new(["TIME", "EVENT", "JOB", "STATE", "TRIES", "ERROR"]);
                    for notice in &page.notices {
                        table.row([
                            notice.create_time.to_string(),
                            notice.event.to_string(),
                            notice.job.map(|job| job.to_string()).unwrap_or_default(),
                            notice.state.to_string(),
                            notice.attempts.to_string(),
                            notice.error.clone().unwrap_or_default(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Delete { channel } => {
                let told = format!("notice channel {channel} is deleted");
                api.show(&DeleteNoticeChannel { channel }, |()| told).await
            }
        }
    }
}
