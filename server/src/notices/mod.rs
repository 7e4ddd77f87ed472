//! Telling people, and programs, of jobs that fail.
//!
//! What is to be told is written with what it tells of (`db::notices`). The courier takes it from there: a commit wakes
//! it, and what is not taken on the other side is tried again, also by the next server.

mod courier;
pub mod mail;
pub mod webhook;

use crate::access::secret::Secret;
use crate::db::list::Listing;
use crate::db::{self, Db, notice_channels, now};
use mail::Mail;
use shared::api::{ListQuery, NoticeChannelPage, NoticePage};
use shared::notice::{
    ChannelKind, CreateNoticeChannel, NewNoticeChannel, Notice, NoticeChannel, NoticeMessage,
    OLD_SECRET_HOURS, PatchNoticeChannel, can_roll, can_test, checked,
};
use shared::{Code, NoticeChannelId, Status};
use std::sync::Arc;
use uuid::Uuid;
use webhook::Webhook;

const HOUR_MICROS: i64 = 3600 * 1_000_000;

struct Inner {
    db: Db,
    webhook: Webhook,
    mail: Option<Mail>,
    /// Where people reach the console.
    public_url: String,
}

/// Channels, and what goes through them.
#[derive(Clone)]
pub struct Notices(Arc<Inner>);

impl Notices {
    /// Of this database. Posts go to private addresses only if that is allowed; mail, where there is a server for it.
    pub fn new(
        db: Db,
        urls_private: bool,
        mail: Option<Mail>,
        public_url: String,
    ) -> Result<Self, reqwest::Error> {
        let webhook = Webhook::new(urls_private)?;
        Ok(Self(Arc::new(Inner {
            db,
            webhook,
            mail,
            public_url,
        })))
    }

    /// Delivers what waits and what comes, until it is dropped. What was on its way then is sent again at the next start.
    pub async fn deliver(self) {
        courier::run(self).await;
    }

    /// A page of channels.
    pub async fn channels(&self, query: &ListQuery) -> Result<NoticeChannelPage, Status> {
        let listing = Listing::parse(query, notice_channels::FIELDS, "name")?;
        let page = notice_channels::list(&self.0.db, &listing).await?;
        Ok(NoticeChannelPage {
            notice_channels: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }

    /// The channel with this name or id.
    pub async fn channel(&self, reference: &str) -> Result<NoticeChannel, Status> {
        let db = &self.0.db;
        Ok(db
            .reading(async |conn| notice_channels::known(conn, reference).await)
            .await?)
    }

    /// Makes a channel.
    pub async fn create(&self, request: CreateNoticeChannel) -> Result<NewNoticeChannel, Status> {
        let channel = NoticeChannel {
            id: NoticeChannelId(Uuid::now_v7()),
            name: request.name,
            kind: request.kind,
            url: request.url,
            to: request.to,
            on: request.on,
            enabled: request.enabled,
            last_delivery: None,
            waiting: 0,
            given_up: 0,
            create_time: now(),
            generation: 0,
        };
        let channel = self.check(channel)?;
        let secret = match channel.kind {
            ChannelKind::Webhook => Some(new_secret()?),
            ChannelKind::Mail => None,
        };
        let (id, kept) = (channel.id, secret.clone());
        let made = self.0.db.write(move |tx| {
            Box::pin(async move {
                let secret = kept.as_ref().map(Secret::expose);
                notice_channels::insert(tx, &channel, secret).await
            })
        });
        made.await?;
        Ok(NewNoticeChannel {
            channel: self.channel(&id.to_string()).await?,
            secret: secret.map(|s| s.expose().to_owned()),
        })
    }

    /// Whether a channel can be so here: with an address that may be gone to, or a server to mail by.
    fn check(&self, mut channel: NoticeChannel) -> Result<NoticeChannel, Status> {
        channel.on = checked(channel.kind, channel.url.as_deref(), &channel.to, channel.on)?;
        if let Some(url) = &channel.url {
            self.0
                .webhook
                .address(url)
                .map_err(|why| Status::invalid("url", why))?;
        }
        for to in &channel.to {
            mail::address(to).map_err(|e| Status::invalid("to", db::chain(&e)))?;
        }
        if channel.kind == ChannelKind::Mail && self.0.mail.is_none() {
            let why =
                "this server has no mail server to send by: set smtp_url and mail_from, and start it again";
            return Err(Status::precondition(why));
        }
        Ok(channel)
    }

    /// Changes a channel. When it is switched off, what waits there is given up.
    pub async fn update(
        &self,
        reference: &str,
        request: PatchNoticeChannel,
    ) -> Result<NoticeChannel, Status> {
        let (notices, reference) = (self.clone(), reference.to_owned());
        let changed = self.0.db.write(move |tx| {
            Box::pin(async move {
                let was = notice_channels::known(tx.conn(), &reference).await?;
                let mut channel = was.clone();
                channel.name = request.name.unwrap_or(channel.name);
                channel.url = request.url.or(channel.url);
                channel.to = request.to.unwrap_or(channel.to);
                channel.on = request.on.unwrap_or(channel.on);
                channel.enabled = request.enabled.unwrap_or(channel.enabled);
                // One that is only switched off need not be one that could be made now.
                let off = NoticeChannel {
                    enabled: false,
                    ..was.clone()
                };
                if channel != off {
                    channel = notices.check(channel)?;
                }
                notice_channels::update(tx, &channel).await?;
                if was.enabled && !channel.enabled {
                    db::notices::give_up(tx, channel.id, now(), "the channel was switched off").await?;
                }
                Ok(channel.id)
            })
        });
        self.channel(&changed.await?.to_string()).await
    }

    /// Deletes a channel, with what waits there.
    pub async fn delete(&self, reference: &str) -> Result<(), Status> {
        let reference = reference.to_owned();
        let gone = self.0.db.write(move |tx| {
            Box::pin(async move {
                let channel = notice_channels::known(tx.conn(), &reference).await?;
                notice_channels::delete(tx, channel.id).await
            })
        });
        Ok(gone.await?)
    }

    /// Gives a webhook another secret. For a day posts are signed with the one before as well.
    pub async fn roll(&self, reference: &str) -> Result<NewNoticeChannel, Status> {
        let secret = new_secret()?;
        let until = now().plus_micros(i64::from(OLD_SECRET_HOURS) * HOUR_MICROS);
        let (reference, kept) = (reference.to_owned(), secret.clone());
        let rolled = self.0.db.write(move |tx| {
            Box::pin(async move {
                let channel = notice_channels::known(tx.conn(), &reference).await?;
                can_roll(&channel)?;
                notice_channels::roll(tx, channel.id, kept.expose(), until).await?;
                Ok(channel.id)
            })
        });
        let id = rolled.await?;
        Ok(NewNoticeChannel {
            channel: self.channel(&id.to_string()).await?,
            secret: Some(secret.expose().to_owned()),
        })
    }

    /// Sends a notice of nothing, the way of all others; it is tried once.
    pub async fn test(&self, reference: &str) -> Result<Notice, Status> {
        let reference = reference.to_owned();
        let written = self.0.db.write(move |tx| {
            Box::pin(async move {
                let channel = notice_channels::known(tx.conn(), &reference).await?;
                can_test(&channel)?;
                db::notices::insert(tx, channel.id, &NoticeMessage::test(now())).await
            })
        });
        Ok(written.await?)
    }

    /// A page of what went through a channel, newest first.
    pub async fn list(&self, reference: &str, query: &ListQuery) -> Result<NoticePage, Status> {
        let channel = self.channel(reference).await?;
        let listing = Listing::parse(query, db::notices::FIELDS, "createTime desc")?;
        let page = db::notices::list(&self.0.db, channel.id, listing).await?;
        Ok(NoticePage {
            notices: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }
}

fn new_secret() -> Result<Secret, Status> {
    Secret::for_webhook().map_err(|e| {
        tracing::error!(error = %db::chain(&e), "make the secret of a notice channel");
        Status::new(
            Code::Internal,
            "the server could not make a secret for the channel; its log says why",
        )
    })
}
