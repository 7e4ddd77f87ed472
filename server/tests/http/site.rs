//! A server on a directory and a port of its own.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, redirect};
use serde_json::Value;
use server::cli::serve::Running;
use server::config::Config;
use shared::Name;
use tempfile::TempDir;

pub struct Site {
    pub running: Running,
    pub client: Client,
    pub token: String,
    dir: TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The error's status word, after a look at its shape.
    pub fn error(&self) -> String {
        let error = &self.json()["error"];
        assert_eq!(error["code"], self.status, "{self:?}");
        assert_eq!(error["traceId"], self.header("x-request-id"), "{self:?}");
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 5), "{self:?}");
        error["status"].as_str().unwrap().to_owned()
    }

    /// The field that the error names.
    pub fn field(&self) -> String {
        assert_eq!(
            (self.status, self.error().as_str()),
            (400, "INVALID_ARGUMENT"),
            "{self:?}"
        );
        let field = &self.json()["error"]["details"][0]["fieldViolations"][0]["field"];
        field.as_str().unwrap().to_owned()
    }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn client() -> Client {
    server::use_ring();
    Client::builder()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap()
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

impl Site {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: TempDir) -> Self {
        let config = Config::simulated(dir.path());
        Self::start_with(dir, config).await
    }

    /// One that is configured so.
    pub async fn start_with(dir: TempDir, config: Config) -> Self {
        let running = Running::start(config).await.unwrap();
        let names = uuid::Uuid::new_v4().simple().to_string();
        let token = running
            .server
            .access
            .token_for(&name("admin"), name(&format!("t{}", &names[..8])))
            .await
            .unwrap();
        Self {
            running,
            client: client(),
            token: token.secret,
            dir,
        }
    }

    /// The same directory after a stop and a start.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    /// The same, configured so from then on.
    pub async fn restart_with(self, more: impl FnOnce(&mut Config)) -> Self {
        self.running.stop().await.unwrap();
        let mut config = Config::simulated(self.dir.path());
        more(&mut config);
        Self::start_with(self.dir, config).await
    }

    /// Stops it; answers its directory. For those tests alone that share this file.
    #[allow(dead_code)]
    pub async fn stop(self) -> TempDir {
        self.running.stop().await.unwrap();
        self.dir
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.address)
    }

    /// A request without credentials.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    /// Another user with a token, and a role on everything or none.
    pub async fn user(&self, who: &str, role: Option<&str>) -> String {
        let access = &self.running.server.access;
        access.add_user(name(who), None, role.map(name)).await.unwrap();
        access.token_for(&name(who), name("tests")).await.unwrap().secret
    }

    /// A request with somebody's token.
    pub async fn by(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.bare(method, path).bearer_auth(token);
        send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// Makes a machine, and waits for it.
    pub async fn machine(&self, vm: &str) -> String {
        let body = serde_json::json!({"name": vm, "cpus": 1, "memoryMib": 128, "disks": [{"sizeGib": 1}], "start": false});
        let made = self.post("/api/v1/vms", body).await;
        assert_eq!(made.status, 202, "{made:?}");
        self.ended(made.json()["id"].as_str().unwrap()).await;
        let vm = self.get(&format!("/api/v1/vms/{vm}")).await.json();
        vm["id"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a job, by what the database tells.
    pub async fn ended(&self, job: &str) -> Value {
        let mut changes = self.running.server.world().db.subscribe();
        let wait = async {
            loop {
                let now = self.get(&format!("/api/v1/jobs/{job}")).await.json();
                if now.get("endTime").is_some() {
                    return now;
                }
                // Lagging behind is no loss: it is asked again.
                drop(changes.recv().await);
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), wait)
            .await
            .unwrap()
    }

    /// Signs the administrator in by a link; answers the cookie.
    pub async fn sign_in(&self) -> String {
        self.sign_in_as("admin").await
    }

    /// Signs somebody in by a link; answers the cookie.
    pub async fn sign_in_as(&self, who: &str) -> String {
        let link = self.running.server.access.link(&name(who)).await.unwrap();
        let request = self
            .bare(Method::POST, &format!("/welcome/{}", link.expose()))
            .header("origin", self.url(""));
        let answer = send(request).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, "/"),
            "{answer:?}"
        );
        cookie(&answer)
    }
}

/// The cookie that an answer sets, as a request sends it.
pub fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

/// A request with the fields of a form.
pub fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(serde_urlencoded::to_string(fields).unwrap())
}
