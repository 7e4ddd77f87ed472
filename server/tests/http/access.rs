//! Signing in by all ways, and what is refused.

use crate::site::{Answer, Site, cookie, form, name, send};
use reqwest::Method;
use serde_json::json;

const PASSWORD: &str = "a long password";

async fn with_password() -> Site {
    let site = Site::start().await;
    let access = &site.running.server.access;
    access
        .reset_password(&name("admin"), PASSWORD.into())
        .await
        .unwrap();
    site
}

async fn log_in(site: &Site, password: &str, cookie: &str) -> Answer {
    let request = site
        .bare(Method::POST, "/login")
        .header("origin", site.url(""))
        .header("cookie", cookie);
    let fields = [("name", "admin"), ("password", password), ("next", "/jobs")];
    send(form(request, &fields)).await
}

async fn me(site: &Site, cookie: &str) -> u16 {
    send(site.bare(Method::GET, "/api/v1/me").header("cookie", cookie))
        .await
        .status
}

#[tokio::test]
async fn a_password_signs_in_and_out() {
    let site = with_password().await;
    let answer = log_in(&site, PASSWORD, "").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/jobs"),
        "{answer:?}"
    );
    let set = answer.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let port = site.running.address.port();
    assert!(set.starts_with(&format!("offshoot-{port}=")), "{set}");
    let session = cookie(&answer);
    assert_eq!(me(&site, &session).await, 200);

    // Signing in again gives another session and ends the first.
    let second = cookie(&log_in(&site, PASSWORD, &session).await);
    assert_ne!(second, session);
    assert_eq!((me(&site, &session).await, me(&site, &second).await), (401, 200));

    let out = site
        .bare(Method::POST, "/logout")
        .header("origin", site.url(""))
        .header("cookie", &second);
    let out = send(out).await;
    assert!(out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
    assert_eq!(me(&site, &second).await, 401);
}

#[tokio::test]
async fn a_wrong_password_does_not_and_guessing_has_to_wait() {
    let site = with_password().await;
    for _ in 0..server::access::guesses::FREE {
        let answer = log_in(&site, "wrong", "").await;
        assert!(
            answer
                .header("location")
                .starts_with("/login?error=wrong&name=admin"),
            "{answer:?}"
        );
        assert_eq!(answer.header("set-cookie"), "");
    }
    let answer = log_in(&site, PASSWORD, "").await;
    assert!(
        answer.header("location").starts_with("/login?error=wait"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn signing_in_leads_to_no_other_site() {
    let site = with_password().await;
    let request = site.bare(Method::POST, "/login").header("origin", site.url(""));
    let fields = [
        ("name", "admin"),
        ("password", PASSWORD),
        ("next", "//evil.example/"),
    ];
    assert_eq!(send(form(request, &fields)).await.header("location"), "/");
}

#[tokio::test]
async fn a_link_signs_in_once_and_looking_at_it_does_not_use_it_up() {
    let site = Site::start().await;
    let first = site.running.first_link.clone().unwrap();
    let path = format!("/welcome/{}", first.expose());
    for preview in [
        site.bare(Method::GET, &path),
        site.bare(Method::HEAD, &path),
        site.bare(Method::GET, &path)
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "none")
            .header("sec-purpose", "prefetch"),
        site.bare(Method::GET, &path)
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "cross-site"),
    ] {
        let answer = send(preview).await;
        assert_eq!(
            (answer.status, answer.header("set-cookie")),
            (200, ""),
            "{answer:?}"
        );
    }
    let open = || {
        site.bare(Method::GET, &path)
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "none")
    };
    let answer = send(open()).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/"),
        "{answer:?}"
    );
    assert_eq!(me(&site, &cookie(&answer)).await, 200);
    let again = send(open()).await;
    assert_eq!((again.status, again.header("set-cookie")), (410, ""), "{again:?}");
}

#[tokio::test]
async fn only_the_first_start_makes_a_link() {
    let site = Site::start().await;
    assert!(site.running.first_link.is_some());
    let site = site.restart().await;
    assert!(site.running.first_link.is_none());
}

#[tokio::test]
async fn a_session_outlives_a_restart() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let old = site.running.address.port();
    let site = site.restart().await;
    // The cookie's name has the port, unless the instance has a name.
    let session = session.replace(&old.to_string(), &site.running.address.port().to_string());
    assert_eq!(me(&site, &session).await, 200);
}

#[tokio::test]
async fn tokens_come_and_go() {
    let site = Site::start().await;
    let new = site.post("/api/v1/tokens", json!({"name": "ci"})).await;
    assert_eq!(new.status, 201, "{new:?}");
    let (new, location) = (new.json(), new.header("location").to_owned());
    let secret = new["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("ofs_"));
    let with = |secret: String| send(site.bare(Method::GET, "/api/v1/me").bearer_auth(secret));
    assert_eq!(with(secret.clone()).await.status, 200);

    let list = site.get("/api/v1/tokens?filter=name=ci").await;
    let token = &list.json()["tokens"][0];
    assert_eq!(token["id"], new["token"]["id"]);
    assert!(
        token["lastUsedTime"].as_str().unwrap().ends_with(":00Z"),
        "to the minute: {token}"
    );
    assert!(!list.body.contains(&secret));

    let twice = site.post("/api/v1/tokens", json!({"name": "ci"})).await;
    assert_eq!((twice.status, twice.error().as_str()), (409, "ALREADY_EXISTS"));

    assert_eq!(send(site.request(Method::DELETE, &location)).await.status, 200);
    assert_eq!(with(secret).await.status, 401);
    let again = send(site.request(Method::DELETE, &location)).await;
    assert_eq!((again.status, again.error().as_str()), (404, "NOT_FOUND"));
    // The name is free again.
    assert_eq!(
        site.post("/api/v1/tokens", json!({"name": "ci"})).await.status,
        201
    );
}

#[tokio::test]
async fn nobodys_token_or_cookie_is_refused() {
    let site = Site::start().await;
    for bad in ["", "ofs_", "ofs_0000", "' OR 1=1 --"] {
        let answer = send(site.bare(Method::GET, "/api/v1/me").bearer_auth(bad)).await;
        assert_eq!((answer.status, answer.error().as_str()), (401, "UNAUTHENTICATED"));
    }
    let basic = site
        .bare(Method::GET, "/api/v1/me")
        .basic_auth("admin", Some("x"));
    assert_eq!(send(basic).await.status, 401);
    let port = site.running.address.port();
    assert_eq!(me(&site, &format!("offshoot-{port}=deadbeef")).await, 401);
    // A token is no cookie, and the cookie of another instance is none of ours.
    let session = site.sign_in().await;
    assert_eq!(me(&site, &format!("offshoot-{port}={}", site.token)).await, 401);
    assert_eq!(me(&site, &session.replace(&port.to_string(), "1")).await, 401);
}

#[tokio::test]
async fn setting_a_password_ends_the_other_sessions() {
    let site = Site::start().await;
    let (one, two) = (site.sign_in().await, site.sign_in().await);
    let set = |password: &'static str| {
        site.bare(Method::PUT, "/api/v1/me/password")
            .header("cookie", &one)
            .header("origin", site.url(""))
            .json(&json!({ "password": password }))
    };
    assert_eq!(send(set("short")).await.field(), "password");
    assert_eq!(me(&site, &two).await, 200);
    assert_eq!(send(set(PASSWORD)).await.status, 200);
    assert_eq!((me(&site, &one).await, me(&site, &two).await), (200, 401));
    assert_eq!(log_in(&site, PASSWORD, "").await.header("location"), "/jobs");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let post = || {
        site.bare(Method::POST, "/api/v1/tokens")
            .header("cookie", &session)
            .json(&json!({"name": "evil"}))
    };
    let own = site.url("");
    for (request, status) in [
        (post().header("origin", "http://evil.example"), 403),
        (post().header("origin", "null"), 403),
        // Another port of this machine is another site's, though it sees the same cookies.
        (post().header("origin", "http://127.0.0.1:1"), 403),
        (
            post()
                .header("origin", &own)
                .header("sec-fetch-site", "cross-site"),
            403,
        ),
        (post(), 403),
        (
            post()
                .header("origin", &own)
                .header("sec-fetch-site", "same-origin"),
            201,
        ),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 403 {
            assert_eq!(answer.error(), "PERMISSION_DENIED");
        }
    }
    // Nor may it sign somebody in.
    let login = site
        .bare(Method::POST, "/login")
        .header("origin", "http://evil.example");
    let login = form(login, &[("name", "admin"), ("password", "x")]);
    assert_eq!(send(login).await.status, 403);
}

#[tokio::test]
async fn another_host_is_not_answered() {
    let site = Site::start().await;
    let port = site.running.address.port();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("rebound.example:{port}"), 400),
        ("127.0.0.1".to_owned(), 400),
    ] {
        let answer = send(site.request(Method::GET, "/api/v1/me").header("host", &host)).await;
        assert_eq!(answer.status, status, "{host}: {answer:?}");
        if status == 400 {
            assert_eq!(answer.field(), "Host");
        }
    }
    assert_eq!(
        send(site.bare(Method::GET, "/healthz").header("host", "evil.example"))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_person_without_a_session_is_led_to_the_sign_in() {
    let site = Site::start().await;
    let request = site
        .bare(Method::GET, "/vms/web-1?tab=jobs")
        .header("accept", "text/html");
    let answer = send(request).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/login?next=%2Fvms%2Fweb-1%3Ftab%3Djobs")
    );
}
