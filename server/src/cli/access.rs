//! `offshoot user` and `offshoot token`: on the database of the data directory, also while the server runs; and those of
//! them that speak to a server.

use super::{Failure, client, say};
use crate::access::Access;
use crate::config::{Config, ConfigArgs};
use crate::db::{Db, now};
use clap::Subcommand;
use shared::Name;
use shared::access::CreateToken;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// `offshoot user …`
#[derive(Subcommand)]
pub enum UserCommand {
    /// Those that speak to a server.
    #[command(flatten)]
    Ask(client::people::UserCommand),
    /// Adds a user, and prints a one-time link to sign in with.
    Add {
        /// The name to sign in with.
        name: Name,
        /// Read a password from standard input instead.
        #[arg(long)]
        password_stdin: bool,
        /// A role on everything: viewer, operator, admin or one of your own.
        #[arg(long, default_value = "viewer")]
        role: Name,
        /// Where the database is.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Sets a user's password, read from standard input; the user's sessions end.
    Passwd {
        /// The user.
        name: Name,
        /// Where the database is.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Asks a user for no second factor any more: for those who have lost it.
    ResetTwoFactor {
        /// The user.
        name: Name,
        /// Where the database is.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Prints a one-time link that signs a user in; it is good for a day.
    Link {
        /// The user.
        name: Name,
        /// Where the database is.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// `offshoot token …`
#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
pub enum TokenCommand {
    /// Those that speak to a server.
    #[command(flatten)]
    Ask(client::people::TokenCommand),
    /// Makes a token and prints it, this once.
    Create {
        /// What it is for.
        name: Name,
        /// Whose it is.
        #[arg(long, default_value = "admin")]
        user: Name,
        /// A role to confine it to; it may do all that the user may if not given.
        #[arg(long)]
        role: Option<Name>,
        /// After how many days it ends by itself; never if not given.
        #[arg(long)]
        days: Option<u32>,
        /// Where the database is.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

async fn open(config: ConfigArgs) -> Result<(Config, Access), Failure> {
    let config = config.load()?;
    config.make_data_dir()?;
    let db = Db::open(&config.database()).await?;
    Ok((config, Access::new(db)))
}

impl UserCommand {
    /// Runs it.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ask(command) => command.run().await?,
            Self::Add {
                name,
                password_stdin,
                role,
                config,
            } => {
                let (config, access) = open(config).await?;
                let password = if password_stdin {
                    Some(read_password()?)
                } else {
                    None
                };
                let with_link = password.is_none();
                let user = access.add_user(name, password, Some(role)).await?;
                if with_link {
                    let link = access.link(&user.name).await?;
                    say(super::serve::link_url(&config, config.listen, &link))?;
                }
            }
            Self::Passwd { name, config } => {
                let (_, access) = open(config).await?;
                access.reset_password(&name, read_password()?).await?;
            }
            Self::ResetTwoFactor { name, config } => {
                let (_, access) = open(config).await?;
                access.forget_two_factor(&name).await?;
            }
            Self::Link { name, config } => {
                let (config, access) = open(config).await?;
                let link = access.link(&name).await?;
                say(super::serve::link_url(&config, config.listen, &link))?;
            }
        }
        Ok(())
    }
}

impl TokenCommand {
    /// Runs it.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ask(command) => command.run().await?,
            Self::Create {
                name,
                user,
                role,
                days,
                config,
            } => {
                let (_, access) = open(config).await?;
                let request = CreateToken {
                    name,
                    role,
                    expire_time: days.map(|days| now().plus_micros(i64::from(days) * DAY_MICROS)),
                };
                say(access.confined_token_for(&user, request).await?.secret)?;
            }
        }
        Ok(())
    }
}

/// One line of standard input; on a terminal it asks, and does not show what is typed.
pub(super) fn read_password() -> Result<String, Failure> {
    Ok(client::secret::ask("Password")?)
}
