//! What may be set, each by one line: its flag, its variable of the environment, its name in the file.

use super::{AcceleratorChoice, GroupRole, ImageSource, LogFormat, SmtpUrl};
use serde::Deserialize;
use shared::Name;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Makes the struct, and what lays one over another, field by field.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$about:meta])* pub $field:ident: Option<$of:ty>,)* }) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$about])* pub $field: Option<$of>,)*
        }

        impl $name {
            /// These, and those of `then` where these say nothing.
            pub(super) fn or(self, then: Self) -> Self {
                Self {
                    $($field: self.$field.or(then.$field),)*
                }
            }
        }
    };
}

settings! {
    /// What may be set; the same names as flags, in the environment and in the file.
    #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
    #[serde(deny_unknown_fields)]
    pub struct Settings {
        /// Directory of the database, the disks and all else that is kept.
        #[arg(long, env = "OFFSHOOT_DATA_DIR")]
        pub data_dir: Option<PathBuf>,
        /// Address and port to listen on: beyond loopback with TLS, or if told twice that it is meant without.
        #[arg(long, env = "OFFSHOOT_LISTEN")]
        pub listen: Option<SocketAddr>,
        /// Further values of the Host header to answer to, as host or host:port.
        #[arg(long = "allowed-host", env = "OFFSHOOT_ALLOWED_HOSTS", value_delimiter = ',')]
        pub allowed_hosts: Option<Vec<String>>,
        /// Directory of the console's files, with `pkg/` in it.
        #[arg(long, env = "OFFSHOOT_SITE_DIR")]
        pub site_dir: Option<PathBuf>,
        /// Images to register at start.
        #[arg(
            long = "image",
            env = "OFFSHOOT_IMAGES",
            value_delimiter = ',',
            value_name = "NAME=PATH"
        )]
        pub images: Option<Vec<ImageSource>>,
        /// How guests run.
        #[arg(long, env = "OFFSHOOT_ACCELERATOR")]
        pub accelerator: Option<AcceleratorChoice>,
        /// Simulate: no guest is real.
        #[arg(long, env = "OFFSHOOT_SIM", num_args = 0..=1, default_missing_value = "true")]
        pub sim: Option<bool>,
        /// Most jobs at work at once.
        #[arg(long, env = "OFFSHOOT_JOBS_PER_HOST")]
        pub jobs_per_host: Option<u32>,
        /// Most jobs at work at once for one VM.
        #[arg(long, env = "OFFSHOOT_JOBS_PER_VM")]
        pub jobs_per_vm: Option<u32>,
        /// Where the frozen memory of instant clones stands: a directory on tmpfs or a disk. If not given, tmpfs where there is
        /// room, else the data directory.
        #[arg(long, env = "OFFSHOOT_MEMORY_DIR")]
        pub memory_dir: Option<PathBuf>,
        /// How much memory guests may be promised when machines are forked, as a share of the host's: forks share most of it.
        #[arg(long, env = "OFFSHOOT_MEMORY_OVERCOMMIT")]
        pub memory_overcommit: Option<f64>,
        /// How long a process waits for the next fork after a fork point was last forked, in seconds; 0 for no such process.
        #[arg(long, env = "OFFSHOOT_FORKS_READY_SECONDS")]
        pub forks_ready_seconds: Option<u32>,
        /// How many layers a disk may have above the last one that a snapshot or an image names, before they are merged.
        #[arg(long, env = "OFFSHOOT_CHAIN_LENGTH")]
        pub chain_length: Option<u32>,
        /// Directories of this host that images may be imported from, with all that is below them.
        #[arg(
            long = "image-root",
            env = "OFFSHOOT_IMAGE_ROOTS",
            value_delimiter = ',',
            value_name = "DIR"
        )]
        pub image_roots: Option<Vec<PathBuf>>,
        /// Let images be fetched from private, loopback and link-local addresses too.
        #[arg(long, env = "OFFSHOOT_IMAGE_URLS_PRIVATE", num_args = 0..=1, default_missing_value = "true")]
        pub image_urls_private: Option<bool>,
        /// Let notices be posted to private, loopback and link-local addresses too.
        #[arg(long, env = "OFFSHOOT_NOTICE_URLS_PRIVATE", num_args = 0..=1, default_missing_value = "true")]
        pub notice_urls_private: Option<bool>,
        /// The mail server that notices go by: smtps://user:password@host, or smtp://host?tls=required for STARTTLS.
        #[arg(long, env = "OFFSHOOT_SMTP_URL", hide_env_values = true)]
        pub smtp_url: Option<SmtpUrl>,
        /// A file with the password for the mail server, in place of one in smtp_url.
        #[arg(long, env = "OFFSHOOT_SMTP_PASSWORD_FILE")]
        pub smtp_password_file: Option<PathBuf>,
        /// Whom the mail is from, such as `Offshoot <offshoot@example.org>`.
        #[arg(long, env = "OFFSHOOT_MAIL_FROM")]
        pub mail_from: Option<String>,
        /// Largest image, as a file and as a disk, in GiB.
        #[arg(long, env = "OFFSHOOT_IMAGE_MAX_GIB")]
        pub image_max_gib: Option<u32>,
        /// The user that images from outside are converted as, where the server is root.
        #[arg(long, env = "OFFSHOOT_IMAGE_HELPER_USER")]
        pub image_helper_user: Option<String>,
        /// Name of this server among others on the machine: it is in the cookie's name, for cookies ignore ports.
        /// The port if not given.
        #[arg(long, env = "OFFSHOOT_INSTANCE")]
        pub instance: Option<Name>,
        /// The certificate to speak TLS with, and those above it: a PEM file. It is read again when it changes.
        #[arg(long, env = "OFFSHOOT_TLS_CERT")]
        pub tls_cert: Option<PathBuf>,
        /// The certificate's key: a PEM file.
        #[arg(long, env = "OFFSHOOT_TLS_KEY")]
        pub tls_key: Option<PathBuf>,
        /// For how long browsers are told to come by TLS only, in seconds; 0 for not at all, as a certificate of one's own needs it.
        #[arg(long, env = "OFFSHOOT_HSTS_SECONDS")]
        pub hsts_seconds: Option<u32>,
        /// Listen beyond this machine without TLS; needs --passwords-in-the-clear as well.
        #[arg(long, env = "OFFSHOOT_ALLOW_PLAIN_HTTP", num_args = 0..=1, default_missing_value = "true")]
        pub allow_plain_http: Option<bool>,
        /// Yes: whoever is on the network reads passwords, tokens and screens. Together with --allow-plain-http.
        #[arg(long, env = "OFFSHOOT_PASSWORDS_IN_THE_CLEAR", num_args = 0..=1, default_missing_value = "true")]
        pub passwords_in_the_clear: Option<bool>,
        /// The user that the server becomes when root starts it, by name or number; `root` to stay. `offshoot` if there is such a user.
        #[arg(long, env = "OFFSHOOT_RUN_AS")]
        pub run_as: Option<String>,
        /// Where browsers come by, such as https://console.example: for links in notices, and needed for sign-in by OpenID Connect.
        /// Where it listens if not given.
        #[arg(long, env = "OFFSHOOT_PUBLIC_URL")]
        pub public_url: Option<String>,
        /// The OpenID Connect provider that people may sign in by: its address, letter for letter as it names itself.
        #[arg(long, env = "OFFSHOOT_OIDC_ISSUER")]
        pub oidc_issuer: Option<String>,
        /// What the provider calls this server.
        #[arg(long, env = "OFFSHOOT_OIDC_CLIENT_ID")]
        pub oidc_client_id: Option<String>,
        /// The file with the secret that the provider shares with this server; none for a public client.
        #[arg(long, env = "OFFSHOOT_OIDC_CLIENT_SECRET_FILE")]
        pub oidc_client_secret_file: Option<PathBuf>,
        /// What the provider is asked for.
        #[arg(long = "oidc-scope", env = "OFFSHOOT_OIDC_SCOPES", value_delimiter = ',')]
        pub oidc_scopes: Option<Vec<String>>,
        /// The claim that is the name of somebody who comes for the first time.
        #[arg(long, env = "OFFSHOOT_OIDC_NAME_CLAIM")]
        pub oidc_name_claim: Option<String>,
        /// The claim that has somebody's groups.
        #[arg(long, env = "OFFSHOOT_OIDC_GROUPS_CLAIM")]
        pub oidc_groups_claim: Option<String>,
        /// Roles on everything for groups of the provider; a group with a comma in its name is given in the file.
        #[arg(
            long = "oidc-role",
            env = "OFFSHOOT_OIDC_ROLES",
            value_delimiter = ',',
            value_name = "GROUP=ROLE"
        )]
        pub oidc_roles: Option<Vec<GroupRole>>,
        /// The role of those whose groups give none; they are refused if not given.
        #[arg(long, env = "OFFSHOOT_OIDC_DEFAULT_ROLE")]
        pub oidc_default_role: Option<Name>,
        /// The text of the button that leads to the provider.
        #[arg(long, env = "OFFSHOOT_OIDC_LABEL")]
        pub oidc_label: Option<String>,
        /// How long it is kept who did what, in days.
        #[arg(long, env = "OFFSHOOT_AUDIT_DAYS")]
        pub audit_days: Option<u32>,
        /// How log lines look.
        #[arg(long, env = "OFFSHOOT_LOG_FORMAT")]
        pub log_format: Option<LogFormat>,
        /// Which log lines there are, such as `info` or `server=debug,sqlx=warn`.
        #[arg(long, env = "OFFSHOOT_LOG")]
        pub log: Option<String>,
    }
}
