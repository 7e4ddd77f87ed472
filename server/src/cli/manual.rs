//! What shells and `man` know of the command line.

use super::{Cli, Failure};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;
use std::path::Path;

/// Prints a shell's completion.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "offshoot", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// Writes the manual's pages into a directory, one for each command.
pub fn pages(dir: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|e| format!("cannot write the manual's pages to {}: {e}", dir.display()).into())
}
