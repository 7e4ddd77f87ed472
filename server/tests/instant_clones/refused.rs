//! What cannot be forked.

use crate::support::{by, clean_up, create, engine, vm_id};
use crate::*;
use shared::Code;
use shared::place::HostState;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_forked_is_refused_before_anything_is_done() {
    let dir = support::dir();
    let jobs = engine(dir.path(), Machines::Simulated, None).await;
    let made = jobs.create_vm(create("source", false), by()).await.unwrap();
    succeeded(&jobs, made.id).await;
    let source = vm_id(&jobs, "source").await;
    let fault = |status: &shared::Status| shared::seed::fault::of(status).map(|f| f.type_name);

    let off = jobs.instant_clone(source, named(&["a"]), by()).await.unwrap_err();
    assert_eq!(off.code, Code::FailedPrecondition, "{off}");
    assert_eq!(fault(&off).as_deref(), Some("InvalidState"));
    let on = jobs.power(source, PowerAction::Start, by()).await.unwrap();
    succeeded(&jobs, on.id).await;

    let rest = async |state| {
        let set = jobs.world().db.write(move |tx| {
            Box::pin(async move {
                let host = db::places::host(tx).await?.id;
                db::places::set_host_state(tx, host, state).await
            })
        });
        set.await.unwrap();
    };
    rest(HostState::Maintenance).await;
    let resting = jobs.instant_clone(source, named(&["a"]), by()).await.unwrap_err();
    assert_eq!(
        (resting.code, fault(&resting).as_deref()),
        (Code::FailedPrecondition, Some("InvalidState"))
    );
    assert!(resting.message.contains("host-1 is in maintenance"), "{resting}");
    let made = jobs.create_vm(create("other", false), by()).await.unwrap_err();
    assert!(made.message.contains("in maintenance"), "{made}");
    rest(HostState::Up).await;

    let names: Vec<String> = (0..65).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let uuid = uuid::Uuid::new_v4();
    let config = |key: &str, bytes| InstantClone {
        config: [(key.to_owned(), "x".repeat(bytes))].into(),
        ..named(&["a"])
    };
    for (request, field) in [
        (named(&names), "names"),
        (named(&["a", "a"]), "names"),
        (
            InstantClone {
                bios_uuid: Some(uuid),
                ..named(&["a", "b"])
            },
            "biosUuid",
        ),
        (
            InstantClone {
                count: Some(0),
                ..InstantClone::default()
            },
            "count",
        ),
        (
            InstantClone {
                point_name: Some("p".parse().unwrap()),
                ..named(&["a"])
            },
            "pointName",
        ),
        (
            InstantClone {
                fork_point: Some("p".into()),
                keep_point: true,
                ..named(&["a"])
            },
            "keepPoint",
        ),
        (config("role", 1), "config"),
        (config("guestinfo.role", 60_000), "config"),
    ] {
        let refused = jobs.instant_clone(source, request, by()).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.field()),
            (Code::InvalidArgument, Some(field)),
            "{refused}"
        );
    }
    let taken = jobs
        .instant_clone(source, named(&["source"]), by())
        .await
        .unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists, "{taken}");

    let spec = serde_json::json!({ "spec": { "name": "from-spec", "location": { "host": { "type": "HostSystem", "value": "h" } } } });
    let refused = jobs
        .instant_clone(source, serde_json::from_value(spec).unwrap(), by())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.field(), fault(&refused).as_deref()),
        (Some("spec.location.host"), Some("InvalidArgument"))
    );
    let spec = serde_json::json!({ "spec": { "name": "from-spec", "location": {} } });
    let job = jobs
        .instant_clone(source, serde_json::from_value(spec).unwrap(), by())
        .await
        .unwrap();
    succeeded(&jobs, job.id).await;
    vm_id(&jobs, "from-spec").await;
    clean_up(&jobs).await;
}
