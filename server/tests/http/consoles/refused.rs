//! Who is not let in.

use super::{connect, machine, work};
use crate::site::Site;
use serde_json::json;

const PATHS: [&str; 2] = ["web/console", "web/vnc"];

async fn refused(site: &Site, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    match connect(&site.running, path, headers).await {
        Err(refusal) => refusal,
        Ok(_) => panic!("{path} is let in with {headers:?}"),
    }
}

#[tokio::test]
async fn a_page_of_another_site_opens_nothing() {
    let site = Site::start().await;
    machine(&site.running, &site.token, "web", None).await;
    let cookie = site.sign_in().await;
    let own = site.url("");
    for path in PATHS {
        for headers in [
            &[("cookie", cookie.as_str())][..],
            &[("cookie", &cookie), ("origin", "http://evil.example")],
            &[("cookie", &cookie), ("origin", "null")],
            &[
                ("cookie", &cookie),
                ("origin", &own),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            let (status, body) = refused(&site, path, headers).await;
            assert_eq!(status, 403, "{path} {headers:?}: {body}");
            assert!(body.contains("PERMISSION_DENIED"), "{body}");
        }
        let (status, _) = refused(&site, path, &[("origin", &own)]).await;
        assert_eq!(status, 401, "nobody is let in");
    }
}

#[tokio::test]
async fn a_machine_that_is_off_is_said_to_be() {
    let site = Site::start().await;
    machine(&site.running, &site.token, "web", None).await;
    work(
        &site.running,
        &site.token,
        "/web/stop",
        json!({ "mode": "POWER_OFF" }),
    )
    .await;
    let token = format!("Bearer {}", site.token);
    for path in PATHS {
        let (status, body) = refused(&site, path, &[("authorization", &token)]).await;
        assert_eq!(status, 409, "{body}");
        assert!(body.contains("FAILED_PRECONDITION"), "{body}");
        assert!(body.contains("web is not running: start it first"), "{body}");
        let nobody = path.replace("web", "nobody");
        assert_eq!(refused(&site, &nobody, &[("authorization", &token)]).await.0, 404);
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let site = Site::start().await;
    for path in PATHS {
        let answer = site.get(&format!("/api/v1/vms/{path}")).await;
        assert_eq!(answer.field(), "Upgrade");
        assert!(answer.body.contains("ws://"), "{answer:?}");
    }
}
