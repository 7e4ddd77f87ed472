//! Where copies go, and what a vault there was found to be.

use crate::{Name, Status, TargetId, Timestamp, words};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

words! {
    /// What kind of place a target is.
    pub enum TargetKind {
        /// A directory of the server's host.
        Local = "LOCAL",
        /// A bucket of a store that speaks S3.
        S3 = "S3",
        /// A target of another Offshoot server.
        Remote = "REMOTE",
    }
}

/// Shortest passphrase of a vault, in characters.
pub const PASSPHRASE_CHARS: usize = 12;
/// How many copies may run to a target at once, unless it says otherwise.
pub const AT_ONCE: u32 = 2;
/// How many may at most.
pub const AT_ONCE_MOST: u32 = 16;

/// A directory of the server's host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalPlace {
    /// The directory, as an absolute path.
    pub path: String,
}

/// A bucket of a store that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Place {
    /// Where it answers, such as `https://s3.example.org`; Amazon's, by the region, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; `us-east-1` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The bucket, which is there.
    pub bucket: String,
    /// What the names of all objects begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The id of the key that requests are signed with.
    pub access_key_id: String,
    /// The key itself: written, and never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
}

/// A target of another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemotePlace {
    /// Where the server answers, such as `https://offshoot.example.org`.
    pub url: String,
    /// The target there, by name or id.
    pub target: String,
    /// A token of that server with `target.store`: written, and never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Where a target is: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// A directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalPlace>,
    /// A bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Place>,
    /// Another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemotePlace>,
}

impl Place {
    /// What kind it is.
    ///
    /// # Errors
    ///
    /// It is none, or several.
    pub fn kind(&self) -> Result<TargetKind, Status> {
        match (&self.local, &self.s3, &self.remote) {
            (Some(_), None, None) => Ok(TargetKind::Local),
            (None, Some(_), None) => Ok(TargetKind::S3),
            (None, None, Some(_)) => Ok(TargetKind::Remote),
            _ => Err(Status::invalid(
                "local",
                "a target is exactly one of local, s3 and remote",
            )),
        }
    }

    /// In a line, such as `s3://bucket/prefix`.
    #[must_use]
    pub fn line(&self) -> String {
        match (&self.local, &self.s3, &self.remote) {
            (Some(local), ..) => local.path.clone(),
            (_, Some(s3), _) => {
                let prefix = s3.prefix.as_deref().unwrap_or_default();
                format!("s3://{}/{prefix}", s3.bucket)
                    .trim_end_matches('/')
                    .to_owned()
            }
            (.., Some(remote)) => format!("{} {}", remote.url, remote.target),
            (None, None, None) => String::new(),
        }
    }
}

/// A place that copies go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its name.
    pub name: Name,
    /// What kind of place it is.
    pub kind: TargetKind,
    /// Where it is, without what is secret.
    #[serde(flatten)]
    pub place: Place,
    /// The vault that is there: its own id, the same wherever it is moved.
    pub vault: Uuid,
    /// What trying it has shown, last.
    pub found: Found,
    /// Why it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Since when it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_since: Option<Timestamp>,
    /// Bytes that go there, or come from there, in a second at most; as many as go if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How many copies run to it at once, at most.
    pub at_once: u32,
    /// Copies that are there.
    pub copies: u64,
    /// Bytes that they brought there, as they were stored.
    pub stored_bytes: u64,
    /// When it was added here.
    pub create_time: Timestamp,
    /// When all that is there was last looked at, and what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
    /// The feed's generation of its last change.
    #[serde(default)]
    pub generation: u64,
}

/// What trying a target has shown: it was written, read, listed and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// When it was tried.
    pub time: Timestamp,
    /// Whether a second write of a name is truly refused where it is to be. Copies are safe without; a store that takes it, or says
    /// that it refuses and takes it, gives a warning.
    pub conditional_put: bool,
    /// From the request to write until the object was safe, in microseconds.
    pub write_micros: u64,
    /// To read it, in microseconds.
    pub read_micros: u64,
}

/// How a look at all that a vault has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// When it ended.
    pub time: Timestamp,
    /// How many percent of the packs were read: all, or a sample.
    pub percent: u32,
    /// How many objects are damaged or lost.
    pub damaged: u64,
    /// How many copies that hurts.
    pub hurt_copies: u64,
    /// The job that looked.
    pub job: crate::JobId,
}

/// A request for a target. Secrets are kept sealed, and never answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTarget {
    /// Its name.
    pub name: Name,
    /// A directory of the server's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalPlace>,
    /// A bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Place>,
    /// Another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemotePlace>,
    /// Whether a vault that is there already is taken; else a new one is made, where none is.
    #[serde(default)]
    pub attach: bool,
    /// What opens the vault, of 12 characters at least. Without it, and without this server, nobody can: write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
    /// An age recipient (`age1…`) that a new vault's key is wrapped for, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// An age identity (`AGE-SECRET-KEY-1…`) that opens the vault; with `attach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Bytes that go there, or come from there, in a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How many copies run to it at once; 2 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

impl CreateTarget {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            local: self.local.clone(),
            s3: self.s3.clone(),
            remote: self.remote.clone(),
        }
    }

    /// Refuses what cannot be, by what is written alone.
    ///
    /// # Errors
    ///
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), Status> {
        let place = self.place();
        place.kind()?;
        check_place(&place)?;
        check_limits(self.bytes_per_second, self.at_once)?;
        if let Some(passphrase) = &self.passphrase
            && passphrase.chars().count() < PASSPHRASE_CHARS
            && !self.attach
        {
            let why = format!("a passphrase of a vault has {PASSPHRASE_CHARS} characters at least");
            return Err(Status::invalid("passphrase", why));
        }
        if self
            .recipient
            .as_deref()
            .is_some_and(|r| !r.trim().starts_with("age1"))
        {
            // It may be an identity, which is a secret: it is not repeated.
            return Err(Status::invalid("recipient", "an age recipient begins with age1"));
        }
        match (&self.passphrase, &self.recipient, &self.identity, self.attach) {
            (_, _, Some(_), false) => Err(Status::invalid(
                "identity",
                "an identity opens a vault that is there: ask to attach it",
            )),
            (None, None, _, false) => Err(Status::invalid(
                "passphrase",
                "a new vault needs a passphrase or an age recipient: without one nobody could open it once this server is gone",
            )),
            (None, _, None, true) => Err(Status::invalid(
                "passphrase",
                "a vault that is there is opened by its passphrase or by an age identity",
            )),
            (_, Some(_), _, true) => Err(Status::invalid(
                "recipient",
                "the key of a vault that is there is wrapped already",
            )),
            _ => Ok(()),
        }
    }
}

fn check_place(place: &Place) -> Result<(), Status> {
    let web = |field: &str, url: &str| {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        match rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default()) {
            None => Err(Status::invalid(field, "it is reached by http:// or https://")),
            // It is shown to all who see the target, so it is not repeated here either.
            Some(host) if host.contains('@') => Err(Status::invalid(
                field,
                "an address has no user and no password in it: the secret has a field of its own",
            )),
            Some(_) => Ok(()),
        }
    };
    if let Some(local) = &place.local
        && !local.path.starts_with('/')
    {
        let why = format!("{:?} is no absolute path like /srv/copies", local.path);
        return Err(Status::invalid("local.path", why));
    }
    if let Some(s3) = &place.s3 {
        if let Some(endpoint) = &s3.endpoint {
            web("s3.endpoint", endpoint)?;
        }
        if s3.bucket.is_empty() || s3.bucket.contains('/') {
            return Err(Status::invalid("s3.bucket", "name a bucket"));
        }
        if s3.access_key_id.is_empty() {
            return Err(Status::invalid(
                "s3.accessKeyId",
                "name the key that requests are signed with",
            ));
        }
    }
    if let Some(remote) = &place.remote {
        web("remote.url", &remote.url)?;
        if remote.target.is_empty() {
            return Err(Status::invalid("remote.target", "name the target of that server"));
        }
    }
    Ok(())
}

fn check_limits(bytes_per_second: Option<u64>, at_once: Option<u32>) -> Result<(), Status> {
    use crate::can::limit;
    if let Some(rate) = bytes_per_second.filter(|rate| *rate != 0) {
        limit::within("bytesPerSecond", rate, 64 << 10, 1 << 40, "bytes")?;
    }
    if let Some(at_once) = at_once {
        limit::within("atOnce", u64::from(at_once), 1, u64::from(AT_ONCE_MOST), "copies")?;
    }
    Ok(())
}

/// What is to change of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchTarget {
    /// Its new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where the same vault is now: of the kind that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalPlace>,
    /// Where the same vault is now; the secret key stays if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Place>,
    /// Where the same vault is now; the token stays if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemotePlace>,
    /// Bytes in a second at most; 0 takes the limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// How many copies run to it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

impl PatchTarget {
    /// The place that is asked for; none if it stays.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let place = Place {
            local: self.local.clone(),
            s3: self.s3.clone(),
            remote: self.remote.clone(),
        };
        (place != Place::default()).then_some(place)
    }

    /// Refuses what cannot be, by what is written alone.
    ///
    /// # Errors
    ///
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), Status> {
        if let Some(place) = self.place() {
            place.kind()?;
            check_place(&place)?;
        }
        check_limits(self.bytes_per_second, self.at_once)
    }
}

/// A request to look at all that a target has, or at a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyTarget {
    /// How many percent of the packs are read; all if not given.
    #[serde(default = "all")]
    pub percent: u32,
}

impl Default for VerifyTarget {
    fn default() -> Self {
        Self { percent: 100 }
    }
}

fn all() -> u32 {
    100
}

/// An object of a vault that is not as it was written, or gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// The copies that it hurts.
    pub copies: Vec<crate::CopyId>,
}

/// What a job found in a vault, or took out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct VaultOutcome {
    /// Packs that were read.
    #[serde(default)]
    pub packs: u64,
    /// Bytes that were read.
    #[serde(default)]
    pub read_bytes: u64,
    /// What is damaged: the first hundred.
    #[serde(default)]
    pub damage: Vec<Damage>,
    /// How many objects are damaged.
    #[serde(default)]
    pub damaged: u64,
    /// How many copies that hurts.
    #[serde(default)]
    pub hurt_copies: u64,
    /// How many objects are damaged of which no copy needs anything any more: a later copy brought it anew, or nobody asks for it.
    #[serde(default)]
    pub healed: u64,
    /// Bytes that were freed.
    #[serde(default)]
    pub freed_bytes: u64,
    /// Packs that are marked, to go with the next clean-up.
    #[serde(default)]
    pub marked_packs: u64,
}

/// Look at what a target has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// The target.
    pub target: TargetId,
    /// Its name at the time.
    pub target_name: Name,
    /// What was asked.
    pub request: VerifyTarget,
}

/// Take out of a target what no copy needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PruneSpec {
    /// The target.
    pub target: TargetId,
    /// Its name at the time.
    pub target_name: Name,
}

/// An object that a target keeps for another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StoredObject {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local() -> CreateTarget {
        CreateTarget {
            name: "there".parse().unwrap(),
            local: Some(LocalPlace {
                path: "/srv/copies".into(),
            }),
            s3: None,
            remote: None,
            attach: false,
            passphrase: Some("correct horse".into()),
            recipient: None,
            identity: None,
            bytes_per_second: None,
            at_once: None,
        }
    }

    #[test]
    fn a_target_is_one_place_and_has_a_key() {
        local().check().unwrap();
        let refused = |change: fn(&mut CreateTarget)| {
            let mut asked = local();
            change(&mut asked);
            asked.check().unwrap_err().field().map(str::to_owned)
        };
        assert_eq!(refused(|t| t.local = None).as_deref(), Some("local"));
        assert_eq!(
            refused(|t| t.local.as_mut().unwrap().path = "copies".into()).as_deref(),
            Some("local.path")
        );
        assert_eq!(refused(|t| t.passphrase = None).as_deref(), Some("passphrase"));
        assert_eq!(
            refused(|t| t.passphrase = Some("short".into())).as_deref(),
            Some("passphrase")
        );
        assert_eq!(
            refused(|t| t.identity = Some("x".into())).as_deref(),
            Some("identity")
        );
        assert_eq!(refused(|t| t.at_once = Some(0)).as_deref(), Some("atOnce"));
        assert_eq!(
            refused(|t| t.bytes_per_second = Some(10)).as_deref(),
            Some("bytesPerSecond")
        );
        let attached = |change: fn(&mut CreateTarget)| {
            let mut asked = local();
            asked.attach = true;
            change(&mut asked);
            asked.check()
        };
        attached(|_| ()).unwrap();
        attached(|t| t.passphrase = None).unwrap_err();
        attached(|t| t.recipient = Some("age1".into())).unwrap_err();
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
        let refused = |field: &str, change: fn(&mut CreateTarget)| {
            let mut asked = local();
            asked.local = None;
            change(&mut asked);
            let status = asked.check().unwrap_err();
            assert_eq!(status.field(), Some(field));
            let said = format!("{status:?}");
            assert!(!said.to_lowercase().contains("hunter2"), "{said}");
        };
        refused("recipient", |t| {
            *t = local();
            t.recipient = Some("AGE-SECRET-KEY-1HUNTER2".into());
        });
        refused("remote.url", |t| {
            t.remote = Some(RemotePlace {
                url: "https://eve:hunter2@offshoot.example.org/".into(),
                target: "there".into(),
                token: None,
            });
        });
        refused("s3.endpoint", |t| {
            t.s3 = Some(S3Place {
                endpoint: Some("https://hunter2@s3.example.org?x=/".into()),
                region: None,
                bucket: "copies".into(),
                prefix: None,
                access_key_id: "key".into(),
                secret_access_key: None,
            });
        });
    }

    proptest! {
        #[test]
        fn no_refusal_repeats_a_secret(
            secret in "[a-zA-Z0-9/+:@?# -]{10,40}",
            fields in any::<[bool; 4]>(),
            attach: bool,
            place in 0..4,
        ) {
            let given = |n: usize| fields[n].then(|| secret.clone());
            let mut asked = CreateTarget {
                attach,
                passphrase: given(0),
                recipient: given(1),
                identity: given(2),
                ..local()
            };
            let url = if fields[3] { format!("https://{secret}@there") } else { secret.clone() };
            match place {
                0 => asked.local = None,
                1 => {
                    asked.local = None;
                    asked.s3 = Some(S3Place {
                        endpoint: Some(url),
                        region: None,
                        bucket: "copies".into(),
                        prefix: None,
                        access_key_id: String::new(),
                        secret_access_key: Some(secret.clone()),
                    });
                }
                2 => {
                    asked.local = None;
                    asked.remote = Some(RemotePlace {
                        url,
                        target: String::new(),
                        token: Some(secret.clone()),
                    });
                }
                _ => {}
            }
            if let Err(refused) = asked.check() {
                prop_assert!(!format!("{refused:?}").contains(&secret), "{refused:?}");
            }
        }
    }
}
