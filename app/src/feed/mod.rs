//! The live feed in the browser: what changed reaches every page that shows it.

#[cfg(feature = "hydrate")]
mod client;
#[cfg(feature = "hydrate")]
mod source;

use leptos::prelude::*;
use serde::de::DeserializeOwned;
use shared::feed::{Gone, Noun};
use shared::job::Job;
use shared::snapshot::Snapshot;
use shared::vm::Vm;

#[cfg(feature = "hydrate")]
pub(crate) use client::start;
/// How many changes this tab has been told of since its page was rendered.
#[cfg(feature = "hydrate")]
pub(crate) use client::told_so_far;

/// How the link to the server is.
// The server has no feed: it only knows a page before it lives.
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not there yet.
    Connecting,
    /// What is shown is what is.
    Live,
    /// Silent for too long: what is shown is the last that was good.
    Lost,
}

/// The feed as pages see it.
#[derive(Clone, Copy)]
pub struct Feed {
    /// How the link is.
    pub link: RwSignal<Link>,
    /// Counts up when everything shown is to be loaded again.
    pub reloads: RwSignal<u32>,
}

pub fn feed() -> Feed {
    use_context().unwrap_or_else(|| Feed {
        link: RwSignal::new(Link::Connecting),
        reloads: RwSignal::new(0),
    })
}

/// A change of a thing that pages show.
#[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
#[derive(Clone, Debug)]
pub enum Change {
    Vm(Box<Vm>),
    Snapshot(Box<Snapshot>),
    Job(Box<Job>),
    /// Of another noun: whoever shows it loads it again.
    Other(Noun),
    Gone(Noun, Gone),
}

impl Change {
    /// Reads the data of an event; none if it cannot be read.
    #[cfg_attr(not(feature = "hydrate"), allow(dead_code))]
    pub fn read(noun: Noun, data: &str) -> Option<Self> {
        fn thing<T: DeserializeOwned>(data: &str) -> Option<Box<T>> {
            serde_json::from_str(data).ok()
        }
        if let Ok(gone) = serde_json::from_str::<Gone>(data) {
            return Some(Self::Gone(noun, gone));
        }
        Some(match noun {
            Noun::Vm => Self::Vm(thing(data)?),
            Noun::Snapshot => Self::Snapshot(thing(data)?),
            Noun::Job => Self::Job(thing(data)?),
            other => Self::Other(other),
        })
    }

    pub const fn noun(&self) -> Noun {
        match self {
            Self::Vm(_) => Noun::Vm,
            Self::Snapshot(_) => Noun::Snapshot,
            Self::Job(_) => Noun::Job,
            Self::Other(noun) | Self::Gone(noun, _) => *noun,
        }
    }
}

/// A thing that the feed keeps fresh.
pub trait Live: Clone + PartialEq + Send + Sync + 'static {
    const NOUN: Noun;
    fn id(&self) -> String;
    fn generation(&self) -> u64;
    /// This noun's thing in a change.
    fn of(change: &Change) -> Option<&Self>;
}

macro_rules! live {
    ($($noun:ident)*) => {$(
        impl Live for $noun {
            const NOUN: Noun = Noun::$noun;
            fn id(&self) -> String {
                self.id.to_string()
            }
            fn generation(&self) -> u64 {
                self.generation
            }
            fn of(change: &Change) -> Option<&Self> {
                match change {
                    Change::$noun(thing) => Some(thing),
                    _ => None,
                }
            }
        }
    )*};
}

live!(Vm Snapshot Job);

/// Puts a change into a list: the newer version wins, what is gone goes. A new thing comes in front or at the end, if
/// it `belongs`. Whether anything changed.
pub fn apply<T: Live>(list: &mut Vec<T>, change: &Change, front: bool, belongs: impl Fn(&T) -> bool) -> bool {
    if let Change::Gone(noun, gone) = change {
        let before = list.len();
        if *noun == T::NOUN {
            list.retain(|t| t.id() != gone.id || t.generation() > gone.generation);
        }
        return list.len() != before;
    }
    let Some(new) = T::of(change) else { return false };
    match list.iter_mut().find(|t| t.id() == new.id()) {
        Some(old) if old.generation() <= new.generation() => *old = new.clone(),
        Some(_) => return false,
        None if belongs(new) => list.insert(if front { 0 } else { list.len() }, new.clone()),
        None => return false,
    }
    true
}

/// Takes the newer of two versions.
pub fn newer<T: Live>(old: &mut T, new: &T) {
    if new.id() == old.id() && new.generation() >= old.generation() {
        *old = new.clone();
    }
}

/// Calls back on every change, for as long as the page lives.
pub fn on_change(callback: impl Fn(&Change) + 'static) {
    #[cfg(feature = "hydrate")]
    client::subscribe(callback);
    #[cfg(not(feature = "hydrate"))]
    drop(callback);
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{SnapshotId, Timestamp, VmId};

    fn snapshot(n: u128, generation: u64) -> Snapshot {
        serde_json::from_value(serde_json::json!({
            "id": SnapshotId(n.to_string().repeat(32).parse().unwrap()), "vm": VmId("1".repeat(32).parse().unwrap()),
            "name": format!("s{n}"), "current": false, "state": "READY", "consistency": "ONLINE", "memory": false,
            "createTime": Timestamp::from_micros(1), "generation": generation,
        }))
        .unwrap()
    }

    fn change(s: &Snapshot) -> Change {
        Change::read(Noun::Snapshot, &serde_json::to_string(s).unwrap()).unwrap()
    }

    #[test]
    fn the_newer_version_wins_whatever_the_order() {
        let mut list = vec![snapshot(1, 5)];
        assert!(!apply(&mut list, &change(&snapshot(1, 4)), true, |_| true));
        assert!(apply(&mut list, &change(&snapshot(1, 6)), true, |_| true));
        assert_eq!(list[0].generation, 6);
        assert!(apply(&mut list, &change(&snapshot(2, 7)), true, |_| true));
        assert!(!apply(&mut list, &change(&snapshot(3, 8)), true, |_| false));
        assert_eq!(list.iter().map(|s| s.generation).collect::<Vec<_>>(), [7, 6]);
    }

    #[test]
    fn what_is_gone_goes_unless_it_is_newer() {
        let mut list = vec![snapshot(1, 5)];
        let gone = |generation| {
            let id = list[0].id().clone();
            Change::read(
                Noun::Snapshot,
                &format!(r#"{{"deleted":true,"id":"{id}","generation":{generation}}}"#),
            )
            .unwrap()
        };
        let (old, new) = (gone(4), gone(6));
        assert!(!apply(&mut list, &old, true, |_| true));
        assert!(apply(&mut list, &new, true, |_| true));
        assert!(list.is_empty());
        assert!(Change::read(Noun::Vm, "{}").is_none());
    }
}
