//! Policies: made, looked at, tried, run and removed.

use super::Site;
use super::copies::target;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_from_its_making_to_its_end() {
    let site = Site::start().await;
    site.ok("vm create web --image demo --label tier=gold --start --wait")
        .await;
    target(&site).await;
    let made = site
        .ok("policy add nightly --cron @daily --time-zone Europe/Berlin --label tier=gold --target there --daily 7 --weekly 4 \
             --minimum-age-hours 1 --boot-every 3 --window SATURDAY,SUNDAY=20:00-06:00")
        .await;
    for line in [
        "name      nightly\n",
        "when      @daily Europe/Berlin\n",
        "next      2",
        "window    SATURDAY, SUNDAY 20:00 to 06:00 Europe/Berlin\n",
        "label     tier=gold\n",
        "targets   there\n",
        "keeps     7 daily, 4 weekly, what is younger than 1 h\n",
        "boots     one in 3 copies of a machine\n",
    ] {
        assert!(made.contains(line), "{line}: {made}");
    }
    assert_eq!(site.ok("policy show nightly").await, made);
    let list = site.ok("policy list").await;
    assert!(
        list.lines()
            .nth(1)
            .unwrap_or_default()
            .starts_with("nightly  @daily Europe/Berlin  "),
        "{list}"
    );

    let edited = site
        .json("policy edit nightly --daily 14 --weekly 0 --no-windows --boot-every 0 --time-zone UTC --name each-night")
        .await;
    assert_eq!(
        (&edited["name"], &edited["retention"], &edited["schedule"]),
        (
            &json!("each-night"),
            &json!({"daily": 14, "minimumAgeHours": 1}),
            &json!({"cron": "@daily", "timeZone": "UTC"})
        ),
        "what is not given stays"
    );
    assert_eq!(
        (edited.get("verify"), edited.get("window")),
        (None, None),
        "{edited}"
    );
    let unplanned = site.json("policy edit each-night --no-schedule").await;
    assert_eq!(
        (unplanned.get("schedule"), unplanned.get("nextTime")),
        (None, None)
    );

    // One that was asked for by hand is not a policy's to keep or to remove.
    site.ok("copy create web --target there --wait").await;
    for _ in 0..2 {
        let run = site.json("policy run each-night").await;
        let id = run["tasks"][0]["id"].as_str().unwrap();
        site.ok(&format!("job wait {id}")).await;
    }
    let preview = site.json("policy preview each-night").await;
    assert_eq!(
        (&preview["keep"], &preview["drop"]),
        (&json!(2), &json!(0)),
        "{preview}"
    );
    // Other rules are only tried.
    let tried = site
        .ok("policy preview each-night --keep-last 1 --daily 0 --minimum-age-hours 0")
        .await;
    assert!(
        tried.contains("NEWEST") && tried.ends_with("1 would stay, 1 would go\n"),
        "{tried}"
    );
    let now = site.json("policy show each-night").await;
    assert_eq!(now["retention"]["daily"], 14, "{now}");
    assert_eq!(site.json("copy list").await["totalSize"], 3);

    let gone = site.ok("policy remove each-night").await;
    assert!(gone.contains("its copies stay"), "{gone}");
    assert_eq!(site.json("policy list").await["totalSize"], 0);
    assert_eq!(site.json("copy list").await["totalSize"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_says_why() {
    let site = Site::start().await;
    target(&site).await;
    for (args, code, said) in [
        ("policy add nightly --vm web", 2, "--target"),
        ("policy add nightly --target there", 2, "--label"),
        (
            "policy add nightly --vm web --target there --window 22:00",
            2,
            "22:00-06:00",
        ),
        (
            "policy add nightly --vm web --target there --window SOMEDAY=22:00-23:00",
            2,
            "SOMEDAY",
        ),
        (
            "policy add nightly --vm web --target there --memory --quiesce",
            2,
            "cannot be used with",
        ),
        ("policy add nightly --vm web --target there", 3, "web"),
        ("policy add nightly --label tier=gold --target none", 3, "none"),
        (
            "policy add nightly --label tier=gold --target there --cron @never",
            3,
            "@never",
        ),
        (
            "policy add nightly --label tier=gold --target there --cron @daily --time-zone Mars/Olympus",
            3,
            "Mars/Olympus",
        ),
        (
            "policy add nightly --label tier=gold --target there --window 22:00-25:00",
            3,
            "25:00",
        ),
        ("policy edit none --daily 1", 3, "none"),
        (
            "policy edit none --cron @daily --no-schedule",
            2,
            "cannot be used with",
        ),
        ("policy preview none", 3, "none"),
        ("policy run none", 3, "none"),
        ("policy remove none", 3, "none"),
    ] {
        let ran = site.run(args).await;
        assert_eq!(ran.code, code, "{args}: {ran:?}");
        assert!(ran.stderr.contains(said), "{args}: {ran:?}");
    }
    let list: Value = site.json("policy list").await;
    assert_eq!(list["totalSize"], 0, "{list}");
}
