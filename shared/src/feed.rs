//! The live feed: what changed, in the order of generations.

use crate::words;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

words! {
    /// A noun of the API whose changes the feed tells. The word is also the event's name.
    pub enum Noun {
        /// A machine.
        Vm = "vm",
        /// A snapshot.
        Snapshot = "snapshot",
        /// A job.
        Job = "job",
        /// A fork point.
        ForkPoint = "forkPoint",
        /// An image.
        Image = "image",
        /// An upload.
        Upload = "upload",
        /// A disk that was written to a file.
        Export = "export",
        /// A token.
        Token = "token",
        /// A user.
        User = "user",
        /// A role.
        Role = "role",
        /// A host.
        Host = "host",
        /// A storage.
        Storage = "storage",
        /// A network.
        Network = "network",
        /// A channel that notices go through, or how far those have come.
        NoticeChannel = "noticeChannel",
        /// A place that copies go to.
        Target = "target",
        /// A copy of a machine's snapshot.
        Copy = "copy",
        /// What says when which machines are copied where.
        Policy = "policy",
        /// Where machines live that are carried over.
        Source = "source",
        /// A machine that is carried over.
        MigratingVm = "migratingVm",
    }
}

/// A place in the feed: the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which database's feed; a new database has a new epoch.
    pub epoch: u64,
    /// The last generation that was seen.
    pub generation: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.generation)
    }
}

/// A text that is no place in a feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a feed: <epoch>-<generation>")]
pub struct NoPlace(pub String);

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(s: &str) -> Result<Self, NoPlace> {
        let parse = || {
            let (epoch, generation) = s.split_once('-')?;
            Some(Self {
                epoch: u64::from_str_radix(epoch, 16).ok()?,
                generation: generation.parse().ok()?,
            })
        };
        parse().ok_or_else(|| NoPlace(s.to_owned()))
    }
}

/// The data of an event whose thing is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gone {
    /// Always true.
    pub deleted: bool,
    /// The id of what is gone.
    pub id: String,
    /// The generation in which it went.
    pub generation: u64,
}

/// Name of the event that tells a page to load its data again.
pub const RESET: &str = "reset";
/// Name of the event that says the link lives, every [`ALIVE_SECONDS`].
pub const ALIVE: &str = "alive";
/// How often the feed says that it lives, in seconds.
pub const ALIVE_SECONDS: u64 = 5;
/// After how many seconds of silence the link counts as lost.
pub const SILENCE_SECONDS: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_what_it_prints() {
        let p = Place {
            epoch: 0xfeed,
            generation: 42,
        };
        assert_eq!(p.to_string().parse(), Ok(p));
        assert!("42".parse::<Place>().is_err());
    }
}
