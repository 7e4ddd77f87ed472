//! Policies and their runs, over HTTP.

use crate::site::{Answer, Site, send};
use reqwest::Method;
use serde_json::{Value, json};

async fn ask(site: &Site, method: Method, path: &str, body: Value) -> Answer {
    send(site.request(method, &format!("/api/v1{path}")).json(&body)).await
}

async fn local_target(site: &Site, name: &str) {
    let path = site.running.server.world().data_dir.join(format!("{name}.vault"));
    let body = json!({"name": name, "local": {"path": path}, "passphrase": "correct horse battery staple"});
    let made = ask(site, Method::POST, "/targets", body).await;
    assert_eq!(made.status, 201, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_made_changed_tried_run_and_deleted() {
    let site = Site::start().await;
    site.machine("web-1").await;
    local_target(&site, "local").await;
    let whole = |change: &[(&str, Value)]| {
        let mut body = json!({"name": "nightly", "vms": ["web-1"], "targets": ["local"],
            "schedule": {"cron": "0 2 * * *", "timeZone": "Europe/Berlin"}});
        for (field, value) in change {
            body[*field] = value.clone();
        }
        body
    };
    for (change, field) in [
        (("vms", json!(["nobody"])), "vms"),
        (("targets", json!(["nowhere"])), "targets"),
        (("schedule", json!({"cron": "61 * * * *"})), "schedule.cron"),
        (
            ("schedule", json!({"cron": "@daily", "timeZone": "Mars/Base"})),
            "schedule.timeZone",
        ),
        (("retention", json!({"daily": 0})), "retention.daily"),
        (
            (
                "window",
                json!([{"from": "22:00", "to": "06:00", "timeZone": "Mars/Base"}]),
            ),
            "window.timeZone",
        ),
    ] {
        let refused = ask(&site, Method::POST, "/policies", whole(&[change])).await;
        assert_eq!(refused.field(), field, "{refused:?}");
    }
    let made = ask(&site, Method::POST, "/policies", whole(&[])).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/api/v1/policies/{id}"));
    assert!(made.json()["nextTime"].is_string());
    let again = ask(&site, Method::POST, "/policies", whole(&[])).await;
    assert_eq!(again.error(), "ALREADY_EXISTS");
    let listed = site.get("/api/v1/policies").await.json();
    assert_eq!(listed["policies"][0]["targets"], json!(["local"]), "{listed}");

    // Names of targets follow them; what a policy names is not detached.
    ask(&site, Method::PATCH, "/targets/local", json!({"name": "near"})).await;
    assert_eq!(
        site.get("/api/v1/policies/nightly").await.json()["targets"],
        json!(["near"])
    );
    let kept = ask(&site, Method::DELETE, "/targets/near", json!({})).await;
    assert_eq!(kept.error(), "FAILED_PRECONDITION");
    let changed = ask(
        &site,
        Method::PATCH,
        "/policies/nightly",
        json!({"schedule": null, "retention": {"keepLast": 1}}),
    )
    .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["nextTime"], Value::Null);

    let ran = ask(&site, Method::POST, "/policies/nightly/run", json!({})).await;
    assert_eq!(ran.status, 202, "{ran:?}");
    let run = ran.json();
    assert_eq!(run["policyName"], "nightly");
    site.ended(run["tasks"][0]["id"].as_str().unwrap()).await;
    let run = site.get(ran.header("location")).await.json();
    assert_eq!(run["status"], "SUCCESS", "{run}");
    let runs = site.get("/api/v1/copyRuns?filter=policy=nightly").await.json();
    assert_eq!(
        (&runs["totalSize"], &runs["copyRuns"][0]["id"]),
        (&json!(1), &run["id"])
    );
    let preview = ask(
        &site,
        Method::POST,
        "/policies/nightly/preview",
        json!({"retention": {"keepLast": 1}}),
    )
    .await;
    assert_eq!(preview.json()["groups"][0]["target"], "near", "{preview:?}");
    assert_eq!(preview.json()["keep"], 1);

    let gone = ask(&site, Method::DELETE, "/policies/nightly", json!({})).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(site.get("/api/v1/policies/nightly").await.error(), "NOT_FOUND");
    // Its runs and copies stay.
    assert_eq!(site.get(ran.header("location")).await.status, 200);
    assert_eq!(site.get("/api/v1/copies").await.json()["totalSize"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_at_some_machines_sees_their_tasks_and_runs_nothing() {
    let site = Site::start().await;
    site.machine("web-1").await;
    local_target(&site, "local").await;
    let body = json!({"name": "nightly", "vms": ["web-1"], "targets": ["local"]});
    ask(&site, Method::POST, "/policies", body).await;
    let ran = ask(&site, Method::POST, "/policies/nightly/run", json!({})).await;
    let role = json!({"name": "looker", "privileges": ["target.read"]});
    let made = ask(&site, Method::POST, "/roles", role).await;
    assert_eq!(made.status, 201, "{made:?}");
    let eve = site.user("eve", Some("looker")).await;
    let run = site.by(&eve, Method::GET, ran.header("location"), None).await;
    assert_eq!((run.status, &run.json()["tasks"]), (200, &json!([])), "{run:?}");
    let refused = site
        .by(
            &eve,
            Method::POST,
            "/api/v1/policies/nightly/run",
            Some(json!({})),
        )
        .await;
    assert_eq!(refused.error(), "PERMISSION_DENIED");
    let refused = site
        .by(&eve, Method::DELETE, "/api/v1/policies/nightly", None)
        .await;
    assert_eq!(refused.error(), "PERMISSION_DENIED");
}
