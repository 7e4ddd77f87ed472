//! CloneJobs of chance: what is written is read back, and is the same.

use super::{compute_engine_target_details, read, snake_keys, target_vm_details_alpha, write};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::seed::clone_job::{AdaptingOsStep, InstantiatingMigratedVmStep, PreparingVmDisksStep, State};
use shared::seed::target::*;
use shared::seed::{CloneJob, CloneJobName, CloneStep, Step, TargetVmDetails};
use shared::{Code, Status, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of chance that values are made of; when they run out, what follows is the default.
struct Bytes(std::vec::IntoIter<u8>);

impl Bytes {
    fn next(&mut self) -> u8 {
        self.0.next().unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.next()) % all.len()]
    }
}

trait Arb {
    fn arb(b: &mut Bytes) -> Self;
}

impl Arb for bool {
    fn arb(b: &mut Bytes) -> Self {
        b.next() % 2 == 1
    }
}

impl Arb for i32 {
    fn arb(b: &mut Bytes) -> Self {
        let wide = i32::from_le_bytes([b.next(), b.next(), b.next(), b.next()]);
        wide >> (8 * (b.next() % 4))
    }
}

impl Arb for String {
    fn arb(b: &mut Bytes) -> Self {
        (0..b.next() % 6)
            .map(|_| b.one_of(&['a', 'Z', '0', '-', '/', ' ', '"', '\\', '\0', 'ä', '💾']))
            .collect()
    }
}

impl Arb for Timestamp {
    fn arb(b: &mut Bytes) -> Self {
        Self::from_micros(i64::from(i32::arb(b)) * i64::from(i32::arb(b)))
    }
}

impl Arb for Status {
    fn arb(b: &mut Bytes) -> Self {
        let detail = |b: &mut Bytes| json!({"@type": String::arb(b), "value": i32::arb(b)});
        let details = (0..b.next() % 3).map(|_| detail(b)).collect();
        Self {
            code: b.one_of(Code::ALL),
            message: String::arb(b),
            details,
        }
    }
}

impl Arb for CloneJobName {
    fn arb(b: &mut Bytes) -> Self {
        let mut segment = |prefix: &str| {
            let rest: String = (0..b.next() % 8)
                .map(|_| b.one_of(&['a', 'Z', '0', '-', '.', '_', '~', ':']))
                .collect();
            format!("{prefix}{rest}")
        };
        let segments = ["p", "l", "0", "M", "~"].map(&mut segment);
        Self::new(segments.each_ref().map(String::as_str)).unwrap()
    }
}

impl<T: Arb> Arb for Option<T> {
    fn arb(b: &mut Bytes) -> Self {
        bool::arb(b).then(|| T::arb(b))
    }
}

impl<T: Arb> Arb for Box<T> {
    fn arb(b: &mut Bytes) -> Self {
        Self::new(T::arb(b))
    }
}

impl<T: Arb> Arb for Vec<T> {
    fn arb(b: &mut Bytes) -> Self {
        (0..b.next() % 4).map(|_| T::arb(b)).collect()
    }
}

impl Arb for BTreeMap<String, String> {
    fn arb(b: &mut Bytes) -> Self {
        (0..b.next() % 4)
            .map(|_| (String::arb(b), String::arb(b)))
            .collect()
    }
}

// The struct literals name every field: a field that is added does not compile until it is here.
macro_rules! arb {
    ($($message:ident { $($field:ident)* })*) => {$(
        impl Arb for $message {
            fn arb(_b: &mut Bytes) -> Self {
                Self { $($field: Arb::arb(_b),)* }
            }
        }
    )*};
    (enum $($name:ident)*) => {$(
        impl Arb for $name {
            fn arb(b: &mut Bytes) -> Self {
                b.one_of(Self::ALL)
            }
        }
    )*};
    (oneof $($name:ident { $($variant:ident)* })*) => {$(
        impl Arb for $name {
            fn arb(b: &mut Bytes) -> Self {
                let members: &[fn(&mut Bytes) -> Self] = &[$(|b| Self::$variant(Arb::arb(b)),)*];
                b.one_of(members)(b)
            }
        }
    )*};
}

arb! {
    CloneJob { name create_time state state_time end_time error steps target_vm_details }
    CloneStep { start_time end_time step }
    AdaptingOsStep {}
    PreparingVmDisksStep {}
    InstantiatingMigratedVmStep {}
    ComputeEngineTargetDetails {
        vm_name project zone machine_type_series machine_type network_tags network_interfaces service_account
        disk_type labels license_type applied_license compute_scheduling secure_boot enable_vtpm
        enable_integrity_monitoring boot_option metadata additional_licenses hostname encryption boot_conversion
        adaptation_modifiers disk_replica_zones storage_pool
    }
    NetworkInterface { network subnetwork internal_ip external_ip network_tier }
    AppliedLicense { r#type os_license }
    AdaptationModifier { modifier value }
    ComputeScheduling { on_host_maintenance automatic_restart restart_type node_affinities min_node_cpus }
    SchedulingNodeAffinity { key operator values }
    Encryption { kms_key }
    ComputeEngineDisksTargetDetails { disks vm_target }
    PersistentDisk { source_disk_number disk_uri }
    DisksMigrationDisksTargetDetails {}
    DisksMigrationVmTargetDetails { vm_uri }
    TargetVmDetailsAlpha {
        name target_project project zone machine_type_series machine_type network subnetwork internal_ip
        external_ip network_tags network_interfaces service_account disk_type labels license_type applied_license
        compute_scheduling secure_boot boot_option metadata
    }
}

arb! { enum
    State ComputeEngineDiskType ComputeEngineLicenseType ComputeEngineBootOption ComputeEngineNetworkTier
    BootConversion AppliedLicenseType OnHostMaintenance RestartType NodeAffinityOperator DiskTypeAlpha
    LicenseTypeAlpha BootOptionAlpha
}

arb! { oneof
    TargetVmDetails {
        ComputeEngineTargetDetails ComputeEngineDisksTargetDetails ComputeEngineVmDetails TargetDetails
    }
    Step { AdaptingOs PreparingVmDisks InstantiatingMigratedVm }
    VmTarget { DisksTargetDetails VmTargetDetails }
}

proptest! {
    #[test]
    fn arbitrary_clone_jobs_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let job = CloneJob::arb(&mut Bytes(bytes.into_iter()));
        let text = serde_json::to_string(&job).unwrap();
        prop_assert!(!text.contains(":null"), "what is absent is written: {}", text);
        prop_assert_eq!(&serde_json::from_str::<CloneJob>(&text).unwrap(), &job);
        prop_assert_eq!(&read(&snake_keys(&write(&job))), &job);
    }

    #[test]
    fn arbitrary_names_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let name = CloneJobName::arb(&mut Bytes(bytes.into_iter()));
        prop_assert_eq!(name.to_string().parse::<CloneJobName>(), Ok(name));
    }

    #[test]
    fn only_what_is_printed_is_parsed(text in "projects/p/locations/[a./]{0,4}/sources/s/migratingVms/m/cloneJobs/\\PC{0,3}") {
        if let Ok(name) = text.parse::<CloneJobName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}

/// Where a message has a field, nested messages included; the keys of maps are data.
fn fields(at: &str, value: &Value, found: &mut BTreeSet<String>) {
    if let Some(object) = value
        .as_object()
        .filter(|_| !at.ends_with("labels") && !at.ends_with("metadata"))
    {
        for (key, value) in object {
            let at = format!("{at}.{key}");
            fields(&at, value, found);
            found.insert(at);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fields(at, item, found);
    }
}

#[test]
fn the_samples_have_every_field_of_their_messages() {
    // From bytes of 1, nothing comes out as its default.
    fn full<T: Arb + serde::Serialize>() -> Value {
        serde_json::to_value(T::arb(&mut Bytes(vec![1; 1000].into_iter()))).unwrap()
    }
    for (sample, full) in [
        (
            compute_engine_target_details(),
            full::<ComputeEngineTargetDetails>(),
        ),
        (target_vm_details_alpha(), full::<TargetVmDetailsAlpha>()),
    ] {
        let [mut in_sample, mut in_full] = [BTreeSet::new(), BTreeSet::new()];
        fields("", &sample, &mut in_sample);
        fields("", &full, &mut in_full);
        assert_eq!(in_sample, in_full);
    }
}
