use crate::forms::{Action, after, parse};
use serde_json::{Value, json};
use shared::Status;
use shared::api::{Method, RawCall};

fn asked(path: &str, all: &[(&str, &str)]) -> Result<RawCall, Status> {
    let all: Vec<_> = all
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    match parse(path, &all)? {
        Action::Calls(mut calls) if calls.len() == 1 => Ok(calls.remove(0)),
        other => panic!("{other:?} is not one call"),
    }
}

fn body(call: &RawCall) -> Value {
    serde_json::from_str(call.body.as_deref().unwrap()).unwrap()
}

const WEB: [(&str, &str); 12] = [
    ("name", "web"),
    ("source", "here"),
    ("sourceVm", "web-1"),
    ("target", "far"),
    ("policy.idleSeconds", "60"),
    ("policy.keepLast", ""),
    ("policy.expireDays", ""),
    ("policy.quiesce", "on"),
    ("targetDefaults.name", "web-new"),
    ("targetDefaults.cpus", "2"),
    ("targetDefaults.memoryMib", ""),
    ("group", "wave-1"),
];

#[test]
fn a_source_is_added_and_removed() {
    let call = asked("/do/sources/create", &[("name", "here"), ("kind", "local")]).unwrap();
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Post, "/api/v1/sources")
    );
    assert_eq!(body(&call), json!({"name": "here", "local": {}}));
    let all = [("name", "old"), ("kind", "disks"), ("disks.path", "/exports")];
    let call = asked("/do/sources/create", &all).unwrap();
    assert_eq!(body(&call), json!({"name": "old", "disks": {"path": "/exports"}}));
    for path in ["", "exports"] {
        let all = [("name", "old"), ("kind", "disks"), ("disks.path", path)];
        let wrong = asked("/do/sources/create", &all).unwrap_err();
        assert_eq!(wrong.field(), Some("disks.path"));
    }
    let wrong = asked("/do/sources/create", &[("name", "here"), ("kind", "")]).unwrap_err();
    assert_eq!(wrong.field(), Some("local"));
    let call = asked("/do/sources/here/remove", &[]).unwrap();
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Delete, "/api/v1/sources/here")
    );
}

#[test]
fn the_form_carries_a_machine_over_and_what_is_left_empty_is_as_usual() {
    let call = asked("/do/migrations/create", &WEB).unwrap();
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Post, "/api/v1/migratingVms")
    );
    assert_eq!(
        body(&call),
        json!({
            "name": "web", "source": "here", "sourceVm": "web-1", "target": "far", "group": "wave-1", "wave": 1,
            "policy": {"idleSeconds": 60, "quiesce": true, "keepLast": 2},
            "targetDefaults": {"name": "web-new", "cpus": 2},
        })
    );
}

#[test]
fn a_wrong_field_of_a_migration_is_named() {
    for (n, value) in [
        (0, "Web"),
        (1, ""),
        (2, ""),
        (3, ""),
        (4, "1"),
        (5, "0"),
        (6, "many"),
        (8, "-"),
        (9, "0"),
        (10, "1"),
        (11, "a b"),
    ] {
        let mut all = WEB;
        all[n].1 = value;
        let wrong = asked("/do/migrations/create", &all).unwrap_err();
        assert_eq!(wrong.field(), Some(WEB[n].0), "{value:?}: {wrong}");
    }
}

#[test]
fn each_button_is_its_call() {
    for action in ["start", "pause", "resume", "cycle", "extend", "check"] {
        let call = asked(&format!("/do/migrations/web/{action}"), &[]).unwrap();
        assert_eq!(call.path, format!("/api/v1/migratingVms/web/{action}"));
    }
    let call = asked("/do/migrations/web/delete", &[]).unwrap();
    assert_eq!(call.method, Method::Delete);
    assert!(asked("/do/migrations/web/fly", &[]).is_err());
    assert!(asked("/do/migrations/web/judge/1/2", &[]).is_err());
}

#[test]
fn a_test_clone_is_asked_for_and_judged() {
    let all = [
        ("target.name", "web-test"),
        ("isolated", "on"),
        ("keepHours", "24"),
    ];
    let call = asked("/do/migrations/web/clone", &all).unwrap();
    assert_eq!(
        body(&call),
        json!({"target": {"name": "web-test"}, "isolated": true, "start": false, "keepHours": 24})
    );
    let wrong = asked("/do/migrations/web/clone", &[("keepHours", "0")]).unwrap_err();
    assert_eq!(wrong.field(), Some("keepHours"));

    let call = asked(
        "/do/migrations/web/judge/7",
        &[("note", "it boots"), ("action", "PASSED")],
    )
    .unwrap();
    assert_eq!(call.path, "/api/v1/migratingVms/web/cloneJobs/7/judge");
    assert_eq!(body(&call), json!({"verdict": "PASSED", "note": "it boots"}));
    assert!(asked("/do/migrations/web/judge/7", &[]).is_err(), "no verdict");
}

#[test]
fn the_last_steps_say_what_the_dialogs_ask() {
    let all = [("target.name", "web-new"), ("powerOffAfterSeconds", "30")];
    let call = asked("/do/migrations/web/cutover", &all).unwrap();
    assert_eq!(
        body(&call),
        json!({"target": {"name": "web-new"}, "powerOffAfterSeconds": 30})
    );
    let wrong = asked("/do/migrations/web/cutover", &[("powerOffAfterSeconds", "0")]).unwrap_err();
    assert_eq!(wrong.field(), Some("powerOffAfterSeconds"));
    let call = asked("/do/migrations/web/finalize", &[("keepCopies", "on")]).unwrap();
    assert_eq!(body(&call), json!({"keepCopies": true}));
}

#[test]
fn only_a_job_is_shown_as_one() {
    let answer = [Ok(json!({"id": "1", "name": "web"}).to_string())];
    let back = [("back".to_owned(), "/migrations/web?do=cutover".to_owned())];
    for (action, job) in [
        ("start", false),
        ("judge/7", false),
        ("clone", true),
        ("cutover", true),
        ("finalize", true),
    ] {
        let done = after(&format!("/do/migrations/web/{action}"), &back, &answer);
        assert_eq!(done.flash.job.is_some(), job, "{action}");
        assert_eq!(done.to, "/migrations/web", "{action}");
    }
    assert_eq!(
        after("/do/migrations/create", &back, &answer).to,
        "/migrations/web"
    );
    assert_eq!(after("/do/sources/create", &back, &answer).to, "/sources/web");
    for path in ["/do/migrations/web/delete", "/do/sources/web/remove"] {
        assert_eq!(after(path, &back, &[Ok(String::new())]).to, "/migrations");
    }
}

#[test]
fn what_no_field_shows_stays_as_it_is() {
    let nics = json!([{"network": "a", "connected": true}, {"network": "b", "connected": true}]);
    let now =
        json!({"name": "old", "cpus": 8, "networkInterfaces": nics, "labels": {"tier": "gold"}}).to_string();
    let edited = |network: &str, group: &str| {
        let all = [
            ("name", "web"),
            ("policy.idleSeconds", "60"),
            ("policy.keepLast", "3"),
            ("targetDefaults", now.as_str()),
            ("targetDefaults.cpus", "4"),
            ("network", network),
            ("storage", "fast"),
            ("group", group),
        ];
        asked("/do/migrations/web/edit", &all)
    };
    let call = edited("=", "").unwrap();
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Patch, "/api/v1/migratingVms/web")
    );
    assert_eq!(
        body(&call),
        json!({
            "name": "web", "group": "", "policy": {"idleSeconds": 60, "quiesce": false, "keepLast": 3},
            "targetDefaults": {"cpus": 4, "networkInterfaces": nics, "storage": "fast", "labels": {"tier": "gold"}},
        })
    );
    let nics = |network| body(&edited(network, "").unwrap())["targetDefaults"]["networkInterfaces"].clone();
    assert_eq!(nics("none"), json!([]));
    assert_eq!(nics(""), Value::Null);
    assert_eq!(nics("lab"), json!([{"network": "lab", "connected": true}]));
    assert_eq!(edited("", "a b").unwrap_err().field(), Some("group"));
}
