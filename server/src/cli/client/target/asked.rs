//! What `offshoot target add` and `edit` are told, and what they ask of the server.

use crate::cli::Failure;
use crate::cli::client::Api;
use crate::cli::client::secret::{Source, identity};
use clap::{ArgGroup, Args};
use shared::Name;
use shared::api::GetTarget;
use shared::target::{CreateTarget, LocalPlace, PatchTarget, Place, RemotePlace, S3Place, TargetKind};
use std::path::PathBuf;

const PASSPHRASE: Source = Source {
    prompt: "Passphrase of the vault",
    option: "--passphrase-file",
    variable: "OFFSHOOT_PASSPHRASE",
};
const S3_SECRET: Source = Source {
    prompt: "Secret access key",
    option: "--s3-secret-file",
    variable: "OFFSHOOT_S3_SECRET",
};
const REMOTE_TOKEN: Source = Source {
    prompt: "Token of that server",
    option: "--remote-token-file",
    variable: "OFFSHOOT_REMOTE_TOKEN",
};

/// Where a target is.
#[derive(Args)]
#[group(skip)]
pub struct PlaceArgs {
    /// A directory of the server's host.
    #[arg(long, value_name = "PATH")]
    local: Option<String>,
    /// A bucket of a store that speaks S3.
    #[arg(long, value_name = "BUCKET")]
    s3_bucket: Option<String>,
    /// Where the store answers, such as https://s3.example.org; Amazon's if not given.
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Its region; us-east-1 if not given.
    #[arg(long, value_name = "REGION")]
    s3_region: Option<String>,
    /// What the names of all objects begin with.
    #[arg(long, value_name = "PREFIX")]
    s3_prefix: Option<String>,
    /// The id of the key that requests are signed with.
    #[arg(long, value_name = "ID")]
    s3_access_key: Option<String>,
    /// A file with the secret of that key, or - for standard input; else OFFSHOOT_S3_SECRET when adding, or it is asked for.
    #[arg(long, value_name = "FILE")]
    s3_secret_file: Option<PathBuf>,
    /// Another Offshoot server, such as https://offshoot.example.org.
    #[arg(long, value_name = "URL")]
    remote_url: Option<String>,
    /// The target there, by name or id.
    #[arg(long, value_name = "TARGET")]
    remote_target: Option<String>,
    /// A file with a token of that server, or - for standard input; else OFFSHOOT_REMOTE_TOKEN when adding, or it is asked for.
    #[arg(long, value_name = "FILE", alias = "token-file")]
    remote_token_file: Option<PathBuf>,
}

/// What a new target is.
#[derive(Args)]
#[command(
    group = ArgGroup::new("place").args(["local", "s3_bucket", "remote_url"]).required(true),
    group = ArgGroup::new("bucket").args(["s3_bucket"]).requires("s3_access_key"),
    group = ArgGroup::new("store").multiple(true).conflicts_with_all(["local", "remote_url"])
        .args(["s3_endpoint", "s3_region", "s3_prefix", "s3_access_key", "s3_secret_file"]),
    group = ArgGroup::new("server").args(["remote_url"]).requires("remote_target"),
    group = ArgGroup::new("there").multiple(true).conflicts_with_all(["local", "s3_bucket"])
        .args(["remote_target", "remote_token_file"]),
)]
pub struct AddArgs {
    /// Its name.
    name: Name,
    #[command(flatten)]
    place: PlaceArgs,
    /// Take the vault that is there already.
    #[arg(long)]
    attach: bool,
    /// A file with the vault's passphrase, or - for standard input; else OFFSHOOT_PASSPHRASE, or it is asked for. Keep it: without
    /// it, and without this server, nobody can open the vault.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// An age recipient (age1...) whose identity opens the new vault, too; a passphrase is not asked for then.
    #[arg(long, conflicts_with = "attach")]
    recipient: Option<String>,
    /// A file with an age identity that opens the vault, or - for standard input.
    #[arg(long, value_name = "FILE", requires = "attach")]
    identity_file: Option<PathBuf>,
    /// At most so many bytes a second, there and back, such as 20MiB.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<u64>,
    /// How many copies run to it at once; 2 if not given.
    #[arg(long, value_name = "N")]
    at_once: Option<u32>,
}

/// What becomes of a target.
#[derive(Args)]
pub struct EditArgs {
    /// Its name or id.
    target: String,
    /// Another name.
    #[arg(long)]
    name: Option<Name>,
    #[command(flatten)]
    place: PlaceArgs,
    /// At most so many bytes a second, such as 20MiB; none for no limit.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<u64>,
    /// How many copies run to it at once.
    #[arg(long, value_name = "N")]
    at_once: Option<u32>,
}

/// Bytes in a second; 0 for no limit.
fn rate(text: &str) -> Result<u64, String> {
    if text == "none" {
        return Ok(0);
    }
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let digits = bare.find(|c: char| !c.is_ascii_digit()).unwrap_or(bare.len());
    let (number, unit) = bare.split_at(digits);
    let unit: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|n| n.checked_mul(unit))
        .filter(|rate| *rate > 0)
        .ok_or_else(|| "a rate is written like 20MiB, in B, KiB, MiB or GiB a second, or none".to_owned())
}

/// What is empty is none: so a prefix or an endpoint is taken away.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl PlaceArgs {
    /// Where a new target is.
    fn place(self) -> Result<Place, Failure> {
        let mut place = Place {
            local: self.local.map(|path| LocalPlace { path }),
            ..Place::default()
        };
        if let Some(bucket) = self.s3_bucket {
            place.s3 = Some(S3Place {
                endpoint: self.s3_endpoint.and_then(some),
                region: self.s3_region.and_then(some),
                bucket,
                prefix: self.s3_prefix.and_then(some),
                access_key_id: self.s3_access_key.unwrap_or_default(),
                secret_access_key: Some(S3_SECRET.wanted(self.s3_secret_file.as_deref())?),
            });
        }
        if let Some(url) = self.remote_url {
            place.remote = Some(RemotePlace {
                url,
                target: self.remote_target.unwrap_or_default(),
                token: Some(REMOTE_TOKEN.wanted(self.remote_token_file.as_deref())?),
            });
        }
        Ok(place)
    }

    /// The kinds that something is given of.
    fn kinds(&self) -> Vec<TargetKind> {
        let s3 = [
            &self.s3_bucket,
            &self.s3_endpoint,
            &self.s3_region,
            &self.s3_prefix,
            &self.s3_access_key,
        ];
        let s3 = s3.iter().any(|given| given.is_some()) || self.s3_secret_file.is_some();
        let remote =
            self.remote_url.is_some() || self.remote_target.is_some() || self.remote_token_file.is_some();
        let all = [
            (TargetKind::Local, self.local.is_some()),
            (TargetKind::S3, s3),
            (TargetKind::Remote, remote),
        ];
        all.into_iter()
            .filter(|(_, given)| *given)
            .map(|(kind, _)| kind)
            .collect()
    }

    /// Where a target is then: what is not given stays.
    fn onto(self, mut place: Place) -> Result<Place, Failure> {
        if let (Some(local), Some(path)) = (&mut place.local, self.local) {
            local.path = path;
        }
        if let Some(s3) = &mut place.s3 {
            for (field, given) in [
                (&mut s3.endpoint, self.s3_endpoint),
                (&mut s3.region, self.s3_region),
                (&mut s3.prefix, self.s3_prefix),
            ] {
                if let Some(given) = given {
                    *field = some(given);
                }
            }
            for (field, given) in [
                (&mut s3.bucket, self.s3_bucket),
                (&mut s3.access_key_id, self.s3_access_key),
            ] {
                if let Some(given) = given {
                    *field = given;
                }
            }
            let file = self.s3_secret_file.as_deref();
            s3.secret_access_key = file.map(|file| S3_SECRET.of(file)).transpose()?;
        }
        if let Some(remote) = &mut place.remote {
            for (field, given) in [
                (&mut remote.url, self.remote_url),
                (&mut remote.target, self.remote_target),
            ] {
                if let Some(given) = given {
                    *field = given;
                }
            }
            let file = self.remote_token_file.as_deref();
            remote.token = file.map(|file| REMOTE_TOKEN.of(file)).transpose()?;
        }
        Ok(place)
    }
}

impl AddArgs {
    /// What the server is asked; the secrets are read here.
    pub fn request(self) -> Result<CreateTarget, Failure> {
        if self.recipient.as_deref().is_some_and(|r| !r.starts_with("age1")) {
            // It may be an identity, which is a secret: it is not repeated.
            return Err("--recipient: an age recipient begins with age1".into());
        }
        let file = self.passphrase_file.as_deref();
        let other = self.recipient.is_some() || self.identity_file.is_some();
        let passphrase = match (other, self.attach) {
            (true, _) => PASSPHRASE.given(file)?,
            (false, true) => Some(PASSPHRASE.wanted(file)?),
            (false, false) => Some(PASSPHRASE.fresh(file)?),
        };
        let identity_file = self.identity_file.as_deref();
        let identity = identity_file
            .map(|file| identity("--identity-file", file))
            .transpose()?;
        let Place { local, s3, remote } = self.place.place()?;
        Ok(CreateTarget {
            name: self.name,
            local,
            s3,
            remote,
            attach: self.attach,
            passphrase,
            recipient: self.recipient,
            identity,
            bytes_per_second: self.limit.filter(|rate| *rate != 0),
            at_once: self.at_once,
        })
    }
}

impl EditArgs {
    /// The target and what is to change of it; of its place, what is not given is as the server has it.
    pub async fn request(self, api: &Api) -> Result<(String, PatchTarget), Failure> {
        let mut request = PatchTarget {
            name: self.name,
            bytes_per_second: self.limit,
            at_once: self.at_once,
            ..PatchTarget::default()
        };
        let kinds = self.place.kinds();
        if !kinds.is_empty() {
            let target = self.target.clone();
            let target = api.client()?.call(&GetTarget { target }).await?;
            if let Some(other) = kinds.iter().find(|kind| **kind != target.kind) {
                let (name, kind) = (&target.name, target.kind);
                return Err(
                    format!("{name} is {kind} and stays so: add another target that is {other}").into(),
                );
            }
            let Place { local, s3, remote } = self.place.onto(target.place)?;
            (request.local, request.s3, request.remote) = (local, s3, remote);
        }
        Ok((self.target, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit() {
        for (text, is) in [
            ("20MiB", 20 << 20),
            ("64KiB/s", 64 << 10),
            ("1GiB", 1 << 30),
            ("70000", 70_000),
            ("none", 0),
        ] {
            assert_eq!(rate(text), Ok(is), "{text}");
        }
        for wrong in [
            "",
            "MiB",
            "0",
            "20MB",
            "20 MiB",
            "-1MiB",
            "1.5MiB",
            "99999999999999999999GiB",
            "18446744073709551615KiB",
        ] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
