use super::*;
use serde_json::json;
use shared::api::Method;

fn fields(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn one(path: &str, all: &[(&str, &str)]) -> RawCall {
    match parse(path, &fields(all)).unwrap() {
        Action::Calls(mut calls) if calls.len() == 1 => calls.remove(0),
        other => panic!("{other:?} is not one call"),
    }
}

fn body(call: &RawCall) -> serde_json::Value {
    serde_json::from_str(call.body.as_deref().unwrap()).unwrap()
}

#[test]
fn an_action_is_its_call() {
    let call = one("/do/vms/web-1/power-off", &[]);
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Post, "/api/v1/vms/web-1/stop")
    );
    assert_eq!(body(&call), json!({"mode": "POWER_OFF"}));
    assert_eq!(one("/do/jobs/7/cancel", &[]).path, "/api/v1/jobs/7/cancel");
    assert_eq!(one("/do/tokens/7/revoke", &[]).method, Method::Delete);
    assert_eq!(
        parse("/do/vms/web-1/fly", &[]).unwrap_err().code,
        shared::Code::NotFound
    );
}

#[test]
fn a_path_with_tricks_stays_one_part() {
    assert_eq!(
        one("/do/vms/..%2Fusers/start", &[]).path,
        "/api/v1/vms/..%2Fusers/start"
    );
    assert!(parse("/do/vms/%zz/start", &[]).is_err());
}

#[test]
fn a_clone_says_only_what_was_typed() {
    let call = one(
        "/do/vms/web-1/clone",
        &[
            ("source", ""),
            ("mode", "FULL"),
            ("name", "web-1-test"),
            ("cpus", ""),
            ("start", "on"),
        ],
    );
    assert_eq!(
        body(&call),
        json!({"mode": "FULL", "target": {"name": "web-1-test", "start": true, "bootTimeoutSeconds": 120}})
    );
    let now = one(
        "/do/vms/web-1/clone",
        &[
            ("source", "now"),
            ("quiesce", "on"),
            ("network", "none"),
            ("userData", "#cloud-config\r\na: 1\r\n"),
        ],
    );
    assert_eq!(body(&now)["snapshotNow"], json!({"quiesce": true}));
    assert_eq!(
        body(&now)["target"],
        json!({"networkInterfaces": [], "cloudInit": {"userData": "#cloud-config\na: 1\n"},
            "start": false, "bootTimeoutSeconds": 120})
    );
}

#[test]
fn a_snapshot_keeps_memory_or_freezes_file_systems_and_never_both() {
    for (with, memory, quiesce) in [
        ("memory", true, false),
        ("quiesce", false, true),
        ("", false, false),
    ] {
        let taken = body(&one("/do/vms/web-1/snapshot", &[("name", "now"), ("with", with)]));
        assert_eq!(
            taken,
            json!({"name": "now", "memory": memory, "quiesce": quiesce})
        );
    }
}

#[test]
fn a_wrong_field_is_named() {
    for (path, all, field) in [
        (
            "/do/vms/create",
            &[("name", "Web"), ("image", "demo")][..],
            "name",
        ),
        ("/do/vms/create", &[("name", "web")], "blankGib"),
        (
            "/do/vms/create",
            &[("name", "web"), ("blankGib", "x")],
            "blankGib",
        ),
        (
            "/do/vms/create",
            &[("name", "web"), ("image", "demo"), ("cpus", "0")],
            "cpus",
        ),
        (
            "/do/vms/a/delete",
            &[("name", "web-1"), ("confirm", "web-2")],
            "confirm",
        ),
        (
            "/do/me/password",
            &[("password", "0123456789"), ("again", "x")],
            "again",
        ),
        ("/do/vms/bulk", &[("action", "start")], "id"),
        ("/do/theme", &[("theme", "pink")], "theme"),
    ] {
        let e = parse(path, &fields(all)).unwrap_err();
        assert_eq!(e.field(), Some(field), "{path}: {e}");
    }
}

#[test]
fn many_at_once_are_one_call_each() {
    let all = fields(&[("action", "start"), ("id", "a"), ("id", "b")]);
    let Action::Calls(calls) = parse("/do/vms/bulk", &all).unwrap() else {
        panic!()
    };
    let paths: Vec<_> = calls.iter().map(|c| c.path.as_str()).collect();
    assert_eq!(paths, ["/api/v1/vms/a/start", "/api/v1/vms/b/start"]);
    let results = [
        Ok("{}".to_owned()),
        Err(Status::precondition("b is running already")),
    ];
    let done = after("/do/vms/bulk", &all, &results);
    let message = done.flash.error.unwrap().message;
    assert!(
        message.contains("1 of 2") && message.contains("b is running already"),
        "{message}"
    );
}

#[test]
fn after_success_the_job_is_shown_and_the_dialog_closed() {
    let clone = [Ok(json!({"name": "n", "offshoot": {"id": "j1"}}).to_string())];
    assert_eq!(after("/do/vms/a/clone", &[], &clone).to, "/jobs/j1");
    let all = fields(&[("back", "/vms/a?x=1&do=snapshot")]);
    let done = after("/do/vms/a/snapshot", &all, &[Ok(json!({"id": "j2"}).to_string())]);
    assert_eq!(
        (done.to.as_str(), done.flash.job.as_deref()),
        ("/vms/a?x=1", Some("j2"))
    );
}

#[test]
fn after_an_error_the_form_keeps_what_was_typed_but_no_password() {
    let all = fields(&[
        ("back", "/settings"),
        ("password", "secret"),
        ("again", "secret"),
        ("name", "ci"),
    ]);
    let done = after("/do/me/password", &all, &[Err(Status::precondition("no"))]);
    assert_eq!(done.to, "/settings");
    assert_eq!(
        done.flash.fields,
        fields(&[("back", "/settings"), ("name", "ci")])
    );
}

#[test]
fn nobody_is_sent_to_another_host() {
    for back in ["https://evil", "//evil", "/\\evil", "/a\\b", "evil", "/a\nb"] {
        let all = fields(&[("back", back)]);
        assert_eq!(after("/do/theme", &all, &[]).to, "/", "{back:?}");
    }
}

#[test]
fn forms_about_people_are_their_calls() {
    let call = one(
        "/do/users/eve/grants/create",
        &[("role", "operator"), ("vm", "web-1")],
    );
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Post, "/api/v1/users/eve/grants")
    );
    assert_eq!(body(&call), json!({"role": "operator", "vm": "web-1"}));
    let call = one(
        "/do/roles/create",
        &[("name", "r"), ("privilege", "vm.read"), ("privilege", "vm.power")],
    );
    assert_eq!(body(&call)["privileges"], json!(["vm.read", "vm.power"]));
    let call = one(
        "/do/tokens/create",
        &[("name", "ci"), ("role", ""), ("expireTime", "2999-12-31")],
    );
    assert_eq!(
        body(&call),
        json!({"name": "ci", "expireTime": "2999-12-31T23:59:59Z"})
    );
    let wrong =
        |path, all: &[(&str, &str)]| parse(path, &fields(all)).unwrap_err().field().unwrap().to_owned();
    assert_eq!(
        wrong("/do/tokens/create", &[("name", "ci"), ("expireTime", "soon")]),
        "expireTime"
    );
    assert_eq!(
        wrong(
            "/do/users/create",
            &[("name", "a"), ("password", "x"), ("again", "y")]
        ),
        "again"
    );
    assert_eq!(
        wrong("/do/users/eve/delete", &[("name", "eve"), ("confirm", "adam")]),
        "confirm"
    );
    assert_eq!(
        one("/do/users/eve/delete", &[("name", "eve"), ("confirm", "eve")]).method,
        Method::Delete
    );
    assert_eq!(
        parse("/do/users/eve/fly", &[]).unwrap_err().code,
        shared::Code::NotFound
    );
}

#[test]
fn an_edit_says_what_each_device_becomes() {
    let call = one(
        "/do/vms/web-1/edit",
        &[
            ("cpus", "2"),
            ("grow-0", "4"),
            ("grow-1", "8"),
            ("removeDisk", "1"),
            ("blankGib", "1, 2"),
            ("network-0", "lab"),
            ("mac-0", "52:54:00:00:00:01"),
            ("forwards-0", "2222:22 udp:53:53"),
            ("network-1", "user"),
            ("removeNic", "1"),
            ("addNetwork", "none"),
        ],
    );
    assert_eq!(
        body(&call),
        json!({
            "cpus": 2, "addDisks": [{"sizeGib": 1}, {"sizeGib": 2}], "growDisks": [{"disk": 0, "sizeGib": 4}],
            "removeDisks": [1], "removeNics": [1],
            "changeNics": [{"nic": 0, "network": "lab", "mac": "52:54:00:00:00:01", "forwards": [
                {"protocol": "TCP", "hostAddress": "127.0.0.1", "hostPort": 2222, "guestPort": 22},
                {"protocol": "UDP", "hostAddress": "127.0.0.1", "hostPort": 53, "guestPort": 53}
            ]}]
        })
    );
    let wrong = parse(
        "/do/vms/web-1/edit",
        &fields(&[("network-0", "user"), ("forwards-0", "22")]),
    );
    assert_eq!(wrong.unwrap_err().field(), Some("forwards-0"));
}

#[test]
fn places_are_their_calls() {
    let call = one(
        "/do/networks/create",
        &[("name", "lab"), ("kind", "ISOLATED"), ("bridge", "br0")],
    );
    assert_eq!(body(&call), json!({"name": "lab", "kind": "ISOLATED"}));
    let call = one("/do/hosts/host-1/maintenance", &[]);
    assert_eq!(
        (call.method, body(&call)),
        (Method::Patch, json!({"state": "MAINTENANCE"}))
    );
    assert_eq!(one("/do/storages/fast/delete", &[]).method, Method::Delete);
    assert!(parse("/do/networks/lab/fly", &[]).is_err());
}

#[test]
fn an_image_comes_from_what_its_form_names() {
    let call = one(
        "/do/images/import",
        &[
            ("name", "debian"),
            ("url", "https://example.org/a"),
            ("format", ""),
            ("sha256", ""),
        ],
    );
    assert_eq!(
        body(&call),
        json!({"name": "debian", "url": "https://example.org/a"})
    );
    let wrong = |all: &[(&str, &str)]| parse("/do/images/import", &fields(all)).unwrap_err();
    assert_eq!(wrong(&[("name", "a"), ("path", " ")]).field(), Some("path"));
    assert_eq!(
        wrong(&[("name", "a"), ("url", "file:///etc/passwd")]).field(),
        Some("url")
    );
    let digits = [("name", "a"), ("url", "http://a"), ("sha256", "abc")];
    assert_eq!(wrong(&digits).field(), Some("sha256"));

    let call = one(
        "/do/vms/web-1/image",
        &[("name", "golden"), ("snapshot", "first")],
    );
    assert_eq!(call.path, "/api/v1/images");
    assert_eq!(
        body(&call)["snapshot"],
        json!({"vm": "web-1", "snapshot": "first", "disk": 0})
    );
    let of = |of| body(&one("/do/vms/web-1/export", &[("of", of), ("format", "RAW")]));
    assert_eq!(of("first")["snapshot"], "first");
    assert_eq!(of("now")["snapshotNow"], true);
    assert_eq!(of(""), json!({"format": "RAW", "disk": 0, "snapshotNow": false}));
    let done = after(
        "/do/images/a/rename",
        &fields(&[("back", "/images?do=rename&image=a")]),
        &[Ok(json!({"id": "i1"}).to_string())],
    );
    assert_eq!((done.to.as_str(), done.flash.job), ("/images?image=a", None));
}

#[test]
fn notices_are_their_calls() {
    let both = [
        ("name", "ops"),
        ("kind", "WEBHOOK"),
        ("url", "https://example.org/hook"),
        ("to", "a@example.org, b@example.org"),
        ("event", "JOB_FAILED"),
        ("event", "JOB_ON_HOLD"),
    ];
    let call = one("/do/notices/create", &both);
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Post, "/api/v1/noticeChannels")
    );
    assert_eq!(
        body(&call),
        json!({"name": "ops", "kind": "WEBHOOK", "url": "https://example.org/hook",
            "on": ["JOB_FAILED", "JOB_ON_HOLD"], "enabled": true})
    );
    // The field of the other kind is not meant.
    let mut mail = both;
    mail[1].1 = "MAIL";
    let asked = body(&one("/do/notices/create", &mail));
    assert_eq!(asked["to"], json!(["a@example.org", "b@example.org"]));
    assert_eq!(asked.get("url"), None);

    let call = one(
        "/do/notices/ops/edit",
        &[("url", "https://b.org"), ("event", "JOB_FAILED")],
    );
    assert_eq!(
        (call.method, call.path.as_str()),
        (Method::Patch, "/api/v1/noticeChannels/ops")
    );
    assert_eq!(body(&call), json!({"url": "https://b.org", "on": ["JOB_FAILED"]}));
    assert_eq!(body(&one("/do/notices/ops/off", &[])), json!({"enabled": false}));
    for (action, path) in [("test", "/test"), ("roll", "/rollSecret")] {
        let call = one(&format!("/do/notices/ops/{action}"), &[]);
        assert_eq!(call.path, format!("/api/v1/noticeChannels/ops{path}"));
    }
    assert_eq!(one("/do/notices/ops/delete", &[]).method, Method::Delete);
    let wrong = parse("/do/notices/ops/edit", &fields(&[("event", "JOB_LATE")]));
    assert_eq!(wrong.unwrap_err().field(), Some("on"));

    // The secret is shown where the form was, and the id of a test is no job's.
    let answer = json!({"channel": {"id": "7"}, "secret": "whsec_a"}).to_string();
    let done = after(
        "/do/notices/create",
        &fields(&[("back", "/notices")]),
        &[Ok(answer)],
    );
    assert_eq!(
        (done.to.as_str(), done.flash.secret.as_deref()),
        ("/notices", Some("whsec_a"))
    );
    let done = after("/do/notices/ops/test", &[], &[Ok(json!({"id": "7"}).to_string())]);
    assert_eq!(done.flash.job, None);
}
