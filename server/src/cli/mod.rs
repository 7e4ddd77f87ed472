//! The command line.

pub mod access;
mod backup;
mod client;
mod demo;
mod doctor;
mod manual;
pub mod run_as;
pub mod serve;

use crate::config::{Config, ConfigArgs, LogFormat};
use clap::{CommandFactory, Parser, Subcommand};
use client::Api;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Clones, forks and snapshots of virtual machines on QEMU, with a console.
#[derive(Parser)]
#[command(name = "offshoot", version, after_help = client::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server.
    Serve(ConfigArgs),
    /// Prints the configuration that the server would run with.
    Config(ConfigArgs),
    /// Users: some commands work on the data directory, also while the server runs, the others on the server that OFFSHOOT_URL names.
    #[command(subcommand)]
    User(access::UserCommand),
    /// API tokens: `create` works on the data directory, also while the server runs.
    #[command(subcommand)]
    Token(access::TokenCommand),
    /// Roles, on the server that OFFSHOOT_URL names.
    Role(Ask<client::people::RoleCommand>),
    /// Who is signed in from where, on the server that OFFSHOOT_URL names.
    Session(Ask<client::people::SessionCommand>),
    /// Who did what, and what was refused, on the server that OFFSHOOT_URL names.
    Audit(Ask<client::audit::AuditCommand>),
    /// Writes a copy of the database to a new file, also while the server runs.
    Backup(backup::Args),
    /// Has the server's next start take a copy of `offshoot backup` in its database's place.
    Restore(backup::Args),
    /// Who is told of jobs that fail, on the server that OFFSHOOT_URL names.
    Notice(Ask<client::notice::NoticeCommand>),
    /// Says what this machine lacks to run guests, and how to get it.
    Doctor(doctor::DoctorArgs),
    /// Clones a running guest while it goes on, and shows it in the browser.
    Demo(demo::DemoArgs),
    /// Machines, on the server that OFFSHOOT_URL names.
    Vm(Ask<client::vm::VmCommand>),
    /// Snapshots, on the server that OFFSHOOT_URL names.
    Snapshot(Ask<client::snapshot::SnapshotCommand>),
    /// Clones, on the server that OFFSHOOT_URL names.
    Clone(Ask<client::clone::CloneCommand>),
    /// Forks a running machine, memory and disks, on the server that OFFSHOOT_URL names.
    Fork(AskArgs<client::fork::Fork>),
    /// Fork points, on the server that OFFSHOOT_URL names.
    ForkPoint(Ask<client::fork::PointCommand>),
    /// Watches over the source of a fork; the server runs this itself.
    #[command(hide = true)]
    Guard {
        /// The monitor of the source.
        monitor: std::path::PathBuf,
        /// The source, for those who look at the list of processes.
        vm: shared::VmId,
    },
    /// Places that copies go to, on the server that OFFSHOOT_URL names.
    Target(Ask<client::target::TargetCommand>),
    /// Copies of snapshots at targets, on the server that OFFSHOOT_URL names.
    Copy(Ask<client::copy::CopyCommand>),
    /// Policies: when copies are made, and which are kept; on the server that OFFSHOOT_URL names.
    Policy(Ask<client::policy::PolicyCommand>),
    /// Where machines live that are carried over, on the server that OFFSHOOT_URL names.
    Source(Ask<client::source::SourceCommand>),
    /// Machines that are carried over from a source, on the server that OFFSHOOT_URL names.
    Migration(Ask<client::migration::MigrationCommand>),
    /// Hosts, on the server that OFFSHOOT_URL names.
    Host(Ask<client::place::HostCommand>),
    /// Storages, on the server that OFFSHOOT_URL names.
    Storage(Ask<client::place::StorageCommand>),
    /// Networks, on the server that OFFSHOOT_URL names.
    Network(Ask<client::place::NetworkCommand>),
    /// Is the switch of an isolated network; the server runs this itself.
    #[command(hide = true)]
    Switch {
        /// The directory that has the ends of the network.
        network: std::path::PathBuf,
    },
    /// Shows the disks of a copy in the vault to machines; the server runs this itself.
    #[command(hide = true)]
    NbdServer {
        /// Where it listens, for those who look at the list of processes.
        socket: std::path::PathBuf,
    },
    /// Images, on the server that OFFSHOOT_URL names.
    Image(Ask<client::image::ImageCommand>),
    /// Converts an image from outside, shut in; the server runs this itself.
    #[command(hide = true)]
    ImageHelper(crate::disks::helper::HelperArgs),
    /// Reads the files of a copy, shut in; the server runs this itself.
    #[command(hide = true)]
    FilesHelper(guestfs::helper::HelperArgs),
    /// Prints what completes commands in a shell, such as for `source <(offshoot completion bash)`.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes the manual's pages into a directory, one for each command.
    Man {
        /// The directory; it is made if it is not there.
        dir: std::path::PathBuf,
    },
    /// Jobs, on the server that OFFSHOOT_URL names.
    Job(Ask<client::job::JobCommand>),
}

/// A command that speaks to a server.
#[derive(clap::Args)]
struct Ask<C: Subcommand> {
    #[command(flatten)]
    api: Api,
    #[command(subcommand)]
    command: C,
}

/// A command without subcommands that speaks to a server.
#[derive(clap::Args)]
struct AskArgs<A: clap::Args> {
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    args: A,
}

/// What a command fails with: said once, with its causes, on standard error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|e| refuse(e));
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has had enough.
        Err(e) if broken_pipe(e.as_ref()) => ExitCode::SUCCESS,
        Err(e) => {
            // There is nobody left to tell if standard error is closed.
            _ = writeln!(std::io::stderr(), "error: {}", crate::db::chain(e.as_ref()));
            client::exit_code(e.as_ref()).into()
        }
    }
}

/// Says what is wrong with the command line, and ends.
fn refuse(e: clap::Error) -> ! {
    // What the environment says would stand there as if it had to be typed.
    fn typed(command: clap::Command) -> clap::Command {
        let hide = |arg: clap::Arg| match arg.get_env() {
            Some(_) => arg.hide(true),
            None => arg,
        };
        command.mut_args(hide).mut_subcommands(typed)
    }
    if e.use_stderr()
        && let Err(e) = typed(Cli::command()).try_get_matches()
    {
        e.exit();
    }
    e.exit()
}

fn broken_pipe(e: &(dyn std::error::Error + 'static)) -> bool {
    e.downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(command: Command) -> Result<(), Failure> {
    // Before there is a second thread.
    if let Command::ImageHelper(args) = command {
        return crate::disks::helper::run(args);
    }
    if let Command::FilesHelper(args) = command {
        return guestfs::helper::run(args);
    }
    // A server leaves root while the process has one thread: before there is a runtime.
    let begun = match &command {
        Command::Serve(args) => {
            // Disks, memory and secrets are nobody else's, whatever directory they were told to be in.
            rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
            Some(begin(args.clone().load()?)?)
        }
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        if let Some((config, taken)) = begun {
            return serve::run(config, taken).await;
        }
        match command {
            Command::Serve(_) => Ok(()),
            Command::Config(args) => Ok(say(toml::to_string(&args.load()?)?.trim_end())?),
            Command::User(command) => command.run().await,
            Command::Token(command) => command.run().await,
            Command::Role(ask) => ask.command.run(&ask.api).await,
            Command::Session(ask) => ask.command.run(&ask.api).await,
            Command::Audit(ask) => ask.command.run(&ask.api).await,
            Command::Backup(args) => backup::backup(args).await,
            Command::Restore(args) => backup::restore(args).await,
            Command::Completion { shell } => manual::completion(shell),
            Command::Man { dir } => manual::pages(&dir),
            Command::Notice(ask) => ask.command.run(&ask.api).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Vm(ask) => ask.command.run(&ask.api).await,
            Command::Snapshot(ask) => ask.command.run(&ask.api).await,
            Command::Clone(ask) => ask.command.run(&ask.api).await,
            Command::Fork(ask) => ask.args.run(&ask.api).await,
            Command::ForkPoint(ask) => ask.command.run(&ask.api).await,
            Command::Guard { monitor, .. } => Ok(crate::hypervisor::qemu::guard(&monitor).await?),
            Command::Target(ask) => ask.command.run(&ask.api).await,
            Command::Copy(ask) => ask.command.run(&ask.api).await,
            Command::Policy(ask) => ask.command.run(&ask.api).await,
            Command::Source(ask) => ask.command.run(&ask.api).await,
            Command::Migration(ask) => ask.command.run(&ask.api).await,
            Command::Host(ask) => ask.command.run(&ask.api).await,
            Command::Storage(ask) => ask.command.run(&ask.api).await,
            Command::Network(ask) => ask.command.run(&ask.api).await,
            Command::Switch { network } => Ok(crate::hypervisor::qemu::switch(&network).await?),
            Command::NbdServer { .. } => {
                log_to_stderr(LogFormat::Text, "info")?;
                Ok(crate::nbd::run().await?)
            }
            Command::Image(ask) => ask.command.run(&ask.api).await,
            Command::ImageHelper(args) => crate::disks::helper::run(args),
            Command::FilesHelper(args) => guestfs::helper::run(args),
            Command::Job(ask) => ask.command.run(&ask.api).await,
        }
    });
    // A thread that waits for a disk that does not answer is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

/// What a server does first: it takes what needs root, and then leaves root.
fn begin(config: Config) -> Result<(Config, serve::Taken), Failure> {
    log_to_stderr(config.log_format, &config.log)?;
    let plan = run_as::plan(&config)?;
    let taken = serve::Taken::new(&config)?;
    match plan {
        run_as::Plan::Stay => {}
        run_as::Plan::NobodyToBecome => tracing::warn!(
            "the server and all guests run as root: `useradd --system --groups kvm offshoot` adds the user that it would run as"
        ),
        run_as::Plan::Become(who) => {
            who.take_over(&config)?;
            tracing::info!(user = who.name(), "root is left");
        }
    }
    Ok((config, taken))
}

/// Prints a line on standard output.
pub fn say(line: impl std::fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Sends log lines to standard error.
pub fn log_to_stderr(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log = {filter:?}: {e}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    }
}
