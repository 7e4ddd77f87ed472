//! Notices: who is told that a job failed, a copy was missed or a target is away, by which channel, and what became of each.

use crate::can::{Verdict, limit};
use crate::copy::TaskStatus;
use crate::job::{Job, JobKind, JobState, Resource};
use crate::target::Target;
use crate::{Code, JobId, Name, NoticeChannelId, NoticeId, Status, TargetId, Timestamp, words};
use serde::{Deserialize, Serialize};

words! {
    /// How a channel tells.
    pub enum ChannelKind {
        /// By a signed POST to an address.
        Webhook = "WEBHOOK",
        /// By mail.
        Mail = "MAIL",
    }

    /// What a notice is about.
    pub enum NoticeEvent {
        /// A job has failed, and everything is undone.
        JobFailed = "JOB_FAILED",
        /// A job cannot go on and cannot go back; told once of each job.
        JobOnHold = "JOB_ON_HOLD",
        /// The undo of a job fails; told once of each job.
        JobUndoBlocked = "JOB_UNDO_BLOCKED",
        /// A copy is there, and a person must know something of it.
        CopyWarning = "COPY_WARNING",
        /// The time of a copy passed while it could not run.
        CopyMissed = "COPY_MISSED",
        /// A target has been away for long; told once each time.
        TargetAway = "TARGET_AWAY",
        /// Nothing has happened: a person tries the channel.
        Test = "TEST",
    }

    /// What became of a notice.
    pub enum NoticeState {
        /// To be delivered, perhaps again.
        Waiting = "WAITING",
        /// The other side has taken it.
        Delivered = "DELIVERED",
        /// It was tried for long enough.
        GivenUp = "GIVEN_UP",
    }

    /// How a delivery went.
    pub enum DeliveryOutcome {
        /// The other side has taken it.
        Delivered = "DELIVERED",
        /// It has not.
        Failed = "FAILED",
    }
}

/// Most addresses of a channel that mails.
pub const RECIPIENTS: usize = 20;
/// Longest address, of either kind, in bytes.
pub const ADDRESS_BYTES: usize = 2048;
/// For how long the secret before still signs, in hours: receivers take the new one in their own time.
pub const OLD_SECRET_HOURS: u32 = 24;
/// For how long a notice is tried, in hours.
pub const TRIED_HOURS: u32 = 24;
/// After how many hours it is told that a target is away.
pub const AWAY_HOURS: u32 = 1;
/// How long it is kept what became of a notice, in days.
pub const NOTICE_DAYS: u32 = 30;

impl NoticeEvent {
    /// What a channel may be asked to tell.
    pub const ASKED: [Self; 6] = [
        Self::JobFailed,
        Self::JobOnHold,
        Self::JobUndoBlocked,
        Self::CopyWarning,
        Self::CopyMissed,
        Self::TargetAway,
    ];

    /// What is to be told of a job that has come to this state, as a copy task to this status if it is one.
    pub const fn of(state: JobState, copy: Option<TaskStatus>) -> Option<Self> {
        match (state, copy) {
            (JobState::Failed, Some(TaskStatus::Missed)) => Some(Self::CopyMissed),
            (JobState::Failed, _) => Some(Self::JobFailed),
            (JobState::OnHold, _) => Some(Self::JobOnHold),
            (JobState::UndoBlocked, _) => Some(Self::JobUndoBlocked),
            (JobState::Succeeded, Some(TaskStatus::Warning)) => Some(Self::CopyWarning),
            (
                JobState::Queued
                | JobState::Running
                | JobState::Unwinding
                | JobState::Succeeded
                | JobState::Cancelled,
                _,
            ) => None,
        }
    }
}

/// Where notices go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeChannel {
    /// Its id.
    pub id: NoticeChannelId,
    /// Its name.
    pub name: Name,
    /// How it tells.
    pub kind: ChannelKind,
    /// Where a webhook posts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whom it mails to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// What it tells.
    pub on: Vec<NoticeEvent>,
    /// Whether it tells anything.
    pub enabled: bool,
    /// How the last delivery went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Delivery>,
    /// How many notices wait to be delivered.
    #[serde(default)]
    pub waiting: u64,
    /// How many were given up, of those that are kept.
    #[serde(default)]
    pub given_up: u64,
    /// When it was made.
    pub create_time: Timestamp,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// How a delivery went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// When.
    pub time: Timestamp,
    /// How it went.
    pub outcome: DeliveryOutcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A request for a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateNoticeChannel {
    /// Its name.
    pub name: Name,
    /// How it tells.
    pub kind: ChannelKind,
    /// Where a webhook posts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whom it mails to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// What it tells; jobs that failed if not given.
    #[serde(default = "failures")]
    pub on: Vec<NoticeEvent>,
    /// Whether it tells anything; it does if not given.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn failures() -> Vec<NoticeEvent> {
    vec![NoticeEvent::JobFailed]
}

const fn yes() -> bool {
    true
}

/// A request to change a channel; what is not given stays. What waits when it is switched off is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchNoticeChannel {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where a webhook posts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whom it mails to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// What it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<NoticeEvent>>,
    /// Whether it tells anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// A channel with the secret that its posts are signed with, which is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NewNoticeChannel {
    /// The channel.
    pub channel: NoticeChannel,
    /// The secret of a webhook: `whsec_` and the key in base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for NewNoticeChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewNoticeChannel {{ channel: {:?}, .. }}", self.channel)
    }
}

/// A notice on its way through a channel, or at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Its id: `webhook-id` of the post, the same each time it is tried.
    pub id: NoticeId,
    /// The channel.
    pub channel: NoticeChannelId,
    /// What it is about.
    pub event: NoticeEvent,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What became of it.
    pub state: NoticeState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it happened.
    pub create_time: Timestamp,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Timestamp>,
    /// When it was delivered or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// Why it was not delivered when it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a notice says: the body of a webhook's post.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeMessage {
    /// What it is about.
    #[serde(rename = "type")]
    pub event: NoticeEvent,
    /// When it happened.
    pub timestamp: Timestamp,
    /// What happened.
    pub data: NoticeData,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeData {
    /// The job; none when a channel is tried, or a target is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<NoticeJob>,
    /// The target that is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<NoticeTarget>,
    /// Where the console shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What a notice says of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeTarget {
    /// Its id.
    pub id: TargetId,
    /// Its name.
    pub name: Name,
    /// Since when it is away.
    pub away_since: Timestamp,
    /// What happened when it was last used.
    pub error: NoticeError,
}

/// What a notice says of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeJob {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// How far it has come.
    pub state: JobState,
    /// The things that it has to do with, by name and id.
    pub resources: Vec<Resource>,
    /// What went wrong, or is to be known.
    pub error: NoticeError,
    /// Who asked for it.
    pub created_by: String,
    /// When it was asked.
    pub create_time: Timestamp,
    /// When its first step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it came to this state.
    pub state_time: Timestamp,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeError {
    /// The word of the error, such as `UNAVAILABLE`; none of a job that is only held up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Which operation on which object failed, why, and what to do.
    pub message: String,
}

impl NoticeError {
    fn of(job: &Job) -> Self {
        // An undo that fails matters more than what it undoes.
        match job.blocked.as_ref().or(job.error.as_ref()) {
            Some(status) => Self {
                status: Some(status.code.word().to_owned()),
                message: status.message.clone(),
            },
            None => Self {
                status: None,
                message: job.hold_reason.clone().unwrap_or_else(|| warnings(job)),
            },
        }
    }
}

fn warnings(job: &Job) -> String {
    let outcome = job.outcome.read().unwrap_or_default();
    outcome
        .copy
        .map_or_else(String::new, |copy| copy.warnings.join("; "))
}

impl NoticeMessage {
    /// What is said of a job that has come to its state; none if that is nothing to be told.
    pub fn of(job: &Job) -> Option<Self> {
        let copy = (job.kind == JobKind::CopySnapshot).then(|| TaskStatus::of(job));
        let event = NoticeEvent::of(job.state, copy)?;
        // One that can still go back stands still by a person, or for its target: nothing is wrong with it.
        if event == NoticeEvent::JobOnHold && !job.no_return {
            return None;
        }
        let told = NoticeJob {
            id: job.id,
            kind: job.kind,
            state: job.state,
            resources: job.resources.clone(),
            error: NoticeError::of(job),
            created_by: job.created_by.clone(),
            create_time: job.create_time,
            start_time: job.start_time,
            state_time: job.state_time,
        };
        Some(Self {
            event,
            timestamp: job.state_time,
            data: NoticeData {
                job: Some(told),
                ..NoticeData::default()
            },
        })
    }

    /// What is said of a target that is away; none of one that is there.
    pub fn away(target: &Target, now: Timestamp) -> Option<Self> {
        let told = NoticeTarget {
            id: target.id,
            name: target.name.clone(),
            away_since: target.away_since?,
            error: NoticeError {
                status: Some(Code::Unavailable.word().to_owned()),
                message: target.away.clone()?,
            },
        };
        Some(Self {
            event: NoticeEvent::TargetAway,
            timestamp: now,
            data: NoticeData {
                target: Some(told),
                ..NoticeData::default()
            },
        })
    }

    /// What is said when a person tries a channel.
    pub fn test(now: Timestamp) -> Self {
        Self {
            event: NoticeEvent::Test,
            timestamp: now,
            data: NoticeData::default(),
        }
    }
}

/// Whether a channel of this kind can be so; each event once, in order.
pub fn checked(
    kind: ChannelKind,
    url: Option<&str>,
    to: &[String],
    mut on: Vec<NoticeEvent>,
) -> Result<Vec<NoticeEvent>, Status> {
    match (kind, url) {
        (ChannelKind::Webhook, None) => return Err(Status::invalid("url", "a webhook needs an address")),
        (ChannelKind::Webhook, Some(url)) => address(url)?,
        (ChannelKind::Mail, Some(_)) => {
            return Err(Status::invalid(
                "url",
                "a channel that mails has none: name whom in to",
            ));
        }
        (ChannelKind::Mail, None) => {}
    }
    match kind {
        ChannelKind::Mail => recipients(to)?,
        ChannelKind::Webhook if !to.is_empty() => {
            return Err(Status::invalid("to", "a webhook mails nobody"));
        }
        ChannelKind::Webhook => {}
    }
    if on.is_empty() {
        return Err(Status::invalid(
            "on",
            "a channel that tells nothing: name something",
        ));
    }
    if on.contains(&NoticeEvent::Test) {
        let why = "TEST is told when the channel is tried, and not asked for";
        return Err(Status::invalid("on", why));
    }
    on.sort_unstable();
    on.dedup();
    Ok(on)
}

fn address(url: &str) -> Verdict {
    limit::length("url", url, ADDRESS_BYTES)?;
    let odd = url.chars().any(|c| c.is_control() || c.is_whitespace());
    if odd || !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Status::invalid(
            "url",
            "an address begins with http:// or https://",
        ));
    }
    Ok(())
}

fn recipients(to: &[String]) -> Verdict {
    limit::within("to", to.len() as u64, 1, RECIPIENTS as u64, "addresses")?;
    for address in to {
        limit::length("to", address, ADDRESS_BYTES)?;
        let whole = address
            .split_once('@')
            .is_some_and(|(who, at)| !who.is_empty() && !at.is_empty());
        if !whole
            || address
                .chars()
                .any(|c| c.is_control() || c.is_whitespace() || c == ',')
        {
            return Err(Status::invalid(
                "to",
                format_args!("{address:?} is no address like ops@example.org"),
            ));
        }
    }
    Ok(())
}

/// Whether a channel can be tried.
pub fn can_test(channel: &NoticeChannel) -> Verdict {
    if channel.enabled {
        return Ok(());
    }
    Err(Status::precondition(format!(
        "the channel {} is switched off: switch it on first",
        channel.name
    )))
}

/// Whether a channel can get another secret.
pub fn can_roll(channel: &NoticeChannel) -> Verdict {
    match channel.kind {
        ChannelKind::Webhook => Ok(()),
        ChannelKind::Mail => Err(Status::precondition(format!(
            "the channel {} mails, and signs nothing",
            channel.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: ChannelKind, url: Option<&str>, to: &[&str], on: &[NoticeEvent]) -> Option<String> {
        let to: Vec<_> = to.iter().map(|t| (*t).to_owned()).collect();
        let wrong = checked(kind, url, &to, on.to_vec()).err()?;
        Some(wrong.field().unwrap().to_owned())
    }

    #[test]
    fn a_channel_has_what_its_kind_needs_and_no_more() {
        use ChannelKind::{Mail, Webhook};
        let on = [NoticeEvent::JobFailed];
        let url = Some("https://example.org/hook");
        assert_eq!(field(Webhook, url, &[], &on), None);
        assert_eq!(field(Mail, None, &["ops@example.org"], &on), None);
        for (kind, url, to, wrong) in [
            (Webhook, None, &[][..], "url"),
            (Webhook, Some("ftp://example.org"), &[], "url"),
            (Webhook, Some("http://a b"), &[], "url"),
            (Webhook, url, &["ops@example.org"], "to"),
            (Mail, url, &["ops@example.org"], "url"),
            (Mail, None, &[], "to"),
            (Mail, None, &["ops"], "to"),
            (Mail, None, &["@example.org"], "to"),
            (Mail, None, &["a@b\nbcc: c@d"], "to"),
            (Mail, None, &["a@b,c@d"], "to"),
            (Mail, None, &["a@b"; RECIPIENTS + 1], "to"),
        ] {
            assert_eq!(
                field(kind, url, to, &on).as_deref(),
                Some(wrong),
                "{kind} {url:?} {to:?}"
            );
        }
        assert_eq!(field(Webhook, url, &[], &[]).as_deref(), Some("on"));
        assert_eq!(
            field(Webhook, url, &[], &[NoticeEvent::Test]).as_deref(),
            Some("on")
        );
        let twice = vec![
            NoticeEvent::JobOnHold,
            NoticeEvent::JobFailed,
            NoticeEvent::JobOnHold,
        ];
        let once = [NoticeEvent::JobFailed, NoticeEvent::JobOnHold];
        assert_eq!(checked(Webhook, url, &[], twice).unwrap(), once);
    }

    #[test]
    fn what_is_asked_for_is_what_is_told() {
        let copies: Vec<_> = TaskStatus::ALL.iter().copied().map(Some).chain([None]).collect();
        let mut told: Vec<_> = JobState::ALL
            .iter()
            .flat_map(|s| copies.iter().filter_map(|copy| NoticeEvent::of(*s, *copy)))
            .collect();
        told.push(NoticeEvent::TargetAway);
        for event in NoticeEvent::ALL {
            assert_eq!(
                told.contains(event),
                NoticeEvent::ASKED.contains(event),
                "{event}"
            );
        }
        assert!(!NoticeEvent::ASKED.contains(&NoticeEvent::Test));
    }
}
