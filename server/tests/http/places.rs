//! Storages and networks come, change and go; machines are made there, and edited.

use crate::feed::Source;
use crate::site::{Answer, Site, send};
use crate::vms::{accepted, machine, over};
use reqwest::Method;
use serde_json::{Value, json};

async fn ask(site: &Site, method: Method, path: &str, body: Value) -> Answer {
    send(site.request(method, &format!("/api/v1{path}")).json(&body)).await
}

async fn done(site: &Site, source: &mut Source, path: &str, body: Value) -> Value {
    let job = accepted(&ask(site, Method::POST, path, body).await, "jobs");
    let job = over(source, &job["id"]).await;
    assert_eq!(job["state"], "SUCCEEDED", "{job}");
    job
}

#[tokio::test]
async fn networks_come_change_and_go() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    let made = ask(
        &site,
        Method::POST,
        "/networks",
        json!({"name": "lab", "kind": "ISOLATED"}),
    )
    .await;
    assert_eq!((made.status, &made.json()["nics"]), (201, &json!(0)), "{made:?}");
    while source.next().await.name != "network" {}
    for (body, field) in [
        (json!({"name": "lan", "kind": "BRIDGE"}), "bridge"),
        (
            json!({"name": "lan", "kind": "BRIDGE", "bridge": "../x"}),
            "bridge",
        ),
        (json!({"name": "lan", "kind": "USER", "bridge": "br0"}), "bridge"),
    ] {
        assert_eq!(ask(&site, Method::POST, "/networks", body).await.field(), field);
    }
    let again = ask(
        &site,
        Method::POST,
        "/networks",
        json!({"name": "lab", "kind": "USER"}),
    )
    .await;
    assert_eq!(again.error(), "ALREADY_EXISTS");
    let renamed = ask(&site, Method::PATCH, "/networks/lab", json!({"name": "workshop"})).await;
    assert_eq!(renamed.json()["name"], "workshop");
    let request =
        json!({"name": "web-1", "disks": [{"sizeGib": 1}], "networkInterfaces": [{"network": "workshop"}]});
    done(&site, &mut source, "/vms", request).await;
    let kept = ask(&site, Method::DELETE, "/networks/workshop", json!({})).await;
    assert_eq!(kept.error(), "FAILED_PRECONDITION");
    done(&site, &mut source, "/vms/web-1/edit", json!({"removeNics": [0]})).await;
    assert_eq!(
        ask(&site, Method::DELETE, "/networks/workshop", json!({}))
            .await
            .status,
        204
    );
    let always = ask(&site, Method::DELETE, "/networks/user", json!({})).await;
    assert_eq!(always.error(), "FAILED_PRECONDITION");
}

#[tokio::test]
async fn disks_go_to_the_storage_that_is_asked_for_and_clones_stand_on_them() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("fast");
    let made = ask(
        &site,
        Method::POST,
        "/storages",
        json!({"name": "fast", "path": path}),
    )
    .await;
    assert_eq!(
        (made.status, &made.json()["default"]),
        (201, &json!(false)),
        "{made:?}"
    );
    // Where the audit finds what was made.
    assert!(made.header("location").starts_with("/api/v1/storages/"));
    for path in [
        json!("relative"),
        json!("/proc/none"),
        json!("/proc/version"),
        json!(path.join("inner")),
        json!(place.path()),
        json!(format!("{}/../x", path.display())),
        json!(path),
    ] {
        let refused = ask(
            &site,
            Method::POST,
            "/storages",
            json!({"name": "other", "path": path}),
        )
        .await;
        assert_eq!(refused.field(), "path", "{path}");
    }
    let files = || std::fs::read_dir(&path).unwrap().count();
    let request = json!({"name": "web-1", "disks": [{"sizeGib": 1}], "storage": "fast", "start": true});
    done(&site, &mut source, "/vms", request).await;
    assert_eq!(files(), 1);
    // What continues a disk is beside it, and a linked clone stands on it from elsewhere.
    done(
        &site,
        &mut source,
        "/vms/web-1/snapshots",
        json!({"name": "first"}),
    )
    .await;
    assert_eq!(files(), 2);
    let clone = json!({"target": {"name": "web-2", "storage": "local"}});
    let job = ask(&site, Method::POST, "/vms/web-1/cloneJobs", clone)
        .await
        .json();
    assert_eq!(
        over(&mut source, &job["offshoot"]["id"]).await["state"],
        "SUCCEEDED"
    );
    assert_eq!(files(), 2);
    let kept = ask(&site, Method::DELETE, "/storages/fast", json!({})).await;
    assert_eq!(kept.error(), "FAILED_PRECONDITION");
    let default = ask(&site, Method::PATCH, "/storages/fast", json!({"default": true})).await;
    assert_eq!(default.json()["default"], true);
    done(
        &site,
        &mut source,
        "/vms",
        json!({"name": "web-3", "disks": [{"sizeGib": 1}]}),
    )
    .await;
    assert_eq!(files(), 3);
    let local = ask(&site, Method::PATCH, "/storages/local", json!({"default": true})).await;
    assert_eq!(local.status, 200);
    for vm in ["web-1", "web-2", "web-3"] {
        let _ = ask(
            &site,
            Method::POST,
            &format!("/vms/{vm}/stop"),
            json!({"mode": "POWER_OFF"}),
        )
        .await;
        let gone = loop {
            let gone = ask(&site, Method::DELETE, &format!("/vms/{vm}"), json!({})).await;
            if gone.status == 202 {
                break gone.json();
            }
            source.next().await;
        };
        assert_eq!(over(&mut source, &gone["id"]).await["state"], "SUCCEEDED");
    }
    assert_eq!(
        files(),
        0,
        "layers go with the last that stands on them, wherever they are"
    );
    assert_eq!(
        ask(&site, Method::DELETE, "/storages/fast", json!({}))
            .await
            .status,
        204
    );
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_machine_is_edited_and_what_waits_is_told() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    machine(&site, &mut source, "web-1").await;
    let edit = |body: Value| ask(&site, Method::POST, "/vms/web-1/edit", body);
    for (body, field) in [
        (json!({}), "request"),
        (json!({"cpus": 1, "memoryMib": 512, "bootOrder": [0]}), "request"),
        (json!({"cpus": 0}), "cpus"),
        (json!({"removeDisks": [7]}), "removeDisks"),
        (json!({"removeDisks": [0]}), "removeDisks"),
        (
            json!({"changeNics": [{"nic": 0, "network": "isolated", "forwards": [{"hostPort": 2222, "guestPort": 22}]}]}),
            "changeNics[0].forwards",
        ),
        (
            json!({"addNics": [{"network": "isolated", "forwards": [{"hostPort": 2222, "guestPort": 22}]}]}),
            "addNics[0].forwards",
        ),
        (json!({"bootOrder": [0, 0]}), "bootOrder"),
        (
            json!({"growDisks": [{"disk": 1, "sizeGib": 2}]}),
            "growDisks[0].disk",
        ),
        (json!({"addDisks": [{"sizeGib": 0}]}), "addDisks[0].sizeGib"),
        (
            json!({"changeNics": [{"nic": 3, "mac": "52:54:00:00:00:01"}]}),
            "changeNics[0].nic",
        ),
        (
            json!({"changeNics": [{"nic": 0, "mac": "x"}]}),
            "changeNics[0].mac",
        ),
    ] {
        let refused = edit(body.clone()).await;
        assert_eq!(refused.field(), field, "{body}: {refused:?}");
    }
    let own = free_port();
    let forward = json!([{"hostPort": own, "guestPort": 22}]);
    let request = json!({
        "cpus": 4, "growDisks": [{"disk": 0, "sizeGib": 3}], "addDisks": [{"sizeGib": 2}],
        "changeNics": [{"nic": 0, "mac": "52:54:00:00:00:01", "forwards": forward}]
    });
    done(&site, &mut source, "/vms/web-1/edit", request).await;
    let vm = site.get("/api/v1/vms/web-1").await.json();
    assert_eq!(
        (&vm["cpus"], &vm["atNextStart"]["cpus"]),
        (&json!(1), &json!(4)),
        "{vm}"
    );
    assert_eq!(vm["atNextStart"]["macs"][0]["mac"], "52:54:00:00:00:01");
    assert_eq!(vm["disks"].as_array().unwrap().len(), 2, "{vm}");
    assert_eq!(vm["disks"][0]["virtualBytes"], json!(3_u64 << 30));
    assert_eq!(vm["networkInterfaces"][0]["forwards"][0]["hostPort"], own);
    // A port of the host leads to one machine.
    machine(&site, &mut source, "web-2").await;
    let meets = json!({"changeNics": [{"nic": 0, "forwards": [{"hostPort": own, "guestPort": 80}]}]});
    let refused = ask(&site, Method::POST, "/vms/web-2/edit", meets).await;
    assert_eq!(refused.error(), "ALREADY_EXISTS");
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("web-1")
    );
    // A NIC that moves to where nothing leads to it leaves its ports to others.
    let moves = json!({"changeNics": [{"nic": 0, "network": "isolated"}]});
    done(&site, &mut source, "/vms/web-1/edit", moves).await;
    let vm = site.get("/api/v1/vms/web-1").await.json();
    assert!(vm["networkInterfaces"][0].get("forwards").is_none(), "{vm}");
    let free = json!({"changeNics": [{"nic": 0, "forwards": [{"hostPort": own, "guestPort": 80}]}]});
    done(&site, &mut source, "/vms/web-2/edit", free).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let meets = json!({"changeNics": [{"nic": 0, "forwards": [{"hostPort": port, "guestPort": 80}]}]});
    let refused = ask(&site, Method::POST, "/vms/web-2/edit", meets).await;
    assert_eq!(
        refused.error(),
        "FAILED_PRECONDITION",
        "another program listens there"
    );
    // What is asked to be as it runs waits no more.
    done(&site, &mut source, "/vms/web-1/edit", json!({"cpus": 1})).await;
    let vm = site.get("/api/v1/vms/web-1").await.json();
    assert!(vm["atNextStart"].get("cpus").is_none(), "{vm}");
    done(
        &site,
        &mut source,
        "/vms/web-1/stop",
        json!({"powerOffAfterSeconds": 5}),
    )
    .await;
    done(&site, &mut source, "/vms/web-1/start", json!({})).await;
    let vm = site.get("/api/v1/vms/web-1").await.json();
    assert!(vm.get("atNextStart").is_none(), "{vm}");
    assert_eq!(vm["networkInterfaces"][0]["mac"], "52:54:00:00:00:01");
}

#[tokio::test]
async fn a_machine_gets_another_name_and_its_turn() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    for name in ["web-1", "web-2"] {
        machine(&site, &mut source, name).await;
    }
    let patch = |body: Value| ask(&site, Method::PATCH, "/vms/web-1", body);
    assert_eq!(patch(json!({"name": "web-2"})).await.error(), "ALREADY_EXISTS");
    let vm = patch(json!({"autostart": 7, "description": "the front"}))
        .await
        .json();
    assert_eq!(
        (&vm["autostart"], &vm["description"]),
        (&json!(7), &json!("the front"))
    );
    let vm = patch(json!({"description": "the back"})).await.json();
    assert_eq!(vm["autostart"], 7, "what is not named stays");
    assert_eq!(patch(json!({"autostart": 10_000})).await.field(), "autostart");
    let vm = patch(json!({"autostart": null, "name": "front"})).await.json();
    assert_eq!((&vm["name"], vm.get("autostart")), (&json!("front"), None));
    assert_eq!(site.get("/api/v1/vms/web-1").await.error(), "NOT_FOUND");
}

#[tokio::test]
async fn a_storage_that_is_away_takes_nothing_else_with_it() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("unplugged");
    let request = json!({"name": "usb", "path": path});
    assert_eq!(ask(&site, Method::POST, "/storages", request).await.status, 201);
    std::fs::remove_dir(&path).unwrap();
    let listed = site.get("/api/v1/storages").await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let away = |name: &str| {
        let all = listed.json()["storages"].as_array().unwrap().clone();
        all.into_iter().find(|s| s["name"] == name).unwrap()["away"].clone()
    };
    assert!(away("usb").as_str().unwrap().contains("unplugged"), "{listed:?}");
    assert!(away("local").is_null(), "{listed:?}");
    for page in ["/", "/storages", "/vms/new"] {
        assert_eq!(
            crate::pages::page(&site, &session, page).await.status,
            200,
            "{page}"
        );
    }
    let storages = crate::pages::page(&site, &session, "/storages").await.body;
    assert!(storages.contains("out of reach"), "{storages}");
    assert_eq!(site.get("/metrics").await.status, 200);
    assert_eq!(
        ask(&site, Method::DELETE, "/storages/usb", json!({}))
            .await
            .status,
        204
    );
}
