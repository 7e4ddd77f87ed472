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

const NIGHTLY: [(&str, &str); 12] = [
    ("name", "nightly"),
    ("schedule.cron", "0 2 * * *"),
    ("schedule.timeZone", "Europe/Berlin"),
    ("vms", "web-1, db-1"),
    ("label", ""),
    ("targets", "far"),
    ("targets", "near"),
    ("retention.daily", "7"),
    ("with", "quiesce"),
    ("window", "22:00-06:00\r\nsat SUNDAY 00:00-12:00\r\n"),
    ("verify.bootEvery", "3"),
    ("enabled", "on"),
];

#[test]
fn the_editor_asks_for_a_whole_policy() {
    let call = asked("/do/policies/create", &NIGHTLY).unwrap();
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Post, "/api/v1/policies")
    );
    assert_eq!(
        body(&call),
        json!({
            "name": "nightly", "schedule": {"cron": "0 2 * * *", "timeZone": "Europe/Berlin"},
            "vms": ["web-1", "db-1"], "targets": ["far", "near"], "retention": {"daily": 7},
            "memory": false, "quiesce": true, "verify": {"bootEvery": 3}, "enabled": true,
            "window": [
                {"from": "22:00", "to": "06:00", "timeZone": "Europe/Berlin"},
                {"days": ["SATURDAY", "SUNDAY"], "from": "00:00", "to": "12:00", "timeZone": "Europe/Berlin"},
            ],
        })
    );
    // What is left empty is taken away.
    let mut less = NIGHTLY;
    (less[1].1, less[10].1) = ("", "");
    let call = asked("/do/policies/nightly/edit", &less).unwrap();
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Patch, "/api/v1/policies/nightly")
    );
    let change = body(&call);
    assert_eq!(
        (&change["schedule"], &change["verify"], &change["label"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert!(change.as_object().unwrap().contains_key("schedule"));
}

#[test]
fn a_wrong_field_of_a_policy_is_named() {
    for (n, value, field) in [
        (0, "", "name"),
        (3, "", "vms"),
        (4, "gold", "label"),
        (6, "far", "targets"),
        (7, "0", "retention.daily"),
        (7, "many", "retention.daily"),
        (9, "22:00", "window"),
        (9, "someday 22:00-06:00", "window"),
        (9, "22:00-25:00", "window"),
        (10, "0", "verify.bootEvery"),
    ] {
        let mut all = NIGHTLY;
        all[n].1 = value;
        let wrong = asked("/do/policies/create", &all).unwrap_err();
        assert_eq!(wrong.field(), Some(field), "{value:?}: {wrong}");
    }
}

#[test]
fn a_policy_is_switched_run_and_removed() {
    let one = |action: &str, all: &[_]| asked(&format!("/do/policies/nightly/{action}"), all).unwrap();
    assert_eq!(body(&one("off", &[])), json!({"enabled": false}));
    let kept = [("retention.keepLast", "3"), ("retention.hourly", "")];
    assert_eq!(
        body(&one("retention", &kept)),
        json!({"retention": {"keepLast": 3}})
    );
    assert_eq!(one("run", &[]).path, "/api/v1/policies/nightly/run");
    assert_eq!(one("delete", &[]).method, Method::Delete);
    assert!(asked("/do/policies/nightly/fly", &[]).is_err());

    let answer = [Ok(json!({"id": "p1", "name": "nightly"}).to_string())];
    let done = after("/do/policies/create", &[], &answer);
    assert_eq!((done.to.as_str(), done.flash.job), ("/policies/nightly", None));
    assert_eq!(
        after("/do/policies/nightly/delete", &[], &[Ok(String::new())]).to,
        "/policies"
    );
}
