//! What one machine of a family writes, the others do not see.

use super::*;

fn write_in_guest(host: &Host, vm: VmId, path: &str) {
    let file = agent(host, vm, "guest-file-open", &json!({ "path": path, "mode": "w" })).unwrap();
    let text = json!({ "handle": file, "buf-b64": "b2Zmc2hvb3Q=" });
    agent(host, vm, "guest-file-write", &text).unwrap();
    agent(host, vm, "guest-file-flush", &json!({ "handle": file })).unwrap();
    agent(host, vm, "guest-file-close", &json!({ "handle": file })).unwrap();
}

fn has_in_guest(host: &Host, vm: VmId, path: &str) -> bool {
    let file = agent(host, vm, "guest-file-open", &json!({ "path": path, "mode": "r" }));
    file.map(|file| agent(host, vm, "guest-file-close", &json!({ "handle": file })).unwrap())
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_writes_none_of_the_others_sees() {
    let mut host = Host::new();
    let (source, switch) = counting(&mut host).await;
    let [base, first] = &source.disks[0].chain[..] else {
        panic!("two layers")
    };
    // In memory, and on the disk.
    let places = ["/run", "/etc"];
    for place in places {
        write_in_guest(&host, source.id, &format!("{place}/before"));
    }
    let point = point(&host);
    host.hv().capture(&source, &switch, &point).await.unwrap();
    let mut family = vec![source.id];
    for _ in 0..2 {
        let overlay = host.overlay(first).await;
        let fork = host.machine(&[base, first, &overlay]);
        host.hv().fork(&fork, &point).await.unwrap();
        let proof = host.boots(fork.id, 60).await.unwrap();
        assert_eq!(proof.strength, shared::clone::ProofStrength::Agent);
        family.push(fork.id);
    }
    for &vm in &family {
        for place in places {
            write_in_guest(&host, vm, &format!("{place}/{vm}"));
        }
    }
    for &vm in &family {
        for place in places {
            assert!(has_in_guest(&host, vm, &format!("{place}/before")));
            for &other in &family {
                let seen = has_in_guest(&host, vm, &format!("{place}/{other}"));
                assert_eq!(seen, vm == other, "{place}: what {other} wrote, seen by {vm}");
            }
        }
    }
}
