//! What a fork sends, and who may hear it.

use super::*;

/// Who sent the frames that a file of QEMU's filter-dump has.
fn senders(pcap: &std::path::Path) -> Vec<String> {
    let bytes = std::fs::read(pcap).unwrap();
    let (mut all, mut at) = (Vec::new(), 24);
    while let Some(head) = bytes.get(at..at + 16) {
        let n = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        let Some(frame) = bytes.get(at + 16..at + 16 + n) else {
            break;
        };
        let mac: Vec<_> = frame[6..12].iter().map(|b| format!("{b:02x}")).collect();
        all.push(mac.join(":"));
        at += 16 + n;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frame_with_the_sources_address_leaves_a_fork() {
    let mut host = Host::new();
    let base = host.import("demo").await;
    let first = host.overlay(&base).await;
    let nic = |mac: &str| NicSpec {
        number: 0,
        slot: 5,
        network: NetworkId(uuid::Uuid::nil()),
        forwards: Vec::new(),
        mac: mac.into(),
        kind: NetworkKind::User,
        bridge: None,
        connected: true,
    };
    let mut source = host.machine(&[&base, &first]);
    source.nics = vec![nic("52:54:00:aa:00:01")];
    host.hv().start(&source).await.unwrap();
    host.boots(source.id, 120).await.unwrap();
    // It sends all the time.
    let busy = json!({ "path": "/bin/sh", "arg": ["-c", "while :; do ping -c 100 -i 0.01 10.0.2.2; done"] });
    agent(&host, source.id, "guest-exec", &busy).unwrap();
    let new = host.overlay(&first).await;
    let switch = [DiskSwitch {
        old: first.clone(),
        new,
    }];
    let point = Point {
        user_networks: 1,
        ..point(&host)
    };
    host.hv().capture(&source, &switch, &point).await.unwrap();

    let overlay = host.overlay(&first).await;
    let mut fork = host.machine(&[&base, &first, &overlay]);
    fork.nics = vec![nic("52:54:00:aa:00:02")];
    host.hv().await_point(&fork, &point).await.unwrap();
    let pcap = |name: &str| host.dir.path().join(name);
    let dump = |name: &str, netdev: &str| json!({ "qom-type": "filter-dump", "id": name, "netdev": netdev, "file": pcap(name) });
    let inside = ask(&host, fork.id, "object-add", &dump("inside", "net0"));
    assert!(inside["return"].is_object(), "{inside}");
    host.hv().fork(&fork, &point).await.unwrap();
    let (mut watch, outside) = (Watch::connect(&host, fork.id), dump("outside", "up0"));
    let listening = async {
        let listening = tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            while !watch.network("up0") {
                assert!(begin.elapsed() < Duration::from_secs(60), "it joins no network");
            }
            let dumped = watch.ask("object-add", &outside);
            assert!(dumped["return"].is_object(), "{dumped}");
        });
        listening.await.unwrap();
    };
    let joining = async {
        let identity = host.hv().settle(&fork, 0).await.unwrap();
        host.hv().connect(&fork).await.unwrap();
        identity
    };
    let (identity, ()) = tokio::join!(joining, listening);
    eprintln!("{identity:?}");
    eprintln!("swallowed: {:?}", senders(&pcap("inside")));
    let begin = Instant::now();
    while senders(&pcap("outside"))
        .iter()
        .filter(|mac| mac.ends_with(":02"))
        .count()
        < 5
    {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing is sent: {:?} {:?}",
            senders(&pcap("inside")),
            senders(&pcap("outside"))
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let outside = senders(&pcap("outside"));
    assert!(
        !outside.iter().any(|mac| mac.ends_with("aa:00:01")),
        "{outside:?}"
    );
    // It makes itself an address of IPv6 as well; of its source's none is seen outside.
    let local = |name: &str, last: u8| {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0xfe, 0x80]);
        address[8..].copy_from_slice(&[0x50, 0x54, 0, 0xff, 0xfe, 0xaa, 0, last]);
        let frames = std::fs::read(pcap(name)).unwrap();
        frames.windows(16).any(|w| w == address)
    };
    while !local("inside", 2) {
        let log = || std::fs::read_to_string(host.hv().serial_log(fork.id)).unwrap();
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no address of its own: {}",
            log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!local("outside", 1), "an address of the source's");

    // Its cable is pulled, and put in again.
    let says = "while :; do echo cable=$(cat /sys/class/net/eth0/carrier) > /dev/ttyS0; sleep 0.1; done";
    agent(
        &host,
        fork.id,
        "guest-exec",
        &json!({ "path": "/bin/sh", "arg": ["-c", says] }),
    )
    .unwrap();
    host.sees(fork.id, "cable=1").await.unwrap();
    for _ in 0..2 {
        fork.nics[0].connected = false;
        host.hv().connect(&fork).await.unwrap();
    }
    host.sees(fork.id, "cable=0").await.unwrap();
    let mut watch = Watch::connect(&host, fork.id);
    assert!(!watch.network("up0"));
    for _ in 0..2 {
        fork.nics[0].connected = true;
        host.hv().connect(&fork).await.unwrap();
    }
    let there = watch.ask("object-add", &dump("again", "up0"));
    assert!(there["return"].is_object(), "{there}");
    let begin = Instant::now();
    while senders(&pcap("again")).iter().all(|mac| !mac.ends_with(":02")) {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing is sent any more"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
