//! What the server is told: flags, then the environment (`OFFSHOOT_*`), then a TOML file, then defaults.

mod lock;
mod oidc;
mod settings;
mod smtp;

pub use lock::DataDirLock;
pub use oidc::{GroupRole, Oidc, OidcError};
pub(crate) use oidc::{is_safe, on_this_machine};
pub use settings::Settings;
pub use smtp::SmtpUrl;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use shared::Name;
use shared::access::audit::KEPT_DAYS;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The file that is read unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/offshoot/offshoot.toml";

/// How much memory guests may be promised unless it is said, as a share of the host's.
pub const MEMORY_OVERCOMMIT: f64 = 4.0;

/// How long a process waits for the next fork of a fork point unless it is said, in seconds.
pub const FORKS_READY_SECONDS: u32 = 600;

/// How many frozen layers of its own a machine keeps unless it is said.
pub const CHAIN_LENGTH: u32 = 8;

/// Largest image unless it is said, in GiB.
pub const IMAGE_MAX_GIB: u32 = 1024;

/// How guests run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorChoice {
    /// KVM where the processor and /dev/kvm allow it, else TCG.
    #[default]
    Auto,
    /// In hardware.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// An image to register at start, written `name=path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// The name that requests use.
    pub name: Name,
    /// The qcow2 or raw file.
    pub path: PathBuf,
}

impl FromStr for ImageSource {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (name, path) = s
            .split_once('=')
            .ok_or_else(|| format!("{s:?} is no image: write name=path"))?;
        if path.is_empty() {
            return Err(format!("image {name:?} has no path: write name=path"));
        }
        let name = name.parse().map_err(|why| format!("image {name:?}: {why}"))?;
        Ok(Self {
            name,
            path: path.into(),
        })
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.path.display())
    }
}

impl Serialize for ImageSource {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageSource {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Settings with the file that more of them may stand in.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// A TOML file with the same settings, `data_dir = "/srv/offshoot"` and so on.
    #[arg(long, env = "OFFSHOOT_CONFIG")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// What the server runs with. It prints no secrets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Directory of the database, the disks and all else that is kept.
    pub data_dir: PathBuf,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Further values of the Host header to answer to.
    pub allowed_hosts: Vec<String>,
    /// Directory of the console's files, with `pkg/` in it.
    pub site_dir: PathBuf,
    /// Images to register at start.
    pub images: Vec<ImageSource>,
    /// How guests run.
    pub accelerator: AcceleratorChoice,
    /// Whether no guest is real.
    pub sim: bool,
    /// Most jobs at work at once.
    pub jobs_per_host: u32,
    /// Most jobs at work at once for one VM.
    pub jobs_per_vm: u32,
    /// Where the frozen memory of instant clones stands; where there is room if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_dir: Option<PathBuf>,
    /// How much memory guests may be promised, as a share of the host's.
    pub memory_overcommit: f64,
    /// How long a process waits for the next fork after a fork point was last forked, in seconds.
    pub forks_ready_seconds: u32,
    /// How many layers a disk may have above the last one that a snapshot or an image names.
    pub chain_length: u32,
    /// Directories of this host that images may be imported from.
    pub image_roots: Vec<PathBuf>,
    /// Whether images may be fetched from private, loopback and link-local addresses.
    pub image_urls_private: bool,
    /// Whether notices may be posted to private, loopback and link-local addresses.
    pub notice_urls_private: bool,
    /// The mail server that notices go by; printed without its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_url: Option<SmtpUrl>,
    /// A file with the password for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_password_file: Option<PathBuf>,
    /// Whom the mail is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail_from: Option<String>,
    /// Largest image, as a file and as a disk, in GiB.
    pub image_max_gib: u32,
    /// The user that images from outside are converted as, where the server is root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_helper_user: Option<String>,
    /// Name of this server among others on the machine; the port if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Name>,
    /// The certificate to speak TLS with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// For how long browsers are told to come by TLS only, in seconds.
    pub hsts_seconds: u32,
    /// Whether it listens beyond this machine without TLS.
    pub allow_plain_http: bool,
    /// Whether that is meant.
    pub passwords_in_the_clear: bool,
    /// The user that the server becomes when root starts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// Where browsers come by: scheme, host and port; where it listens if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// The provider that people may sign in by.
    #[serde(flatten)]
    pub oidc: Option<Oidc>,
    /// How long it is kept who did what, in days.
    pub audit_days: u32,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines there are.
    pub log: String,
    /// Offshoot itself, for the guardians of forks; the program that runs if none.
    #[serde(skip)]
    pub program: Option<PathBuf>,
}

/// Why the settings are refused, or the data directory cannot be taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is not understood")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error(
        "listen = {0}: beyond loopback it speaks TLS only. Give tls_cert and tls_key; or listen on loopback, such as \
         127.0.0.1:8080, behind a reverse proxy with TLS. To have passwords, tokens and screens travel in the clear, say \
         allow_plain_http and passwords_in_the_clear, both"
    )]
    NotLoopback(SocketAddr),
    #[error("{given} is given without {missing}: TLS needs both")]
    HalfTls {
        given: &'static str,
        missing: &'static str,
    },
    #[error("hsts_seconds needs tls_cert: without TLS browsers could not come at all")]
    HstsWithoutTls,
    #[error("{setting} must be at least 1")]
    Zero { setting: &'static str },
    #[error("memory_overcommit = {0}: it must be a number above 0, such as 1.5")]
    Overcommit(f64),
    #[error("{0} is given without smtp_url: there is no server to mail by")]
    WithoutSmtp(&'static str),
    #[error("smtp_url is given without mail_from: say whom the mail is from, such as offshoot@example.org")]
    NoSender,
    #[error("mail_from is no address like Offshoot <offshoot@example.org>: {0}")]
    Sender(String),
    #[error("smtp_password_file is given, and smtp_url names no user: write smtps://user@host")]
    NoSmtpUser,
    #[error("smtp_url would have a password travel in the clear: write smtps://, or ?tls=required")]
    SmtpInTheClear,
    #[error("image {0} is given twice")]
    TwiceImage(Name),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error("cannot make the data directory {path}")]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the data directory {path} is in use by another server{pid}: stop that one, or give --data-dir")]
    InUse { path: PathBuf, pid: String },
}

/// Where data is kept unless told otherwise: of the machine for root, of the user for others.
fn default_data_dir() -> PathBuf {
    let var = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    if rustix::process::geteuid().is_root() {
        return "/var/lib/offshoot".into();
    }
    match (var("XDG_DATA_HOME"), var("HOME")) {
        (Some(data), _) => data.join("offshoot"),
        (None, Some(home)) => home.join(".local/share/offshoot"),
        (None, None) => "/var/lib/offshoot".into(),
    }
}

/// The console's files: beside an installed program, or where a build leaves them.
fn default_site_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let bin = exe.parent().unwrap_or(Path::new("."));
    let installed = bin.join("../share/offshoot/site");
    if installed.is_dir() {
        installed
    } else {
        bin.join("../site")
    }
}

impl ConfigArgs {
    /// The configuration that these flags, the environment and the file make together.
    pub fn load(self) -> Result<Config, ConfigError> {
        let path = match &self.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|p| p.exists()),
        };
        let file = match path {
            None => Settings::default(),
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
                    path: path.clone(),
                    source,
                })?;
                toml::from_str(&text).map_err(|source| ConfigError::Parse {
                    path,
                    source: Box::new(source),
                })?
            }
        };
        Config::new(self.settings.or(file))
    }
}

impl Config {
    fn new(mut given: Settings) -> Result<Self, ConfigError> {
        let plainly = given.allow_plain_http == Some(true) && given.passwords_in_the_clear == Some(true);
        let public_url = match given.public_url.take() {
            Some(url) => Some(oidc::public_url(&url, plainly)?),
            None => None,
        };
        let provider = oidc::Given {
            issuer: given.oidc_issuer.take(),
            client_id: given.oidc_client_id.take(),
            client_secret_file: given.oidc_client_secret_file.take(),
            scopes: given.oidc_scopes.take(),
            name_claim: given.oidc_name_claim.take(),
            groups_claim: given.oidc_groups_claim.take(),
            roles: given.oidc_roles.take(),
            default_role: given.oidc_default_role.take(),
            label: given.oidc_label.take(),
        };
        let config = Self {
            oidc: provider.check(public_url.as_deref())?,
            public_url,
            ..Self::with(given)
        };
        config.check()
    }

    /// These settings and the defaults of others, but for what is checked against each other: `public_url` and the provider.
    fn with(given: Settings) -> Self {
        Self {
            data_dir: given.data_dir.unwrap_or_else(default_data_dir),
            listen: given
                .listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            allowed_hosts: given.allowed_hosts.unwrap_or_default(),
            site_dir: given.site_dir.unwrap_or_else(default_site_dir),
            images: given.images.unwrap_or_default(),
            accelerator: given.accelerator.unwrap_or_default(),
            sim: given.sim.unwrap_or(false),
            jobs_per_host: given.jobs_per_host.unwrap_or(8),
            jobs_per_vm: given.jobs_per_vm.unwrap_or(2),
            memory_dir: given.memory_dir,
            memory_overcommit: given.memory_overcommit.unwrap_or(MEMORY_OVERCOMMIT),
            forks_ready_seconds: given.forks_ready_seconds.unwrap_or(FORKS_READY_SECONDS),
            chain_length: given.chain_length.unwrap_or(CHAIN_LENGTH),
            image_roots: given.image_roots.unwrap_or_default(),
            image_urls_private: given.image_urls_private.unwrap_or(false),
            notice_urls_private: given.notice_urls_private.unwrap_or(false),
            smtp_url: given.smtp_url,
            smtp_password_file: given.smtp_password_file,
            mail_from: given.mail_from,
            image_max_gib: given.image_max_gib.unwrap_or(IMAGE_MAX_GIB),
            image_helper_user: given.image_helper_user,
            instance: given.instance,
            tls_cert: given.tls_cert,
            tls_key: given.tls_key,
            hsts_seconds: given.hsts_seconds.unwrap_or(0),
            allow_plain_http: given.allow_plain_http.unwrap_or(false),
            passwords_in_the_clear: given.passwords_in_the_clear.unwrap_or(false),
            run_as: given.run_as,
            public_url: None,
            oidc: None,
            audit_days: given.audit_days.unwrap_or(KEPT_DAYS),
            log_format: given.log_format.unwrap_or_default(),
            log: given.log.unwrap_or_else(|| "info".to_owned()),
            program: None,
        }
    }

    fn check(self) -> Result<Self, ConfigError> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => {
                return Err(ConfigError::HalfTls {
                    given: "tls_cert",
                    missing: "tls_key",
                });
            }
            (None, Some(_)) => {
                return Err(ConfigError::HalfTls {
                    given: "tls_key",
                    missing: "tls_cert",
                });
            }
            (None, None) if self.hsts_seconds > 0 => return Err(ConfigError::HstsWithoutTls),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let plainly = self.allow_plain_http && self.passwords_in_the_clear;
        if !self.listen.ip().is_loopback() && self.tls_cert.is_none() && !plainly {
            return Err(ConfigError::NotLoopback(self.listen));
        }
        for (setting, n) in [
            ("jobs_per_host", self.jobs_per_host),
            ("jobs_per_vm", self.jobs_per_vm),
            ("audit_days", self.audit_days),
            ("image_max_gib", self.image_max_gib),
            ("chain_length", self.chain_length),
        ] {
            if n == 0 {
                return Err(ConfigError::Zero { setting });
            }
        }
        if !(self.memory_overcommit > 0.0 && self.memory_overcommit.is_finite()) {
            return Err(ConfigError::Overcommit(self.memory_overcommit));
        }
        smtp::check(
            self.smtp_url.as_ref(),
            self.smtp_password_file.as_ref(),
            self.mail_from.as_deref(),
        )?;
        for (n, image) in self.images.iter().enumerate() {
            if self.images[..n].iter().any(|i| i.name == image.name) {
                return Err(ConfigError::TwiceImage(image.name.clone()));
            }
        }
        Ok(self)
    }

    /// The configuration of a server that simulates in this directory, on a free port.
    pub fn simulated(data_dir: impl Into<PathBuf>) -> Self {
        Self::with(Settings {
            data_dir: Some(data_dir.into()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            sim: Some(true),
            ..Settings::default()
        })
    }

    /// Where people reach the console of a server that listens here, without a slash at its end.
    pub fn public_url(&self, address: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{address}", self.scheme()),
        }
    }

    /// How browsers speak to it: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("offshoot.db")
    }

    /// Makes the data directory, readable by its owner only, if it is not there.
    pub fn make_data_dir(&self) -> Result<(), ConfigError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data_dir)
            .map_err(|source| ConfigError::DataDir {
                path: self.data_dir.clone(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.toml");
        std::fs::write(&path, text).unwrap();
        ConfigArgs {
            config: Some(path),
            settings: Settings {
                jobs_per_vm: Some(7),
                ..Settings::default()
            },
        }
        .load()
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let c = file("jobs_per_vm = 3\njobs_per_host = 5\nimages = [\"demo=/a.qcow2\"]\n").unwrap();
        assert_eq!((c.jobs_per_vm, c.jobs_per_host), (7, 5));
        assert_eq!(c.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(c.images[0].to_string(), "demo=/a.qcow2");
    }

    #[test]
    fn what_is_printed_can_be_read_as_a_file() {
        let c = file("sim = true\ninstance = \"a\"\nsmtp_url = \"smtps://u@host\"\nmail_from = \"a@b.org\"")
            .unwrap();
        assert_eq!(file(&toml::to_string(&c).unwrap()).unwrap(), c);
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(
            file("listen = \"0.0.0.0:80\"")
                .unwrap_err()
                .to_string()
                .contains("speaks TLS only")
        );
        // Told once is not enough.
        assert!(file("listen = \"0.0.0.0:80\"\nallow_plain_http = true").is_err());
        assert!(
            file("listen = \"0.0.0.0:80\"\nallow_plain_http = true\npasswords_in_the_clear = true").is_ok()
        );
        assert!(file("listen = \"0.0.0.0:80\"\ntls_cert = \"/c\"\ntls_key = \"/k\"").is_ok());
        assert!(
            file("tls_cert = \"/c\"")
                .unwrap_err()
                .to_string()
                .contains("tls_key")
        );
        assert!(file("hsts_seconds = 1").is_err());
        assert!(file("public_url = \"offshoot.example.org\"").is_err());
        assert!(
            file("smtp_url = \"smtps://mail.example.org\"")
                .unwrap_err()
                .to_string()
                .contains("mail_from")
        );
        assert!(
            file("jobs_per_host = 0")
                .unwrap_err()
                .to_string()
                .contains("jobs_per_host")
        );
        assert!(matches!(file("lissen = 1"), Err(ConfigError::Parse { .. })));
        assert!(matches!(
            file("images = [\"a=/x\", \"a=/y\"]"),
            Err(ConfigError::TwiceImage(_))
        ));
        assert!("a".parse::<ImageSource>().is_err() && "A=/x".parse::<ImageSource>().is_err());
    }

    #[test]
    fn a_provider_is_given_whole_or_not_at_all() {
        const WHOLE: &str = "oidc_issuer = \"https://login.example/a\"\noidc_client_id = \"o\"\n\
            oidc_client_secret_file = \"/s\"\noidc_roles = [\"a,b=admin\"]\npublic_url = \"https://c.example\"\n";
        let c = file(WHOLE).unwrap();
        let oidc = c.oidc.clone().unwrap();
        assert_eq!(oidc.scopes, ["openid", "profile", "email"]);
        assert_eq!((oidc.roles[0].group.as_str(), oidc.default_role), ("a,b", None));
        assert_eq!(file(&toml::to_string(&c).unwrap()).unwrap(), c);
        let why = |text: &str| file(text).unwrap_err().to_string();
        for (without, named) in [
            ("oidc_issuer", "without oidc_issuer"),
            ("oidc_client_id", "without oidc_client_id"),
            ("public_url", "without public_url"),
        ] {
            let rest: Vec<_> = WHOLE.lines().filter(|l| !l.starts_with(without)).collect();
            let why = why(&rest.join("\n"));
            assert!(why.contains(named), "{why}");
        }
        assert!(why(&WHOLE.replace("https://login", "http://login")).contains("in the clear"));
        assert!(why(&format!("{WHOLE}oidc_scopes = [\"email\"]")).contains("openid"));
        assert!(file(&WHOLE.replace("https://login.example", "http://127.0.0.1:1")).is_ok());
    }
}
