use crate::forms::{Action, after, parse};
use serde_json::{Value, json};
use shared::Status;
use shared::api::{Method, RawCall};

fn fields(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn asked(path: &str, all: &[(&str, &str)]) -> Result<RawCall, Status> {
    match parse(path, &fields(all))? {
        Action::Calls(mut calls) if calls.len() == 1 => Ok(calls.remove(0)),
        other => panic!("{other:?} is not one call"),
    }
}

fn body(path: &str, all: &[(&str, &str)]) -> Value {
    serde_json::from_str(&asked(path, all).unwrap().body.unwrap()).unwrap()
}

fn wrong(path: &str, all: &[(&str, &str)]) -> String {
    asked(path, all).unwrap_err().field().unwrap().to_owned()
}

#[test]
fn a_snapshot_that_is_there_is_copied_as_it_was_taken() {
    let path = "/do/vms/web-1/copy";
    let all = [
        ("target", "far"),
        ("snapshot", ""),
        ("with", "quiesce"),
        ("boot", "on"),
    ];
    assert_eq!(asked(path, &all).unwrap().path, "/api/v1/vms/web-1/copyTasks");
    assert_eq!(
        body(path, &all),
        json!({"target": "far", "memory": false, "quiesce": true, "boot": true})
    );
    let mut old = all;
    old[1].1 = "before";
    assert_eq!(
        body(path, &old),
        json!({"target": "far", "snapshot": "before", "memory": false, "quiesce": false, "boot": true})
    );
    assert_eq!(wrong(path, &[("snapshot", "before")]), "target");

    // The answer's id is that of the job.
    let back = fields(&[("back", "/vms/web-1?do=copy")]);
    let done = after(path, &back, &[Ok(json!({"id": "j1"}).to_string())]);
    assert_eq!(
        (done.to.as_str(), done.flash.job.as_deref()),
        ("/vms/web-1", Some("j1"))
    );
}

#[test]
fn a_task_is_held_and_released() {
    for action in ["hold", "release"] {
        let call = asked(&format!("/do/copyTasks/7/{action}"), &[]).unwrap();
        assert_eq!(
            (call.method, call.path),
            (Method::Post, format!("/api/v1/copyTasks/7/{action}"))
        );
    }
    assert!(asked("/do/copyTasks/7/fly", &[]).is_err());
}

#[test]
fn each_way_of_a_restore_asks_for_itself_alone() {
    let path = "/do/copies/c1/restore";
    let new = [
        ("way", "vm"),
        ("name", "web-2"),
        ("cpus", ""),
        ("network", "none"),
        ("start", "instant"),
    ];
    assert_eq!(
        body(path, &new),
        json!({"vm": {"name": "web-2", "networkInterfaces": [], "start": true, "instant": true}})
    );
    let later = [
        ("way", "vm"),
        ("name", "web-2"),
        ("cpus", "2"),
        ("start", "after"),
    ];
    assert_eq!(
        body(path, &later),
        json!({"vm": {"name": "web-2", "cpus": 2, "start": true, "instant": false}})
    );
    let over = [
        ("way", "over"),
        ("vm", "web-1"),
        ("confirm", "web-1"),
        ("start", ""),
    ];
    assert_eq!(
        body(path, &over),
        json!({"over": {"vm": "web-1", "confirm": "web-1", "start": false, "instant": false}})
    );
    let mut slip = over;
    slip[2].1 = "web-2";
    assert_eq!(wrong(path, &slip), "confirm");
    let disks = [
        ("way", "disks"),
        ("vm", "web-1"),
        ("number", "0"),
        ("number", "2"),
    ];
    assert_eq!(
        body(path, &disks),
        json!({"disks": {"vm": "web-1", "numbers": [0, 2]}})
    );
    assert_eq!(wrong(path, &disks[..2]), "number");
    let file = [("way", "file"), ("disk", "1"), ("format", "RAW")];
    assert_eq!(body(path, &file), json!({"file": {"disk": 1, "format": "RAW"}}));

    let job = [Ok(json!({"id": "j1"}).to_string())];
    assert_eq!(after(path, &[], &job).to, "/jobs/j1");
    // The way that was chosen goes with its dialog.
    let back = fields(&[("back", "/copies/c1?do=restore&way=over")]);
    let refused = after(path, &back, &[Err(Status::precondition("no"))]);
    assert_eq!(refused.to, "/copies/c1?do=restore&way=over");
    let held = after(
        "/do/copies/c1/hold",
        &back,
        &[Ok(json!({"id": "c1"}).to_string())],
    );
    assert_eq!((held.to.as_str(), held.flash.job), ("/copies/c1", None));
}

#[test]
fn a_copy_is_booted_held_and_removed() {
    let path = "/do/copies/c1/boot";
    assert_eq!(
        body(path, &[("bootTimeoutSeconds", "30"), ("bootPattern", "ready")]),
        json!({"bootTimeoutSeconds": 30, "bootPattern": "ready"})
    );
    assert_eq!(wrong(path, &[("bootTimeoutSeconds", "0")]), "bootTimeoutSeconds");
    assert_eq!(body("/do/copies/c1/hold", &[]), json!({"legalHold": true}));
    assert_eq!(body("/do/copies/c1/release", &[]), json!({"legalHold": false}));
    let gone = asked("/do/copies/c1/delete", &[]).unwrap();
    assert_eq!(
        (gone.method, gone.path.as_str()),
        (Method::Delete, "/api/v1/copies/c1")
    );
    assert_eq!(
        after("/do/copies/c1/delete", &[], &[Ok(String::new())]).to,
        "/copies"
    );
}

#[test]
fn a_target_is_made_with_a_passphrase_typed_twice_or_attached_with_it_once() {
    let path = "/do/targets/create";
    let new = [
        ("name", "far"),
        ("kind", "LOCAL"),
        ("local.path", "/srv/copies"),
        ("attach", ""),
        ("passphrase", "correct horse"),
        ("again", "correct horse"),
        ("bytesPerSecond", "10"),
        ("atOnce", "3"),
    ];
    assert_eq!(
        body(path, &new),
        json!({"name": "far", "local": {"path": "/srv/copies"}, "attach": false, "passphrase": "correct horse",
            "bytesPerSecond": 10 << 20, "atOnce": 3})
    );
    let mut slip = new;
    slip[5].1 = "correct hors";
    assert_eq!(wrong(path, &slip), "again");
    let mut none = new;
    (none[4].1, none[5].1) = ("", "");
    assert_eq!(wrong(path, &none), "passphrase");
    let mut attach = slip;
    attach[3].1 = "attach";
    assert_eq!(body(path, &attach)["attach"], json!(true));

    let s3 = [
        ("name", "far"),
        ("kind", "S3"),
        ("s3.bucket", "copies"),
        ("s3.accessKeyId", "id"),
        ("s3.secretAccessKey", "key"),
        ("recipient", "age1x"),
    ];
    assert_eq!(
        body(path, &s3),
        json!({"name": "far", "s3": {"bucket": "copies", "accessKeyId": "id", "secretAccessKey": "key"},
            "attach": false, "recipient": "age1x"})
    );
    assert_eq!(wrong(path, &s3[..2]), "s3.bucket");

    let made = [Ok(json!({"id": "t1", "name": "far"}).to_string())];
    let done = after(path, &[], &made);
    assert_eq!((done.to.as_str(), done.flash.job), ("/targets/far", None));
}

#[test]
fn no_secret_of_a_target_comes_back() {
    let secrets = fields(&[
        ("passphrase", "a"),
        ("again", "a"),
        ("identity", "a"),
        ("s3.secretAccessKey", "a"),
        ("remote.token", "a"),
        ("name", "far"),
    ]);
    let done = after("/do/targets/create", &secrets, &[Err(Status::precondition("no"))]);
    assert_eq!(done.flash.fields, fields(&[("name", "far")]));
}

#[test]
fn a_target_is_changed_looked_at_and_detached() {
    let edit = [
        ("name", "near"),
        ("kind", "REMOTE"),
        ("remote.url", "https://b.org"),
        ("remote.target", "t"),
        ("remote.token", ""),
        ("bytesPerSecond", ""),
    ];
    assert_eq!(
        body("/do/targets/far/edit", &edit),
        json!({"name": "near", "remote": {"url": "https://b.org", "target": "t"}, "bytesPerSecond": 0})
    );
    let renamed = [Ok(json!({"id": "t1", "name": "near"}).to_string())];
    assert_eq!(after("/do/targets/far/edit", &[], &renamed).to, "/targets/near");
    assert_eq!(
        body("/do/targets/far/verify", &[("percent", "5")]),
        json!({"percent": 5})
    );
    assert_eq!(wrong("/do/targets/far/verify", &[("percent", "101")]), "percent");
    for action in ["check", "prune"] {
        let call = asked(&format!("/do/targets/far/{action}"), &[]).unwrap();
        assert_eq!(call.path, format!("/api/v1/targets/far/{action}"));
    }
    let gone = asked("/do/targets/far/detach", &[]).unwrap();
    assert_eq!(
        (gone.method, gone.path.as_str()),
        (Method::Delete, "/api/v1/targets/far")
    );
}
