//! What is written down of who did what.

use crate::site::{Site, form, send};
use reqwest::Method;
use serde_json::{Value, json};

async fn newest(site: &Site, filter: &str) -> Value {
    let path = format!("/api/v1/audit?pageSize=1&filter={}", shared::api::encode(filter));
    let page = site.get(&path).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.json()["events"][0].clone()
}

#[tokio::test]
async fn every_change_and_every_refusal_is_written_down_and_no_reading() {
    let site = Site::start().await;
    let before = site.get("/api/v1/audit").await.json()["totalSize"]
        .as_u64()
        .unwrap();
    site.get("/api/v1/vms").await;
    site.get("/api/v1/vms/none").await;
    let after = site.get("/api/v1/audit").await.json()["totalSize"]
        .as_u64()
        .unwrap();
    assert_eq!(before, after, "reading is not written down");

    let made = site.post("/api/v1/users", json!({"name": "eve"})).await;
    let event = newest(&site, "method=POST").await;
    assert_eq!(event["requestId"], made.header("x-request-id"));
    assert_eq!(
        (&event["route"], &event["path"]),
        (&json!("/api/v1/users"), &json!("/api/v1/users"))
    );
    assert_eq!((&event["result"], &event["status"]), (&json!("OK"), &json!(201)));
    assert_eq!(
        (&event["address"], &event["detail"]),
        (&json!("127.0.0.1"), &json!(made.header("location")))
    );
    assert!(event["user"].as_str().unwrap().starts_with("admin/t"), "{event}");

    // A refusal for what was sent, for what is not allowed, and of a stranger.
    site.post("/api/v1/users", json!({"name": "EVE"})).await;
    assert_eq!(newest(&site, "method=POST").await["result"], "INVALID_ARGUMENT");
    let vera = site.user("vera", Some("viewer")).await;
    site.by(&vera, Method::POST, "/api/v1/vms/web-1/start", Some(json!({})))
        .await;
    let event = newest(&site, "user:vera result=PERMISSION_DENIED").await;
    assert_eq!(
        (&event["route"], &event["path"]),
        (
            &json!("/api/v1/vms/{vm}/start"),
            &json!("/api/v1/vms/web-1/start")
        )
    );
    assert!(event["detail"].as_str().unwrap().contains("vm.power"), "{event}");
    site.by(&vera, Method::GET, "/api/v1/users", None).await;
    let event = newest(&site, "user:vera method=GET").await;
    assert_eq!(
        (&event["status"], &event["result"]),
        (&json!(403), &json!("PERMISSION_DENIED"))
    );
    send(site.bare(Method::GET, "/api/v1/vms").bearer_auth("ofs_none")).await;
    let event = newest(&site, "result=UNAUTHENTICATED").await;
    assert_eq!((&event["user"], &event["status"]), (&json!(""), &json!(401)));

    // Signing in, and not.
    let log_in = |password: &'static str| {
        let request = site.bare(Method::POST, "/login").header("origin", site.url(""));
        send(form(request, &[("name", "mallory"), ("password", password)]))
    };
    log_in("a wrong password").await;
    let event = newest(&site, "route=/login").await;
    assert_eq!(
        (&event["user"], &event["result"]),
        (&json!("mallory"), &json!("UNAUTHENTICATED"))
    );
    assert!(!event.to_string().contains("wrong password\""), "{event}");
    site.sign_in().await;
    let event = newest(&site, "route=/welcome/{link}").await;
    assert_eq!(
        (&event["user"], &event["result"], &event["path"]),
        (&json!("admin"), &json!("OK"), &json!("/welcome/…"))
    );
    // What the command line did is there as well.
    assert_eq!(newest(&site, "method=RUN user:command").await["result"], "OK");
}

#[tokio::test]
async fn a_form_is_written_down_as_what_it_asks_of_the_api() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let request = site
        .bare(Method::POST, "/do/users/create")
        .header("origin", site.url(""))
        .header("cookie", session);
    assert_eq!(send(form(request, &[("name", "eve")])).await.status, 303);
    let event = newest(&site, "path=/api/v1/users").await;
    assert_eq!(
        (&event["user"], &event["address"]),
        (&json!("admin"), &json!("127.0.0.1"))
    );
    let page = site.get("/api/v1/audit?filter=path:/do/").await.json();
    assert_eq!(page["totalSize"], 0, "once is enough: {page}");
}

#[tokio::test]
async fn it_is_paged_and_exported() {
    let site = Site::start().await;
    for n in 0..5 {
        site.post(
            "/api/v1/roles",
            json!({"name": format!("r-{n}"), "description": "a,\"b\"", "privileges": ["vm.read"]}),
        )
        .await;
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = site
            .get(&format!(
                "/api/v1/audit?pageSize=2&pageToken={token}&filter=route=/api/v1/roles"
            ))
            .await
            .json();
        seen.extend(
            page["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["id"].as_u64().unwrap()),
        );
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first: {seen:?}");

    let lines = site.get("/api/v1/audit/export?filter=route=/api/v1/roles").await;
    assert_eq!(lines.header("content-type"), "application/jsonl");
    assert!(lines.header("content-disposition").contains("audit.jsonl"));
    let ids: Vec<_> = lines
        .body
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, seen);
    let csv = site
        .get("/api/v1/audit/export?format=csv&filter=route=/api/v1/roles")
        .await;
    let mut csv = csv.body.lines();
    assert!(csv.next().unwrap().starts_with("id,time,user,address"));
    assert_eq!(csv.count(), 5);
    assert_eq!(
        site.get("/api/v1/audit/export?format=xml").await.field(),
        "format"
    );
    assert_eq!(
        site.get("/api/v1/audit/export?filter=nothing=1").await.field(),
        "filter"
    );
}

#[tokio::test]
async fn more_than_a_page_of_the_database_is_exported_whole() {
    let site = Site::start().await;
    let access = site.running.server.access.clone();
    let event: shared::access::audit::AuditEvent =
        serde_json::from_value(newest(&site, "method=RUN").await).unwrap();
    for n in 0..1500_u32 {
        let event = shared::access::audit::AuditEvent {
            user: "many".into(),
            detail: n.to_string(),
            ..event.clone()
        };
        access.note(event).await.unwrap();
    }
    let lines = site.get("/api/v1/audit/export?filter=user=many").await;
    assert_eq!(lines.body.lines().count(), 1500);
    // Old ones go.
    let old = shared::access::audit::AuditEvent {
        user: "old".into(),
        time: event.time.plus_micros(-3 * 86_400_000_000),
        ..event
    };
    access.note(old).await.unwrap();
    access.prune_audit(2).await.unwrap();
    assert_eq!(
        site.get("/api/v1/audit?filter=user=old").await.json()["totalSize"],
        0
    );
    assert_eq!(
        site.get("/api/v1/audit?filter=user=many").await.json()["totalSize"],
        1500
    );
}
