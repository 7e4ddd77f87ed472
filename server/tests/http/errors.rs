//! Errors have one shape, headers are set, and nothing leads out of the directory.

use crate::site::{Site, send};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn errors_have_one_shape() {
    let site = Site::start().await;
    let missing = site.get("/api/v1/nothing").await;
    assert_eq!((missing.status, missing.error().as_str()), (404, "NOT_FOUND"));
    let method = send(site.request(Method::DELETE, "/api/v1/me")).await;
    assert_eq!((method.status, method.error().as_str()), (405, "UNIMPLEMENTED"));
    assert_eq!(method.header("allow"), "GET,HEAD");
    let large = json!({"name": "a".repeat(server::http::BODY_LIMIT)});
    let large = site.post("/api/v1/tokens", large).await;
    assert_eq!(
        (large.status, large.error().as_str()),
        (413, "RESOURCE_EXHAUSTED")
    );
}

#[tokio::test]
async fn a_refusal_names_the_field() {
    let site = Site::start().await;
    let tokens = "/api/v1/tokens";
    assert_eq!(site.post(tokens, json!({"name": "A"})).await.field(), "name");
    assert_eq!(
        site.post(tokens, json!({"name": "a", "scope": 1})).await.field(),
        "scope"
    );
    assert_eq!(site.post(tokens, json!({})).await.field(), "name");
    let text = site.request(Method::POST, tokens).body(r#"{"name":"a"}"#);
    assert_eq!(send(text).await.field(), "Content-Type");
    let broken = site
        .request(Method::POST, tokens)
        .header("content-type", "application/json")
        .body(r#"{"name":"#);
    assert_eq!(send(broken).await.field(), "body");
    for (query, field) in [
        ("pageSize=0", "pageSize"),
        ("pageSize=1001", "pageSize"),
        ("pageSize=many", "pageSize"),
        ("pageToken=zz", "pageToken"),
        ("filter=hash=x", "filter"),
        ("filter=x", "filter"),
        ("orderBy=hash", "orderBy"),
        ("orderBy=name%20up", "orderBy"),
        ("limit=5", "limit"),
    ] {
        assert_eq!(
            site.get(&format!("{tokens}?{query}")).await.field(),
            field,
            "{query}"
        );
    }
}

#[tokio::test]
async fn lists_go_page_by_page() {
    let site = Site::start().await;
    for n in 0..7 {
        assert_eq!(
            site.post("/api/v1/tokens", json!({"name": format!("p-{n}")}))
                .await
                .status,
            201
        );
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = site
            .get(&format!(
                "/api/v1/tokens?pageSize=3&filter=name:p-&orderBy=name%20desc&pageToken={token}"
            ))
            .await
            .json();
        assert_eq!(page["totalSize"], 7);
        let items = page["tokens"].as_array().unwrap();
        assert!(items.len() <= 3);
        names.extend(items.iter().map(|t| t["name"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, (0..7).rev().map(|n| format!("p-{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_answer_has_the_headers() {
    let site = Site::start().await;
    for path in ["/healthz", "/api/v1/me", "/api/v1/nothing", "/api/docs"] {
        let answer = site.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        let csp = answer.header("content-security-policy");
        assert!(
            csp.contains("frame-ancestors 'none'") && !csp.contains("unsafe-inline"),
            "{csp}"
        );
        assert_eq!(answer.header("x-request-id").len(), 32, "{path}");
    }
    // The id is the server's own, whatever a client sends.
    let sent = site
        .request(Method::GET, "/healthz")
        .header("x-request-id", "mine");
    assert_ne!(send(sent).await.header("x-request-id"), "mine");
}

#[tokio::test]
async fn health_is_open_and_readiness_too() {
    let site = Site::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(send(site.bare(Method::GET, path)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_the_files() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let site = Site::start().await;
    let address = site.running.address;
    for path in [
        "/pkg/../../../../../../etc/passwd",
        "/pkg/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/pkg/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/pkg//etc/passwd",
        "/pkg/..%5c..%5cetc%5cpasswd",
        "/pkg/%00",
        "/welcome/../api/v1/me",
        "/pkg/../api/v1/me",
    ] {
        // By hand: a client would tidy the path up first.
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        assert!(["400", "401", "404"].contains(&status), "{path}: {answer}");
        assert!(
            !answer.contains("root:") && !answer.contains("privileges"),
            "{path}: {answer}"
        );
    }
}
