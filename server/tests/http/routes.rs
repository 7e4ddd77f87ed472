//! Every route asks its privilege; what there is stands in golden files.

use crate::site::{Site, send};
use axum::body::Body;
use axum::http::Request;
use reqwest::Method;
use server::access::{Caller, Via};
use server::http::route::Asks;
use server::http::{api, entries};
use shared::access::rights::Rights;
use shared::access::{FORKING, Privilege, User};
use shared::{SessionId, Timestamp, UserId};
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;

/// Compares with a file of `tests/golden`; `UPDATE_GOLDEN=1` writes it anew.
fn golden(file: &str, now: &str) {
    let path = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
        .join("tests/golden")
        .join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "{file} is not what the server has now. If the change is meant, run with UPDATE_GOLDEN=1 and commit it.\n{now}"
    );
}

#[test]
fn the_list_of_routes_is_pinned() {
    let all: String = entries(true).iter().map(|e| format!("{e}\n")).collect();
    golden("routes.txt", &all);
}

#[test]
fn the_openapi_document_is_pinned() {
    let mut json = serde_json::to_string_pretty(&api::all(false).build().document).unwrap();
    json.push('\n');
    assert!(json.contains("\"openapi\": \"3.1"), "it is OpenAPI 3.1");
    golden("openapi.json", &json);
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = serde_json::to_value(api::all(true).build().document).unwrap();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut seen = 0;
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not described");
        seen += 1;
    }
    assert!(seen > 10);
}

/// A path of a route with something in place of its parameters.
fn filled(path: &str) -> String {
    path.split('/')
        .map(|part| if part.starts_with('{') { "none" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

fn caller(privileges: &[Privilege]) -> Caller {
    Caller {
        user: User {
            id: UserId(uuid::Uuid::now_v7()),
            name: "somebody".parse().unwrap(),
            disabled: false,
            has_password: false,
            two_factor: false,
            oidc_subject: None,
            grants: Vec::new(),
            create_time: Timestamp::from_micros(0),
            last_sign_in_time: None,
        },
        rights: Arc::new(Rights::on_everything(privileges)),
        via: Via::Session(SessionId(uuid::Uuid::now_v7())),
    }
}

#[tokio::test]
async fn without_credentials_only_what_is_open_answers() {
    let site = Site::start().await;
    for entry in entries(true) {
        let method: Method = entry.method.parse().unwrap();
        let request = site
            .bare(method, &filled(&entry.path))
            .header("origin", site.url(""));
        let answer = send(request).await;
        if entry.asks == Asks::Nothing {
            assert_ne!(answer.status, 401, "{entry}");
        } else {
            assert_eq!(
                (answer.status, answer.error().as_str()),
                (401, "UNAUTHENTICATED"),
                "{entry}"
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{entry}");
        }
    }
    // What there is not is not told apart from what there is.
    assert_eq!(send(site.bare(Method::GET, "/api/v1/nothing")).await.status, 401);
}

#[tokio::test]
async fn without_its_privilege_no_route_answers() {
    let site = Site::start().await;
    for entry in entries(true) {
        let Asks::Privilege(privilege) = entry.asks else {
            continue;
        };
        let others: Vec<_> = Privilege::ALL
            .iter()
            .copied()
            .filter(|p| *p != privilege)
            .collect();
        let request = Request::builder()
            .method(entry.method)
            .uri(filled(&entry.path))
            .header("host", site.running.address.to_string())
            .extension(caller(&others))
            .body(Body::empty())
            .unwrap();
        let response = site.running.server.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 403, "{entry}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["status"], "PERMISSION_DENIED");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(privilege.word()), "{entry}: {message}");
    }
}

#[tokio::test]
async fn forking_asks_each_of_its_five_privileges() {
    let site = Site::start().await;
    for path in [
        "/api/v1/vms/none/instantClones",
        "/api/v1/forkPoints/none/instantClones",
    ] {
        for missing in FORKING {
            let others: Vec<_> = Privilege::ALL.iter().copied().filter(|p| *p != missing).collect();
            let request = Request::builder()
                .method("POST")
                .uri(path)
                .header("host", site.running.address.to_string())
                .header("content-type", "application/json")
                .extension(caller(&others))
                .body(Body::from("{}"))
                .unwrap();
            let response = site.running.server.router().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 403, "{path} without {missing}");
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(
                body["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains(missing.word()),
                "{body}"
            );
        }
    }
}

#[tokio::test]
async fn no_route_takes_a_query_that_it_does_not_know() {
    let site = Site::start().await;
    for entry in entries(false) {
        let Asks::Privilege(_) = entry.asks else { continue };
        let method: Method = entry.method.parse().unwrap();
        let path = format!("{}?surprise=1", filled(&entry.path));
        let answer = send(site.request(method, &path)).await;
        assert_eq!(answer.field(), "surprise", "{entry}");
    }
}

#[tokio::test]
async fn the_api_describes_itself() {
    let site = Site::start().await;
    let document = site.get("/api/v1/openapi.json").await.json();
    assert_eq!(document["info"]["title"], "Offshoot");
    let page = site.get("/api/docs").await;
    assert!(
        page.body.contains("/api/v1/events") && !page.body.contains("<script"),
        "{}",
        page.body
    );
    assert_eq!(
        site.get("/api/docs/style.css").await.header("content-type"),
        "text/css"
    );
}
