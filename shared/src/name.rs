//! Names of VMs, snapshots, images and the like.

use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::str::FromStr;

/// A name: 1 to 63 of `a-z 0-9 -`, beginning with a letter, not ending with `-`. Unique among the living.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"))]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("a name has at most 63 characters; this one has {0}")]
    TooLong(usize),
    #[error("a name begins with a letter from a to z; this one begins with {0:?}")]
    Begins(char),
    #[error("a name has only a to z, 0 to 9 and hyphens; {0:?} is not among them")]
    Has(char),
    #[error("a name cannot end with a hyphen")]
    Ends,
}

impl Name {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let first = s.chars().next().ok_or(NameError::Empty)?;
        if let Some(c) = s.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::Has(c));
        }
        if s.len() > 63 {
            return Err(NameError::TooLong(s.len()));
        }
        if !first.is_ascii_lowercase() {
            return Err(NameError::Begins(first));
        }
        if s.ends_with('-') {
            return Err(NameError::Ends);
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse()
            .map_err(|why| de::Error::custom(format_args!("{text:?}: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn says_what_is_wrong() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("1a".parse::<Name>(), Err(NameError::Begins('1')));
        assert_eq!("a_b".parse::<Name>(), Err(NameError::Has('_')));
        assert_eq!("../etc".parse::<Name>(), Err(NameError::Has('.')));
        assert_eq!("a-".parse::<Name>(), Err(NameError::Ends));
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong(64)));
    }

    proptest! {
        #[test]
        fn takes_what_the_pattern_takes(s in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?") {
            let name: Name = s.parse().unwrap();
            prop_assert_eq!(name.as_str(), s);
        }

        #[test]
        fn a_name_is_safe_in_a_path(s in any::<String>()) {
            if let Ok(name) = s.parse::<Name>() {
                prop_assert!(!name.as_str().contains(['/', '.', '\\', '\0']));
            }
        }
    }
}
