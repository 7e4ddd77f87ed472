//! The resource name of a clone job.

use super::json::Field;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// `projects/{project}/locations/{location}/sources/{source}/migratingVms/{migratingVm}/cloneJobs/{cloneJob}`.
///
/// A segment has 1 to 63 ASCII letters, digits and `-._~:`, and is neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloneJobName([String; 5]);

/// The collection and the name of each segment.
const SEGMENTS: [(&str, &str); 5] = [
    ("projects", "project"),
    ("locations", "location"),
    ("sources", "source"),
    ("migratingVms", "migratingVm"),
    ("cloneJobs", "cloneJob"),
];

/// Why a text is not the name of a clone job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloneJobNameError {
    /// Collections are missing, too many, or in another order.
    #[error(
        "{0:?} is not the name of a clone job, which is \
         projects/{{project}}/locations/{{location}}/sources/{{source}}/migratingVms/{{migratingVm}}/cloneJobs/{{cloneJob}}"
    )]
    Shape(String),
    /// A segment has characters or a length that it may not have.
    #[error(
        "the {segment} {value:?} in the name of a clone job is not 1 to 63 letters, digits and -._~:, \
         or is a dot or two"
    )]
    Segment {
        /// Which segment, such as `migratingVm`.
        segment: &'static str,
        /// What stands there.
        value: String,
    },
}

impl CloneJobName {
    /// The name with these five segments, in this order.
    pub fn new(segments: [&str; 5]) -> Result<Self, CloneJobNameError> {
        for ((_, segment), value) in SEGMENTS.into_iter().zip(segments) {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:".contains(&b);
            if !(1..=63).contains(&value.len()) || !value.bytes().all(allowed) || matches!(value, "." | "..")
            {
                return Err(CloneJobNameError::Segment {
                    segment,
                    value: value.to_owned(),
                });
            }
        }
        Ok(Self(segments.map(str::to_owned)))
    }

    /// The id or number of the project.
    pub fn project(&self) -> &str {
        &self.0[0]
    }

    /// The location.
    pub fn location(&self) -> &str {
        &self.0[1]
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.0[2]
    }

    /// The VM that is cloned.
    pub fn migrating_vm(&self) -> &str {
        &self.0[3]
    }

    /// The clone job itself.
    pub fn clone_job(&self) -> &str {
        &self.0[4]
    }
}

impl FromStr for CloneJobName {
    type Err = CloneJobNameError;

    fn from_str(s: &str) -> Result<Self, CloneJobNameError> {
        let parts: Vec<&str> = s.split('/').collect();
        match *parts {
            [p, project, l, location, s, source, m, vm, c, job]
                if [p, l, s, m, c] == SEGMENTS.map(|(c, _)| c) =>
            {
                Self::new([project, location, source, vm, job])
            }
            _ => Err(CloneJobNameError::Shape(s.to_owned())),
        }
    }
}

impl fmt::Display for CloneJobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, ((collection, _), value)) in SEGMENTS.iter().zip(&self.0).enumerate() {
            write!(f, "{}{collection}/{value}", if i == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

impl Serialize for CloneJobName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CloneJobName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl Field for Option<CloneJobName> {
    /// An empty text is the default of a proto3 string: no name.
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(d)?;
        if text.is_empty() {
            Ok(None)
        } else {
            text.parse().map(Some).map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "projects/p1/locations/us-central1/sources/s1/migratingVms/vm-17/cloneJobs/c1";

    #[test]
    fn a_name_is_parsed_and_printed() {
        let name: CloneJobName = NAME.parse().unwrap();
        assert_eq!(name.to_string(), NAME);
        assert_eq!(
            [
                name.project(),
                name.location(),
                name.source(),
                name.migrating_vm(),
                name.clone_job()
            ],
            ["p1", "us-central1", "s1", "vm-17", "c1"]
        );
        assert_eq!(
            CloneJobName::new(["p1", "us-central1", "s1", "vm-17", "c1"]),
            Ok(name)
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let shape = |s: &str| {
            assert_eq!(
                s.parse::<CloneJobName>(),
                Err(CloneJobNameError::Shape(s.to_owned()))
            )
        };
        shape("");
        shape("c1");
        shape(&format!("/{NAME}"));
        shape(&format!("{NAME}/"));
        shape(&NAME.replace("cloneJobs", "cutoverJobs"));
        shape(&NAME.replace("projects/p1/", ""));
        let too_long = "x".repeat(64);
        for value in ["", ".", "..", "a b", "%2e", "ä", "a\0", too_long.as_str()] {
            assert_eq!(
                NAME.replace("vm-17", value).parse::<CloneJobName>(),
                Err(CloneJobNameError::Segment {
                    segment: "migratingVm",
                    value: value.to_owned()
                })
            );
        }
    }
}
