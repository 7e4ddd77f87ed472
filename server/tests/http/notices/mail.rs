//! Notices by mail, to a mail server that is asked by SMTP.

use super::smtp::{Smtp, Tls};
use super::{channel_when, delivered, failed_job, notices, site_with, tried};
use crate::commands::{Served, offshoot};
use crate::site::{Site, client, send};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use server::config::Config;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

fn mails(config: &mut Config, url: &str) {
    config.smtp_url = Some(url.parse().unwrap());
    config.mail_from = Some("Offshoot <offshoot@example.org>".to_owned());
    config.public_url = Some("https://offshoot.example.org".to_owned());
}

async fn channel(site: &Site) {
    let body = json!({"name": "people", "kind": "MAIL", "to": ["eve@example.org", "otto@example.org"]});
    let made = site.post("/api/v1/noticeChannels", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json().get("secret"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_mailed_when_the_mail_server_takes_it() {
    let mut smtp = Smtp::start(1, None).await;
    let url = format!("smtp://{}", smtp.address);
    let site = site_with(|config| mails(config, &url)).await;
    channel(&site).await;
    let job = failed_job(&site, "a").await;
    let id = job["id"].as_str().unwrap();

    let mail = smtp.next().await;
    assert_eq!(mail.from, "offshoot@example.org");
    assert_eq!(mail.to, ["eve@example.org", "otto@example.org"]);
    assert_eq!(
        mail.header("Subject"),
        "[offshoot] create vm fail-at-preparing-vm-disks-a failed"
    );
    assert!(mail.header("From").contains("<offshoot@example.org>"), "{mail:?}");
    assert_eq!(mail.header("To"), "eve@example.org, otto@example.org");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("Content-Type").starts_with("text/plain"), "{mail:?}");
    let body = mail.body();
    for part in [
        "create vm failed",
        "fail-at-preparing-vm-disks-a",
        job["error"]["message"].as_str().unwrap(),
        "FAILED",
        id,
        &format!("https://offshoot.example.org/jobs/{id}"),
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }

    channel_when(&site, "people", delivered).await;
    let all = notices(&site, "people").await;
    assert_eq!(
        (&all[0]["state"], &all[0]["attempts"]),
        (&json!("DELIVERED"), &json!(2)),
        "{all:?}"
    );
    let sent = format!("<{}@example.org>", all[0]["id"].as_str().unwrap());
    assert_eq!(mail.header("Message-ID"), sent);
    let rolled = site
        .post("/api/v1/noticeChannels/people/rollSecret", json!({}))
        .await;
    assert_eq!(rolled.status, 409, "{rolled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_may_stand_in_a_file_and_is_shown_nowhere() {
    let mut smtp = Smtp::start(0, Some(("ops", "s@fe:word"))).await;
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    let with_file = |config: &mut Config, file: &Path| {
        mails(config, &format!("smtp://ops@{}", smtp.address));
        config.smtp_password_file = Some(file.to_owned());
    };
    std::fs::write(&password, "s@fe:word\n").unwrap();
    let site = site_with(|config| with_file(config, &password)).await;
    channel(&site).await;
    assert_eq!(tried(&site, "people").await["state"], "DELIVERED");
    assert_eq!(smtp.next().await.header("Subject"), "[offshoot] this is a test");

    let url = format!("smtp://ops:wrong@{}", smtp.address);
    let site = site.restart_with(|config| mails(config, &url)).await;
    let test = tried(&site, "people").await;
    let why = test["error"].as_str().unwrap();
    assert!(test["state"] == "GIVEN_UP" && why.contains("535"), "{test}");
    assert!(!why.contains("wrong"), "{why}");

    // Without a mail server any more, it is said what is missing.
    let site = site.restart().await;
    let test = tried(&site, "people").await;
    assert!(test["error"].as_str().unwrap().contains("smtp_url"), "{test}");
}

/// Writes a certificate for this machine; answers what speaks TLS with it.
fn certify(file: &Path) -> TlsAcceptor {
    server::use_ring();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(file, cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key);
    Arc::new(config.unwrap()).into()
}

/// Whom a process trusts is said in its environment: so the server is a process of its own here.
async fn tested(dir: &Path, url: &str, trusted: &Path) -> Served {
    let mut command = offshoot(dir, &["serve", "--sim", "--log-format", "json"]);
    command.args(["--smtp-url", url, "--mail-from", "offshoot@example.org"]);
    let served = Served::run({
        command.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR");
        command
    });
    let made = offshoot(dir, &["token", "create", "tests", "--user", "admin"])
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let post = |path: &str, body: serde_json::Value| {
        let request = client().post(format!("{}{path}", served.1));
        send(request.bearer_auth(token.trim()).json(&body))
    };
    let body = json!({"name": "people", "kind": "MAIL", "to": ["eve@example.org"]});
    assert_eq!(post("/api/v1/noticeChannels", body).await.status, 201);
    assert_eq!(
        post("/api/v1/noticeChannels/people/test", json!({})).await.status,
        202
    );
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_is_spoken_to_by_tls_if_it_is_trusted() {
    for (when, url) in [
        (Tls::AtOnce, "smtps://localhost:PORT"),
        (Tls::WhenAsked, "smtp://localhost:PORT?tls=required"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (dir.path().join("ours.pem"), dir.path().join("other.pem"));
        let mut smtp = Smtp::with_tls(certify(&ours), when).await;
        certify(&other);
        let url = url.replace("PORT", smtp.address.rsplit(':').next().unwrap());
        let served = tested(&dir.path().join("a"), &url, &ours).await;
        assert_eq!(smtp.next().await.to, ["eve@example.org"], "{url}");
        drop(served);

        let mut served = tested(&dir.path().join("b"), &url, &other).await;
        let told = tokio::task::spawn_blocking(move || {
            let all = (&mut served.2).lines().map(Result::unwrap);
            let mut all = all.filter(|line| line.contains("a notice was not taken"));
            all.next().unwrap()
        });
        let told = told.await.unwrap();
        assert!(told.contains("certificate"), "{url}: {told}");
    }
}
