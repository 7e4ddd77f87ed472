//! Notices by mail.

use crate::config::Config;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use shared::NoticeId;
use shared::job::{JobKind, ResourceRole};
use shared::notice::{NoticeEvent, NoticeJob, NoticeMessage, NoticeTarget};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How long a mail server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why mail cannot be sent, or was not taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MailError {
    #[error("send the notice: this server has no mail server; set smtp_url and mail_from")]
    NoServer,
    #[error("read the password of the mail server from {path}")]
    Password {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    // What these errors are made of is in their own words already.
    #[error("prepare for the mail server of smtp_url: {0}")]
    Server(lettre::transport::smtp::Error),
    #[error("mail to or from {address:?}")]
    Address {
        address: String,
        #[source]
        source: lettre::address::AddressError,
    },
    #[error("write the mail")]
    Write(#[source] lettre::error::Error),
    #[error("send the notice by mail: {0}")]
    Send(lettre::transport::smtp::Error),
}

/// Mails notices.
pub struct Mail {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// An address that can be mailed to.
pub fn address(text: &str) -> Result<Address, MailError> {
    text.parse().map_err(|source| MailError::Address {
        address: text.to_owned(),
        source,
    })
}

impl Mail {
    /// As it is configured; none if it is not. A file with the password is read here, while the server may.
    pub fn new(config: &Config) -> Result<Option<Self>, MailError> {
        let (Some(url), Some(from)) = (&config.smtp_url, &config.mail_from) else {
            return Ok(None);
        };
        crate::use_ring();
        let from = from.parse().map_err(|source| MailError::Address {
            address: from.clone(),
            source,
        })?;
        let password = match &config.smtp_password_file {
            None => url.password(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| MailError::Password {
                    path: path.clone(),
                    source,
                })?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        let server =
            AsyncSmtpTransport::<Tokio1Executor>::from_url(&url.bare()).map_err(MailError::Server)?;
        let server = server.timeout(Some(PATIENCE));
        let server = match url.user().zip(password) {
            Some((user, password)) => server.credentials(Credentials::new(user, password)),
            None => server,
        };
        Ok(Some(Self {
            server: server.build(),
            from,
        }))
    }

    /// Mails a notice; the mail server has taken it if it says so.
    pub async fn send(&self, to: &[String], id: NoticeId, message: &NoticeMessage) -> Result<(), MailError> {
        let mut mail = self.begin(id);
        for to in to {
            mail = mail.to(Mailbox::new(None, address(to)?));
        }
        let mail = mail
            .subject(subject(message))
            .header(ContentType::TEXT_PLAIN)
            .body(text(message))
            .map_err(MailError::Write)?;
        self.server.send(mail).await.map(drop).map_err(MailError::Send)
    }

    /// The same id each time it is tried: what has arrived twice is known by it.
    fn begin(&self, id: NoticeId) -> MessageBuilder {
        // So that nobody's absence is answered to it.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        lettre::Message::builder()
            .from(self.from.clone())
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
    }
}

fn happened(event: NoticeEvent) -> &'static str {
    match event {
        NoticeEvent::JobFailed => "failed",
        NoticeEvent::JobOnHold => "is held up",
        NoticeEvent::JobUndoBlocked => "cannot be undone",
        NoticeEvent::CopyWarning => "has a warning",
        NoticeEvent::CopyMissed => "was missed",
        NoticeEvent::TargetAway => "is away",
        NoticeEvent::Test => "is a test",
    }
}

/// The kind of a job in small letters: `clone vm`.
fn kind(kind: JobKind) -> String {
    kind.word().to_ascii_lowercase().replace('_', " ")
}

fn subject(message: &NoticeMessage) -> String {
    let event = happened(message.event);
    if let Some(target) = &message.data.target {
        return format!("[offshoot] target {} {event}", target.name);
    }
    let Some(job) = &message.data.job else {
        return format!("[offshoot] this {event}");
    };
    let of = job.resources.first().map(|r| format!(" {}", r.name));
    format!("[offshoot] {}{} {event}", kind(job.kind), of.unwrap_or_default())
}

fn text(message: &NoticeMessage) -> String {
    let mut text = String::new();
    match (&message.data.job, &message.data.target) {
        (Some(job), _) => write_job(&mut text, message.event, job),
        (None, Some(target)) => write_target(&mut text, target),
        (None, None) => text.push_str("This channel works. Nothing has happened.\n"),
    }
    if let Some(url) = &message.data.url {
        // Writing to a String cannot fail.
        _ = write!(text, "\n{url}\n");
    }
    text
}

fn write_target(text: &mut String, target: &NoticeTarget) {
    // Writing to a String cannot fail.
    _ = writeln!(
        text,
        "Target {} is away since {}: copies to it stand still, and go on when it is there again.\n\n{}",
        target.name, target.away_since, target.error.message
    );
}

fn write_job(text: &mut String, event: NoticeEvent, job: &NoticeJob) {
    let mut line = |head: &str, value: &str| {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{head:<10} {value}");
    };
    line("What", &format!("{} {}", kind(job.kind), happened(event)));
    for thing in &job.resources {
        let about = format!("{} {} ({})", thing.noun, thing.name, thing.id);
        let role = match thing.role {
            ResourceRole::Source => "Of",
            ResourceRole::Product => "Makes",
        };
        line(role, &about);
    }
    match &job.error.status {
        Some(status) => line("Error", &format!("{status}: {}", job.error.message)),
        None => line("Reason", &job.error.message),
    }
    line("Asked by", &job.created_by);
    line("Asked", &job.create_time.to_string());
    if let Some(time) = job.start_time {
        line("Begun", &time.to_string());
    }
    line("Since", &job.state_time.to_string());
    line("State", job.state.word());
    line("Job", &job.id.to_string());
}
