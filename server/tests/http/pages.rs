//! The console's pages as HTML, and their forms without scripts.

use crate::site::{Answer, Site, cookie, form, send};
use reqwest::Method;
use serde_json::json;

pub async fn page(site: &Site, session: &str, path: &str) -> Answer {
    let request = site
        .bare(Method::GET, path)
        .header("accept", "text/html")
        .header("cookie", session);
    send(request).await
}

async fn post(site: &Site, session: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let request = site
        .bare(Method::POST, path)
        .header("accept", "text/html")
        .header("origin", site.url(""))
        .header("cookie", session);
    send(form(request, fields)).await
}

#[tokio::test]
async fn pages_are_rendered_with_the_rights_of_who_looks() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    for path in ["/", "/vms", "/jobs", "/settings", "/vms/new"] {
        let answer = page(&site, &session, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.body.contains("<h1") && answer.body.contains("data-feed=\""),
            "{path}: {}",
            answer.body
        );
        let csp = answer.header("content-security-policy");
        let nonce = csp.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert!(answer.body.contains(&format!("nonce=\"{nonce}\"")), "{path}");
        assert!(
            !csp.contains("unsafe-inline") && !answer.body.contains(" style=\""),
            "{path}"
        );
        assert_ne!(
            page(&site, &session, path)
                .await
                .header("content-security-policy"),
            csp,
            "a nonce is used once"
        );
    }
    assert_eq!(page(&site, &session, "/no/such/page").await.status, 404);
    assert_eq!(page(&site, &session, "/vms/no-such-vm").await.status, 404);
    assert_eq!(page(&site, "", "/vms").await.status, 303);
}

#[tokio::test]
async fn the_sign_in_is_a_page_for_everybody() {
    let site = Site::start().await;
    let answer = page(&site, "", "/login?next=%2Fjobs&error=wrong&name=%3Cscript%3E").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("action=\"/login\"") && !answer.body.contains("<script>"),
        "{}",
        answer.body
    );
    let session = site.sign_in().await;
    assert_eq!(page(&site, &session, "/login").await.header("location"), "/");
}

#[tokio::test]
async fn a_form_works_without_scripts_and_tells_how_it_went_once() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let made = post(
        &site,
        &session,
        "/do/tokens/create",
        &[("name", "by-form"), ("back", "/settings")],
    )
    .await;
    assert_eq!(
        (made.status, made.header("location")),
        (303, "/settings"),
        "{made:?}"
    );
    let first = page(&site, &session, "/settings").await.body;
    assert!(first.contains("ofs_") && first.contains("by-form"), "{first}");
    let second = page(&site, &session, "/settings").await.body;
    assert!(
        !second.contains("ofs_") && second.contains("by-form"),
        "the secret is shown once"
    );

    let twice = post(
        &site,
        &session,
        "/do/tokens/create",
        &[("name", "by-form"), ("back", "/settings")],
    )
    .await;
    assert_eq!(twice.status, 303);
    let page = page(&site, &session, "/settings").await.body;
    assert!(
        page.contains("there is a token called by-form already") || page.contains("There is a token"),
        "{page}"
    );
}

#[tokio::test]
async fn a_form_of_another_site_or_of_nobody_does_nothing() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let request = site
        .bare(Method::POST, "/do/tokens/create")
        .header("origin", "http://evil.example")
        .header("cookie", &session);
    assert_eq!(send(form(request, &[("name", "evil")])).await.status, 403);
    let nobody = post(&site, "", "/do/tokens/create", &[("name", "evil")]).await;
    assert_eq!((nobody.status, nobody.header("location")), (303, "/login"));
    let away = post(
        &site,
        &session,
        "/do/theme",
        &[("theme", "dark"), ("back", "//evil.example")],
    )
    .await;
    assert_eq!(away.header("location"), "/");
    assert!(away.header("set-cookie").starts_with("theme=dark"), "{away:?}");
    assert_eq!(post(&site, &session, "/do/nothing", &[]).await.status, 404);
    let tokens = site.get("/api/v1/tokens?filter=name=evil").await.json();
    assert_eq!(tokens["totalSize"], 0);
}

#[tokio::test]
async fn pages_about_people_are_for_those_who_manage_them() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    site.post("/api/v1/users", json!({"name": "vera", "role": "viewer"}))
        .await;
    for (path, says) in [
        ("/users", "vera"),
        ("/users/vera", "viewer on everything"),
        ("/roles", "Works with machines"),
        ("/roles/operator", "comes with Offshoot and stays as it is"),
        ("/audit", "POST /api/v1/users"),
        ("/notices", "Nobody is told"),
        ("/settings", "Set up two-factor"),
    ] {
        let answer = page(&site, &session, path).await;
        assert!(
            answer.status == 200 && answer.body.contains(says),
            "{path}: {answer:?}"
        );
    }
    let begun = post(&site, &session, "/do/me/twoFactor/begin", &[]).await;
    assert_eq!(begun.header("location"), "/settings/two-factor", "{begun:?}");
    let picture = page(&site, &session, "/settings/two-factor").await;
    assert!(
        picture.body.contains("<svg xmlns") && picture.body.contains("Turn it on"),
        "{picture:?}"
    );

    let link = site.post("/api/v1/users/vera/link", json!({})).await.json();
    let path = link["secret"]
        .as_str()
        .unwrap()
        .strip_prefix(&site.url(""))
        .unwrap()
        .to_owned();
    let vera = send(site.bare(Method::POST, &path).header("origin", site.url(""))).await;
    let vera = cookie(&vera);
    for path in ["/users", "/audit", "/notices"] {
        let answer = page(&site, &vera, path).await;
        assert!(
            answer.status == 403 && answer.body.contains("lacks the privilege"),
            "{path}: {answer:?}"
        );
    }
    let vms = page(&site, &vera, "/vms").await;
    assert!(
        vms.status == 200 && vms.body.contains("you lack the privilege vm.create"),
        "{vms:?}"
    );
    assert!(
        !vms.body.contains("href=\"/users\""),
        "what she may not see is not in the rail"
    );
}
