//! What a fork cannot be made beside.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_fork_is_named_and_the_source_goes_on() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let vm = source.id;
    let node = json!({ "driver": "null-co", "node-name": "target", "size": 1 << 28 });
    ask(&host, vm, "blockdev-add", &node);
    let active = node_name(switch[0].old.id);
    for (command, arguments) in [
        (
            "block-stream",
            json!({ "job-id": "stream", "device": active, "speed": 65536 }),
        ),
        (
            "blockdev-backup",
            json!({ "job-id": "backup", "device": active, "target": "target", "sync": "full", "speed": 65536 }),
        ),
    ] {
        let begun = ask(&host, vm, command, &arguments);
        assert!(begun["return"].is_object(), "{begun}");
        let job = arguments["job-id"].as_str().unwrap();
        for _ in 0..2 {
            let refused = host
                .hv()
                .capture(&source, &switch, &point(&host))
                .await
                .unwrap_err();
            assert!(
                matches!(&refused, HvError::BlockJob { id, .. } if id == job),
                "{refused}"
            );
            let jobs = ask(&host, vm, "query-jobs", &json!({}));
            assert_eq!(jobs["return"][0]["status"], "running", "{jobs}");
            // Nor does it wait for ever for one that stands still.
            ask(&host, vm, "job-pause", &json!({ "id": job }));
            let begin = Instant::now();
            while ask(&host, vm, "query-jobs", &json!({}))["return"][0]["status"] != "paused" {
                assert!(
                    begin.elapsed() < Duration::from_secs(30),
                    "it does not stand still"
                );
            }
            let refused = host
                .hv()
                .capture(&source, &switch, &point(&host))
                .await
                .unwrap_err();
            assert!(matches!(&refused, HvError::BlockJob { .. }), "{refused}");
            ask(&host, vm, "job-resume", &json!({ "id": job }));
        }
        ask(&host, vm, "job-cancel", &json!({ "id": job }));
        let begin = Instant::now();
        while ask(&host, vm, "query-jobs", &json!({}))["return"]
            .as_array()
            .is_some_and(|jobs| !jobs.is_empty())
        {
            assert!(begin.elapsed() < Duration::from_secs(30), "it does not end");
        }
    }
    assert_eq!(host.hv().state(vm).await, RunState::Running);
    let all = ticks(&host, vm);
    assert!(all.windows(2).all(|w| w[1].1 == w[0].1 + 1), "no tick is lost");

    // Streams at full speed: each fork is refused, or whole.
    let [DiskSwitch { old, new }] = switch;
    let (mut active, mut next, mut refused) = (old, new, 0);
    for n in 0..20 {
        let stream = json!({ "job-id": format!("stream{n}"), "device": node_name(active.id) });
        let begun = ask(&host, vm, "block-stream", &stream);
        assert!(begun["return"].is_object(), "{begun}");
        let switch = [DiskSwitch {
            old: active,
            new: next,
        }];
        loop {
            match host.hv().capture(&source, &switch, &point(&host)).await {
                Ok(captured) => {
                    assert!(captured.pause_micros > 0);
                    break;
                }
                Err(HvError::BlockJob { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
            }
        }
        let [DiskSwitch { new, .. }] = switch;
        next = host.overlay(&new).await;
        active = new;
    }
    assert!(refused > 0, "no stream was under way");

    // No room for what is taken.
    let switch = [DiskSwitch {
        old: active,
        new: next,
    }];
    let full = point(&host);
    let mut part = full.state.clone().into_os_string();
    part.push(".part");
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let failed = host.hv().capture(&source, &switch, &full).await.unwrap_err();
    let HvError::Io { op, source: why, .. } = &failed else {
        panic!("{failed:?}")
    };
    assert_eq!((*op, why.kind()), ("write", std::io::ErrorKind::StorageFull));
    assert!(!full.state.exists());
    assert_eq!(host.hv().state(vm).await, RunState::Running);
    host.hv().drop_point(&full).await.unwrap();

    let last = ticks(&host, vm).last().unwrap().1;
    host.sees(vm, &format!("tick={} ", last + 3)).await.unwrap();
    let all = ticks(&host, vm);
    assert!(all.windows(2).all(|w| w[1].1 == w[0].1 + 1), "no tick is lost");
}
