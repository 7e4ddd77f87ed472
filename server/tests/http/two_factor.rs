//! Signing in with a code.

use crate::site::{Answer, Site, cookie, form, name, send};
use reqwest::Method;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

const PASSWORD: &str = "a long password";

fn app(secret: &str) -> Totp {
    let secret = Secret::try_from_base32(secret).unwrap();
    Builder::new().with_secret(secret).build().unwrap()
}

fn seconds() -> u64 {
    server::db::now().micros().unsigned_abs() / 1_000_000
}

async fn post(site: &Site, path: &str, fields: &[(&str, &str)], cookies: &str) -> Answer {
    let request = site
        .bare(Method::POST, path)
        .header("origin", site.url(""))
        .header("cookie", cookies);
    send(form(request, fields)).await
}

async fn password(site: &Site) -> Answer {
    post(
        site,
        "/login",
        &[("name", "admin"), ("password", PASSWORD), ("next", "/jobs")],
        "",
    )
    .await
}

/// Sets it up, and answers the app and the recovery codes.
async fn enrolled(site: &Site) -> (Totp, Vec<String>) {
    let access = &site.running.server.access;
    access
        .reset_password(&name("admin"), PASSWORD.into())
        .await
        .unwrap();
    let begun = site.post("/api/v1/me/twoFactor", json!({})).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let begun = begun.json();
    assert!(begun["svg"].as_str().unwrap().starts_with("<svg"));
    assert!(begun["url"].as_str().unwrap().contains("issuer=Offshoot"));
    // Nothing is asked for yet.
    assert_eq!(password(site).await.header("location"), "/jobs");
    let app = app(begun["secret"].as_str().unwrap());
    let confirm = |code: String| site.post("/api/v1/me/twoFactor/confirm", json!({ "code": code }));
    assert_eq!(confirm("000000x".into()).await.field(), "code");
    // The code of the half minute before, so that the one of now is still there to sign in with.
    let done = confirm(app.generate(seconds() - 30).to_string()).await;
    assert_eq!(done.status, 200, "{done:?}");
    let codes = done.json()["secret"]
        .as_str()
        .unwrap()
        .split(' ')
        .map(str::to_owned)
        .collect();
    (app, codes)
}

#[tokio::test]
async fn a_code_is_asked_for_and_taken_once() {
    let site = Site::start().await;
    let (app, _) = enrolled(&site).await;
    let me: Value = site.get("/api/v1/me").await.json();
    assert_eq!(me["user"]["twoFactor"], true);

    let first = password(&site).await;
    assert_eq!(first.header("location"), "/login/code?next=%2Fjobs", "{first:?}");
    let ticket = cookie(&first);
    // The ticket is no session, and the page that asks works without scripts.
    assert_eq!(
        send(site.bare(Method::GET, "/api/v1/me").header("cookie", &ticket))
            .await
            .status,
        401
    );
    let page = send(
        site.bare(Method::GET, "/login/code?next=%2Fjobs")
            .header("cookie", &ticket),
    )
    .await;
    assert!(
        page.status == 200 && page.body.contains("action=\"/login/code\""),
        "{page:?}"
    );

    let give = |code: String, ticket: String| {
        let site = &site;
        async move {
            post(
                site,
                "/login/code",
                &[("code", &code), ("next", "/jobs")],
                &ticket,
            )
            .await
        }
    };
    let wrong = give("12345".into(), ticket.clone()).await;
    assert!(
        wrong.header("location").starts_with("/login/code?error=wrong"),
        "{wrong:?}"
    );
    let code = app.generate(seconds() + 30).to_string();
    let right = give(code.clone(), ticket.clone()).await;
    assert_eq!(
        (right.status, right.header("location")),
        (303, "/jobs"),
        "{right:?}"
    );
    // The ticket is taken away in the same answer.
    let set = right
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|v| v.to_str().unwrap());
    let (ended, begun): (Vec<_>, Vec<_>) = set.partition(|c| c.contains("-ticket="));
    assert!(ended[0].contains("Max-Age=0"), "{right:?}");
    let session = begun[0].split(';').next().unwrap().to_owned();
    assert_eq!(
        send(site.bare(Method::GET, "/api/v1/me").header("cookie", &session))
            .await
            .status,
        200
    );

    // Neither the ticket nor the code is good again, nor a code of before.
    assert!(
        give(code.clone(), ticket)
            .await
            .header("location")
            .starts_with("/login?error=late")
    );
    for used in [code, app.generate(seconds()).to_string()] {
        let again = give(used, cookie(&password(&site).await)).await;
        assert!(again.header("location").contains("error=wrong"), "{again:?}");
    }
    let events = site.get("/api/v1/audit?filter=route=/login/code").await.json();
    assert!(
        events["events"]
            .as_array()
            .unwrap()
            .iter()
            .any(|e| e["user"] == "admin" && e["result"] == "UNAUTHENTICATED")
    );
}

#[tokio::test]
async fn a_recovery_code_lets_in_once_and_guessing_has_to_wait() {
    let site = Site::start().await;
    let (_, codes) = enrolled(&site).await;
    assert_eq!(codes.len(), 10);
    let ticket = cookie(&password(&site).await);
    let written = codes[0].to_uppercase().replace('-', " ");
    let done = post(&site, "/login/code", &[("code", &written)], &ticket).await;
    assert_eq!((done.status, done.header("location")), (303, "/"), "{done:?}");
    let ticket = cookie(&password(&site).await);
    for _ in 0..server::access::guesses::FREE {
        let again = post(&site, "/login/code", &[("code", &codes[0])], &ticket).await;
        assert!(again.header("location").contains("error=wrong"), "{again:?}");
    }
    let wait = post(&site, "/login/code", &[("code", &codes[1])], &ticket).await;
    assert!(wait.header("location").contains("error=wait"), "{wait:?}");
}

#[tokio::test]
async fn a_link_asks_for_it_too_and_an_administrator_can_reset_it() {
    let site = Site::start().await;
    let (app, _) = enrolled(&site).await;
    let link = site.running.server.access.link(&name("admin")).await.unwrap();
    let answer = post(&site, &format!("/welcome/{}", link.expose()), &[], "").await;
    assert!(answer.header("location").starts_with("/login/code"), "{answer:?}");

    let wrong = site
        .post("/api/v1/me/twoFactor/remove", json!({"code": "1"}))
        .await;
    assert_eq!(wrong.field(), "code");
    let twice = site.post("/api/v1/me/twoFactor", json!({})).await;
    assert_eq!(twice.error(), "FAILED_PRECONDITION");
    let reset = send(site.request(Method::DELETE, "/api/v1/users/admin/twoFactor")).await;
    assert_eq!(reset.json()["twoFactor"], false, "{reset:?}");
    assert_eq!(password(&site).await.header("location"), "/jobs");
    // Nothing of the old one is left.
    let confirm = site
        .post(
            "/api/v1/me/twoFactor/confirm",
            json!({"code": app.generate(seconds()).to_string()}),
        )
        .await;
    assert_eq!(confirm.error(), "FAILED_PRECONDITION");
}
