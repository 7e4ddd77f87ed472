//! Root is left: tried with a number that needs no user, where root runs the tests.

use crate::commands::{Served, offshoot};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// Nobody's number, as every system has it.
const NOBODY: &str = "65534";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that a process runs as, by all that the kernel knows of it.
fn uids(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// A directory that others may walk through.
fn open_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn started_by_root_it_becomes_somebody_else_and_by_others_it_says_so() {
    let dir = open_dir();
    let data = dir.path().join("data");
    if !is_root() {
        let refused = offshoot(&data, &["serve", "--sim", "--run-as", NOBODY])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("only root can become somebody else"));
        return;
    }
    let served = Served::with(&data, &["--run-as", NOBODY]);
    assert_eq!(uids(served.0.id()), "65534 65534 65534 65534");
    for path in [data.clone(), data.join("offshoot.db")] {
        assert_eq!(
            std::fs::metadata(&path).unwrap().uid(),
            65534,
            "{}",
            path.display()
        );
    }
    drop(served);
    // It does so again on what is there.
    assert_eq!(
        uids(Served::with(&data, &["--run-as", NOBODY]).0.id()),
        "65534 65534 65534 65534"
    );
}

#[test]
fn the_data_of_another_user_are_refused_with_what_to_do() {
    if !is_root() {
        return;
    }
    let dir = open_dir();
    drop(Served::with(dir.path(), &["--run-as", "root"]));
    let run = |who| {
        offshoot(dir.path(), &["serve", "--sim", "--run-as", who])
            .output()
            .unwrap()
    };
    let refused = run(NOBODY);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success()
            && why.contains("belongs to the user 0")
            && why.contains("chown -R 65534:65534"),
        "{why}"
    );
    // The directory alone is not enough.
    give(dir.path());
    let why = String::from_utf8_lossy(&run(NOBODY).stderr).into_owned();
    assert!(why.contains("offshoot.db belongs to the user 0"), "{why}");
    let unknown = run("no-such-user-here");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no such user"));
}

fn give(path: &Path) {
    chown(path, Some(65534), Some(65534)).unwrap();
}

#[test]
fn doctor_says_who_it_would_run_as() {
    let dir = tempfile::tempdir().unwrap();
    // Whatever else is missing here is not asked.
    let out = offshoot(dir.path(), &["doctor", "--json", "--sim", "--run-as", "root"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let user = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "user")
        .unwrap()
        .clone();
    if is_root() {
        assert_eq!(user["level"], "ok", "{user}");
    }
}
