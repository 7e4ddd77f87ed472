//! A real server in this process, and a client that speaks to it over HTTP.

use crate::Result;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::Method;
use serde_json::Value;
use server::cli::serve::Running;
use server::config::Config;
use server::db;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;

/// A directory on a real disk, for what a measurement makes; `OFFSHOOT_BENCH_DIR` says on which.
pub fn work_dir() -> Result<TempDir> {
    let parent =
        std::env::var_os("OFFSHOOT_BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    // Short: paths of sockets have a limit.
    Ok(tempfile::Builder::new().prefix("offshoot-").tempdir_in(parent)?)
}

/// Has the server's log written, as it is in service, to a file that is not looked at.
pub fn log_to(file: &Path) -> Result<()> {
    let file = Mutex::new(std::fs::File::create(file)?);
    // Set already: by the group before.
    _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(file)
        .try_init();
    Ok(())
}

/// A server that runs.
pub struct Site {
    pub running: Running,
    pub url: String,
    pub token: String,
    client: reqwest::Client,
}

impl Site {
    /// Starts a server, and makes a token of its administrator.
    pub async fn start(mut config: Config) -> Result<Self> {
        // Built beside this: it is what guards forks and converts images.
        config.program = Some(std::env::current_exe()?.with_file_name("offshoot"));
        config.make_data_dir()?;
        // The client below asks for one, though it speaks no TLS.
        server::use_ring();
        log_to(&config.data_dir.join("log"))?;
        let running = Running::start(config).await?;
        let admin = "admin".parse()?;
        let token = running
            .server
            .access
            .token_for(&admin, "bench".parse()?)
            .await?
            .secret;
        Ok(Self {
            url: format!("http://{}", running.address),
            running,
            token,
            client: {
                server::use_ring();
                reqwest::Client::new()
            },
        })
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let response = request.send().await?;
        let (status, url) = (response.status(), response.url().clone());
        let body: Value = response.json().await?;
        if !status.is_success() {
            return Err(format!("{url}: {status}: {body}").into());
        }
        Ok(body)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// PATCH.
    pub async fn patch(&self, path: &str, body: Value) -> Result<Value> {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// Begins to listen to the feed: from now on.
    pub async fn listen(&self) -> Result<Listener> {
        let response = self
            .request(Method::GET, "/api/v1/events")
            .send()
            .await?
            .error_for_status()?;
        let mut listener = Listener {
            bytes: response.bytes_stream().map(|b| b.map(|b| b.to_vec())).boxed(),
            buffer: String::new(),
        };
        // The first sign of life says that it has begun.
        listener.any().await?;
        Ok(listener)
    }

    /// Asks for a job and waits until it is over; it must succeed.
    pub async fn job(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut feed = self.listen().await?;
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let asked = self.send(request).await?;
        let id = job_id(&asked)?.to_owned();
        let job = feed
            .until("job", |job| job["id"] == id.as_str() && !job["endTime"].is_null())
            .await?;
        match job["state"].as_str() {
            Some("SUCCEEDED") => Ok(job),
            _ => Err(format!("{path}: the job did not succeed: {job}").into()),
        }
    }

    /// Ends the server and its machines: nothing runs on.
    pub async fn close(self) -> Result<()> {
        let server = self.running.server.clone();
        self.running.stop().await?;
        let world = server.world();
        for vm in db::vms::ids(&world.db).await? {
            world.hypervisor.kill(vm).await?;
        }
        // Of a restore that was still under way.
        for (_, of) in db::layers::copies(&world.db).await? {
            world.copies.hide(of.show).await?;
        }
        Ok(())
    }
}

/// The id of a job: of the native view, or of the seed's.
pub fn job_id(asked: &Value) -> Result<&str> {
    let id = asked["offshoot"]["id"].as_str().or_else(|| asked["id"].as_str());
    id.ok_or_else(|| format!("no job: {asked}").into())
}

/// The feed, as a client hears it.
pub struct Listener {
    bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffer: String,
}

impl Listener {
    async fn any(&mut self) -> Result<(String, String)> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let text: String = self.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = text.lines().find_map(|l| l.strip_prefix(name));
                    line.unwrap_or_default().to_owned()
                };
                return Ok((field("event: "), field("data: ")));
            }
            let more = self.bytes.next().await.ok_or("the feed has ended")??;
            self.buffer.push_str(std::str::from_utf8(&more)?);
        }
    }

    /// The next event of a noun, as text.
    pub async fn next(&mut self, noun: &str) -> Result<String> {
        loop {
            let (event, data) = self.any().await?;
            if event == noun {
                return Ok(data);
            }
        }
    }

    /// The next event of a noun that is as wanted.
    pub async fn until(&mut self, noun: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let data = serde_json::from_str(&self.next(noun).await?)?;
            if wanted(&data) {
                return Ok(data);
            }
        }
    }
}
