//! The live feed: what changed, in the order of generations, each change serialised once for all who listen.
//!
//! A listener first subscribes, then reads from the database what it has missed, then takes what comes and is newer:
//! so nothing is lost in between. An event may carry a newer version of its thing than its generation says; the
//! change behind that version follows with an id of its own.

use crate::access::{Access, Caller};
use crate::db::access::owner_of_token;
use crate::db::{self, Change, Db, DbError};
use crate::inventory;
use crate::jobs::Jobs;
use axum::body::Bytes;
use futures::Stream;
use shared::access::Privilege;
use shared::feed::{ALIVE, ALIVE_SECONDS, Noun, Place, RESET};
use shared::{Status, UserId, VmId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// More missed changes than these, and a page is quicker loaded again.
const MOST_MISSED: usize = 1000;
/// How many batches a listener may be behind before it reads from the database again.
const BEHIND: usize = 256;

/// Who may hear of a change.
enum Audience {
    /// On everything.
    With(Privilege),
    /// On one of these machines.
    On(Privilege, Vec<VmId>),
    /// On anything: of what is gone there is only its id.
    Somewhere(Privilege),
    /// This person.
    Owner(UserId),
    /// This person, and who manages users.
    User(String),
}

impl Audience {
    fn has(&self, caller: &Caller) -> bool {
        match self {
            Self::With(privilege) => caller.may(*privilege),
            Self::On(privilege, machines) => {
                caller.may(*privilege) || machines.iter().any(|vm| caller.rights.has(*privilege, Some(*vm)))
            }
            Self::Somewhere(privilege) => caller.rights.somewhere(*privilege),
            Self::User(id) => caller.may(Privilege::UserManage) || caller.user.id.to_string() == *id,
            Self::Owner(user) => caller.user.id == *user && caller.may(Privilege::SelfManage),
        }
    }
}

/// An event as it goes over the wire.
struct Event {
    generation: u64,
    audience: Audience,
    text: String,
}

fn write_event(place: Place, name: &str, data: &str) -> String {
    format!("id: {place}\nevent: {name}\ndata: {data}\n\n")
}

/// The feed of a server.
#[derive(Clone)]
pub struct Feed {
    jobs: Jobs,
    access: Access,
    batches: Sender<Arc<[Event]>>,
    stop: CancellationToken,
}

impl Feed {
    /// Begins to follow the database, until `stop`.
    pub fn start(jobs: Jobs, access: Access, stop: CancellationToken) -> Self {
        let (batches, _) = channel(BEHIND);
        let feed = Self {
            jobs,
            access,
            batches,
            stop,
        };
        // Subscribed here and not in the task: what is committed from now on is heard.
        tokio::spawn(feed.clone().follow(feed.jobs.world().db.subscribe()));
        feed
    }

    /// Where the feed stands now.
    pub fn place(&self) -> Place {
        self.jobs.world().db.place()
    }

    /// What a caller hears from a place on, or from now: text of an event stream.
    pub fn listen(
        &self,
        caller: Caller,
        after: Option<Place>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
        let mut alive = interval_at(
            Instant::now() + Duration::from_secs(ALIVE_SECONDS),
            Duration::from_secs(ALIVE_SECONDS),
        );
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let batches = self.batches.subscribe();
        let now = self.place();
        let listener = Listener {
            feed: self.clone(),
            caller,
            batches,
            alive,
            epoch: now.epoch,
            last: now.generation,
            stage: Stage::Begin(after),
        };
        futures::stream::unfold(listener, |mut listener| async move {
            let text = listener.next().await?;
            Some((Ok(Bytes::from(text)), listener))
        })
    }

    async fn follow(self, mut changes: Receiver<Arc<[Change]>>) {
        let mut last = self.place().generation;
        loop {
            let first = tokio::select! {
                () = self.stop.cancelled() => return,
                first = changes.recv() => first,
            };
            let mut batch = Vec::new();
            let mut lagged = false;
            match first {
                Ok(first) => batch.extend_from_slice(&first),
                Err(RecvError::Lagged(_)) => lagged = true,
                Err(RecvError::Closed) => return,
            }
            loop {
                match changes.try_recv() {
                    Ok(more) => batch.extend_from_slice(&more),
                    Err(TryRecvError::Lagged(_)) => lagged = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if self.batches.receiver_count() == 0 {
                last = self.place().generation;
                continue;
            }
            if lagged {
                batch = match self.jobs.world().db.changes_after(last).await {
                    Ok(all) => all,
                    Err(e) => {
                        tracing::error!(error = %crate::db::chain(&e), "the feed could not read what changed");
                        continue;
                    }
                };
            }
            last = batch.last().map_or(last, |c| c.generation.max(last));
            let events = self.events(latest(batch)).await;
            if !events.is_empty() {
                // The last listener may just have left.
                drop(self.batches.send(events.into()));
            }
        }
    }

    /// The events of changes. What cannot be read is logged and left out: the others are not to wait for it.
    async fn events(&self, changes: Vec<Change>) -> Vec<Event> {
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match self.event(&change).await {
                Ok(Some(event)) => events.push(event),
                Ok(None) => {}
                Err(e) => {
                    let e = crate::db::chain(&e);
                    tracing::error!(error = %e, noun = %change.noun, id = %change.id, "the feed could not read a change");
                }
            }
        }
        events
    }

    /// The event of a change; none where nobody may hear of it.
    async fn event(&self, change: &Change) -> Result<Option<Event>, DbError> {
        let world = self.jobs.world();
        let audience = match change.noun {
            Noun::Token => match owner_of_token(&world.db, &change.id).await? {
                Some(owner) => Audience::Owner(owner),
                None => return Ok(None),
            },
            noun => audience(&world.db, noun, change).await?,
        };
        let place = Place {
            epoch: self.place().epoch,
            generation: change.generation,
        };
        let data = inventory::changed(world, change).await?;
        Ok(Some(Event {
            generation: change.generation,
            audience,
            text: write_event(place, change.noun.word(), &data),
        }))
    }
}

/// Who hears of a change: those who may see the machines that it is about.
async fn audience(db: &Db, noun: Noun, change: &Change) -> Result<Audience, DbError> {
    let (id, gone) = (change.id.as_str(), change.deleted);
    let on = |privilege, vm: Option<VmId>| match vm {
        Some(vm) => Audience::On(privilege, vec![vm]),
        None => Audience::Somewhere(privilege),
    };
    Ok(match noun {
        Noun::Vm => on(Privilege::VmRead, id.parse().ok()),
        Noun::Snapshot if gone => Audience::Somewhere(Privilege::SnapshotRead),
        Noun::Snapshot => {
            let found = match id.parse() {
                Ok(id) => db::snapshots::by_id(db, id).await?,
                Err(_) => None,
            };
            on(Privilege::SnapshotRead, found.map(|snapshot| snapshot.vm))
        }
        Noun::Job => match id.parse() {
            Ok(id) => Audience::On(Privilege::JobRead, db::jobs::machines(db, id).await?),
            Err(_) => Audience::With(Privilege::JobRead),
        },
        Noun::ForkPoint if gone => Audience::Somewhere(Privilege::ForkRead),
        Noun::ForkPoint => {
            let found = match id.parse() {
                Ok(id) => db::fork_points::by_id(db, id).await?,
                Err(_) => None,
            };
            on(Privilege::ForkRead, found.map(|stored| stored.point.vm))
        }
        Noun::Image | Noun::Host | Noun::Storage | Noun::Network => Audience::With(Privilege::PlaceRead),
        Noun::Upload => Audience::With(Privilege::ImageCreate),
        Noun::Export => Audience::With(Privilege::ImageExport),
        Noun::Token => Audience::With(Privilege::SelfManage),
        Noun::User => Audience::User(id.to_owned()),
        Noun::Role => Audience::With(Privilege::UserManage),
        Noun::NoticeChannel => Audience::With(Privilege::NoticeManage),
        Noun::Source | Noun::MigratingVm => Audience::With(Privilege::MigrationRead),
        Noun::Target | Noun::Policy => Audience::With(Privilege::TargetRead),
        Noun::Copy if gone => Audience::Somewhere(Privilege::CopyRead),
        Noun::Copy => {
            let found = match id.parse() {
                Ok(id) => db::copies::by_id(db, id).await?,
                Err(_) => None,
            };
            on(Privilege::CopyRead, found.map(|copy| copy.vm))
        }
    })
}

/// Of several changes of one thing only the last, in the order of generations.
fn latest(changes: Vec<Change>) -> Vec<Change> {
    let mut last = HashMap::with_capacity(changes.len());
    for change in &changes {
        last.insert((change.noun, change.id.clone()), change.generation);
    }
    changes
        .into_iter()
        .filter(|c| last.get(&(c.noun, c.id.clone())) == Some(&c.generation))
        .collect()
}

enum Stage {
    Begin(Option<Place>),
    Live,
}

struct Listener {
    feed: Feed,
    caller: Caller,
    batches: Receiver<Arc<[Event]>>,
    alive: Interval,
    epoch: u64,
    last: u64,
    stage: Stage,
}

impl Listener {
    /// The next text to send; none at the end.
    async fn next(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.stage, Stage::Live) {
            Stage::Begin(after) => Some(self.begin(after).await),
            Stage::Live => self.live().await,
        }
    }

    fn here(&self) -> Place {
        Place {
            epoch: self.epoch,
            generation: self.last,
        }
    }

    fn alive(&self) -> String {
        write_event(self.here(), ALIVE, "{}")
    }

    /// What was missed, and a sign of life with the place that the listener stands at.
    async fn begin(&mut self, after: Option<Place>) -> String {
        let mut text = String::new();
        if let Some(after) = after {
            if after.epoch == self.epoch && after.generation <= self.last {
                self.last = after.generation;
                text = self.missed().await;
            } else {
                text = self.reset();
            }
        }
        text.push_str(&self.alive());
        text
    }

    fn reset(&mut self) -> String {
        self.last = self.feed.place().generation;
        write_event(self.here(), RESET, "{}")
    }

    async fn missed(&mut self) -> String {
        match self.feed.jobs.world().db.changes_after(self.last).await {
            Ok(changes) if changes.len() <= MOST_MISSED => {
                let end = changes.last().map(|c| c.generation);
                let events = self.feed.events(changes).await;
                let text = self.take(&events);
                self.last = end.unwrap_or(self.last).max(self.last);
                text
            }
            Ok(_) => self.reset(),
            Err(e) => {
                tracing::error!(error = %crate::db::chain(&e), "the feed could not read what was missed");
                self.reset()
            }
        }
    }

    /// The text of those events that are new to this listener and meant for it.
    fn take(&mut self, events: &[Event]) -> String {
        let mut text = String::new();
        for event in events.iter().filter(|e| e.generation > self.last) {
            if event.audience.has(&self.caller) {
                // Writing to a String cannot fail.
                _ = text.write_str(&event.text);
            }
        }
        self.last = events.last().map_or(self.last, |e| e.generation.max(self.last));
        text
    }

    async fn live(&mut self) -> Option<String> {
        loop {
            tokio::select! {
                biased;
                () = self.feed.stop.cancelled() => return None,
                _ = self.alive.tick() => {
                    return match self.feed.access.again(&self.caller).await {
                        Ok(Some(now)) if now.rights == self.caller.rights => Some(self.alive()),
                        // What may be seen is another: the page loads it again.
                        Ok(Some(now)) => {
                            self.caller = now;
                            Some(self.reset())
                        }
                        Ok(None) => None,
                        Err(e) => {
                            let _: Status = e.into();
                            None
                        }
                    };
                }
                batch = self.batches.recv() => {
                    let text = match batch {
                        Ok(events) => self.take(&events),
                        Err(RecvError::Lagged(_)) => self.missed().await,
                        Err(RecvError::Closed) => return None,
                    };
                    if !text.is_empty() {
                        return Some(text);
                    }
                }
            }
        }
    }
}
