//! Signing in by an OpenID Connect provider, and what is not believed of one.

use crate::idp::{CLIENT, Idp, Key, SECRET, Signs};
use crate::site::{Answer, Site, name, send};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use server::config::{Config, Oidc};
use std::collections::HashMap;

const BACK: &str = "/sign-in/oidc/callback";
const PUBLIC: &str = "http://127.0.0.1:1";

fn oidc(issuer: &str, secret: &std::path::Path) -> Oidc {
    Oidc {
        issuer: issuer.to_owned(),
        client_id: CLIENT.to_owned(),
        client_secret_file: Some(secret.to_owned()),
        scopes: vec!["openid".to_owned(), "groups".to_owned()],
        name_claim: "preferred_username".to_owned(),
        groups_claim: "groups".to_owned(),
        roles: vec!["crew=operator".parse().unwrap(), "guests=viewer".parse().unwrap()],
        default_role: None,
        label: Some("By the harbour".to_owned()),
    }
}

/// A server with a provider, changed so.
async fn start_with(change: impl FnOnce(&mut Oidc)) -> (Site, Idp) {
    let (dir, idp) = (tempfile::tempdir().unwrap(), Idp::start().await);
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mut oidc = oidc(&idp.issuer, &secret);
    change(&mut oidc);
    let config = Config {
        public_url: Some(PUBLIC.to_owned()),
        oidc: Some(oidc),
        ..Config::simulated(dir.path().join("data"))
    };
    (Site::start_with(dir, config).await, idp)
}

async fn start() -> (Site, Idp) {
    start_with(|_| {}).await
}

/// All cookies that an answer sets, as they are written.
fn cookies(answer: &Answer) -> Vec<&str> {
    let all = answer.headers.get_all("set-cookie").iter();
    all.map(|v| v.to_str().unwrap()).collect()
}

/// A sign-in that a browser has begun.
struct Begun {
    state: String,
    cookie: String,
}

async fn begin(site: &Site, idp: &Idp, next: &str) -> Begun {
    begin_with(site, idp, next, "").await
}

/// One begun by a browser with this cookie.
async fn begin_with(site: &Site, idp: &Idp, next: &str, cookie: &str) -> Begun {
    let request = site.bare(Method::GET, &format!("/sign-in/oidc?next={next}"));
    let answer = send(request.header("cookie", cookie)).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let to: Url = answer.header("location").parse().unwrap();
    assert!(to.as_str().starts_with(&format!("{}/auth?", idp.issuer)), "{to}");
    let asked: HashMap<String, String> = to.query_pairs().into_owned().collect();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("scope", "openid groups"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(asked[name], value, "{name}");
    }
    assert_eq!(asked["redirect_uri"], format!("{PUBLIC}{BACK}"));
    let mut says = idp.says();
    (says.nonce, says.challenge, says.redirect) = (
        asked["nonce"].clone(),
        asked["code_challenge"].clone(),
        asked["redirect_uri"].clone(),
    );
    let [cookie] = cookies(&answer)[..] else {
        panic!("{answer:?}")
    };
    assert!(
        cookie.contains("HttpOnly")
            && cookie.contains("SameSite=Lax")
            && cookie.contains("Path=/sign-in/oidc"),
        "{cookie}"
    );
    Begun {
        state: asked["state"].clone(),
        cookie: cookie.split(';').next().unwrap().to_owned(),
    }
}

async fn back(site: &Site, cookie: &str, query: &str) -> Answer {
    let request = site.bare(Method::GET, &format!("{BACK}?{query}"));
    send(request.header("cookie", cookie)).await
}

/// There and back.
async fn sign_in(site: &Site, idp: &Idp) -> Answer {
    let begun = begin(site, idp, "/vms").await;
    back(site, &begun.cookie, &format!("code=good&state={}", begun.state)).await
}

/// The session that an answer begins, as a request sends it.
fn session(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = cookies(answer);
    let cookie = all.iter().find(|c| c.contains("SameSite=Strict")).unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// Asserts that nobody was let in, and that the page says this.
fn refused(answer: &Answer, http: u16, says: &str) {
    assert_eq!(
        (answer.status, answer.body.contains(says)),
        (http, true),
        "{says}: {answer:?}"
    );
    assert!(cookies(answer).is_empty(), "{answer:?}");
    assert!(answer.body.contains("href=\"/login\""), "{answer:?}");
}

async fn user(site: &Site, name: &str) -> Value {
    site.get(&format!("/api/v1/users/{name}")).await.json()
}

fn roles(user: &Value) -> Vec<&str> {
    let grants = user["grants"].as_array().unwrap();
    grants.iter().map(|g| g["role"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn somebody_new_comes_in_and_is_the_same_the_next_time() {
    let (site, idp) = start().await;
    let page = send(
        site.bare(Method::GET, "/login?next=/vms")
            .header("accept", "text/html"),
    )
    .await;
    assert!(
        page.body.contains("href=\"/sign-in/oidc?next=%2Fvms\"") && page.body.contains("By the harbour"),
        "{page:?}"
    );
    let answer = sign_in(&site, &idp).await;
    let session = session(&answer);
    // A page of ours goes on: the browser sends the session's cookie with nothing that another site has begun.
    assert!(answer.body.contains("content=\"0;url=/vms\""), "{answer:?}");
    let me = send(site.bare(Method::GET, "/api/v1/me").header("cookie", &session))
        .await
        .json();
    assert_eq!(
        (
            &me["user"]["name"],
            &me["user"]["oidcSubject"],
            &me["user"]["hasPassword"]
        ),
        (&json!("eve"), &json!("s-eve"), &json!(false)),
        "{me}"
    );
    assert_eq!(roles(&me["user"]), ["operator"]);

    // Under another name, in another group, it is the same user. A role that was given here stays.
    let given = site
        .post("/api/v1/users/eve/grants", json!({"role": "admin"}))
        .await;
    assert_eq!(given.status, 200, "{given:?}");
    idp.says().person = json!({"sub": "s-eve", "preferred_username": "adam", "groups": ["guests"]});
    sign_in(&site, &idp).await;
    assert_eq!(roles(&user(&site, "eve").await), ["admin", "viewer"]);
    let all = site.get("/api/v1/users").await.json();
    assert_eq!(all["totalSize"], 2, "{all}");
    // One look at the keys did for both.
    assert_eq!(idp.says().trades, 2);
    assert_eq!(idp.says().key_reads, 1);

    let audit = site.get("/api/v1/audit?filter=user=eve").await.json();
    let event = &audit["events"][0];
    assert_eq!(
        (&event["result"], &event["path"], &event["userId"]),
        (&json!("OK"), &json!(BACK), &me["user"]["id"]),
        "{audit}"
    );
}

#[tokio::test]
async fn who_has_lost_the_group_the_user_or_the_right_to_come_is_refused() {
    let (site, idp) = start().await;
    session(&sign_in(&site, &idp).await);
    idp.says().person["groups"] = json!(["others"]);
    refused(&sign_in(&site, &idp).await, 403, "none of your groups");
    // What the group gave is gone, also for sessions that stand.
    assert!(roles(&user(&site, "eve").await).is_empty());
    idp.says().person["groups"] = json!(["crew"]);
    session(&sign_in(&site, &idp).await);

    let path = "/api/v1/users/eve";
    let patch = |disabled| {
        site.request(Method::PATCH, path)
            .json(&json!({"disabled": disabled}))
    };
    assert_eq!(send(patch(true)).await.status, 200);
    refused(&sign_in(&site, &idp).await, 403, "has disabled the user");
    assert_eq!(send(patch(false)).await.status, 200);
    session(&sign_in(&site, &idp).await);
    assert_eq!(send(site.request(Method::DELETE, path)).await.status, 200);
    refused(&sign_in(&site, &idp).await, 403, "was removed here");
    // Until an administrator means it.
    let made = site.post("/api/v1/users", json!({"name": "eve-again"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let link = site.request(Method::PUT, "/api/v1/users/eve-again/oidc");
    assert_eq!(send(link.json(&json!({"subject": "s-eve"}))).await.status, 200);
    session(&sign_in(&site, &idp).await);
    assert_eq!(roles(&user(&site, "eve-again").await), ["operator"]);
}

#[tokio::test]
async fn a_name_makes_nobody_a_user_who_was_there_before() {
    let (site, idp) = start().await;
    idp.says().person["preferred_username"] = json!("Admin@example.com");
    let answer = sign_in(&site, &idp).await;
    refused(&answer, 403, "offshoot user link-oidc admin s-eve");
    let audit = site
        .get("/api/v1/audit?filter=result=PERMISSION_DENIED")
        .await
        .json();
    assert_eq!(audit["events"][0]["user"], "Admin@example.com", "{audit}");

    let put = |user: &str, body: Value| {
        let path = format!("/api/v1/users/{user}/oidc");
        send(site.request(Method::PUT, &path).json(&body))
    };
    let linked = put("admin", json!({"subject": "s-eve"})).await;
    assert_eq!(
        (linked.status, &linked.json()["oidcSubject"]),
        (200, &json!("s-eve")),
        "{linked:?}"
    );
    session(&sign_in(&site, &idp).await);
    assert_eq!(roles(&user(&site, "admin").await), ["admin", "operator"]);
    // A subject is one user's.
    site.user("vera", Some("viewer")).await;
    let taken = put("vera", json!({"subject": "s-eve"})).await;
    assert_eq!(
        (taken.status, taken.error().as_str()),
        (409, "ALREADY_EXISTS"),
        "{taken:?}"
    );
    assert_eq!(put("vera", json!({"subject": ""})).await.field(), "subject");
    assert_eq!(
        put("vera", json!({"subject": "a", "issuer": "b"})).await.field(),
        "issuer"
    );

    let unlink = || send(site.request(Method::DELETE, "/api/v1/users/admin/oidc"));
    let unlinked = unlink().await;
    assert_eq!(
        (unlinked.status, roles(&unlinked.json())),
        (200, vec!["admin"]),
        "{unlinked:?}"
    );
    assert_eq!(unlink().await.error(), "FAILED_PRECONDITION");
    refused(
        &sign_in(&site, &idp).await,
        403,
        "there is a user admin here already",
    );
}

#[tokio::test]
async fn a_token_that_is_not_for_this_sign_in_is_not_believed() {
    let (site, idp) = start().await;
    let now = server::db::now().micros() / 1_000_000;
    for instead in [
        json!({"nonce": "another"}),
        json!({"nonce": null}),
        json!({"aud": "another"}),
        json!({"aud": null}),
        json!({"aud": [CLIENT, "another"]}),
        json!({"azp": "another"}),
        json!({"iss": "https://login.example"}),
        json!({"iss": [idp.issuer, "https://login.example"]}),
        json!({"iss": null}),
        json!({"exp": now - 60}),
        json!({"exp": null}),
        json!({"nbf": now + 120}),
        json!({"sub": ""}),
        json!({"sub": null}),
    ] {
        idp.says().instead = instead.clone();
        let answer = sign_in(&site, &idp).await;
        println!("{instead}");
        refused(&answer, 403, "is not believed");
    }
    idp.says().instead = json!({});
    for signs in [Signs::Nothing, Signs::Secret] {
        idp.says().signs = signs;
        println!("{signs:?}");
        refused(&sign_in(&site, &idp).await, 403, "is not believed");
    }
    // Under the name of a key that is published, by another.
    idp.says().signs = Signs::Key;
    let right = std::mem::replace(&mut idp.says().key, Key::new("one"));
    refused(&sign_in(&site, &idp).await, 403, "is not believed");
    idp.says().key = right;
    session(&sign_in(&site, &idp).await);
    let audit = site
        .get("/api/v1/audit?filter=result=UNAUTHENTICATED")
        .await
        .json();
    assert_eq!(audit["totalSize"], 17, "{audit}");
}

#[tokio::test]
async fn a_new_key_is_looked_up_and_an_unknown_one_is_not_believed() {
    let (site, idp) = start().await;
    session(&sign_in(&site, &idp).await);
    assert_eq!(idp.says().key_reads, 1);
    idp.says().key = Key::new("two");
    refused(&sign_in(&site, &idp).await, 403, "is not believed");
    assert_eq!(idp.says().key_reads, 2);
    let public = idp.says().key.public();
    idp.says().published.push(public);
    session(&sign_in(&site, &idp).await);
    session(&sign_in(&site, &idp).await);
    assert_eq!(idp.says().key_reads, 3);
}

#[tokio::test]
async fn only_the_browser_that_began_ends_it_and_once() {
    let (site, idp) = start().await;
    let (mine, another) = (begin(&site, &idp, "/").await, begin(&site, &idp, "/").await);
    let query = format!("code=good&state={}", another.state);
    for (cookie, query) in [
        ("", query.as_str()),
        (mine.cookie.as_str(), query.as_str()),
        (mine.cookie.as_str(), "code=good"),
        (mine.cookie.as_str(), "code=good&state=none"),
    ] {
        refused(&back(&site, cookie, query).await, 400, "cannot be ended");
    }
    assert_eq!(idp.says().trades, 0);
    session(&back(&site, &another.cookie, &query).await);
    refused(
        &back(&site, &another.cookie, &query).await,
        400,
        "cannot be ended",
    );
    assert_eq!(idp.says().trades, 1);
    // A browser without a cookie is nobody's: not even if another had an empty one.
    let name = mine.cookie.split_once('=').unwrap().0;
    let begun = begin_with(&site, &idp, "/", &format!("{name}=")).await;
    let query = format!("code=good&state={}", begun.state);
    for cookie in [String::new(), format!("{name}=")] {
        refused(&back(&site, &cookie, &query).await, 400, "cannot be ended");
    }
    session(&back(&site, &begun.cookie, &query).await);
    // Two tabs of one browser do not disturb each other.
    let first = begin_with(&site, &idp, "/", &mine.cookie).await;
    assert_eq!(first.cookie, mine.cookie);
    session(&back(&site, &mine.cookie, &format!("code=good&state={}", first.state)).await);
    // The code of one sign-in is none of another: the provider asks for what proves it.
    refused(
        &back(&site, &mine.cookie, &format!("code=good&state={}", mine.state)).await,
        403,
        "does not take the code",
    );
}

#[tokio::test]
async fn what_the_provider_says_instead_of_a_code_is_told() {
    let (site, idp) = start().await;
    let cases = [
        (
            "error=access_denied&error_description=%3Cb%3Eno",
            "access_denied (&lt;b&gt;no)",
        ),
        ("code=good&error=server_error", "server_error"),
        ("code=bad", "invalid_grant"),
        ("code=good&iss=https://login.example", "another provider"),
        ("", "it sent no code"),
    ];
    for (query, says) in cases {
        let begun = begin(&site, &idp, "/").await;
        let answer = back(&site, &begun.cookie, &format!("state={}&{query}", begun.state)).await;
        refused(&answer, 403, says);
    }
}

#[tokio::test]
async fn nobody_is_led_elsewhere() {
    let (site, idp) = start().await;
    for next in [
        "https://evil.example/",
        "//evil.example",
        "/%5Cevil.example",
        "/sign-in/oidc",
    ] {
        let begun = begin(&site, &idp, next).await;
        let answer = back(&site, &begun.cookie, &format!("code=good&state={}", begun.state)).await;
        session(&answer);
        assert!(answer.body.contains("content=\"0;url=/\""), "{next}: {answer:?}");
    }
}

#[tokio::test]
async fn a_provider_that_tells_more_when_asked_is_asked() {
    let (site, idp) = start_with(|oidc| oidc.default_role = Some(name("viewer"))).await;
    idp.says().person = json!({"sub": "s-vera"});
    idp.says().more = json!({"sub": "s-eve", "preferred_username": "eve", "groups": ["crew"]});
    refused(&sign_in(&site, &idp).await, 403, "is not believed");
    idp.says().more = json!({"sub": "s-vera", "preferred_username": "vera"});
    session(&sign_in(&site, &idp).await);
    assert_eq!(roles(&user(&site, "vera").await), ["viewer"]);
}

#[tokio::test]
async fn a_provider_that_is_away_keeps_nobody_from_a_password() {
    let (site, idp) = start().await;
    idp.says().broken = true;
    refused(&sign_in(&site, &idp).await, 502, "does not answer");
    let page = send(site.bare(Method::GET, "/login").header("accept", "text/html")).await;
    assert_eq!(page.status, 200, "{page:?}");
    site.sign_in().await;

    // Nobody has answered yet, and nobody will.
    let (site, idp) = start().await;
    idp.go_away().await;
    let german = site
        .bare(Method::GET, "/sign-in/oidc")
        .header("accept-language", "de");
    let answer = send(german).await;
    refused(&answer, 502, "Der Anbieter antwortet nicht");
    assert!(
        answer.body.contains("/app.css\""),
        "drawn as the console: {answer:?}"
    );
}

#[tokio::test]
async fn an_address_begins_only_so_many() {
    let (site, idp) = start().await;
    for _ in 0..server::access::guesses::FREE_OF_ADDRESS {
        begin(&site, &idp, "/").await;
    }
    refused(&send(site.bare(Method::GET, "/sign-in/oidc")).await, 429, "wait");
}

#[tokio::test]
async fn without_a_provider_there_is_no_way_to_it() {
    let site = Site::start().await;
    let page = send(site.bare(Method::GET, "/login").header("accept", "text/html")).await;
    assert!(!page.body.contains("/sign-in/oidc"), "{page:?}");
    for path in ["/sign-in/oidc", BACK] {
        assert_eq!(send(site.bare(Method::GET, path)).await.error(), "NOT_FOUND");
    }
    let link = site.request(Method::PUT, "/api/v1/users/admin/oidc");
    let link = send(link.json(&json!({"subject": "s"}))).await;
    assert_eq!(
        (link.status, link.error().as_str()),
        (409, "FAILED_PRECONDITION"),
        "{link:?}"
    );
}
