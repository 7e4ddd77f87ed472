//! Machines, snapshots, clones and jobs, the whole way over HTTP on the simulation.

use crate::feed::Source;
use crate::site::{Answer, Site, send};
use reqwest::Method;
use serde_json::{Value, json};

/// Follows a job by the feed until it is over.
pub async fn over(source: &mut Source, id: &Value) -> Value {
    until(source, id, |job| !job["endTime"].is_null()).await
}

pub async fn until(source: &mut Source, id: &Value, seen: impl Fn(&Value) -> bool) -> Value {
    loop {
        let event = source.next().await;
        if event.name == "job" && event.data["id"] == *id && seen(&event.data) {
            return event.data;
        }
    }
}

pub fn accepted(answer: &Answer, noun: &str) -> Value {
    assert_eq!(answer.status, 202, "{answer:?}");
    let job = answer.json();
    let id = job["id"].as_str().or(job["offshoot"]["id"].as_str()).unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/{noun}/{id}"));
    job
}

/// A machine that runs.
pub async fn machine(site: &Site, source: &mut Source, name: &str) {
    let request = json!({"name": name, "disks": [{"sizeGib": 1}], "start": true});
    let job = accepted(&site.post("/api/v1/vms", request).await, "jobs");
    assert_eq!(over(source, &job["id"]).await["state"], "SUCCEEDED");
}

async fn snapshot(site: &Site, source: &mut Source, vm: &str) {
    let job = accepted(
        &site
            .post(&format!("/api/v1/vms/{vm}/snapshots"), json!({"name": "first"}))
            .await,
        "jobs",
    );
    assert_eq!(over(source, &job["id"]).await["state"], "SUCCEEDED");
}

#[tokio::test]
async fn a_machine_is_made_cloned_and_deleted() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "web-1").await;
    let vm = site.get("/api/v1/vms/web-1").await.json();
    assert_eq!(
        (&vm["state"], &vm["lineage"]["kind"]),
        (&json!("RUNNING"), &json!("CREATED"))
    );
    // By its id as by its name.
    let id = vm["id"].as_str().unwrap();
    assert_eq!(
        site.get(&format!("/api/v1/vms/{id}")).await.json()["name"],
        "web-1"
    );

    let clone = json!({"cloneJobId": "c1", "target": {"name": "web-2"}});
    let clones = "/api/v1/vms/web-1/cloneJobs";
    let none = site.post(clones, clone.clone()).await;
    assert_eq!((none.status, none.error().as_str()), (409, "FAILED_PRECONDITION"));
    assert!(none.body.contains("take a snapshot first"), "{}", none.body);

    snapshot(&site, &mut source, "web-1").await;
    let view = accepted(&site.post(clones, clone).await, "cloneJobs");
    let job = over(&mut source, &view["offshoot"]["id"]).await;
    assert_eq!(job["state"], "SUCCEEDED", "{job}");
    assert_eq!(
        job["createdBy"].as_str().unwrap().split('/').next(),
        Some("admin")
    );
    let view = site.get("/api/v1/cloneJobs/c1").await.json();
    assert_eq!(view["offshoot"]["target"]["name"], "web-2", "{view}");
    assert_eq!(
        site.get(clones).await.json()["cloneJobs"][0]["name"],
        view["name"]
    );
    let id = job["id"].as_str().unwrap();
    let log = site.get(&format!("/api/v1/jobs/{id}/log")).await.json();
    assert!(!log["lines"].as_array().unwrap().is_empty());
    assert_eq!(
        site.get("/api/v1/vms/web-2").await.json()["lineage"]["kind"],
        "CLONE"
    );
    assert_eq!(
        site.get("/api/v1/vms/web-1/snapshots/first").await.json()["current"],
        true
    );

    // A second cancel, and deleting what runs, are refused with what to do.
    let cancel = site.post(&format!("/api/v1/jobs/{id}/cancel"), json!({})).await;
    assert_eq!(
        (cancel.status, cancel.error().as_str()),
        (409, "FAILED_PRECONDITION")
    );
    let delete = send(site.request(Method::DELETE, "/api/v1/vms/web-2")).await;
    assert_eq!(
        (delete.status, delete.error().as_str()),
        (409, "FAILED_PRECONDITION")
    );
    let stop = site
        .post("/api/v1/vms/web-2/stop", json!({"mode": "POWER_OFF"}))
        .await;
    over(&mut source, &accepted(&stop, "jobs")["id"]).await;
    let delete = send(site.request(Method::DELETE, "/api/v1/vms/web-2")).await;
    over(&mut source, &accepted(&delete, "jobs")["id"]).await;
    assert_eq!(site.get("/api/v1/vms/web-2").await.error(), "NOT_FOUND");

    let summary = site.get("/api/v1/summary").await.json();
    assert_eq!(
        (&summary["vms"], &summary["snapshots"], &summary["simulated"]),
        (&json!(1), &json!(1), &json!(true))
    );
}

#[tokio::test]
async fn a_request_id_makes_a_request_once() {
    let site = Site::start().await;
    let mut request = json!({"name": "a", "disks": [{"sizeGib": 1}], "requestId": uuid::Uuid::new_v4()});
    let first = accepted(&site.post("/api/v1/vms", request.clone()).await, "jobs");
    let second = accepted(&site.post("/api/v1/vms", request.clone()).await, "jobs");
    assert_eq!(first["id"], second["id"]);
    assert_eq!(site.get("/api/v1/jobs").await.json()["totalSize"], 1);
    request["name"] = json!("b");
    assert_eq!(site.post("/api/v1/vms", request).await.field(), "requestId");
}

#[tokio::test]
async fn a_clone_job_waits_is_cancelled_and_cleans_up() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "web-1").await;
    snapshot(&site, &mut source, "web-1").await;
    let target = "wait-at-preparing-vm-disks";
    let clone = json!({"target": {"name": target}});
    let view = accepted(
        &site.post("/api/v1/vms/web-1/cloneJobs", clone.clone()).await,
        "cloneJobs",
    );
    let id = &view["offshoot"]["id"];
    let at_step = |job: &Value| {
        let steps = job["steps"].as_array().unwrap();
        steps
            .iter()
            .any(|s| s["name"] == "preparing-vm-disks" && s["state"] == "RUNNING")
    };
    until(&mut source, id, at_step).await;
    let cancel = format!("/api/v1/cloneJobs/{}/cancel", id.as_str().unwrap());
    accepted(&site.post(&cancel, json!({})).await, "cloneJobs");
    assert_eq!(over(&mut source, id).await["state"], "CANCELLED");
    assert_eq!(site.get(&format!("/api/v1/vms/{target}")).await.status, 404);

    // Tried again it waits again, and ends well once it is released.
    let retry = site
        .post(&format!("/api/v1/jobs/{}/retry", id.as_str().unwrap()), json!({}))
        .await;
    let job = accepted(&retry, "jobs");
    assert_eq!(job["retryOf"], *id);
    until(&mut source, &job["id"], at_step).await;
    assert_eq!(
        site.post(&format!("/api/v1/sim/{target}/release"), json!({}))
            .await
            .status,
        200
    );
    assert_eq!(over(&mut source, &job["id"]).await["state"], "SUCCEEDED");
}

#[tokio::test]
async fn screen_and_serial_are_there_while_it_runs() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "web-1").await;
    let screen = site
        .request(Method::GET, "/api/v1/vms/web-1/screen")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (screen.status().as_u16(), &screen.headers()["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    assert!(screen.bytes().await.unwrap().starts_with(b"\x89PNG"));
    let serial = site.get("/api/v1/vms/web-1/serial").await;
    assert_eq!(
        (serial.status, serial.header("content-type")),
        (200, "text/plain; charset=utf-8")
    );
    assert!(serial.body.contains("Linux version"), "{serial:?}");
    let part = site
        .request(Method::GET, "/api/v1/vms/web-1/serial")
        .header("range", "bytes=2-5");
    let part = send(part).await;
    assert_eq!((part.status, part.body.as_str()), (206, &serial.body[2..6]));

    let stop = site
        .post("/api/v1/vms/web-1/stop", json!({"mode": "POWER_OFF"}))
        .await;
    over(&mut source, &accepted(&stop, "jobs")["id"]).await;
    let dark = site.get("/api/v1/vms/web-1/screen").await;
    assert_eq!((dark.status, dark.error().as_str()), (409, "FAILED_PRECONDITION"));
    let shown = site
        .request(Method::GET, "/api/v1/vms/web-1/screen")
        .header("sec-fetch-dest", "image");
    assert_eq!(send(shown).await.status, 204, "an <img> gets no fault");
    assert_eq!(site.get("/api/v1/vms/web-1/serial").await.error(), "NOT_FOUND");
}

#[tokio::test]
async fn requests_are_refused_by_field_and_state() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "web-1").await;
    let vms = "/api/v1/vms";
    let with = |key: &str, value: Value| {
        let mut request = json!({"name": "a", "disks": [{"sizeGib": 1}]});
        request[key] = value;
        request
    };
    for (key, value, field) in [
        ("cpus", json!(0), "cpus"),
        ("memoryMib", json!(1), "memoryMib"),
        ("disks", json!([]), "disks"),
        ("name", json!("../etc"), "name"),
        ("colour", json!("red"), "colour"),
    ] {
        assert_eq!(site.post(vms, with(key, value)).await.field(), field);
    }
    let taken = site.post(vms, with("name", json!("web-1"))).await;
    assert_eq!((taken.status, taken.error().as_str()), (409, "ALREADY_EXISTS"));
    let started = site.post("/api/v1/vms/web-1/start", json!({})).await;
    assert_eq!(
        (started.status, started.error().as_str()),
        (409, "FAILED_PRECONDITION")
    );
    assert_eq!(
        site.post("/api/v1/vms/web-1/start", json!({"now": true}))
            .await
            .field(),
        "now"
    );
    for path in [
        "/api/v1/vms/none",
        "/api/v1/vms/..%2Fweb-1",
        "/api/v1/jobs/none",
        "/api/v1/cloneJobs/none",
    ] {
        let missing = site.get(path).await;
        assert_eq!(
            (missing.status, missing.error().as_str()),
            (404, "NOT_FOUND"),
            "{path}"
        );
    }
    assert_eq!(site.get("/api/v1/vms/%ff").await.field(), "path");
}

#[tokio::test]
async fn labels_change_at_once() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "web-1").await;
    let patch = |body: Value| send(site.request(Method::PATCH, "/api/v1/vms/web-1").json(&body));
    assert_eq!(
        patch(json!({"labels": {"tier": "web"}})).await.json()["labels"]["tier"],
        "web"
    );
    assert_eq!(patch(json!({"labels": {"": "x"}})).await.field(), "labels");
    loop {
        let event = source.next().await;
        if event.name == "vm" && event.data["labels"]["tier"] == "web" {
            break;
        }
    }
}

#[tokio::test]
async fn places_are_listed_and_found() {
    let site = Site::start().await;
    for (nouns, name) in [
        ("hosts", "host-1"),
        ("storages", "local"),
        ("networks", "isolated"),
    ] {
        let page = site
            .get(&format!("/api/v1/{nouns}?filter=name={name}"))
            .await
            .json();
        assert_eq!(
            (&page[nouns][0]["name"], &page["totalSize"]),
            (&json!(name), &json!(1)),
            "{page}"
        );
        let id = page[nouns][0]["id"].as_str().unwrap();
        assert_eq!(
            site.get(&format!("/api/v1/{nouns}/{id}")).await.json()["name"],
            name
        );
        assert_eq!(
            site.get(&format!("/api/v1/{nouns}/nowhere")).await.error(),
            "NOT_FOUND"
        );
        assert_eq!(
            site.get(&format!("/api/v1/{nouns}?orderBy=size")).await.field(),
            "orderBy"
        );
    }
    let first = site.get("/api/v1/networks?pageSize=1").await.json();
    let token = first["nextPageToken"].as_str().unwrap();
    let second = site
        .get(&format!("/api/v1/networks?pageSize=1&pageToken={token}"))
        .await
        .json();
    assert_eq!(
        (&first["networks"][0]["name"], &second["networks"][0]["name"]),
        (&json!("isolated"), &json!("user"))
    );
    assert!(second.get("nextPageToken").is_none());
}
