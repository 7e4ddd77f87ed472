//! CloneJob against the three documents that describe it: every property and state that they name is there and
//! survives a round trip.

#![allow(clippy::unwrap_used)] // the lint takes the helpers of tests for something else

use serde_json::{Value, json};
use shared::seed::clone_job::{AdaptingOsStep, Parts, PartsError, PreparingVmDisksStep, State};
use shared::seed::target::VmTarget;
use shared::seed::{CloneJob, CloneStep, Step, TargetVmDetails};
use shared::{Code, Status, Timestamp};

#[path = "clone_job_conformance/arbitrary.rs"]
mod arbitrary;
#[path = "clone_job_conformance/enums.rs"]
mod enums;

const NAME: &str = "projects/p1/locations/us-central1/sources/s1/migratingVms/vm-17/cloneJobs/c1";

/// A document: the names of CloneJob's properties as it has them, each with its name on the wire.
struct Document {
    title: &'static str,
    properties: &'static [(&'static str, &'static str)],
}

const DOCUMENTS: [Document; 3] = [
    // Its text has lost the names of two properties and kept their descriptions: the state, and the first
    // member of the oneof.
    Document {
        title: "Python, class CloneJob (1.6.0)",
        properties: &[
            ("compute_engine_target_details", "computeEngineTargetDetails"),
            ("create_time", "createTime"),
            ("end_time", "endTime"),
            ("name", "name"),
            ("state", "state"),
            ("state_time", "stateTime"),
            ("error", "error"),
            ("steps", "steps"),
        ],
    },
    Document {
        title: "OpenAPI client, CloneJob",
        properties: &[
            (
                "compute_engine_disks_target_details",
                "computeEngineDisksTargetDetails",
            ),
            ("compute_engine_target_details", "computeEngineTargetDetails"),
            ("compute_engine_vm_details", "computeEngineVmDetails"),
            ("create_time", "createTime"),
            ("end_time", "endTime"),
            ("error", "error"),
            ("name", "name"),
            ("state", "state"),
            ("state_time", "stateTime"),
            ("steps", "steps"),
            ("target_details", "targetDetails"),
        ],
    },
    // CloneJobName is its typed view of Name; TargetVmDetailsCase is in a test of its own.
    Document {
        title: "C#, class CloneJob (2.6.0)",
        properties: &[
            ("CloneJobName", "name"),
            ("ComputeEngineTargetDetails", "computeEngineTargetDetails"),
            ("CreateTime", "createTime"),
            ("EndTime", "endTime"),
            ("Error", "error"),
            ("Name", "name"),
            ("State", "state"),
            ("StateTime", "stateTime"),
            ("Steps", "steps"),
        ],
    },
];

/// The states that the first document lists, with its numbers.
const STATES: [(&str, i32); 8] = [
    ("STATE_UNSPECIFIED", 0),
    ("PENDING", 1),
    ("ACTIVE", 2),
    ("FAILED", 3),
    ("SUCCEEDED", 4),
    ("CANCELLED", 5),
    ("CANCELLING", 6),
    ("ADAPTING_OS", 7),
];

/// The oneof of the first and the third document, `target_vm_details`, and the older members of the second.
const TARGET_CASES: [&str; 4] = [
    "computeEngineTargetDetails",
    "computeEngineDisksTargetDetails",
    "computeEngineVmDetails",
    "targetDetails",
];

const STEP_CASES: [&str; 3] = ["adaptingOs", "preparingVmDisks", "instantiatingMigratedVm"];

/// A value that is not the default, for a property of CloneJob.
fn sample(wire: &str) -> Value {
    match wire {
        "name" => json!(NAME),
        "createTime" => json!("2026-11-20T17:33:00.000001Z"),
        "state" => json!("ADAPTING_OS"),
        "stateTime" => json!("2026-11-20T17:34:00Z"),
        "endTime" => json!("2026-11-20T17:35:00.5Z"),
        "error" => json!({"code": 9, "message": "the source has no snapshot", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "NO_SNAPSHOT", "domain": "offshoot"},
        ]}),
        "steps" => json!([
            {"startTime": "2026-11-20T17:33:01Z", "endTime": "2026-11-20T17:33:02Z", "adaptingOs": {}},
            {"startTime": "2026-11-20T17:33:02Z", "endTime": "2026-11-20T17:33:03Z", "preparingVmDisks": {}},
            {"startTime": "2026-11-20T17:33:03Z", "instantiatingMigratedVm": {}},
        ]),
        "computeEngineTargetDetails" => compute_engine_target_details(),
        "computeEngineDisksTargetDetails" => json!({
            "disks": [{"sourceDiskNumber": 2, "diskUri": "d"}], "vmTargetDetails": {"vmUri": "i"},
        }),
        "computeEngineVmDetails" | "targetDetails" => target_vm_details_alpha(),
        _ => panic!("no sample for {wire}"),
    }
}

/// What the typed job holds for a property, told without its own JSON where there is a way.
fn held(job: &CloneJob, wire: &str) -> bool {
    let target = job.target_vm_details.as_ref();
    match wire {
        "name" => job.name == NAME.parse().ok(),
        "createTime" => job.create_time == "2026-11-20T17:33:00.000001Z".parse().ok(),
        "state" => job.state == Some(State::AdaptingOs),
        "stateTime" => job.state_time == "2026-11-20T17:34:00Z".parse().ok(),
        "endTime" => job.end_time == "2026-11-20T17:35:00.5Z".parse().ok(),
        "error" => {
            let error = job.error.as_ref().unwrap();
            error.code == Code::FailedPrecondition && error.details[0]["reason"] == "NO_SNAPSHOT"
        }
        "steps" => matches!(
            job.steps
                .iter()
                .map(|s| (s.end_time.is_some(), s.step.as_ref()))
                .collect::<Vec<_>>()[..],
            [
                (true, Some(Step::AdaptingOs(_))),
                (true, Some(Step::PreparingVmDisks(_))),
                (false, Some(Step::InstantiatingMigratedVm(_))),
            ]
        ),
        "computeEngineTargetDetails" => {
            matches!(target, Some(TargetVmDetails::ComputeEngineTargetDetails(t)) if t.vm_name == "clone-1")
        }
        "computeEngineDisksTargetDetails" => {
            matches!(target, Some(TargetVmDetails::ComputeEngineDisksTargetDetails(t))
                if t.disks[0].source_disk_number == 2)
        }
        "computeEngineVmDetails" => {
            matches!(target, Some(TargetVmDetails::ComputeEngineVmDetails(t)) if t.name == "clone-1")
        }
        "targetDetails" => matches!(target, Some(TargetVmDetails::TargetDetails(t)) if t.name == "clone-1"),
        _ => panic!("nothing known of {wire}"),
    }
}

/// Every field of ComputeEngineTargetDetails and of what is in it, none with its default.
fn compute_engine_target_details() -> Value {
    json!({
        "vmName": "clone-1", "project": "p1", "zone": "us-central1-a", "machineTypeSeries": "n2",
        "machineType": "n2-standard-4", "networkTags": ["web", "test"],
        "networkInterfaces": network_interfaces(),
        "serviceAccount": "a@p1", "diskType": "COMPUTE_ENGINE_DISK_TYPE_BALANCED", "labels": {"a": "b", "c": ""},
        "licenseType": "COMPUTE_ENGINE_LICENSE_TYPE_BYOL", "appliedLicense": {"type": "PAYG", "osLicense": "l"},
        "computeScheduling": compute_scheduling(), "secureBoot": true, "enableVtpm": true,
        "enableIntegrityMonitoring": true, "bootOption": "COMPUTE_ENGINE_BOOT_OPTION_EFI",
        "metadata": {"startup-script": "true"}, "additionalLicenses": ["x"], "hostname": "clone-1.test",
        "encryption": {"kmsKey": "k"}, "bootConversion": "BIOS_TO_EFI",
        "adaptationModifiers": [{"modifier": "m", "value": "v"}], "diskReplicaZones": ["us-central1-b"],
        "storagePool": "projects/p1/zones/z/storagePools/sp",
    })
}

/// Every field of TargetVMDetails and of what is in it, none with its default.
fn target_vm_details_alpha() -> Value {
    json!({
        "name": "clone-1", "targetProject": "t", "project": "p1", "zone": "z", "machineTypeSeries": "n2",
        "machineType": "n2-standard-4", "network": "n", "subnetwork": "s", "internalIp": "192.0.2.1",
        "externalIp": "203.0.113.7", "networkTags": ["web"], "networkInterfaces": network_interfaces(),
        "serviceAccount": "a@p1", "diskType": "BALANCED", "labels": {"a": "b"}, "licenseType": "PAYG",
        "appliedLicense": {"type": "BYOL", "osLicense": "l"}, "computeScheduling": compute_scheduling(),
        "secureBoot": true, "bootOption": "BIOS", "metadata": {"k": "v"},
    })
}

fn network_interfaces() -> Value {
    json!([{
        "network": "n", "subnetwork": "s", "internalIp": "ephemeral", "externalIp": "203.0.113.7",
        "networkTier": "NETWORK_TIER_PREMIUM",
    }])
}

fn compute_scheduling() -> Value {
    json!({
        "onHostMaintenance": "MIGRATE", "automaticRestart": true, "restartType": "NO_AUTOMATIC_RESTART",
        "nodeAffinities": [{"key": "k", "operator": "NOT_IN", "values": ["a", "b"]}], "minNodeCpus": 3,
    })
}

fn read(value: &Value) -> CloneJob {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"))
}

fn write(job: &CloneJob) -> Value {
    serde_json::to_value(job).unwrap()
}

fn refusal(value: Value) -> String {
    serde_json::from_value::<CloneJob>(value).unwrap_err().to_string()
}

fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The same with the keys of messages in snake_case; the keys of maps are data and stay.
fn snake_keys(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(k, v)| {
                let data = matches!(k.as_str(), "labels" | "metadata" | "details");
                (snake(k), if data { v.clone() } else { snake_keys(v) })
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(snake_keys).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_property_of_the_documents_round_trips() {
    for Document { title, properties } in DOCUMENTS {
        for &(named, wire) in properties {
            let written = json!({ wire: sample(wire) });
            let job = read(&written);
            assert!(held(&job, wire), "{title}: {named} is not read");
            assert_eq!(
                write(&job),
                written,
                "{title}: {named} is not written as it was read"
            );
            assert_eq!(
                read(&snake_keys(&written)),
                job,
                "{title}: {named} is not read in snake_case"
            );
        }
    }
}

#[test]
fn all_properties_together_round_trip() {
    for case in TARGET_CASES {
        let mut all = json!({});
        for wire in [
            "name",
            "createTime",
            "state",
            "stateTime",
            "endTime",
            "error",
            "steps",
            case,
        ] {
            all[wire] = sample(wire);
        }
        assert_eq!(write(&read(&all)), all);
    }
}

#[test]
fn every_state_of_the_document_is_read_by_name_and_number_and_written_by_name() {
    for (word, number) in STATES {
        for value in [json!(word), json!(number)] {
            let job = read(&json!({ "state": value }));
            assert_eq!(job.state.map_or(0, State::number), number, "{value}");
            // 0 is read, and there is nothing to write it with.
            assert_eq!(
                write(&job),
                if number == 0 {
                    json!({})
                } else {
                    json!({ "state": word })
                }
            );
        }
    }
    let known: Vec<_> = State::ALL.iter().map(|s| (s.word(), s.number())).collect();
    assert_eq!(known, STATES[1..]);
    assert!(serde_json::from_value::<State>(json!("STATE_UNSPECIFIED")).is_err());
}

#[test]
fn what_is_no_state_is_refused() {
    assert_eq!(
        refusal(json!({"state": "RUNNING"})),
        "\"RUNNING\" is not a state of a clone job"
    );
    assert_eq!(refusal(json!({"state": 8})), "8 is not a state of a clone job");
    assert_eq!(
        refusal(json!({"state": 1.5})),
        "1.5 is not a state of a clone job"
    );
    assert_eq!(refusal(json!({"state": []})), "neither a number nor a text");
}

/// C#'s TargetVmDetailsCase and its TargetVmDetailsOneofCase, whose None is Rust's.
#[test]
fn the_case_of_the_target_names_its_member() {
    assert_eq!(TargetVmDetails::CASES, TARGET_CASES);
    for case in TARGET_CASES {
        assert_eq!(read(&json!({ case: {} })).target_vm_details.unwrap().case(), case);
        assert_eq!(read(&json!({ case: null })).target_vm_details, None);
    }
    assert_eq!(read(&json!({})).target_vm_details, None);
}

#[test]
fn two_members_of_a_oneof_are_refused() {
    for (i, a) in TARGET_CASES.iter().enumerate() {
        for b in &TARGET_CASES[i + 1..] {
            let why = refusal(json!({ *a: {}, *b: {} }));
            assert!(
                why.contains(&format!("`{a}`")) && why.contains(&format!("`{b}`")),
                "{why}"
            );
            assert!(why.ends_with("exclude each other, and both are set"), "{why}");
        }
    }
    assert_eq!(Step::CASES, STEP_CASES);
    for (i, a) in STEP_CASES.iter().enumerate() {
        for b in &STEP_CASES[i + 1..] {
            let why = refusal(json!({"steps": [{ *a: {}, *b: {} }]}));
            assert!(
                why.contains(&format!("`{a}`")) && why.contains(&format!("`{b}`")),
                "{why}"
            );
        }
    }
    let two = json!({"computeEngineDisksTargetDetails": {"disksTargetDetails": {}, "vmTargetDetails": {}}});
    assert!(refusal(two).contains("exclude each other"));
    // A member that is null is not set.
    read(&json!({"steps": [{"adaptingOs": null, "preparingVmDisks": {}}]}));
    // One field in both styles is one field twice.
    assert_eq!(
        refusal(json!({"createTime": null, "create_time": null})),
        "duplicate field `createTime`"
    );
    assert_eq!(
        refusal(json!({"targetDetails": {}, "target_details": {}})),
        "duplicate field `targetDetails`"
    );
}

#[test]
fn disks_without_a_vm_round_trip() {
    let disks = json!({"computeEngineDisksTargetDetails": {"disksTargetDetails": {}}});
    let job = read(&disks);
    let Some(TargetVmDetails::ComputeEngineDisksTargetDetails(target)) = &job.target_vm_details else {
        panic!("{job:?}");
    };
    assert_eq!(
        target.vm_target.as_ref().map(VmTarget::case),
        Some("disksTargetDetails")
    );
    assert_eq!(write(&job), disks);
}

#[test]
fn what_is_absent_null_or_default_is_absent_on_the_wire() {
    let empty = json!({
        "name": "", "createTime": null, "state": 0, "error": null, "steps": [],
        "computeEngineTargetDetails": {
            "vmName": "", "project": null, "secureBoot": false, "labels": {}, "networkTags": [], "diskType": 0,
            "licenseType": "COMPUTE_ENGINE_LICENSE_TYPE_DEFAULT", "computeScheduling": {"minNodeCpus": "0"},
        },
    });
    assert_eq!(
        write(&read(&empty)),
        json!({"computeEngineTargetDetails": {"computeScheduling": {}}})
    );
    assert_eq!(read(&json!({})), CloneJob::default());
}

#[test]
fn what_another_revision_has_besides_is_ignored() {
    let newer = json!({
        "name": NAME, "progress": 40, "steps": [{"adaptingOs": {"hint": 1}, "bytes": "7"}],
        "computeEngineTargetDetails": {"diskType": "COMPUTE_ENGINE_DISK_TYPE_OF_TOMORROW", "bootOption": 99, "x": {}},
    });
    let known = json!({"name": NAME, "steps": [{"adaptingOs": {}}], "computeEngineTargetDetails": {}});
    assert_eq!(write(&read(&newer)), known);
}

#[test]
fn int32_is_read_from_numbers_and_text() {
    let cpus = |n: Value| {
        let job = json!({"targetDetails": {"computeScheduling": {"minNodeCpus": n}}});
        serde_json::from_value::<CloneJob>(job)
            .map(|job| write(&job)["targetDetails"]["computeScheduling"]["minNodeCpus"].clone())
    };
    for seven in [json!(7), json!("7"), json!(7.0)] {
        assert_eq!(cpus(seven).unwrap(), json!(7));
    }
    for wrong in [json!(7.5), json!("seven"), json!(2_147_483_648_i64), json!(true)] {
        assert!(cpus(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_name_is_refused() {
    let why = refusal(json!({"name": "cloneJobs/c1"}));
    assert!(
        why.starts_with("\"cloneJobs/c1\" is not the name of a clone job"),
        "{why}"
    );
    let why = refusal(json!({"name": NAME.replace("vm-17", "..")}));
    assert!(
        why.starts_with("the migratingVm \"..\" in the name of a clone job"),
        "{why}"
    );
}

#[test]
fn a_job_from_parts_ends_when_its_state_is_an_end() {
    let at = |s: i64| Timestamp::from_micros(s * 1_000_000);
    for &state in State::ALL {
        let running = CloneStep {
            start_time: Some(at(2)),
            end_time: None,
            step: Some(Step::PreparingVmDisks(PreparingVmDisksStep {})),
        };
        let done = CloneStep {
            start_time: Some(at(1)),
            end_time: Some(at(2)),
            step: Some(Step::AdaptingOs(AdaptingOsStep {})),
        };
        let parts = |error: Option<Status>| Parts {
            name: NAME.parse().unwrap(),
            create_time: at(1),
            state,
            state_time: at(3),
            error,
            steps: vec![done.clone(), running.clone()],
            target: TargetVmDetails::ComputeEngineTargetDetails(Box::default()),
        };
        let error = Status::precondition("no snapshot");
        let job = match state {
            State::Failed => {
                let name = NAME.parse().unwrap();
                assert_eq!(CloneJob::from_parts(parts(None)), Err(PartsError::NoError(name)));
                CloneJob::from_parts(parts(Some(error))).unwrap()
            }
            State::Succeeded => {
                let name = NAME.parse().unwrap();
                assert_eq!(
                    CloneJob::from_parts(parts(Some(error))),
                    Err(PartsError::HasError(name))
                );
                CloneJob::from_parts(parts(None)).unwrap()
            }
            _ => CloneJob::from_parts(parts(None)).unwrap(),
        };
        let ended = matches!(state, State::Failed | State::Succeeded | State::Cancelled).then_some(at(3));
        assert_eq!((job.end_time, job.steps[1].end_time), (ended, ended), "{state:?}");
        assert_eq!(job.steps[0].end_time, Some(at(2)));
        assert_eq!(
            (job.create_time, job.state, job.state_time),
            (Some(at(1)), Some(state), Some(at(3)))
        );
    }
}

/// The API's answer is a CloneJob with one key more.
#[test]
fn a_clone_job_can_be_flattened_into_another_object() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Answer {
        #[serde(flatten)]
        job: CloneJob,
        offshoot: Value,
    }

    let wire = json!({
        "name": NAME, "state": "PENDING", "createTime": "2026-11-20T17:33:00Z", "steps": sample("steps"),
        "computeEngineTargetDetails": compute_engine_target_details(), "offshoot": {"mode": "LINKED"},
    });
    let answer: Answer = serde_json::from_value(wire.clone()).unwrap();
    assert_eq!(serde_json::to_value(&answer).unwrap(), wire);
    let again: Answer = serde_json::from_str(&wire.to_string()).unwrap();
    assert_eq!(again.job, answer.job);
}
