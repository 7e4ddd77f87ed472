//! What lets in: sessions and tokens, how far they reach and how they end.

use crate::site::{Site, send};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_token_does_no_more_than_its_role_and_ends() {
    let site = Site::start().await;
    let made = site
        .post("/api/v1/tokens", json!({"name": "ro", "role": "viewer"}))
        .await;
    assert_eq!(
        (made.status, &made.json()["token"]["role"]),
        (201, &json!("viewer")),
        "{made:?}"
    );
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let by = |method, path: &'static str, body| site.by(&secret, method, path, body);
    assert_eq!(by(Method::GET, "/api/v1/vms", None).await.status, 200);
    assert_eq!(
        by(Method::POST, "/api/v1/vms/none/start", Some(json!({})))
            .await
            .status,
        403
    );
    assert_eq!(by(Method::GET, "/api/v1/users", None).await.status, 403);
    // Nor does it get itself more.
    for (method, path, body) in [
        (Method::POST, "/api/v1/tokens", json!({"name": "more"})),
        (
            Method::PUT,
            "/api/v1/me/password",
            json!({"password": "a long password"}),
        ),
        (Method::POST, "/api/v1/me/twoFactor", json!({})),
    ] {
        let answer = by(method, path, Some(body)).await;
        assert_eq!(
            (answer.status, answer.body.contains("is confined")),
            (403, true),
            "{path}: {answer:?}"
        );
    }
    // A role that has more than the owner gives the token no more.
    let vera = site.user("vera", Some("viewer")).await;
    let body = json!({"name": "high", "role": "admin"});
    let high = site
        .by(&vera, Method::POST, "/api/v1/tokens", Some(body))
        .await
        .json();
    let high = high["secret"].as_str().unwrap();
    assert_eq!(
        site.by(high, Method::GET, "/api/v1/users", None).await.status,
        403
    );
    assert_eq!(site.by(high, Method::GET, "/api/v1/vms", None).await.status, 200);

    let past = json!({"name": "late", "expireTime": "2020-01-01T00:00:00Z"});
    assert_eq!(site.post("/api/v1/tokens", past).await.field(), "expireTime");
    let soon = server::db::now().plus_micros(1_500_000);
    let ends = site
        .post("/api/v1/tokens", json!({"name": "ends", "expireTime": soon}))
        .await;
    let ends = ends.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(site.by(&ends, Method::GET, "/api/v1/me", None).await.status, 200);
    let left = soon.since(server::db::now()).max(0).unsigned_abs();
    tokio::time::sleep(std::time::Duration::from_micros(left + 1000)).await;
    let over = site.by(&ends, Method::GET, "/api/v1/me", None).await;
    assert_eq!(
        (
            over.status,
            over.body.contains("the token ends of admin ended at")
        ),
        (401, true),
        "{over:?}"
    );
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let site = Site::start().await;
    let (one, two) = (site.sign_in().await, site.sign_in().await);
    let list = |session: &str| {
        send(
            site.bare(Method::GET, "/api/v1/sessions")
                .header("cookie", session)
                .header("user-agent", "x"),
        )
    };
    let all = list(&one).await.json();
    let sessions = all["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{all}");
    assert!(sessions.iter().all(|s| s["address"] == "127.0.0.1"), "{all}");
    let other = sessions.iter().find(|s| s["current"] == false).unwrap()["id"]
        .as_str()
        .unwrap();
    let end = send(site.request(Method::DELETE, &format!("/api/v1/sessions/{other}"))).await;
    assert_eq!(end.status, 200, "{end:?}");
    assert_eq!((list(&one).await.status, list(&two).await.status), (200, 401));
    // Those of others: by who may manage them, and by nobody else.
    let vera = site.user("vera", Some("viewer")).await;
    let mine = list(&one).await.json()["sessions"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/sessions/{mine}");
    assert_eq!(site.by(&vera, Method::DELETE, &path, None).await.status, 404);
    let users = format!("/api/v1/users/admin/sessions/{mine}");
    assert_eq!(site.by(&vera, Method::DELETE, &users, None).await.status, 403);
    assert_eq!(send(site.request(Method::DELETE, &users)).await.status, 200);
    assert_eq!(list(&one).await.status, 401);
}
