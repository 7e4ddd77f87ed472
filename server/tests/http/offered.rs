//! What the pages' forms offer: nothing that who looks lacks the privilege for.

use crate::feed::Source;
use crate::pages::page;
use crate::site::Site;
use crate::vms::{accepted, machine, over, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a page would post by a button that is not disabled.
fn offers(page: &str) -> impl Iterator<Item = String> {
    page.split("<form ").skip(1).filter_map(|form| {
        let form = form.split("</form>").next()?;
        let (_, action) = form.split_once("action=\"")?;
        let (action, _) = action.split_once('"')?;
        let sends = |button: &str| {
            let (tag, _) = button.split_once('>').unwrap_or((button, ""));
            !tag.contains("type=\"button\"") && !tag.contains("aria-disabled=\"true\"")
        };
        let sends = form.split("<button").skip(1).any(sends);
        (sends && action.starts_with("/do/")).then(|| action.to_owned())
    })
}

/// What all of these pages offer.
async fn offered(site: &Site, session: &str, pages: &[String]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for path in pages {
        let answer = page(site, session, path).await;
        assert!(matches!(answer.status, 200 | 403), "{path}: {answer:?}");
        all.extend(offers(&answer.body));
    }
    all
}

async fn done(site: &Site, source: &mut Source, path: &str, request: Value) {
    let job = accepted(&site.post(path, request).await, "jobs");
    let job = over(source, &job["id"]).await;
    assert_eq!(job["state"], "SUCCEEDED", "{job}");
}

#[tokio::test]
async fn nobody_is_offered_what_they_may_not_do() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "runs").await;
    site.machine("still").await;
    for vm in ["runs", "still"] {
        let path = format!("/api/v1/vms/{vm}/snapshots");
        done(&site, &mut source, &path, json!({"name": "first"})).await;
    }
    let fork = json!({"names": ["fork"], "keepPoint": true, "pointName": "point"});
    done(&site, &mut source, "/api/v1/vms/runs/instantClones", fork).await;
    let image = json!({"name": "base", "snapshot": {"vm": "still", "snapshot": "first"}});
    done(&site, &mut source, "/api/v1/images", image).await;
    let clone = json!({"target": {"name": "wait-at-preparing-vm-disks"}});
    let clone = accepted(
        &site.post("/api/v1/vms/still/cloneJobs", clone).await,
        "cloneJobs",
    );
    let job = &clone["offshoot"]["id"];
    until(&mut source, job, |job| job["state"] == "RUNNING").await;
    let job = job.as_str().unwrap();

    let get = async |path: &str, pointer: &str| {
        let answer = site.get(path).await.json();
        answer.pointer(pointer).unwrap().as_str().unwrap().to_owned()
    };
    let snapshot = get("/api/v1/vms/runs/snapshots", "/snapshots/0/id").await;
    let host = get("/api/v1/hosts", "/hosts/0/name").await;
    let runs = get("/api/v1/vms/runs", "/id").await;
    let one = [
        "",
        "/clone",
        "/edit",
        "/console",
        "?do=snapshot",
        "?do=fork",
        "?do=shutdown",
        "?do=image",
    ];
    let mut pages: Vec<_> = one.map(|page| format!("/vms/runs{page}")).into();
    pages
        .extend(["revert", "delete-snapshot"].map(|what| format!("/vms/runs?do={what}&snapshot={snapshot}")));
    let images = ["upload", "url", "path", "rename&image=base", "delete&image=base"];
    pages.extend(images.map(|what| format!("/images?do={what}")));
    let others = [
        "/",
        "/vms",
        "/vms/new",
        "/vms/runs?do=export",
        "/vms/fork?do=delete",
        "/hosts",
        "/storages",
        "/networks",
        "/fork-points",
        "/images",
        "/jobs",
        "/settings",
        "/users",
        "/users/vera",
        "/roles",
        "/roles/viewer",
        "/audit",
        "/notices",
    ];
    pages.extend(others.map(str::to_owned));
    pages.push(format!("/jobs/{job}?do=cancel"));

    site.user("vera", Some("viewer")).await;
    let viewer = offered(&site, &site.sign_in_as("vera").await, &pages).await;
    let own = ["theme", "language", "me", "tokens", "sessions"];
    let (own, others): (BTreeSet<_>, BTreeSet<_>) = viewer
        .iter()
        .partition(|action| own.contains(&action.split('/').nth(2).unwrap()));
    assert!(others.is_empty(), "a viewer only looks: {others:?}");
    assert!(own.iter().any(|action| *action == "/do/tokens/create"), "{own:?}");

    // They are there, for who may.
    let admin = offered(&site, &site.sign_in().await, &pages).await;
    let on_vm = [
        "clone",
        "snapshot",
        "fork",
        "shutdown",
        "image",
        "revert",
        "delete-snapshot",
        "export",
    ];
    let on_vm = on_vm.map(|action| format!("/do/vms/runs/{action}"));
    let more = [
        format!("/do/vms/{runs}/edit"),
        format!("/do/vms/{runs}/describe"),
        format!("/do/hosts/{host}/maintenance"),
        format!("/do/jobs/{job}/cancel"),
    ];
    let create = ["vms", "storages", "networks", "users", "roles", "notices"];
    let create = create.map(|noun| format!("/do/{noun}/create"));
    let rest = [
        "vms/bulk",
        "jobs/bulk",
        "images/import",
        "images/base/rename",
        "images/base/delete",
    ];
    let rest = rest.map(|action| format!("/do/{action}"));
    for action in on_vm.iter().chain(&more).chain(&create).chain(&rest) {
        assert!(admin.contains(action), "{action} is not among {admin:?}");
    }
    assert!(
        admin.iter().any(|a| a.starts_with("/do/forkPoints/")),
        "{admin:?}"
    );
}
