//! The program as its user starts it: `serve`, and the commands beside it.

use crate::site::{client, send};
use reqwest::Client;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const OFFSHOOT: &str = env!("CARGO_BIN_EXE_offshoot");

pub fn offshoot(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(OFFSHOOT);
    command.args(args).arg("--data-dir").arg(dir);
    command
        .env_remove("OFFSHOOT_TOKEN")
        .env("OFFSHOOT_LISTEN", "127.0.0.1:0");
    command
}

/// A server of its own process, ended with the test.
pub struct Served(pub Child, pub String, pub BufReader<std::process::ChildStderr>);

impl Served {
    fn start(dir: &Path) -> Self {
        Self::with(dir, &[])
    }

    /// With further arguments.
    pub fn with(dir: &Path, more: &[&str]) -> Self {
        let mut command = offshoot(dir, &["serve", "--sim", "--log-format", "json"]);
        command.args(more);
        Self::run(command)
    }

    /// By a command that logs in JSON.
    pub fn run(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the server ended before it listened"
            );
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["fields"]["message"] == "listening" {
                break line["fields"]["address"].as_str().unwrap().to_owned();
            }
        };
        Self(child, format!("http://{address}"), log)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Has ended already where the test got so far.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .trim()
        .to_owned()
}

#[tokio::test]
async fn users_and_tokens_are_made_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(dir.path());
    let run = |args: &[&str]| text(&offshoot(dir.path(), args).output().unwrap());
    let client: Client = client();

    let link = run(&["user", "add", "eve"]);
    let path = &link[link.find("/welcome/").unwrap()..];
    let origin = client
        .post(format!("{}{path}", served.1))
        .header("origin", &served.1);
    let answer = send(origin).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/"),
        "{answer:?}"
    );

    let token = run(&["token", "create", "ci", "--user", "eve"]);
    let me = send(client.get(format!("{}/api/v1/me", served.1)).bearer_auth(&token)).await;
    assert_eq!(me.json()["user"]["name"], "eve");

    let again = offshoot(dir.path(), &["user", "add", "eve"]).output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("there is a user called eve already"));

    // One server for one directory; the second names the first.
    let second = offshoot(dir.path(), &["serve", "--sim"]).output().unwrap();
    assert!(!second.status.success());
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains(&format!("pid {}", served.0.id())), "{why}");

    // SIGTERM ends the feed, then the server, well.
    let feed = client
        .get(format!("{}/api/v1/events", served.1))
        .bearer_auth(&token);
    let feed = feed.send().await.unwrap();
    let pid = rustix::process::Pid::from_child(&served.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(feed.text().await.unwrap().contains("event: alive"));
    assert!(served.0.wait().unwrap().success());
    for line in (&mut served.2).lines() {
        let line = line.unwrap();
        assert!(
            !line.contains(&token) && !line.contains(path),
            "a secret in the log: {line}"
        );
    }
}

#[test]
fn it_listens_on_loopback_only_and_prints_what_it_runs_with() {
    let dir = tempfile::tempdir().unwrap();
    let refused = offshoot(dir.path(), &["serve", "--listen", "0.0.0.0:8080"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("speaks TLS only"));
    let config = text(
        &offshoot(dir.path(), &["config", "--jobs-per-vm", "3"])
            .output()
            .unwrap(),
    );
    assert!(
        config.contains("jobs_per_vm = 3") && config.contains("data_dir"),
        "{config}"
    );
}
