//! Users, roles, and what they come to on each route, list and event.

use crate::site::{Site, cookie, form, name, send};
use reqwest::Method;
use serde_json::{Value, json};
use shared::access::rights::{OPERATOR, VIEWER, built_in};

fn words(list: &Value, field: &str) -> Vec<String> {
    let all = list.as_array().unwrap().iter();
    all.map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

async fn give(site: &Site, user: &str, role: &str, vm: Option<&str>) -> Value {
    let path = format!("/api/v1/users/{user}/grants");
    let answer = site.post(&path, json!({"role": role, "vm": vm})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_viewer_sees_and_an_operator_works() {
    let site = Site::start().await;
    site.machine("web").await;
    let (viewer, operator) = (
        site.user("vera", Some("viewer")).await,
        site.user("otto", Some("operator")).await,
    );
    let get = |token, path| site.by(token, Method::GET, path, None);
    for path in [
        "/api/v1/vms",
        "/api/v1/vms/web",
        "/api/v1/jobs",
        "/api/v1/hosts",
        "/api/v1/summary",
        "/api/v1/forkPoints",
    ] {
        assert_eq!(get(&viewer, path).await.status, 200, "{path}");
        assert_eq!(get(&operator, path).await.status, 200, "{path}");
    }
    for path in ["/api/v1/users", "/api/v1/audit"] {
        for token in [&viewer, &operator] {
            assert_eq!(get(token, path).await.error(), "PERMISSION_DENIED", "{path}");
        }
    }
    let start = |token| site.by(token, Method::POST, "/api/v1/vms/web/start", Some(json!({})));
    let no = start(&viewer).await;
    assert_eq!((no.status, no.error().as_str()), (403, "PERMISSION_DENIED"));
    assert!(
        no.body.contains("vera/tests lacks the privilege vm.power"),
        "{no:?}"
    );
    assert_eq!(start(&operator).await.status, 202);
    let host = get(&operator, "/api/v1/hosts").await.json()["hosts"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let patch = json!({"state": "MAINTENANCE"});
    assert_eq!(
        site.by(
            &operator,
            Method::PATCH,
            &format!("/api/v1/hosts/{host}"),
            Some(patch)
        )
        .await
        .status,
        403
    );
    let me = get(&viewer, "/api/v1/me").await.json();
    let may: Vec<_> = me["rights"]["privileges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_str().unwrap())
        .collect();
    for privilege in built_in(VIEWER).unwrap() {
        assert!(may.contains(&privilege.word()), "{privilege}");
    }
    assert!(!may.contains(&"vm.power"));
    assert!(built_in(OPERATOR).unwrap().len() > may.len());
}

#[tokio::test]
async fn a_role_on_one_machine_shows_and_allows_nothing_else() {
    let site = Site::start().await;
    let (mine, other) = (site.machine("mine").await, site.machine("other").await);
    let eve = site.user("eve", None).await;
    let (to, token) = (&site, &eve);
    let get = |path: String| async move { to.by(token, Method::GET, &path, None).await };
    let post = |path: String| async move { to.by(token, Method::POST, &path, Some(json!({}))).await };
    // Without any role there is nothing but oneself.
    assert_eq!(get("/api/v1/vms".into()).await.status, 403);
    assert_eq!(get("/api/v1/me".into()).await.status, 200);

    give(&site, "eve", "operator", Some("mine")).await;
    let vms = get("/api/v1/vms".into()).await.json();
    assert_eq!(
        (words(&vms["vms"], "name"), &vms["totalSize"]),
        (vec!["mine".to_owned()], &json!(1))
    );
    assert_eq!(get("/api/v1/summary".into()).await.json()["vms"], 1);
    let jobs = get("/api/v1/jobs".into()).await.json();
    assert_eq!(jobs["totalSize"], 1, "the one that made it: {jobs}");
    let all = site.get("/api/v1/jobs").await.json();
    for job in all["jobs"].as_array().unwrap() {
        let id = job["id"].as_str().unwrap();
        let seen = jobs["jobs"][0]["id"] == id;
        assert_eq!(
            get(format!("/api/v1/jobs/{id}")).await.status,
            if seen { 200 } else { 404 }
        );
        assert_eq!(
            get(format!("/api/v1/jobs/{id}/log")).await.status,
            if seen { 200 } else { 404 }
        );
    }
    // By name and by id; what may not be seen is answered as what is not there.
    for vm in ["mine", &mine] {
        assert_eq!(get(format!("/api/v1/vms/{vm}")).await.status, 200);
        assert_eq!(get(format!("/api/v1/vms/{vm}/snapshots")).await.status, 200);
    }
    for vm in ["other", &other] {
        let none = get(format!("/api/v1/vms/{vm}")).await;
        assert_eq!((none.status, none.error().as_str()), (404, "NOT_FOUND"));
        let nothing = get(format!("/api/v1/vms/{vm}-nothing")).await;
        assert_eq!(
            none.json()["error"]["message"].as_str().unwrap().replace(vm, ""),
            nothing.json()["error"]["message"]
                .as_str()
                .unwrap()
                .replace(&format!("{vm}-nothing"), "")
        );
        assert_eq!(post(format!("/api/v1/vms/{vm}/start")).await.status, 404);
    }
    assert_eq!(get("/api/v1/images".into()).await.status, 200);
    let started = post("/api/v1/vms/mine/start".into()).await;
    assert_eq!(started.status, 202, "{started:?}");
    site.ended(started.json()["id"].as_str().unwrap()).await;
    // Machines use what all share: they are made with a role on everything only.
    for (path, privilege) in [
        ("/api/v1/vms", "vm.create"),
        ("/api/v1/vms/mine/cloneJobs", "clone.create"),
        (
            "/api/v1/vms/mine/instantClones",
            "VirtualMachine.Provisioning.Clone",
        ),
    ] {
        let no = post(path.to_owned()).await;
        assert_eq!(no.status, 403, "{no:?}");
        assert!(no.body.contains(privilege), "{no:?}");
    }
    // A job is tried again by those who might have asked for it.
    let made = jobs["jobs"][0]["id"].as_str().unwrap();
    let again = post(format!("/api/v1/jobs/{made}/retry")).await;
    assert_eq!(
        (again.status, again.body.contains("vm.create")),
        (403, true),
        "{again:?}"
    );

    // Its jobs are still to be seen when it is gone.
    let stop = site
        .post("/api/v1/vms/mine/stop", json!({"mode": "POWER_OFF"}))
        .await;
    site.ended(stop.json()["id"].as_str().unwrap()).await;
    let gone = site.by(&eve, Method::DELETE, "/api/v1/vms/mine", None).await;
    assert_eq!(gone.status, 202, "{gone:?}");
    let gone = gone.json()["id"].as_str().unwrap().to_owned();
    site.ended(&gone).await;
    assert_eq!(
        get(format!("/api/v1/jobs/{gone}")).await.json()["state"],
        "SUCCEEDED"
    );
}

#[tokio::test]
async fn the_feed_tells_what_may_be_seen_and_begins_anew_when_that_changes() {
    let site = Site::start().await;
    site.machine("mine").await;
    site.machine("other").await;
    let eve = site.user("eve", None).await;
    give(&site, "eve", "viewer", Some("mine")).await;
    let mut source = crate::feed::Source::by(&site, &eve).await;
    assert_eq!(source.any().await.unwrap().name, "alive");
    let label = |vm: &'static str, value: &'static str| {
        let path = format!("/api/v1/vms/{vm}");
        let request = site
            .request(Method::PATCH, &path)
            .json(&json!({"labels": {"a": value}}));
        async { assert_eq!(send(request).await.status, 200) }
    };
    label("other", "secret").await;
    label("mine", "seen").await;
    let event = source.next().await;
    assert_eq!(
        (event.name.as_str(), event.data["labels"]["a"].as_str()),
        ("vm", Some("seen")),
        "{event:?}"
    );
    give(&site, "eve", "viewer", Some("other")).await;
    loop {
        // Of herself she hears, and then that there is more to be seen.
        let event = source.any().await.unwrap();
        match event.name.as_str() {
            "reset" => break,
            other => assert!(matches!(other, "alive" | "user"), "{event:?}"),
        }
    }
    label("other", "seen-now").await;
    let event = source.next().await;
    assert_eq!(event.data["labels"]["a"], "seen-now", "{event:?}");
}

#[tokio::test]
async fn users_are_added_changed_and_removed() {
    let site = Site::start().await;
    let made = site
        .post(
            "/api/v1/users",
            json!({"name": "eve", "password": "a long password", "role": "viewer"}),
        )
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let user = made.json();
    assert_eq!(
        (&user["hasPassword"], &user["grants"][0]["role"]),
        (&json!(true), &json!("viewer"))
    );
    assert!(!made.body.contains("a long"), "{made:?}");
    let twice = site.post("/api/v1/users", json!({"name": "eve"})).await;
    assert_eq!((twice.status, twice.error().as_str()), (409, "ALREADY_EXISTS"));
    assert_eq!(
        site.post("/api/v1/users", json!({"name": "a", "role": "none"}))
            .await
            .status,
        404
    );
    assert_eq!(
        site.post("/api/v1/users", json!({"name": "a", "password": "short"}))
            .await
            .field(),
        "password"
    );

    let log_in = |who: &'static str, password: &'static str| {
        let request = site.bare(Method::POST, "/login").header("origin", site.url(""));
        async move { send(form(request, &[("name", who), ("password", password)])).await }
    };
    let session = cookie(&log_in("eve", "a long password").await);
    let me = |session: String| send(site.bare(Method::GET, "/api/v1/me").header("cookie", session));
    assert_eq!(me(session.clone()).await.json()["user"]["name"], "eve");
    let renamed = send(
        site.request(Method::PATCH, "/api/v1/users/eve")
            .json(&json!({"name": "eva"})),
    )
    .await;
    assert_eq!(renamed.json()["name"], "eva", "{renamed:?}");
    assert_eq!(me(session.clone()).await.json()["user"]["name"], "eva");

    // Kept out: by session, by password, by token.
    let token = site
        .running
        .server
        .access
        .token_for(&name("eva"), name("t"))
        .await
        .unwrap()
        .secret;
    let disable = |disabled| {
        send(
            site.request(Method::PATCH, "/api/v1/users/eva")
                .json(&json!({"disabled": disabled})),
        )
    };
    assert_eq!(disable(true).await.json()["disabled"], true);
    assert_eq!(me(session).await.status, 401);
    assert!(
        log_in("eva", "a long password")
            .await
            .header("location")
            .starts_with("/login?error=disabled")
    );
    let refused = site.by(&token, Method::GET, "/api/v1/me", None).await;
    assert_eq!(
        (refused.status, refused.body.contains("eva is disabled")),
        (401, true),
        "{refused:?}"
    );
    assert_eq!(disable(false).await.status, 200);
    assert_eq!(site.by(&token, Method::GET, "/api/v1/me", None).await.status, 200);

    let password = json!({"password": "another password"});
    let set = send(
        site.request(Method::PUT, "/api/v1/users/eva/password")
            .json(&password),
    )
    .await;
    assert_eq!(set.status, 200, "{set:?}");
    assert!(
        log_in("eva", "a long password")
            .await
            .header("location")
            .contains("error=wrong")
    );
    let session = cookie(&log_in("eva", "another password").await);
    let link = site.post("/api/v1/users/eva/link", json!({})).await.json();
    let path = link["secret"]
        .as_str()
        .unwrap()
        .strip_prefix(&site.url(""))
        .unwrap();
    let by_link = send(site.bare(Method::POST, path).header("origin", site.url(""))).await;
    assert_eq!(by_link.status, 303, "{by_link:?}");

    assert_eq!(
        send(site.request(Method::DELETE, "/api/v1/users/eva"))
            .await
            .status,
        200
    );
    assert_eq!(
        send(site.bare(Method::GET, "/api/v1/me").header("cookie", session))
            .await
            .status,
        401
    );
    assert_eq!(site.by(&token, Method::GET, "/api/v1/me", None).await.status, 401);
    assert_eq!(site.get("/api/v1/users/eva").await.status, 404);
}

#[tokio::test]
async fn there_is_always_an_administrator() {
    let site = Site::start().await;
    site.user("vera", Some("viewer")).await;
    let admin = site.get("/api/v1/users/admin").await.json();
    let grant = format!(
        "/api/v1/users/admin/grants/{}",
        admin["grants"][0]["id"].as_str().unwrap()
    );
    for request in [
        site.request(Method::DELETE, "/api/v1/users/admin"),
        site.request(Method::PATCH, "/api/v1/users/admin")
            .json(&json!({"disabled": true})),
        site.request(Method::DELETE, &grant),
    ] {
        let answer = send(request).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (409, "FAILED_PRECONDITION"),
            "{answer:?}"
        );
        assert!(answer.body.contains("the last administrator"), "{answer:?}");
    }
    // Nothing of it was done.
    let same = site.get("/api/v1/users/admin").await.json();
    assert_eq!(
        (&same["disabled"], &same["grants"]),
        (&json!(false), &admin["grants"])
    );
    give(&site, "vera", "admin", None).await;
    assert_eq!(send(site.request(Method::DELETE, &grant)).await.status, 200);
    assert_eq!(site.get("/api/v1/users").await.status, 403);
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let site = Site::start().await;
    let role = json!({"name": "people", "description": "Looks after colleagues",
        "privileges": ["user.manage", "vm.read", "vm.read", "snapshot.read"]});
    let made = site.post("/api/v1/roles", role).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        made.json()["privileges"].as_array().unwrap().len(),
        3,
        "each once: {made:?}"
    );
    let paul = site.user("paul", Some("people")).await;
    let eve = site.user("eve", None).await;
    let by_paul = |method, path: &'static str, body| site.by(&paul, method, path, Some(body));
    let refused = [
        (Method::POST, "/api/v1/users/eve/grants", json!({"role": "admin"})),
        (
            Method::POST,
            "/api/v1/users/eve/grants",
            json!({"role": "operator"}),
        ),
        (
            Method::POST,
            "/api/v1/users/paul/grants",
            json!({"role": "admin"}),
        ),
        (
            Method::POST,
            "/api/v1/users",
            json!({"name": "x", "role": "admin"}),
        ),
        (
            Method::PUT,
            "/api/v1/users/admin/password",
            json!({"password": "a long password"}),
        ),
        (Method::POST, "/api/v1/users/admin/link", json!({})),
        (Method::PATCH, "/api/v1/users/admin", json!({"disabled": true})),
        (
            Method::POST,
            "/api/v1/roles",
            json!({"name": "x", "privileges": ["vm.power"]}),
        ),
        (
            Method::PATCH,
            "/api/v1/roles/people",
            json!({"privileges": ["user.manage", "vm.delete"]}),
        ),
    ];
    for (method, path, body) in refused {
        let answer = by_paul(method, path, body.clone()).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (403, "PERMISSION_DENIED"),
            "{path} {body}: {answer:?}"
        );
        assert!(
            answer.body.contains("nobody deals with more than they have"),
            "{answer:?}"
        );
    }
    let small = json!({"name": "look", "privileges": ["vm.read"]});
    assert_eq!(by_paul(Method::POST, "/api/v1/roles", small).await.status, 201);
    let given = by_paul(Method::POST, "/api/v1/users/eve/grants", json!({"role": "look"})).await;
    assert_eq!(given.status, 200, "{given:?}");
    assert_eq!(site.by(&eve, Method::GET, "/api/v1/vms", None).await.status, 200);
    // In use it stays; those that come with it stay as they are.
    let used = send(site.request(Method::DELETE, "/api/v1/roles/look")).await;
    assert_eq!(
        (used.status, used.error().as_str()),
        (409, "FAILED_PRECONDITION"),
        "{used:?}"
    );
    let fixed = send(
        site.request(Method::PATCH, "/api/v1/roles/viewer")
            .json(&json!({"description": "x"})),
    )
    .await;
    assert_eq!(fixed.error(), "FAILED_PRECONDITION");
    // What a role has more, whoever has it has at once.
    let more = json!({"privileges": ["vm.read", "job.read"]});
    assert_eq!(site.by(&eve, Method::GET, "/api/v1/jobs", None).await.status, 403);
    assert_eq!(
        send(site.request(Method::PATCH, "/api/v1/roles/look").json(&more))
            .await
            .status,
        200
    );
    assert_eq!(site.by(&eve, Method::GET, "/api/v1/jobs", None).await.status, 200);
    let grant = given.json()["grants"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        send(site.request(Method::DELETE, &format!("/api/v1/users/eve/grants/{grant}")))
            .await
            .status,
        200
    );
    assert_eq!(
        send(site.request(Method::DELETE, "/api/v1/roles/look"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn whoever_was_there_before_roles_is_an_administrator() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("offshoot.db");
    // A database as the version before left it: without what the migration of roles brings.
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let root = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("migrations");
    let mut all = sqlx::migrate::Migrator::new(root).await.unwrap();
    let before: Vec<_> = all.migrations.iter().filter(|m| m.version < 7).cloned().collect();
    all.migrations = before.into();
    all.run(&mut conn).await.unwrap();
    sqlx::query(
        "INSERT INTO users (id, name, create_time) VALUES ('00000000-0000-0000-0000-0000000000aa', 'old', 1)",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    sqlx::Connection::close(conn).await.unwrap();

    let db = server::db::Db::open(&file).await.unwrap();
    let user = db
        .reading(async |conn| server::db::users::known(conn, "old").await)
        .await
        .unwrap();
    assert_eq!(
        user.grants
            .iter()
            .map(|g| (g.role.as_str(), g.vm))
            .collect::<Vec<_>>(),
        [("admin", None)]
    );
    // It can be found again by its id, and so be taken away.
    let id = user.grants[0].id.to_string();
    let rights = db
        .reading(async |conn| {
            server::db::roles::granted(conn, user.id, &id).await?;
            server::db::roles::rights(conn, user.id).await
        })
        .await
        .unwrap();
    assert!(rights.has(shared::access::Privilege::UserManage, None));
}
