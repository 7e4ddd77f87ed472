//! `CopySnapshotTaskStatus` against its document: every attribute and every status that it names, and what it says of
//! dictionaries.

#![allow(clippy::unwrap_used)] // the lint takes the helpers of tests for something else

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::seed::copy_snapshot::{CopyRunStats, KvmProtectionSource, ProtectionSource};
use shared::seed::{CopySnapshotTaskStatus, CopyStatus};

/// The attributes of the document, each with its key on the wire and a value.
fn attributes() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("error", "error", json!("the target was full")),
        (
            "source",
            "source",
            json!({"id": 7, "name": "vm-web01", "parentId": 1, "environment": "kKVM",
                "kvmProtectionSource": {"name": "vm-web01", "type": "kVirtualMachine", "uuid": "01a2"}}),
        ),
        (
            "stats",
            "stats",
            json!({"startTimeUsecs": 1, "endTimeUsecs": 2, "isIncremental": true, "logicalSizeBytes": 4096,
                "logicalBytesTransferred": 4096, "logicalTransferRateBps": 100, "physicalBytesTransferred": 17}),
        ),
        ("status", "status", json!("kFailure")),
        (
            "task_end_time_usecs",
            "taskEndTimeUsecs",
            json!(1_700_000_000_000_001_i64),
        ),
        (
            "task_start_time_usecs",
            "taskStartTimeUsecs",
            json!(1_700_000_000_000_000_i64),
        ),
    ]
}

/// As the document names them; the last is in the SDK's enum alone.
const STATUSES: [&str; 10] = [
    "kAccepted",
    "kRunning",
    "kCanceling",
    "kCanceled",
    "kSuccess",
    "kFailure",
    "kWarning",
    "kOnHold",
    "kMissed",
    "kFinalizing",
];

fn read(value: &Value) -> CopySnapshotTaskStatus {
    CopySnapshotTaskStatus::from_dictionary(Some(value))
        .unwrap()
        .unwrap()
}

#[test]
fn every_attribute_of_the_document_is_there_and_comes_back() {
    for (attribute, key, value) in attributes() {
        let dictionary = json!({ key: value });
        let task = read(&dictionary);
        assert_ne!(task, CopySnapshotTaskStatus::default(), "{attribute} is not read");
        assert_eq!(Value::from(task.to_dictionary()), dictionary, "{attribute}");
    }
    let all: serde_json::Map<_, _> = attributes()
        .into_iter()
        .map(|(_, key, value)| (key.to_owned(), value))
        .collect();
    let whole = Value::from(all);
    assert_eq!(Value::from(read(&whole).to_dictionary()), whole);
}

#[test]
fn every_status_of_the_document_is_there_and_no_other() {
    let ours: Vec<_> = CopyStatus::ALL.iter().map(|status| status.word()).collect();
    assert_eq!(ours, STATUSES);
    for status in STATUSES {
        let dictionary = json!({ "status": status });
        assert_eq!(Value::from(read(&dictionary).to_dictionary()), dictionary);
    }
    let wrong = json!({"status": "kDone"});
    assert!(CopySnapshotTaskStatus::from_dictionary(Some(&wrong)).is_err());
}

#[test]
fn none_in_none_out_and_what_is_not_set_has_no_key() {
    assert_eq!(CopySnapshotTaskStatus::from_dictionary(None).unwrap(), None);
    assert_eq!(
        CopySnapshotTaskStatus::from_dictionary(Some(&Value::Null)).unwrap(),
        None
    );
    assert_eq!(read(&json!({})), CopySnapshotTaskStatus::default());
    assert!(CopySnapshotTaskStatus::default().to_dictionary().is_empty());
    // Keys that the document does not have are not read, and null is none.
    let more = json!({"status": "kRunning", "error": null, "immutability": "x", "expiryTimeUsecs": 3});
    assert_eq!(
        Value::from(read(&more).to_dictionary()),
        json!({"status": "kRunning"})
    );
}

#[test]
fn what_comes_after_what() {
    use CopyStatus::*;
    for from in CopyStatus::ALL {
        let next: Vec<_> = CopyStatus::ALL
            .iter()
            .filter(|to| from.may_become(**to))
            .collect();
        assert_eq!(next.is_empty(), from.is_over(), "{from} {next:?}");
        assert!(!from.may_become(*from), "{from}");
    }
    assert!(Accepted.may_become(OnHold) && OnHold.may_become(Accepted) && OnHold.may_become(Missed));
    // What was copied is not said to be cancelled.
    assert!(!Finalizing.may_become(Canceling));
    assert!(!Accepted.may_become(Success));
}

#[test]
fn a_run_is_as_its_tasks_are() {
    use CopyStatus::*;
    let run = |tasks: &[CopyStatus]| CopyStatus::of_run(tasks.iter().copied());
    assert_eq!(run(&[]), None);
    assert_eq!(run(&[Success, Success]), Some(Success));
    assert_eq!(run(&[Success, Warning, Failure, Missed]), Some(Failure));
    assert_eq!(run(&[Failure, Running]), Some(Running));
    assert_eq!(run(&[Success, Canceled]), Some(Canceled));
    assert_eq!(run(&[Accepted, Success]), Some(Accepted));
}

fn stats() -> impl Strategy<Value = CopyRunStats> {
    let number = || prop::option::of(0..1_000_000_i64);
    let times = (number(), number());
    let bytes = (number(), number(), number(), number());
    (times, prop::option::of(any::<bool>()), bytes).prop_map(
        |((start, end), incremental, (size, done, rate, wire))| CopyRunStats {
            start_time_usecs: start,
            end_time_usecs: end,
            is_incremental: incremental,
            logical_size_bytes: size,
            logical_bytes_transferred: done,
            logical_transfer_rate_bps: rate,
            physical_bytes_transferred: wire,
        },
    )
}

fn source() -> impl Strategy<Value = ProtectionSource> {
    let text = || prop::option::of("[a-z]{0,8}");
    let number = || prop::option::of(any::<i64>());
    let kvm = prop::option::of(
        (text(), text(), text()).prop_map(|(name, kind, uuid)| KvmProtectionSource { name, kind, uuid }),
    );
    (number(), text(), number(), text(), kvm).prop_map(|(id, name, parent_id, environment, kvm)| {
        ProtectionSource {
            id,
            name,
            parent_id,
            environment,
            kvm_protection_source: kvm,
        }
    })
}

proptest! {
    #[test]
    fn dictionaries_come_back(
        error in prop::option::of(".{0,20}"),
        source in prop::option::of(source()),
        stats in prop::option::of(stats()),
        status in prop::option::of(prop::sample::select(CopyStatus::ALL)),
        end in prop::option::of(any::<i64>()),
        start in prop::option::of(any::<i64>()),
    ) {
        let task = CopySnapshotTaskStatus {
            error, source, stats, status, task_end_time_usecs: end, task_start_time_usecs: start,
        };
        prop_assert_eq!(read(&Value::from(task.to_dictionary())), task);
    }

    #[test]
    fn a_runs_figures_are_the_sums_of_its_tasks(tasks in prop::collection::vec(stats(), 0..6)) {
        let sum: CopyRunStats = tasks.iter().sum();
        let total = |of: fn(&CopyRunStats) -> Option<i64>| tasks.iter().filter_map(of).sum::<i64>();
        prop_assert_eq!(sum.logical_size_bytes.unwrap_or(0), total(|t| t.logical_size_bytes));
        prop_assert_eq!(sum.physical_bytes_transferred.unwrap_or(0), total(|t| t.physical_bytes_transferred));
        let over = !tasks.is_empty() && tasks.iter().all(|t| t.end_time_usecs.is_some());
        prop_assert_eq!(sum.end_time_usecs.is_some(), over);
    }
}
