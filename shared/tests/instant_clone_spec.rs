//! VMware's `VirtualMachineInstantCloneSpec`: every field of the document is read and written back, and each row of the
//! table in docs/instant-clone.md holds.
#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::{Value, json};
use shared::Code;
use shared::fork::{ForkNic, InstantClone};
use shared::seed::fault::{self, MethodFault};
use shared::seed::instant_clone::{Placement, VirtualMachineInstantCloneSpec};

fn at() -> Placement {
    Placement {
        folders: vec!["vm".into()],
        datastores: vec!["local".into(), "0192f0c1".into()],
        pools: vec!["host-1".into()],
        nics: 2,
    }
}

fn asked(spec: &Value) -> Result<(InstantClone, Vec<ForkNic>), MethodFault> {
    let spec: VirtualMachineInstantCloneSpec = serde_json::from_value(spec.clone()).unwrap();
    spec.request(&at())
}

fn located(location: &Value) -> Result<(InstantClone, Vec<ForkNic>), MethodFault> {
    asked(&json!({ "name": "web-2", "location": location }))
}

/// Fault and property that a spec is refused with.
fn refused(spec: &Value) -> (String, Value) {
    let fault = asked(spec).unwrap_err();
    let message = fault.fault_message[0].message.clone().unwrap();
    assert!(!message.is_empty());
    (
        fault.type_name.clone(),
        fault.more.get("invalidProperty").cloned().unwrap_or_default(),
    )
}

fn refused_at(field: &str, value: &Value) {
    let location = json!({ field: value });
    let (fault, property) = refused(&json!({ "name": "web-2", "location": location }));
    assert_eq!(
        (fault.as_str(), property),
        ("InvalidArgument", json!(format!("spec.location.{field}")))
    );
}

fn reference(kind: &str, value: &str) -> Value {
    json!({ "_typeName": "ManagedObjectReference", "type": kind, "value": value })
}

#[test]
fn every_field_of_the_document_is_kept() {
    let object = json!({ "_typeName": "string" });
    let moref = |n: &str| reference("string", n);
    let backing = json!({ "_typeName": "string", "parent": { "_typeName": "string" }, "crypto": object });
    let document = json!({
        "_typeName": "VirtualMachineInstantCloneSpec",
        "name": "string",
        "location": {
            "_typeName": "string",
            "service": { "_typeName": "string", "instanceUuid": "string", "url": "string", "credential": object, "sslThumbprint": "string" },
            "folder": moref("a"), "datastore": moref("b"), "diskMoveType": "string", "pool": moref("c"), "host": moref("d"),
            "disk": [{
                "_typeName": "string", "diskId": 2, "datastore": moref("e"), "diskMoveType": "string", "diskBackingInfo": object,
                "profile": [object], "backing": backing, "filterSpec": [object],
            }],
            "transform": "string",
            "deviceChange": [{
                "_typeName": "string", "operation": "string", "fileOperation": "string",
                "device": {
                    "_typeName": "string", "key": 7, "deviceInfo": { "_typeName": "string", "label": "string", "summary": "string" },
                    "backing": object,
                    "connectable": {
                        "_typeName": "string", "migrateConnect": "string", "startConnected": true, "allowGuestControl": true,
                        "connected": true, "status": "string",
                    },
                    "slotInfo": object, "controllerKey": 1, "unitNumber": 1, "numaNode": 1,
                    "deviceGroupInfo": { "_typeName": "string", "groupInstanceKey": 1, "sequenceId": 1 },
                },
                "profile": [object], "backing": backing, "filterSpec": [object], "changeMode": "string",
            }],
            "profile": [object], "cryptoSpec": object,
        },
        "config": [{ "_typeName": "string", "key": "string", "value": object }],
        "biosUuid": "string",
    });
    let spec: VirtualMachineInstantCloneSpec = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(spec).unwrap(), document);
}

#[test]
fn a_name_is_honoured_and_one_that_is_none_is_refused() {
    let (request, nics) = asked(&json!({ "name": "web-2", "location": {} })).unwrap();
    assert_eq!(request.name.unwrap().as_str(), "web-2");
    assert_eq!(nics, vec![ForkNic::default(); 2]);
    for name in ["", "Web 2", "a%2fb"] {
        let (fault, property) = refused(&json!({ "name": name, "location": {} }));
        assert_eq!(
            (fault.as_str(), property),
            ("InvalidArgument", json!("spec.name"))
        );
    }
}

#[test]
fn the_bios_uuid_is_honoured() {
    let uuid = "564d1f6c-7e0a-4f7b-9d1e-0a3c5b7d9e11";
    let (request, _) = asked(&json!({ "name": "a", "location": {}, "biosUuid": uuid })).unwrap();
    assert_eq!(request.bios_uuid.unwrap().to_string(), uuid);
    let (fault, property) = refused(&json!({ "name": "a", "location": {}, "biosUuid": "12" }));
    assert_eq!(
        (fault.as_str(), property),
        ("InvalidArgument", json!("spec.biosUuid"))
    );
}

#[test]
fn config_takes_texts_numbers_and_truth_values_boxed_or_plain() {
    let option = |key: &str, value: Value| json!({ "_typeName": "OptionValue", "key": key, "value": value });
    let (request, _) = asked(&json!({ "name": "a", "location": {}, "config": [
        option("guestinfo.a", json!("plain")),
        option("guestinfo.b", json!({ "_typeName": "string", "_value": "boxed" })),
        option("guestinfo.c", json!({ "_typeName": "int", "_value": 7 })),
        option("guestinfo.d", json!({ "_typeName": "boolean", "_value": true })),
    ] }))
    .unwrap();
    let all: Vec<_> = request
        .config
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        all,
        [
            ("guestinfo.a", "plain"),
            ("guestinfo.b", "boxed"),
            ("guestinfo.c", "7"),
            ("guestinfo.d", "true")
        ]
    );
    for wrong in [
        option("sched.mem.max", json!("1")),
        option(
            "guestinfo.a",
            json!({ "_typeName": "ArrayOfString", "_value": ["a"] }),
        ),
    ] {
        let (fault, property) = refused(&json!({ "name": "a", "location": {}, "config": [wrong] }));
        assert_eq!(
            (fault.as_str(), property),
            ("InvalidArgument", json!("spec.config"))
        );
    }
}

#[test]
fn folder() {
    located(&json!({ "folder": reference("Folder", "vm") })).unwrap();
    refused_at("folder", &reference("Folder", "group-v3"));
}

#[test]
fn pool() {
    located(&json!({ "pool": reference("ResourcePool", "host-1") })).unwrap();
    refused_at("pool", &reference("ResourcePool", "resgroup-8"));
}

#[test]
fn datastore() {
    located(&json!({ "datastore": reference("Datastore", "local") })).unwrap();
    let fault = located(&json!({ "datastore": reference("Datastore", "elsewhere") })).unwrap_err();
    assert_eq!(
        (fault.type_name.as_str(), &fault.more["name"]),
        ("InvalidDatastore", &json!("elsewhere"))
    );
}

#[test]
fn service() {
    refused_at("service", &json!({ "url": "https://other/sdk" }));
}

#[test]
fn host() {
    refused_at("host", &reference("HostSystem", "host-1"));
}

#[test]
fn disk() {
    refused_at("disk", &json!([{ "diskId": 2000 }]));
}

#[test]
fn disk_move_type() {
    refused_at("diskMoveType", &json!("createNewChildDiskBacking"));
}

#[test]
fn transform() {
    refused_at("transform", &json!("sparse"));
}

#[test]
fn profile() {
    refused_at(
        "profile",
        &json!([{ "_typeName": "VirtualMachineEmptyProfileSpec" }]),
    );
}

#[test]
fn crypto_spec() {
    refused_at("cryptoSpec", &json!({ "_typeName": "CryptoSpecDecrypt" }));
}

fn edit(device: &Value) -> Value {
    json!({ "deviceChange": [{ "_typeName": "VirtualDeviceConfigSpec", "operation": "edit", "device": device }] })
}

#[test]
fn a_nic_is_connected_or_not_and_may_have_an_address() {
    let device = |key: i32, connect: &str| {
        json!({ "_typeName": "VirtualVmxnet3", "key": key, "connectable": { "migrateConnect": connect },
            "addressType": "manual", "macAddress": "00:50:56:AA:BB:CC" })
    };
    let (_, nics) = located(&edit(&device(4001, "connect"))).unwrap();
    assert_eq!(
        nics,
        [
            ForkNic::default(),
            ForkNic {
                mac: Some("00:50:56:aa:bb:cc".into()),
                connect: Some(true)
            }
        ]
    );
    let (_, nics) = located(&edit(&device(4000, "disconnect"))).unwrap();
    assert_eq!(nics[0].connect, Some(false));
    let (_, nics) = located(&edit(&device(4000, "unset"))).unwrap();
    assert_eq!(nics[0].connect, None);
}

#[test]
fn any_other_change_of_a_device_is_refused() {
    let nic = json!({ "_typeName": "VirtualE1000", "key": 4000 });
    let change = |operation: &str, device: &Value, more: &Value| {
        let mut change = json!({ "operation": operation, "device": device });
        change
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "name": "a", "location": { "deviceChange": [change] } })
    };
    let mac = json!({ "_typeName": "VirtualE1000", "key": 4000, "addressType": "manual", "macAddress": "01:00:5e:00:00:01" });
    for spec in [
        change(
            "edit",
            &json!({ "_typeName": "VirtualDisk", "key": 2000 }),
            &json!({}),
        ),
        change(
            "edit",
            &json!({ "_typeName": "VirtualSerialPort", "key": 9000 }),
            &json!({}),
        ),
        change("add", &nic, &json!({})),
        change("remove", &nic, &json!({})),
        change(
            "edit",
            &json!({ "_typeName": "VirtualE1000", "key": 4002 }),
            &json!({}),
        ),
        change("edit", &nic, &json!({ "fileOperation": "create" })),
        change("edit", &nic, &json!({ "profile": [{}] })),
        change("edit", &mac, &json!({})),
    ] {
        assert_eq!(refused(&spec).0, "DisallowedMigrationDeviceAttached", "{spec}");
    }
}

#[test]
fn a_status_carries_the_fault_and_gives_it_back() {
    let fault = located(&json!({ "host": reference("HostSystem", "host-9") })).unwrap_err();
    let status = fault.clone().status();
    assert_eq!(
        (status.code, status.field()),
        (Code::InvalidArgument, Some("spec.location.host"))
    );
    assert_eq!(fault::of(&status).unwrap(), fault);
    let told = serde_json::to_value(&fault).unwrap();
    assert_eq!(
        told["faultMessage"][0]["arg"],
        json!([{ "key": "invalidProperty", "value": { "_typeName": "string", "_value": "spec.location.host" } }])
    );
    let caused = MethodFault {
        fault_cause: Some(Box::new(fault.clone())),
        ..fault
    };
    let again: MethodFault = serde_json::from_value(serde_json::to_value(&caused).unwrap()).unwrap();
    assert_eq!(again, caused);
}
