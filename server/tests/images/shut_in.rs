//! The helper: what it cannot do any more.

use super::*;
use server::disks::helper::{COMMAND, Helper, probe};

fn helper(user: Option<&str>) -> Helper {
    Helper {
        program: env!("CARGO_BIN_EXE_offshoot").into(),
        user: user.map(str::to_owned),
    }
}

/// Runs it by hand, with these arguments for qemu-img.
fn told(input: &Path, more: &[&str], args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args([COMMAND, "--input"])
        .arg(input)
        .args(more)
        .arg("--")
        .args(args)
        .output()
        .unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn it_reads_its_input_and_no_other_file() {
    let shut = probe(&helper(None)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (input, other) = (dir.path().join("input"), dir.path().join("other"));
    for path in [&input, &other] {
        std::fs::write(path, disk()).unwrap();
    }
    let (ok, text) = told(&input, &[], &["info", "-f", "raw", "@input@"]);
    assert!(ok && text.contains("8 MiB"), "{text}");
    let (ok, text) = told(&input, &[], &["info", "-f", "raw", other.to_str().unwrap()]);
    // Where the kernel has no Landlock, doctor says so; nothing is claimed then.
    assert_eq!(ok, shut.files == "none", "{shut:?} {text}");
    if shut.files != "none" {
        assert!(text.contains("Permission denied"), "{text}");
        let made = dir.path().join("made");
        let (ok, text) = told(
            &input,
            &[],
            &["create", "-f", "raw", made.to_str().unwrap(), "1M"],
        );
        assert!(!ok && !made.exists(), "{text}");
    }
}

#[tokio::test]
async fn it_writes_no_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("input"), dir.path().join("output"));
    std::fs::write(&input, vec![1; 4 << 20]).unwrap();
    std::fs::write(&output, "").unwrap();
    let to = ["--output", output.to_str().unwrap(), "--bytes", "1048576"];
    let args = ["convert", "-f", "raw", "-O", "raw", "@input@", "@output@"];
    let (ok, text) = told(&input, &to, &args);
    assert!(!ok, "{text}");
    assert!(std::fs::metadata(&output).unwrap().len() <= 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_another_user_where_the_server_is_root() {
    if !rustix::process::geteuid().is_root() {
        // Who is not root cannot become another: there is nothing to see.
        let shut = probe(&helper(Some("nobody"))).await.unwrap();
        assert!(!shut.user, "{shut:?}");
        return;
    }
    let shut = probe(&helper(Some("nobody"))).await.unwrap();
    assert!(shut.user, "{shut:?}");
    let none = probe(&helper(Some("no-such-user"))).await.unwrap_err();
    assert!(none.contains("there is no user no-such-user"), "{none}");
    let site = site(|config, _| config.image_helper_user = Some("nobody".into())).await;
    succeeded(&upload(&site, "disk", disk(), json!({})).await);
    reads_as_the_disk(&site, "disk").await;
    use std::os::unix::fs::MetadataExt;
    for file in std::fs::read_dir(data(&site).join("layers")).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().uid(),
            0,
            "the layer is the server's"
        );
    }
}
