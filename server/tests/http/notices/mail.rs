//! Notices by mail, to a mail server that is asked by SMTP.

use super::smtp::Smtp;
use super::{channel_when, delivered, failed_job, notices, site_with, tried};
use crate::site::Site;
use serde_json::json;
use server::config::Config;
use std::path::Path;

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
