//! Disks go out as they are, and images of snapshots cost nothing.

use super::*;

/// A machine with the disk, and a snapshot of it.
async fn machine(site: &Site) {
    succeeded(&upload(site, "disk", disk(), json!({})).await);
    let request =
        json!({"name": "web-1", "disks": [{"image": "disk"}], "networkInterfaces": [], "start": false});
    succeeded(&over(site, &site.post("/api/v1/vms", request).await).await);
    let request = json!({"name": "first"});
    succeeded(&over(site, &site.post("/api/v1/vms/web-1/snapshots", request).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_exported_fetched_in_parts_and_removed() {
    let site = site(|_, _| ()).await;
    machine(&site).await;
    let before = left(&site).await;
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    std::fs::write(&raw, disk()).unwrap();
    for (format, request, name) in [
        (
            "qcow2",
            json!({"format": "QCOW2", "snapshot": "first"}),
            "web-1-first-0.qcow2",
        ),
        ("raw", json!({"format": "RAW"}), "web-1-0.img"),
        (
            "vmdk",
            json!({"format": "VMDK", "snapshot": "first"}),
            "web-1-first-0.vmdk",
        ),
    ] {
        let job = over(&site, &site.post("/api/v1/vms/web-1/exports", request).await).await;
        succeeded(&job);
        let all = site.get("/api/v1/exports?filter=vm=web-1").await.json();
        let export = &all["exports"][0];
        assert_eq!(export["name"], name);
        let path = format!("/api/v1/exports/{}", export["id"].as_str().unwrap());
        let content = format!("{path}/content");
        // In two parts.
        let size = export["sizeBytes"].as_u64().unwrap();
        let mut bytes = Vec::new();
        for range in [
            format!("bytes=0-{}", size / 2),
            format!("bytes={}-", size / 2 + 1),
        ] {
            let answer = site
                .request(Method::GET, &content)
                .header("range", range)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 206);
            let as_file = format!("attachment; filename=\"{name}\"");
            assert_eq!(answer.headers()["content-disposition"], as_file.as_str());
            bytes.extend(answer.bytes().await.unwrap());
        }
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        same(&file, format, &raw);
        assert_eq!(send(site.request(Method::DELETE, &path)).await.status, 200);
        assert_eq!(site.get(&content).await.status, 404);
    }
    assert_eq!(left(&site).await, before);
    let beyond = json!({"format": "RAW", "disk": 1});
    assert_eq!(
        site.post("/api/v1/vms/web-1/exports", beyond).await.field(),
        "disk"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_machine_is_exported_by_a_snapshot() {
    let site = site(|_, _| ()).await;
    machine(&site).await;
    succeeded(&over(&site, &site.post("/api/v1/vms/web-1/start", json!({})).await).await);
    let exports = "/api/v1/vms/web-1/exports";
    let refused = site.post(exports, json!({"format": "RAW"})).await;
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (409, "FAILED_PRECONDITION")
    );
    assert!(refused.body.contains("snapshotNow"), "{}", refused.body);
    for request in [
        json!({"format": "QCOW2", "snapshot": "first"}),
        json!({"format": "RAW", "snapshotNow": true}),
    ] {
        succeeded(&over(&site, &site.post(exports, request).await).await);
    }
    let snapshots = site.get("/api/v1/vms/web-1/snapshots").await.json();
    assert_eq!(snapshots["totalSize"], 2, "the one that was taken stays");
    let off = json!({"mode": "POWER_OFF"});
    succeeded(&over(&site, &site.post("/api/v1/vms/web-1/stop", off).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_snapshot_outlives_its_machine() {
    let site = site(|_, _| ()).await;
    machine(&site).await;
    let layers = || std::fs::read_dir(data(&site).join("layers")).unwrap().count();
    let before = layers();
    let request = json!({"name": "golden", "snapshot": {"vm": "web-1", "snapshot": "first"}});
    succeeded(&over(&site, &site.post("/api/v1/images", request.clone()).await).await);
    assert_eq!(layers(), before, "nothing is copied");
    reads_as_the_disk(&site, "golden").await;
    let twice = site.post("/api/v1/images", request).await;
    assert_eq!((twice.status, twice.error().as_str()), (409, "ALREADY_EXISTS"));

    let delete =
        |path: &'static str| async { over(&site, &send(site.request(Method::DELETE, path)).await).await };
    succeeded(&delete("/api/v1/vms/web-1").await);
    reads_as_the_disk(&site, "golden").await;
    // The name goes, and what a machine stands on stays until that goes, too.
    let request = json!({"name": "web-2", "disks": [{"image": "golden"}], "networkInterfaces": []});
    succeeded(&over(&site, &site.post("/api/v1/vms", request).await).await);
    succeeded(&delete("/api/v1/images/golden").await);
    succeeded(&delete("/api/v1/images/disk").await);
    assert_eq!(site.get("/api/v1/images").await.json()["totalSize"], 0);
    assert!(layers() >= 2, "web-2 stands on them");
    let exported = json!({"format": "RAW"});
    succeeded(&over(&site, &site.post("/api/v1/vms/web-2/exports", exported).await).await);
    let file = std::fs::read_dir(data(&site).join("exports"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), disk());
    succeeded(&delete("/api/v1/vms/web-2").await);
    assert_eq!(layers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_named_by_its_number_in_the_machine_and_in_its_snapshots() {
    let site = site(|_, _| ()).await;
    machine(&site).await;
    let request = json!({"addDisks": [{"sizeGib": 1}], "removeDisks": [0]});
    succeeded(&over(&site, &site.post("/api/v1/vms/web-1/edit", request).await).await);
    let exports = "/api/v1/vms/web-1/exports";
    for beyond in [
        json!({"format": "RAW"}),
        json!({"format": "RAW", "disk": 1, "snapshot": "first"}),
    ] {
        assert_eq!(site.post(exports, beyond).await.field(), "disk");
    }
    let blank = json!({"format": "QCOW2", "disk": 1});
    succeeded(&over(&site, &site.post(exports, blank).await).await);
    let all = site.get("/api/v1/exports").await.json();
    assert_eq!(all["exports"][0]["name"], "web-1-1.qcow2");
    let request = json!({"name": "golden", "snapshot": {"vm": "web-1", "snapshot": "first"}});
    succeeded(&over(&site, &site.post("/api/v1/images", request).await).await);
    reads_as_the_disk(&site, "golden").await;
}
