//! Notices of jobs that fail: written with the failure, and delivered at last, whatever happens in between.

mod mail;
mod receiver;
mod smtp;
mod told;

use crate::feed::Source;
use crate::site::{Answer, Site, send};
use receiver::{Receiver, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Config;
use std::time::Duration;

/// A server that may post to this machine.
fn own(config: &mut Config) {
    config.notice_urls_private = true;
    config.public_url = Some("https://offshoot.example.org/".to_owned());
}

async fn site_with(more: impl FnOnce(&mut Config)) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::simulated(dir.path());
    more(&mut config);
    Site::start_with(dir, config).await
}

/// Makes a channel; answers its secret.
async fn hook(site: &Site, name: &str, url: &str) -> String {
    let body = json!({"name": name, "kind": "WEBHOOK", "url": url});
    let made = site.post("/api/v1/noticeChannels", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["secret"].as_str().unwrap().to_owned()
}

/// A job that fails in the simulation, by the name of the machine that it was to make.
async fn failed_job(site: &Site, more: &str) -> Value {
    let name = format!("fail-at-preparing-vm-disks-{more}");
    let body = json!({"name": name, "cpus": 1, "memoryMib": 128, "disks": [{"sizeGib": 1}], "start": false});
    let begun = site.post("/api/v1/vms", body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let job = site.ended(begun.json()["id"].as_str().unwrap()).await;
    assert_eq!(job["state"], "FAILED", "{job}");
    job
}

/// Waits until a channel is as wanted, by what the database tells.
async fn channel_when(site: &Site, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut changes = site.running.server.world().db.subscribe();
    let mut last = Value::Null;
    let wait = async {
        loop {
            last = site.get(&format!("/api/v1/noticeChannels/{name}")).await.json();
            if wanted(&last) {
                return;
            }
            // Lagging behind is no loss: it is asked again.
            drop(changes.recv().await);
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(done.is_ok(), "{last}");
    last
}

fn delivered(channel: &Value) -> bool {
    channel["lastDelivery"]["outcome"] == "DELIVERED" && channel["waiting"] == 0
}

fn not_taken(channel: &Value) -> bool {
    channel["lastDelivery"]["outcome"] == "FAILED" && channel["waiting"] == 0
}

async fn notices(site: &Site, channel: &str) -> Vec<Value> {
    let page = site
        .get(&format!("/api/v1/noticeChannels/{channel}/notices"))
        .await;
    assert_eq!(page.status, 200, "{page:?}");
    page.json()["notices"].as_array().unwrap().clone()
}

/// Tries a channel, and waits for how it went.
async fn tried(site: &Site, channel: &str) -> Value {
    let begun = site
        .post(&format!("/api/v1/noticeChannels/{channel}/test"), json!({}))
        .await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let id = begun.json()["id"].clone();
    channel_when(site, channel, |c| c["waiting"] == 0).await;
    let all = notices(site, channel).await;
    all.into_iter().find(|n| n["id"] == id).unwrap()
}

async fn patch(site: &Site, channel: &str, body: Value) -> Answer {
    let path = format!("/api/v1/noticeChannels/{channel}");
    send(site.request(Method::PATCH, &path).json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_posted_signed_until_it_is_taken() {
    let mut receiver = Receiver::start([Reply::Status(500), Reply::Status(429)]).await;
    let site = site_with(own).await;
    let secret = hook(&site, "ops", &receiver.url()).await;
    // What succeeds is told nobody.
    site.machine("fine").await;
    let job = failed_job(&site, "a").await;

    let posts = [
        receiver.next().await,
        receiver.next().await,
        receiver.next().await,
    ];
    for post in &posts {
        assert_eq!(post.path, "/hook");
        assert_eq!(post.header("content-type"), "application/json");
        assert_eq!(post.header("webhook-id"), posts[0].header("webhook-id"));
        assert_eq!(post.body, posts[0].body);
        assert!(post.signed_by(&secret), "{post:?}");
        let seconds: i64 = post.header("webhook-timestamp").parse().unwrap();
        assert!(
            (server::db::now().micros() / 1_000_000 - seconds).abs() < 120,
            "{post:?}"
        );
    }
    let told = posts[0].json();
    assert_eq!(
        (&told["type"], &told["timestamp"]),
        (&json!("JOB_FAILED"), &job["stateTime"])
    );
    for field in [
        "id",
        "kind",
        "state",
        "resources",
        "createdBy",
        "createTime",
        "startTime",
        "stateTime",
    ] {
        assert_eq!(told["data"]["job"][field], job[field], "{field}");
    }
    let made = &told["data"]["job"]["resources"][0];
    assert_eq!(made["name"], "fail-at-preparing-vm-disks-a", "{told}");
    assert_eq!(told["data"]["job"]["error"]["message"], job["error"]["message"]);
    assert!(told["data"]["job"]["error"]["status"].is_string(), "{told}");
    let link = format!(
        "https://offshoot.example.org/jobs/{}",
        job["id"].as_str().unwrap()
    );
    assert_eq!(told["data"]["url"], link);

    let channel = channel_when(&site, "ops", delivered).await;
    assert_eq!(channel["givenUp"], 0);
    let all = notices(&site, "ops").await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        (&all[0]["state"], &all[0]["attempts"], &all[0]["job"]),
        (&json!("DELIVERED"), &json!(3), &job["id"])
    );
    assert_eq!(all[0]["id"], posts[0].header("webhook-id"));
    assert!(receiver.has_no_more());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_is_sent_again_by_the_next_server() {
    // The first answer never comes: whether that post was taken, nobody knows.
    let mut receiver = Receiver::start([Reply::Never]).await;
    let site = site_with(own).await;
    let secret = hook(&site, "ops", &receiver.url()).await;
    let job = failed_job(&site, "b").await;
    let first = receiver.next().await;
    let site = site.restart_with(own).await;
    let again = receiver.next().await;
    assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(again.body, first.body);
    assert!(again.signed_by(&secret));
    channel_when(&site, "ops", delivered).await;
    let all = notices(&site, "ops").await;
    assert_eq!((all.len(), &all[0]["job"]), (1, &job["id"]), "{all:?}");

    // And one more start sends nothing: the test is the next that comes.
    let site = site.restart_with(own).await;
    assert_eq!(tried(&site, "ops").await["state"], "DELIVERED");
    assert_eq!(receiver.next().await.json()["type"], "TEST");
    assert!(receiver.has_no_more());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_hangs_keeps_no_other_from_its_notices() {
    let mut stuck = Receiver::start([Reply::Never]).await;
    let mut good = Receiver::start([]).await;
    let site = site_with(own).await;
    hook(&site, "stuck", &stuck.url()).await;
    hook(&site, "good", &good.url()).await;
    for more in ["a", "b", "c"] {
        let job = failed_job(&site, more).await;
        assert_eq!(good.next().await.json()["data"]["job"]["id"], job["id"]);
    }
    stuck.next().await;
    let channel = site.get("/api/v1/noticeChannels/stuck").await.json();
    assert_eq!(
        (&channel["waiting"], channel.get("lastDelivery")),
        (&json!(3), None)
    );
    assert!(stuck.has_no_more(), "one at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_rolled_over_a_day() {
    let mut receiver = Receiver::start([]).await;
    let site = site_with(own).await;
    let first = hook(&site, "ops", &receiver.url()).await;
    let rolled = site
        .post("/api/v1/noticeChannels/ops/rollSecret", json!({}))
        .await;
    assert_eq!(rolled.status, 200, "{rolled:?}");
    let second = rolled.json()["secret"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(tried(&site, "ops").await["state"], "DELIVERED");
    let post = receiver.next().await;
    assert!(post.signed_by(&first) && post.signed_by(&second), "{post:?}");
    assert_eq!(
        post.json(),
        json!({"type": "TEST", "timestamp": post.json()["timestamp"], "data": {}})
    );

    // A day later the first is nobody's any more.
    let db = &site.running.server.world().db;
    let expired = db.write(|tx| {
        Box::pin(async move {
            sqlx::query("UPDATE notice_channels SET old_secret_end = 1")
                .execute(tx.conn())
                .await
                .map_err(server::db::sql("let a day pass"))
        })
    });
    expired.await.unwrap();
    assert_eq!(tried(&site, "ops").await["state"], "DELIVERED");
    let post = receiver.next().await;
    assert!(!post.signed_by(&first) && post.signed_by(&second), "{post:?}");

    for path in [
        "/api/v1/noticeChannels",
        "/api/v1/noticeChannels/ops",
        "/api/v1/noticeChannels/ops/notices",
        "/api/v1/audit",
    ] {
        let shown = site.get(path).await;
        assert_eq!(shown.status, 200, "{path}");
        assert!(!shown.body.contains("whsec_"), "{path}");
    }
    let audit = site.get("/api/v1/audit").await.body;
    for made in ["/api/v1/noticeChannels", "/rollSecret", "/test"] {
        assert!(audit.contains(made), "{made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_refused_by_number_and_by_name() {
    let mut receiver = Receiver::start([]).await;
    let port = receiver.address.rsplit(':').next().unwrap();
    let site = Site::start().await;
    for host in ["127.0.0.1", "[::1]", "2130706433", "169.254.169.254"] {
        let url = format!("http://{host}:{port}/hook");
        let body = json!({"name": "ops", "kind": "WEBHOOK", "url": url});
        let refused = site.post("/api/v1/noticeChannels", body).await;
        assert_eq!(refused.field(), "url", "{host}");
        assert!(refused.body.contains("notice_urls_private"), "{refused:?}");
    }
    // What a name leads to is looked at when it is gone to.
    hook(&site, "ops", &format!("http://localhost:{port}/hook")).await;
    let test = tried(&site, "ops").await;
    assert_eq!(test["state"], "GIVEN_UP", "{test}");
    assert!(
        test["error"].as_str().unwrap().contains("no public address"),
        "{test}"
    );
    assert!(receiver.has_no_more(), "nobody was connected to");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_a_test_is_tried_once() {
    let mut receiver = Receiver::start([Reply::Elsewhere, Reply::Status(503)]).await;
    let site = site_with(own).await;
    hook(&site, "ops", &receiver.url()).await;
    let test = tried(&site, "ops").await;
    assert_eq!(
        (&test["state"], &test["attempts"]),
        (&json!("GIVEN_UP"), &json!(1))
    );
    assert!(
        test["error"]
            .as_str()
            .unwrap()
            .contains("redirects are not followed"),
        "{test}"
    );
    let test = tried(&site, "ops").await;
    assert!(test["error"].as_str().unwrap().contains("503"), "{test}");
    let channel = channel_when(&site, "ops", not_taken).await;
    assert_eq!(channel["lastDelivery"]["error"], test["error"]);
    assert_eq!(channel["givenUp"], 0, "nobody was not told of anything");
    for _ in 0..2 {
        assert_eq!(receiver.next().await.path, "/hook");
    }
    assert!(receiver.has_no_more());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_given_up_when_the_channel_is_switched_off() {
    let mut receiver = Receiver::start([Reply::Status(500); 2]).await;
    let site = site_with(own).await;
    hook(&site, "ops", &receiver.url()).await;
    failed_job(&site, "a").await;
    receiver.next().await;
    let off = patch(&site, "ops", json!({"enabled": false})).await;
    assert_eq!((off.status, &off.json()["waiting"]), (200, &json!(0)), "{off:?}");
    assert_eq!(off.json()["givenUp"], 1);
    failed_job(&site, "b").await;
    let all = notices(&site, "ops").await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["error"], "the channel was switched off");
    let test = site.post("/api/v1/noticeChannels/ops/test", json!({})).await;
    assert_eq!((test.status, test.error().as_str()), (409, "FAILED_PRECONDITION"));

    assert_eq!(patch(&site, "ops", json!({"enabled": true})).await.status, 200);
    let gone = send(site.request(Method::DELETE, "/api/v1/noticeChannels/ops")).await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(site.get("/api/v1/noticeChannels/ops").await.status, 404);
    assert_eq!(site.get("/api/v1/noticeChannels/ops/notices").await.status, 404);
}

#[tokio::test]
async fn a_channel_is_what_its_kind_needs() {
    let site = Site::start().await;
    let url = "https://hook.example.org/a";
    for (body, field) in [
        (json!({"name": "A", "kind": "WEBHOOK", "url": url}), "name"),
        (json!({"name": "a", "kind": "PIGEON", "url": url}), "kind"),
        (json!({"name": "a", "kind": "WEBHOOK"}), "url"),
        (json!({"name": "a", "kind": "WEBHOOK", "url": "https://"}), "url"),
        (
            json!({"name": "a", "kind": "WEBHOOK", "url": url, "to": ["a@b.org"]}),
            "to",
        ),
        (
            json!({"name": "a", "kind": "WEBHOOK", "url": url, "on": []}),
            "on",
        ),
        (
            json!({"name": "a", "kind": "WEBHOOK", "url": url, "on": ["TEST"]}),
            "on",
        ),
        (
            json!({"name": "a", "kind": "WEBHOOK", "url": url, "secret": "mine"}),
            "secret",
        ),
        (json!({"name": "a", "kind": "MAIL", "to": ["nobody"]}), "to"),
        (json!({"name": "a", "kind": "MAIL", "to": ["a@b@c"]}), "to"),
    ] {
        let refused = site.post("/api/v1/noticeChannels", body.clone()).await;
        assert_eq!(refused.field(), field, "{body}");
    }
    let no_server = json!({"name": "a", "kind": "MAIL", "to": ["a@b.org"]});
    let refused = site.post("/api/v1/noticeChannels", no_server).await;
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (409, "FAILED_PRECONDITION")
    );
    assert!(refused.body.contains("smtp_url"), "{refused:?}");

    hook(&site, "ops", url).await;
    let twice = json!({"name": "ops", "kind": "WEBHOOK", "url": url});
    assert_eq!(
        site.post("/api/v1/noticeChannels", twice).await.error(),
        "ALREADY_EXISTS"
    );
    let changed = patch(
        &site,
        "ops",
        json!({"name": "night", "on": ["JOB_ON_HOLD", "JOB_FAILED"]}),
    )
    .await;
    assert_eq!(
        changed.json()["on"],
        json!(["JOB_FAILED", "JOB_ON_HOLD"]),
        "{changed:?}"
    );
    assert_eq!(
        patch(&site, "night", json!({"to": ["a@b.org"]})).await.field(),
        "to"
    );
    assert_eq!(
        patch(&site, "night", json!({"url": "gopher://a"})).await.field(),
        "url"
    );
    assert_eq!(patch(&site, "ops", json!({})).await.error(), "NOT_FOUND");
    let all = site.get("/api/v1/noticeChannels").await.json();
    assert_eq!(
        (&all["totalSize"], &all["noticeChannels"][0]["url"]),
        (&json!(1), &json!(url))
    );
}

#[tokio::test]
async fn whoever_manages_notices_sees_all_jobs_as_well() {
    let site = Site::start().await;
    let otto = site.user("otto", Some("operator")).await;
    let seen = site.by(&otto, Method::GET, "/api/v1/noticeChannels", None).await;
    assert_eq!(
        (seen.status, seen.body.contains("notice.manage")),
        (403, true),
        "{seen:?}"
    );

    let role = json!({"name": "teller", "privileges": ["notice.manage"]});
    assert_eq!(site.post("/api/v1/roles", role).await.status, 201);
    let tess = site.user("tess", Some("teller")).await;
    let hook = json!({"name": "ops", "kind": "WEBHOOK", "url": "https://hook.example.org/a"});
    let made = site
        .by(&tess, Method::POST, "/api/v1/noticeChannels", Some(hook))
        .await;
    assert_eq!(
        (made.status, made.body.contains("job.read")),
        (403, true),
        "{made:?}"
    );
    let role = json!({"privileges": ["notice.manage", "job.read"]});
    send(site.request(Method::PATCH, "/api/v1/roles/teller").json(&role)).await;

    // The feed tells her, and nobody who may not see channels.
    let mut hers = Source::by(&site, &tess).await;
    let mut his = Source::by(&site, &otto).await;
    for source in [&mut hers, &mut his] {
        assert_eq!(source.any().await.unwrap().name, "alive");
    }
    let hook = json!({"name": "ops", "kind": "WEBHOOK", "url": "https://hook.example.org/a"});
    let made = site
        .by(&tess, Method::POST, "/api/v1/noticeChannels", Some(hook))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let event = hers.next().await;
    assert_eq!(
        (event.name.as_str(), event.data["name"].as_str()),
        ("noticeChannel", Some("ops")),
        "{event:?}"
    );
    assert!(!event.data.to_string().contains("whsec_"));
    site.machine("next").await;
    loop {
        let event = his.next().await;
        assert_ne!(event.name, "noticeChannel", "{event:?}");
        if event.name == "vm" {
            break;
        }
    }
}
