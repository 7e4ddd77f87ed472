//! `offshoot demo`, with real guests.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// The demo guest, built where it is not there yet.
fn image() -> String {
    let script = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../guest/build.sh");
    let out = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "guest/build.sh failed");
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .last()
        .unwrap()
        .to_owned()
}

/// The JSON that the demo ends with.
fn demo(data: &Path, more: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["demo", "--once", "--json", "--listen", "127.0.0.1:0"])
        .args(more)
        .arg("--image")
        .arg(format!("demo={}", image()))
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{told}");
    let stdout = String::from_utf8(out.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap_or_else(|e| panic!("{e}: {stdout}\n{told}"))
}

/// The machines of a data directory that still have a process. The switch of an isolated network, which is beside them, ends by itself.
fn left(data: &Path) -> Vec<String> {
    let runs = std::fs::read_dir(data.join("run"))
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let names = runs.map(|name| name.into_string().unwrap());
    let ids: Vec<String> = names.filter(|name| name.len() == 36).collect();
    assert!(!ids.is_empty());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|e| {
        let arguments = std::fs::read(e.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&arguments).into_owned())
    });
    processes
        .filter(|arguments| ids.iter().any(|id| arguments.contains(id)))
        .collect()
}

#[test]
fn a_running_guest_is_cloned_while_it_goes_on_and_again() {
    let data = tempfile::tempdir().unwrap();
    for clone in ["demo-clone", "demo-clone-2"] {
        let told = demo(data.path(), &[]);
        let keys: Vec<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "clone",
                "cloneJob",
                "copyTask",
                "instantClone",
                "ok",
                "seconds",
                "snapshot",
                "source"
            ],
            "{told}"
        );
        assert_eq!(
            (&told["ok"], &told["clone"]["name"]),
            (&json!(true), &json!(clone)),
            "{told}"
        );
        let gap = told["source"]["maxTickGapMs"].as_u64().unwrap();
        // Ticks come every 100 ms: a gap of less has not been measured.
        assert!((90..=1000).contains(&gap), "{told}");
        assert_eq!(
            (&told["source"]["name"], &told["snapshot"]["consistency"]),
            (&json!("demo-source"), &json!("ONLINE"))
        );
        assert_eq!(
            (&told["cloneJob"]["state"], &told["cloneJob"]["offshoot"]["mode"]),
            (&json!("SUCCEEDED"), &json!("LINKED"))
        );
        assert_eq!(told["cloneJob"]["offshoot"]["snapshot"], told["snapshot"]["id"]);
        let boot = told["clone"]["bootSeconds"].as_f64().unwrap();
        assert!(boot > 0.5 && boot < told["seconds"].as_f64().unwrap(), "{told}");
        let fork = &told["instantClone"]["outcome"]["fork"];
        assert_eq!(told["instantClone"]["state"], json!("SUCCEEDED"));
        assert!(fork["sourcePauseMicros"].as_u64().unwrap() < 1_000_000, "{told}");
        assert_eq!(fork["clones"][0]["identity"], json!("HOOK"), "{told}");
        assert!(
            fork["clones"][0]["memoryLater"]["sharedBytes"].as_u64().unwrap() > 0,
            "{told}"
        );
        assert_eq!(left(data.path()), Vec::<String>::new());
    }
}

#[test]
fn a_guest_is_carried_over_while_it_writes() {
    let data = tempfile::tempdir().unwrap();
    let told = demo(data.path(), &["--migrate"]);
    let migration = &told["migration"];
    assert_eq!(
        (&told["ok"], &migration["state"]),
        (&json!(true), &json!("FINALIZED")),
        "{told}"
    );
    let all = |of: &str| migration[of].as_array().unwrap_or_else(|| panic!("{of}: {told}"));
    // Two while the guest wrote, and that of the cutover.
    let cycles = all("replicationCycles");
    assert!(cycles.len() >= 3, "{told}");
    assert!(cycles.iter().all(|cycle| cycle["state"] == "SUCCEEDED"), "{told}");
    assert!(
        cycles
            .iter()
            .all(|cycle| cycle["changedBytes"].as_u64() > Some(0)),
        "{told}"
    );
    let clones = all("cloneJobs");
    assert_eq!(clones.len(), 1, "{told}");
    assert_eq!(
        (&clones[0]["state"], &clones[0]["judged"]["verdict"]),
        (&json!("SUCCEEDED"), &json!("PASSED")),
        "{told}"
    );
    let [cutover] = &all("cutoverJobs")[..] else {
        panic!("{told}")
    };
    assert_eq!(cutover["state"], json!("SUCCEEDED"), "{told}");
    assert!(cutover["downtimeMillis"].as_u64() > Some(0), "{told}");
    assert_eq!(left(data.path()), Vec::<String>::new());
}
