//! TLS: spoken, read again, and asked for beyond loopback.

use crate::site::{name, send};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Certificate, Client};
use server::cli::serve::Running;
use server::config::Config;
use std::path::Path;
use std::time::Duration;

/// Writes a new certificate of its own for this machine; answers it.
fn certify(dir: &Path) -> String {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    // The key first, and each by a name of its own: as those do who renew certificates.
    for (file, text) in [("key.pem", signing_key.serialize_pem()), ("cert.pem", cert.pem())] {
        std::fs::write(dir.join("new"), text).unwrap();
        std::fs::rename(dir.join("new"), dir.join(file)).unwrap();
    }
    cert.pem()
}

fn trusting(pem: &str) -> Client {
    server::use_ring();
    let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
    Client::builder()
        .tls_certs_only([certificate])
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

async fn start(dir: &Path) -> Running {
    let config = Config {
        tls_cert: Some(dir.join("cert.pem")),
        tls_key: Some(dir.join("key.pem")),
        hsts_seconds: 60,
        ..Config::simulated(dir.join("data"))
    };
    Running::start(config).await.unwrap()
}

#[tokio::test]
async fn it_speaks_tls_with_secure_cookies() {
    let dir = tempfile::tempdir().unwrap();
    let client = trusting(&certify(dir.path()));
    let running = start(dir.path()).await;
    let url = format!("https://{}", running.address);
    let health = send(client.get(format!("{url}/healthz"))).await;
    assert_eq!(health.status, 200, "{health:?}");
    assert_eq!(health.header("strict-transport-security"), "max-age=60");
    let link = running.server.access.link(&name("admin")).await.unwrap();
    let signed_in = client
        .post(format!("{url}/welcome/{}", link.expose()))
        .header("origin", &url);
    let signed_in = send(signed_in).await;
    assert_eq!(signed_in.status, 303, "{signed_in:?}");
    assert!(
        signed_in.header("set-cookie").contains("; Secure"),
        "{signed_in:?}"
    );
    // Who does not speak it gets no answer, and keeps nobody waiting.
    assert!(
        reqwest::get(format!("http://{}/healthz", running.address))
            .await
            .is_err()
    );
    let silent = tokio::net::TcpStream::connect(running.address).await.unwrap();
    assert_eq!(send(client.get(format!("{url}/healthz"))).await.status, 200);
    drop(silent);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let old = trusting(&certify(dir.path()));
    let running = start(dir.path()).await;
    let health = format!("https://{}/healthz", running.address);
    let works = |client: Client| {
        let request = client.get(&health);
        async move { request.send().await.is_ok() }
    };
    assert!(works(old.clone()).await);
    // A feed that stands goes on.
    let token = running
        .server
        .access
        .token_for(&name("admin"), name("t"))
        .await
        .unwrap()
        .secret;
    let events = format!("https://{}/api/v1/events", running.address);
    let mut feed = old.get(events).bearer_auth(token).send().await.unwrap();

    std::fs::write(dir.path().join("cert.pem"), "no certificate").unwrap();
    let new = certify(dir.path());
    // Each try is a connection of its own.
    let taken = async {
        while !works(trusting(&new)).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken)
        .await
        .unwrap();
    assert!(feed.chunk().await.unwrap().is_some());

    std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
    for _ in 0..20 {
        assert!(works(trusting(&new)).await, "the one before stays");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_none_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    certify(dir.path());
    certify(other.path());
    let begin = || async {
        let config = Config {
            tls_cert: Some(dir.path().join("cert.pem")),
            tls_key: Some(dir.path().join("key.pem")),
            ..Config::simulated(dir.path().join("data"))
        };
        let failed = Running::start(config).await.err().unwrap();
        server::db::chain(failed.as_ref())
    };
    std::fs::copy(other.path().join("key.pem"), dir.path().join("key.pem")).unwrap();
    let why = begin().await;
    assert!(
        why.contains("cert.pem") && why.contains("cannot be used"),
        "{why}"
    );
    std::fs::remove_file(dir.path().join("cert.pem")).unwrap();
    let why = begin().await;
    assert!(why.contains("cannot read the certificate"), "{why}");
}
