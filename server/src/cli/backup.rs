//! `offshoot backup` and `offshoot restore`: the database of the data directory, also while the server runs.

use super::{Failure, say};
use crate::config::ConfigArgs;
use crate::db::backup;
use std::path::PathBuf;

/// A back-up, and where the database is.
#[derive(clap::Args)]
pub struct Args {
    /// The file.
    file: PathBuf,
    /// Where the database is.
    #[command(flatten)]
    config: ConfigArgs,
}

/// Writes a copy of the database to a new file.
pub async fn backup(args: Args) -> Result<(), Failure> {
    let config = args.config.load()?;
    let bytes = backup::make(&config.database(), &args.file).await?;
    Ok(say(format!("{}: {bytes} bytes", args.file.display()))?)
}

/// Has the next start take a copy in the database's place.
pub async fn restore(args: Args) -> Result<(), Failure> {
    let config = args.config.load()?;
    config.make_data_dir()?;
    backup::restore(&config.database(), &args.file).await?;
    say(
        "The back-up is whole, and is taken at the server's next start: start it, or start it again. Machines run on meanwhile.",
    )?;
    Ok(say(
        "What was snapshotted, merged or deleted since the back-up is not in it: the server's log will say which layers it misses.",
    )?)
}
