//! Machines that are carried over: from a source, in cycles, one alone and in groups, to the end.

use super::Site;
use super::copies::target;
use serde_json::{Value, json};

/// Waits for a state of a migration, as a script would.
async fn until(site: &Site, name: &str, state: &str) -> Value {
    for _ in 0..600 {
        let now = site.json(&format!("migration show {name}")).await;
        if now["state"] == state && now.get("currentCycle").is_none() {
            return now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{name} is never {state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_carried_over_by_commands_alone() {
    let site = Site::start().await;
    site.ok("vm create web --image demo --start --wait").await;
    target(&site).await;
    site.ok("source add here --local").await;
    let has = site.ok("source inventory here").await;
    assert!(has.contains("web"), "{has}");
    let made = site
        .ok("migration create move --source here --vm web --target there --idle-seconds 600 --name-there web-new \
             --hostname shop --skip-os-adaptation false --metadata tier=gold")
        .await;
    for line in ["hostname shop", "cloud-init seed", "adapted"] {
        assert!(made.contains(line), "{line}: {made}");
    }
    until(&site, "move", "READY").await;
    site.ok("migration start move").await;
    until(&site, "move", "ACTIVE").await;
    let clone = site
        .json("migration clone move --name tried --memory-mib 192 --label for=test --wait")
        .await;
    assert_eq!(clone["state"], "SUCCEEDED", "{clone}");
    let tried = site.json("vm show tried").await;
    assert_eq!(
        (&tried["memoryMib"], &tried["labels"]["for"]),
        (&json!(192), &json!("test"))
    );
    let id = clone["id"].as_str().unwrap();
    let judged = site.ok(&format!("migration judge {id} passed --note well")).await;
    assert!(judged.contains("PASSED"), "{judged}");
    site.ok("migration adapt move --wait").await;
    site.ok("migration check-os move --wait").await;
    let edited = site
        .json("migration edit move --wave 2 --group shop --cpus 3")
        .await;
    assert_eq!(
        (
            &edited["wave"],
            &edited["targetDefaults"]["hostname"],
            &edited["targetDefaults"]["cpus"]
        ),
        (&json!(2), &json!("shop"), &json!(3)),
        "what is not given stays"
    );
    let forecast = site.ok("migration forecast move").await;
    assert!(forecast.contains("adapt"), "{forecast}");
    let over = site.json("migration cut-over move --cpus 2 --wait").await;
    assert_eq!(
        (&over["state"], &over["progressPercent"]),
        (&json!("SUCCEEDED"), &json!(100))
    );
    let cutovers = site.ok("migration cutovers move").await;
    assert!(cutovers.contains("SUCCEEDED"), "{cutovers}");
    site.ok("migration finalize move --wait").await;
    until(&site, "move", "FINALIZED").await;
    assert_eq!(site.json("vm show web").await["state"], "STOPPED");
    let moved = site.json("vm show web-new").await;
    assert_eq!((&moved["state"], &moved["cpus"]), (&json!("RUNNING"), &json!(2)));
    site.ok("migration delete move").await;
    site.ok("source remove here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_asked_by_one_command() {
    let site = Site::start().await;
    target(&site).await;
    site.ok("source add here --local").await;
    assert_eq!(
        site.ok("migration group list").await,
        "no migration names a group\n"
    );
    for (n, name) in ["db", "web"].into_iter().enumerate() {
        site.ok(&format!("vm create {name} --image demo --start --wait"))
            .await;
        let wave = n + 1;
        site.ok(&format!(
            "migration create {name}-new --source here --vm {name} --target there --group shop --wave {wave}"
        ))
        .await;
        until(&site, &format!("{name}-new"), "READY").await;
    }
    let started = site.ok("migration group start shop").await;
    assert_eq!(started, "db-new: done\nweb-new: done\n");
    until(&site, "db-new", "ACTIVE").await;
    until(&site, "web-new", "ACTIVE").await;
    let refused = site.run("migration group start shop --wave 2").await;
    assert!(
        refused.code != 0 && refused.stderr.contains("1 of 1 were refused"),
        "{refused:?}"
    );
    assert!(refused.stdout.contains("is started already"), "{refused:?}");
    let shown = site.ok("migration group show shop").await;
    assert!(shown.contains("wave 1: 1 ACTIVE\nwave 2: 1 ACTIVE"), "{shown}");
    site.ok("migration group cut-over shop --wait").await;
    let list = site.ok("migration group list").await;
    assert_eq!(list, "shop: 2 of 2 run where they were to go\n");
    let unknown = site.run("migration group pause none").await;
    assert!(
        unknown.code != 0 && unknown.stderr.contains("none"),
        "{unknown:?}"
    );
}
