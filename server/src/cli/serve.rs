//! `offshoot serve`, and the server as something that can be started and stopped.

use super::{Failure, say};
use crate::access::secret::Secret;
use crate::access::{Access, audit};
use crate::config::{AcceleratorChoice, Config, DataDirLock};
use crate::db::{Db, backup};
use crate::http::audit::Peer;
use crate::http::tls::{Prompt, Tls, TlsListener};
use crate::http::{Doors, Server};
use crate::jobs::Jobs;
use crate::jobs::queue::Limits;
use crate::jobs::spares::Spares;
use crate::jobs::world::{Machines, World};
use crate::notices::Notices;
use crate::notices::mail::Mail;
use crate::oidc::{ClientSecret, Provider};
use shared::place::Accelerator;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// How long open connections may take to finish when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is taken while the server may still be root: the port, and what is secret.
pub struct Taken {
    listener: std::net::TcpListener,
    tls: Option<Tls>,
    mail: Option<Mail>,
    client_secret: Option<ClientSecret>,
}

impl Taken {
    /// Takes all of it.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let failed = |e| format!("cannot listen on {}: {e}", config.listen);
        let listener = std::net::TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(Tls::load(cert, key)?),
            _ => None,
        };
        let secret_file = config.oidc.as_ref().and_then(|o| o.client_secret_file.as_deref());
        Ok(Self {
            listener,
            tls,
            mail: Mail::new(config)?,
            client_secret: secret_file.map(ClientSecret::read).transpose()?,
        })
    }
}

/// A server that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The server.
    pub server: Server,
    /// The administrator's one-time link, on the first start only.
    pub first_link: Option<Secret>,
    listener: JoinHandle<std::io::Result<()>>,
    beside: tokio::task::JoinSet<()>,
    _lock: DataDirLock,
}

/// The address of a one-time link.
pub fn link_url(config: &Config, address: SocketAddr, link: &Secret) -> String {
    format!("{}://{address}/welcome/{}", config.scheme(), link.expose())
}

impl Running {
    /// Takes the data directory, opens the database, and listens.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        let taken = Taken::new(&config)?;
        Self::with(config, taken).await
    }

    /// Takes the data directory, opens the database, and answers on what was taken.
    pub async fn with(config: Config, taken: Taken) -> Result<Self, Failure> {
        crate::use_ring();
        let lock = DataDirLock::take(&config)?;
        let listener = TcpListener::from_std(taken.listener)?;
        let address = listener.local_addr()?;
        let before = backup::take_restored(&config.database())?;
        let db = Db::open(&config.database()).await?;
        let access = Access::new(db.clone());
        let (private, public_url) = (config.notice_urls_private, config.public_url(address));
        let notices = Notices::new(db.clone(), private, taken.mail, public_url)?;
        let first_link = access.first_start().await?;
        let machines = match (config.sim, config.accelerator) {
            (true, _) => Machines::Simulated,
            (false, AcceleratorChoice::Auto) => Machines::Real(None),
            (false, AcceleratorChoice::Kvm) => Machines::Real(Some(Accelerator::Kvm)),
            (false, AcceleratorChoice::Tcg) => Machines::Real(Some(Accelerator::Tcg)),
        };
        let program = match &config.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|e| format!("cannot find the program that runs: {e}"))?,
        };
        let mut world = World::open(&config.data_dir, db, machines, &program).await?;
        if let Some(before) = before {
            tracing::warn!(before = %before.display(), "a back-up was taken in the database's place; what was there is kept");
            for layer in world.missing_layers().await? {
                tracing::warn!(%layer, "the back-up knows a layer whose file is not there: what stands on it cannot start");
            }
        }
        world.memory_dir.clone_from(&config.memory_dir);
        world.memory_overcommit = config.memory_overcommit;
        world.chain_length = config.chain_length as usize;
        world.images.roots.clone_from(&config.image_roots);
        world.images.urls_private = config.image_urls_private;
        world.images.most = u64::from(config.image_max_gib) << 30;
        world.images.helper.user.clone_from(&config.image_helper_user);
        let patience = Duration::from_secs(config.forks_ready_seconds.into());
        world.spares = Spares::new(world.hypervisor.clone(), patience);
        for image in &config.images {
            world.register_image(&image.name, &image.path).await?;
        }
        let limits = Limits {
            per_host: config.jobs_per_host as usize,
            per_vm: config.jobs_per_vm as usize,
        };
        let jobs = Jobs::start(world, limits, None).await?;
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(audit::keep_pruned(access.clone(), config.audit_days));
        beside.spawn(notices.clone().deliver());
        let oidc = match (&config.oidc, &config.public_url) {
            (Some(oidc), Some(public_url)) => {
                Some(Provider::new(oidc.clone(), taken.client_secret, public_url)?)
            }
            _ => None,
        };
        let doors = Doors { access, oidc };
        let server = Server::new(config, jobs, doors, notices, address);
        let stop = server.stop.clone().cancelled_owned();
        let router = server.router().into_make_service_with_connect_info::<Peer>();
        let listener = match taken.tls {
            None => tokio::spawn(
                axum::serve(Prompt(listener), router)
                    .with_graceful_shutdown(stop)
                    .into_future(),
            ),
            Some(tls) => {
                let listener = TlsListener::new(listener, tls.clone())?;
                beside.spawn(async move {
                    if let Err(e) = tls.follow().await {
                        let error = crate::db::chain(&e);
                        tracing::error!(
                            error,
                            "new certificates are not taken: start the server again for them"
                        );
                    }
                });
                tokio::spawn(
                    axum::serve(listener, router)
                        .with_graceful_shutdown(stop)
                        .into_future(),
                )
            }
        };
        tracing::info!(%address, "listening");
        Ok(Self {
            address,
            server,
            first_link,
            listener,
            beside,
            _lock: lock,
        })
    }

    /// Stops: the feeds and those who look at consoles end first, then what is being answered is finished, then the jobs are left where they are for
    /// the next start.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.server.stop.cancel();
        self.beside.abort_all();
        let abort = self.listener.abort_handle();
        match tokio::time::timeout(PATIENCE, self.listener).await {
            Ok(ended) => ended??,
            Err(_) => {
                tracing::warn!("connections are still open and are cut");
                abort.abort();
            }
        }
        let viewers = &self.server.consoles.viewers;
        viewers.close();
        if tokio::time::timeout(PATIENCE, viewers.wait()).await.is_err() {
            tracing::warn!("somebody still looks at a console and is cut off");
        }
        self.server.jobs.stop().await;
        Ok(())
    }
}

/// Runs the server until SIGTERM or SIGINT.
pub async fn run(config: Config, taken: Taken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = Running::with(config, taken).await?;
    if let Some(link) = &running.first_link {
        say("This server has no users yet. Sign in as admin, once, by this link:")?;
        say(link_url(&running.server.config, running.address, link))?;
    }
    let mut running = running;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        ended = &mut running.listener => {
            ended??;
            return Err("the listener has ended by itself".into());
        }
    }
    running.stop().await
}
