//! What is hostile, or no image, is refused by its reason, and nothing is left behind. `disks/image/tests.rs` has the
//! heads; these are whole files, the whole way.

use super::*;

fn le(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The head of LUKS 1, by its specification: qemu-img measures the processor to make one, and fails now and then.
fn luks() -> Vec<u8> {
    let mut head = b"LUKS\xba\xbe\x00\x01".to_vec();
    for word in ["aes", "xts-plain64", "sha256"] {
        let end = head.len() + 32;
        head.extend(word.bytes());
        head.resize(end, 0);
    }
    head.resize(2 << 20, 0);
    head
}

/// Names and bytes of files, each with a part of why it is refused.
fn corpus(dir: &Path) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let secret = dir.join("secret.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", secret.to_str().unwrap(), "8M"]);
    let made = |name: &str, format: &str, options: &[&str], size: &str| {
        let path = dir.join(name);
        let mut args = vec!["create", "-q", "-f", format];
        args.extend(options);
        args.extend([path.to_str().unwrap(), size]);
        qemu_img(&args);
        read(&path)
    };
    let backing = secret.to_str().unwrap();
    let data_file = format!("data_file={},data_file_raw=on", dir.join("data").display());
    let described = "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}}";
    let mut all = vec![
        (
            "backing",
            made("a.qcow2", "qcow2", &["-b", backing, "-F", "qcow2"], "8M"),
            "backing file",
        ),
        (
            "backing-json",
            made("b.qcow2", "qcow2", &["-u", "-b", described, "-F", "qcow2"], "8M"),
            "backing file",
        ),
        (
            "backing-passwd",
            made(
                "c.qcow2",
                "qcow2",
                &["-u", "-b", "/etc/shadow", "-F", "raw"],
                "8M",
            ),
            "backing file",
        ),
        (
            "data-file",
            made("d.qcow2", "qcow2", &["-o", &data_file], "8M"),
            "another file",
        ),
        (
            "flat",
            made("e.vmdk", "vmdk", &["-o", "subformat=monolithicFlat"], "8M"),
            "other files",
        ),
        (
            "split",
            made("f.vmdk", "vmdk", &["-o", "subformat=twoGbMaxExtentSparse"], "8M"),
            "other files",
        ),
        (
            "parent",
            {
                let base = made("g.vmdk", "vmdk", &[], "8M");
                assert!(!base.is_empty());
                made(
                    "h.vmdk",
                    "vmdk",
                    &["-b", dir.join("g.vmdk").to_str().unwrap(), "-F", "vmdk"],
                    "8M",
                )
            },
            "parent",
        ),
        ("huge", made("i.qcow2", "qcow2", &[], "60T"), "image_max_gib"),
        ("vdi", made("j.vdi", "vdi", &[], "8M"), "VDI"),
        (
            "vpc",
            made("k.vpc", "vpc", &["-o", "subformat=dynamic"], "8M"),
            "VHD",
        ),
        ("qed", made("l.qed", "qed", &[], "8M"), "QED"),
        ("luks", luks(), "encrypted"),
        ("json", described.as_bytes().to_vec(), "other files"),
        ("text", b"hello, world".to_vec(), "not known"),
        ("zeros", vec![0; 4096], "not known"),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(), "gzip"),
    ];
    // A VMDK without sectors: QEMU looks for extents in its description.
    let mut none = read(&dir.join("g.vmdk"));
    le(&mut none, 12, 0);
    all.push(("no-sectors", none, "no bytes"));
    // A VHDX whose parameters say that it has a parent.
    let mut vhdx = made("n.vhdx", "vhdx", &[], "8M");
    let guid = b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    let entry = vhdx.windows(16).position(|w| w == guid).unwrap();
    let offset = u32::from_le_bytes(vhdx[entry + 16..entry + 20].try_into().unwrap()) as usize;
    let table = vhdx.windows(8).position(|w| w == b"metadata").unwrap();
    vhdx[table + offset + 4] |= 0b10;
    all.push(("vhdx-parent", vhdx, "parent"));
    let mut damaged = made("o.qcow2", "qcow2", &[], "8M");
    damaged[40..48].copy_from_slice(&(!511_u64).to_be_bytes());
    all.push(("damaged-table", damaged, "first table"));
    // Cut off. What QEMU would read as zeros is found by the head or by the helper.
    for (name, format, options) in [
        ("cut-qcow2", "qcow2", &[][..]),
        ("cut-compressed", "qcow2", &["-c"][..]),
        ("cut-vmdk", "vmdk", &[][..]),
        ("cut-stream", "vmdk", &["-o", "subformat=streamOptimized"][..]),
        ("cut-vhdx", "vhdx", &[][..]),
    ] {
        let mut cut = read(&disk_as(dir, format, options));
        cut.truncate(cut.len() / 2);
        all.push((name, cut, "is not taken: it "));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_by_its_reason_and_leaves_nothing() {
    let site = site(|_, _| ()).await;
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, wanted) in corpus(dir.path()) {
        let why = failed(&upload(&site, name, bytes, json!({})).await);
        assert!(why.contains(wanted), "{name}: {why:?} does not say {wanted:?}");
        assert!(why.contains(&format!("image {name}")), "{name}: {why}");
        assert_eq!(left(&site).await, Vec::<String>::new(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_another_format_is_refused() {
    let site = site(|_, _| ()).await;
    let why = failed(&upload(&site, "said", disk(), json!({"format": "QCOW2"})).await);
    assert!(why.contains("said to be QCOW2"), "{why}");
    assert!(left(&site).await.is_empty());
    // As RAW any bytes are taken, for bytes: what they say to QEMU is not read.
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-b",
        "/etc/shadow",
        "-F",
        "raw",
        dir.path().join("a").to_str().unwrap(),
        "8M",
    ]);
    let bytes = std::fs::read(dir.path().join("a")).unwrap();
    let size = bytes.len().next_multiple_of(512);
    succeeded(&upload(&site, "bytes", bytes, json!({"format": "RAW"})).await);
    let image = site.get("/api/v1/images/bytes").await.json();
    assert_eq!(image["virtualBytes"], size);
}
