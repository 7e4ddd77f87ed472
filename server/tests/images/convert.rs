//! Every format is converted for real, and reads as the disk that it was made of.

use super::*;

async fn converted(format: &str, options: &[&str]) {
    let site = site(|_, _| ()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = disk_as(dir.path(), format, options);
    succeeded(&upload(&site, "disk", std::fs::read(file).unwrap(), json!({})).await);
    reads_as_the_disk(&site, "disk").await;
    // What was uploaded is gone: the layer is what is left of it.
    assert_eq!(left(&site).await.len(), 2, "{:?}", left(&site).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn qcow2() {
    converted("qcow2", &[]).await;
    converted("qcow2", &["-c", "-o", "compat=1.1"]).await;
    converted("qcow2", &["-o", "compat=0.10"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw() {
    converted("raw", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vmdk_in_one_file() {
    converted("vmdk", &[]).await;
    converted("vmdk", &["-o", "subformat=streamOptimized"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vhdx() {
    converted("vhdx", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_to_the_default_storage() {
    let site = site(|_, _| ()).await;
    let place = tempfile::tempdir().unwrap();
    let request = json!({"name": "fast", "path": place.path(), "default": true});
    assert_eq!(site.post("/api/v1/storages", request).await.status, 201);
    succeeded(&upload(&site, "disk", disk(), json!({})).await);
    let files = || std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(files(), 1);
    assert_eq!(left(&site).await, ["images 0"]);
    let image = site.get("/api/v1/images/disk").await.json();
    let layer = format!("{}.qcow2", image["layer"].as_str().unwrap());
    let own = tempfile::tempdir().unwrap();
    let raw = own.path().join("raw");
    std::fs::write(&raw, disk()).unwrap();
    same(&place.path().join(layer), "qcow2", &raw);
    let delete = send(site.request(Method::DELETE, "/api/v1/images/disk")).await;
    succeeded(&over(&site, &delete).await);
    assert_eq!(files(), 0);
}

/// An OVA with these disks behind its description.
fn ova(disks: &[&Path]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(11);
    tar.append_data(&mut header, "vm.ovf", &b"<Envelope/>"[..])
        .unwrap();
    for (n, disk) in disks.iter().enumerate() {
        let bytes = std::fs::read(disk).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("vm-disk{n}.vmdk"), bytes.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_disk_of_an_ova_is_an_image() {
    let site = site(|_, _| ()).await;
    let dir = tempfile::tempdir().unwrap();
    let stream = disk_as(dir.path(), "vmdk", &["-o", "subformat=streamOptimized"]);
    let second = dir.path().join("second.vmdk");
    std::fs::copy(&stream, &second).unwrap();
    succeeded(&upload(&site, "appliance", ova(&[&stream, &second]), json!({})).await);
    for name in ["appliance", "appliance-1"] {
        reads_as_the_disk(&site, name).await;
    }
    // The name of one of them is taken: nothing comes of it, and nothing is lost.
    let before = left(&site).await.len();
    site.request(Method::PATCH, "/api/v1/images/appliance")
        .json(&json!({"name": "other"}))
        .send()
        .await
        .unwrap();
    let why = failed(&upload(&site, "appliance", ova(&[&stream, &second]), json!({})).await);
    assert!(why.contains("called appliance-1 already"), "{why}");
    // The upload was good: it stays, to be tried again.
    assert_eq!(left(&site).await.len(), before + 2, "{:?}", left(&site).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_path_below_a_root_only() {
    let site = site(|config, dir| {
        std::fs::create_dir(dir.join("images")).unwrap();
        disk_as(dir, "qcow2", &[]);
        std::fs::rename(dir.join("disk.qcow2"), dir.join("images/disk.qcow2")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("images/pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        config.image_roots = vec![dir.join("images")];
    })
    .await;
    let root = data(&site).parent().unwrap().join("images");
    // Nobody writes to it: who waits for that waits for ever.
    let pipe = json!({"name": "pipe", "path": root.join("pipe")});
    let why = failed(&over(&site, &site.post("/api/v1/images", pipe).await).await);
    assert!(why.contains("no plain file"), "{why}");
    let path = root.join("disk.qcow2");
    let request = json!({"name": "by-path", "path": path});
    succeeded(&over(&site, &site.post("/api/v1/images", request).await).await);
    reads_as_the_disk(&site, "by-path").await;
    assert!(path.exists(), "what is the host's stays");
    for bad in [
        "/etc/passwd",
        "disk.qcow2",
        root.join("../disk.raw").to_str().unwrap(),
    ] {
        let refused = site
            .post("/api/v1/images", json!({"name": "bad", "path": bad}))
            .await;
        assert_eq!(refused.field(), "path", "{bad}");
    }
    let two = json!({"name": "bad", "path": path, "url": "http://example.org/a"});
    assert_eq!(site.post("/api/v1/images", two).await.field(), "url");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_is_held_to() {
    let site = site(|_, _| ()).await;
    let right = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(disk()))
    };
    let wrong = "0".repeat(64);
    let why = failed(&upload(&site, "wrong", disk(), json!({"sha256": wrong})).await);
    assert!(why.contains(&right) && why.contains(&wrong), "{why}");
    assert!(left(&site).await.is_empty(), "{:?}", left(&site).await);
    succeeded(&upload(&site, "right", disk(), json!({"sha256": right.to_uppercase()})).await);
    reads_as_the_disk(&site, "right").await;
    let none = begin(&site, json!({"name": "none", "sizeBytes": 1, "sha256": "abc"})).await;
    assert_eq!(none.field(), "sha256");
}
