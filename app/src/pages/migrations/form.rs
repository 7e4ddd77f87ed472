//! What a migration is asked, whether it is new or changed: when its cycles run, and what the machine is to be.

use crate::components::field::{Fields, Line};
use crate::components::load::{Bodies, body};
use crate::components::place;
use crate::forms::{ADAPT_NO, ADAPT_YES, NETWORK_NONE, NETWORK_SAME};
use crate::words::w;
use leptos::prelude::*;
use shared::Status;
use shared::api::{Call, ListNetworks, ListStorages, NetworkPage, RawCall, StoragePage};
use shared::can::limit;
use shared::migrate::can::{LEAST_IDLE, MOST_DAYS, MOST_IDLE, MOST_KEPT, MOST_WAVES};
use shared::migrate::{CyclePolicy, TargetDefaults};
use shared::place::{Network, Storage};
use shared::vm::{Firmware, NewNic};

/// Where a machine may go.
#[derive(Clone)]
pub struct Places {
    networks: Vec<Network>,
    storages: Vec<Storage>,
}

/// What [`Places::read`] reads.
pub fn calls() -> [RawCall; 2] {
    [
        ListNetworks {
            query: super::whole(),
        }
        .raw(),
        ListStorages {
            query: super::whole(),
        }
        .raw(),
    ]
}

impl Places {
    /// From these bodies on.
    pub fn read(bodies: &Bodies, from: usize) -> Result<Self, Status> {
        Ok(Self {
            networks: body::<NetworkPage>(bodies, from)?.networks,
            storages: body::<StoragePage>(bodies, from + 1)?.storages,
        })
    }
}

/// When cycles run, and what stays of them.
pub fn rhythm(fields: &Fields, policy: &CyclePolicy) -> AnyView {
    let rest = fields.line(Line {
        name: "policy.idleSeconds",
        label: w().cycle_rest,
        hint: w().cycle_rest_hint.to_owned(),
        kind: "number",
        min: Some(LEAST_IDLE),
        max: Some(MOST_IDLE),
        value: policy.idle_seconds.to_string(),
        required: true,
        ..Line::default()
    });
    let kept = fields.line(Line {
        name: "policy.keepLast",
        label: w().uploads_kept,
        kind: "number",
        min: Some(1),
        max: Some(MOST_KEPT),
        value: policy.keep_last.to_string(),
        required: true,
        ..Line::default()
    });
    let expires = fields.line(Line {
        name: "policy.expireDays",
        label: w().expire_days,
        hint: w().expire_days_hint.to_owned(),
        kind: "number",
        min: Some(1),
        max: Some(MOST_DAYS),
        value: number(policy.expire_days),
        ..Line::default()
    });
    view! {
        <fieldset>
            <legend>{w().cycles}</legend>
            <div class="sheet-in">
                <div class="two">{rest} {kept}</div>
                {expires}
                {fields.tick("policy.quiesce", w().quiesce.to_owned(), w().quiesce_hint, policy.quiesce)}
                {adaptation(fields, policy.skip_os_adaptation)}
            </div>
        </fieldset>
    }
    .into_any()
}

fn adaptation(fields: &Fields, skip: Option<bool>) -> AnyView {
    let options = vec![
        (String::new(), w().adapt_usual.to_owned()),
        (ADAPT_YES.to_owned(), w().adapt_yes.to_owned()),
        (ADAPT_NO.to_owned(), w().adapt_no.to_owned()),
    ];
    let now = match skip {
        None => "",
        Some(false) => ADAPT_YES,
        Some(true) => ADAPT_NO,
    };
    fields.choice(
        "adaptation",
        w().os_adaptation,
        w().adapt_policy_hint.to_owned(),
        options,
        now,
    )
}

fn number(n: Option<u32>) -> String {
    n.map(|n| n.to_string()).unwrap_or_default()
}

/// What it is to be where it goes.
pub fn becomes(fields: &Fields, now: &TargetDefaults, places: &Places) -> AnyView {
    let name = fields.line(Line {
        name: "targetDefaults.name",
        label: w().target_vm_name,
        hint: w().target_vm_name_hint.to_owned(),
        value: now.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        is_name: true,
        ..Line::default()
    });
    let cpus = fields.line(Line {
        name: "targetDefaults.cpus",
        label: w().cpus,
        hint: w().as_source.to_owned(),
        kind: "number",
        min: Some(1),
        max: Some(limit::CPUS),
        value: number(now.cpus),
        ..Line::default()
    });
    let memory = fields.line(Line {
        name: "targetDefaults.memoryMib",
        label: w().memory_mib,
        hint: w().as_source.to_owned(),
        kind: "number",
        min: Some(limit::MIN_MEMORY_MIB),
        max: Some(limit::MAX_MEMORY_MIB),
        value: number(now.memory_mib),
        ..Line::default()
    });
    view! {
        <fieldset>
            <legend>{w().becomes}</legend>
            <div class="sheet-in">
                {name}
                <div class="two">{cpus} {memory}</div>
                {networks(fields, now.network_interfaces.as_deref(), &places.networks)}
                {storages(fields, now.storage.as_deref(), &places.storages)}
                {system(fields, now)}
            </div>
        </fieldset>
    }
    .into_any()
}

/// What OS adaptation and cloud-init set in its system.
fn system(fields: &Fields, now: &TargetDefaults) -> AnyView {
    let hostname = fields.line(Line {
        name: "targetDefaults.hostname",
        label: w().hostname,
        hint: w().hostname_hint.to_owned(),
        value: now.hostname.clone().unwrap_or_default(),
        ..Line::default()
    });
    let firmwares = vec![
        (String::new(), w().firmware_as_source.to_owned()),
        (Firmware::Bios.word().to_owned(), "BIOS".to_owned()),
        (Firmware::Efi.word().to_owned(), "EFI".to_owned()),
    ];
    let firmware = fields.choice(
        "targetDefaults.firmware",
        w().firmware,
        w().firmware_converted.to_owned(),
        firmwares,
        now.firmware.map_or("", |firmware| firmware.word()),
    );
    let told = now.cloud_init.as_ref().and_then(|ci| ci.user_data.clone());
    view! {
        <div class="two">{hostname} {firmware}</div>
        {fields
            .tick(
                "keepIdentity",
                w().keep_identity.to_owned(),
                w().keep_identity_hint,
                now.keep_identity.unwrap_or(false),
            )}
        {fields.text_of("userData", w().user_data, w().seed_user_data_hint, told.unwrap_or_default())}
    }
    .into_any()
}

/// One network for its only NIC, none, or what the source has; several that were asked for elsewhere stay as they are.
fn networks(fields: &Fields, now: Option<&[NewNic]>, all: &[Network]) -> AnyView {
    let mut options = vec![
        (String::new(), w().network_usual.to_owned()),
        (NETWORK_NONE.to_owned(), w().network_none.to_owned()),
    ];
    options.extend(place::networks(all));
    let named = |nic: &NewNic| {
        let of = |n: &&Network| n.id.to_string() == nic.network || n.name.as_str() == nic.network;
        all.iter().find(of).map(|n| n.name.to_string())
    };
    let chosen = match now {
        None => Some(String::new()),
        Some([]) => Some(NETWORK_NONE.to_owned()),
        Some([nic]) if *nic == NewNic::on(&nic.network) => named(nic),
        Some(_) => None,
    };
    let chosen = chosen.unwrap_or_else(|| {
        options.push((NETWORK_SAME.to_owned(), w().as_it_is.to_owned()));
        NETWORK_SAME.to_owned()
    });
    fields.choice(
        "network",
        w().network,
        w().target_network_hint.to_owned(),
        options,
        &chosen,
    )
}

fn storages(fields: &Fields, now: Option<&str>, all: &[Storage]) -> Option<AnyView> {
    let of = |s: &&Storage| Some(s.id.to_string().as_str()) == now || Some(s.name.as_str()) == now;
    let now = all.iter().find(of).map(|s| s.name.to_string());
    place::storage_now(fields, all, w().default_where, now.as_deref().unwrap_or_default())
}

/// Which group it is in, and which wave of it.
pub fn group(fields: &Fields, now: String, wave: u32) -> AnyView {
    let wave = fields.line(Line {
        name: "wave",
        label: w().wave,
        hint: w().wave_hint.to_owned(),
        kind: "number",
        min: Some(1),
        max: Some(MOST_WAVES),
        value: wave.to_string(),
        ..Line::default()
    });
    let group = fields.line(Line {
        name: "group",
        label: w().group,
        hint: w().group_hint.to_owned(),
        value: now,
        is_name: true,
        ..Line::default()
    });
    view! { <div class="two">{group} {wave}</div> }.into_any()
}
