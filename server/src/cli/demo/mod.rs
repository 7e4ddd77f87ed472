//! `offshoot demo`: clones a running guest while it goes on, and shows it in the browser.
//!
//! It starts the server in this process and then speaks to its API as any client does. Only the counter of the source
//! is read beside it, on the serial log: so its times are those at which the lines arrived.

mod copies;
mod migrate;
mod report;
mod show;
mod ticks;

use super::client::http::Client;
use super::serve::{Running, link_url};
use super::{Failure, client, doctor, say};
use crate::config::{Config, ConfigArgs};
use shared::Name;
use shared::api::DeleteToken;
use show::Show;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// `offshoot demo`
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Switch everything off when it is done; succeed only if all of it held.
    #[arg(long)]
    once: bool,
    /// Print the result as one JSON object, the last thing on standard output.
    #[arg(long)]
    json: bool,
    /// Carry the machine over in the end: cycles, a test clone, a cutover, and what it kept removed.
    #[arg(long)]
    migrate: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Says how it goes, on standard error.
fn tell(line: impl Display) {
    // There is nobody left to tell if standard error is closed.
    _ = writeln!(std::io::stderr(), "{line}");
}

/// Ctrl-C, or the end of the terminal, or a polite kill.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        let [a, b, c] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal);
        Ok(Self([a?, b?, c?]))
    }

    async fn next(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}

/// Runs it.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let mut interrupts = Interrupts::new()?;
    let config = args.config.load()?;
    // Before anything is made: it says who is in the way.
    free(&config)?;
    doctor::refuse(&config).await?;
    config.make_data_dir()?;
    let log = log_to_file(&config)?;
    let data_dir = config.data_dir.clone();
    let running = Running::start(config).await?;
    tell(format_args!(
        "server on http://{}, its log is {log}",
        running.address
    ));

    let admin: Name = "admin".parse()?;
    let token = running.server.access.token_for(&admin, token_name()?).await?;
    let client = Client::new(&format!("http://{}", running.address), Some(&token.secret))?;
    let hypervisor = running.server.world().hypervisor.clone();
    let mut show = Show::new(&client, hypervisor, start, args.migrate);
    let shown = tokio::select! {
        shown = show.run(&data_dir) => shown.map(|()| true),
        () = interrupts.next() => Ok(false),
    };
    let finished = matches!(shown, Ok(true));
    let mut failure = match shown {
        Ok(true) => show.held().err(),
        Ok(false) => Some("interrupted".into()),
        Err(e) => Some(e),
    };
    if finished && !args.once {
        let link = link_url(
            &running.server.config,
            running.address,
            &running.server.access.link(&admin).await?,
        );
        let report = format!(
            "{}\n\nSign in, once, by this link: {link}\nCtrl-C ends it.",
            show.report()
        );
        if args.json {
            tell(&report);
            say(show.json(failure.is_none(), start.elapsed())?)?;
        } else {
            say(&report)?;
        }
        interrupts.next().await;
    }

    tell("switching the machines off");
    let off = tokio::select! {
        off = async {
            client::power::all_off(&client).await?;
            client.call(&DeleteToken { id: token.token.id.to_string() }).await
        } => off,
        () = interrupts.next() => return Err("left at once: machines may still run; the next start finds them".into()),
    };
    running.stop().await?;
    failure = failure.or(off.err().map(Failure::from));
    if args.once {
        if finished && !args.json {
            say(show.report())?;
        }
        if args.json {
            if finished {
                tell(show.report());
            }
            say(show.json(failure.is_none(), start.elapsed())?)?;
        }
    }
    failure.map_or(Ok(()), Err)
}

fn token_name() -> Result<Name, shared::NameError> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("demo-{}", &id[..8]).parse()
}

/// Fails, with what to do, if the address is taken.
fn free(config: &Config) -> Result<(), Failure> {
    match std::net::TcpListener::bind(config.listen) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(format!(
            "{} is taken by another program, perhaps by a demo that still runs: end that one, or take another port \
             with --listen 127.0.0.1:PORT (make demo ARGS=\"--listen 127.0.0.1:PORT\")",
            config.listen
        )
        .into()),
        // Whatever else is wrong the server says better.
        _ => Ok(()),
    }
}

/// Sends the server's log to a file, whose path is returned: the terminal is for the demo.
fn log_to_file(config: &Config) -> Result<impl Display + use<>, Failure> {
    let path = config.data_dir.join("server.log");
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.log)?)
        .with_writer(file)
        .with_ansi(false)
        .try_init()?;
    Ok(path.display().to_string())
}
