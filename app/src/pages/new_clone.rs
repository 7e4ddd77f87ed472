//! A new clone: from which snapshot, how, as what; and what will happen then.

use super::param;
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::place;
use crate::components::tree::consistency;
use crate::env::{clock, may};
use crate::feed::{Live, apply, newer, on_change};
use crate::format;
use crate::forms::{NETWORK_NONE, SOURCE_NOW};
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::use_location;
use shared::Status;
use shared::access::Privilege;
use shared::api::{
    Call, GetVm, ListNetworks, ListQuery, ListSnapshots, ListStorages, MAX_PAGE_SIZE, NetworkPage, RawCall,
    SnapshotPage, StoragePage,
};
use shared::can;
use shared::clone::{CloneMode, DEFAULT_BOOT_TIMEOUT_SECONDS};
use shared::place::{Network, Storage};
use shared::snapshot::{Snapshot, SnapshotState};
use shared::vm::Vm;

/// What the form needs to know.
#[derive(Clone, Debug, PartialEq)]
struct Data {
    vm: Vm,
    snapshots: Vec<Snapshot>,
    networks: Vec<Network>,
    storages: Vec<Storage>,
}

pub fn page() -> AnyView {
    let name = param("vm");
    let one = move || {
        let name = name.get();
        let trail = vec![
            ("/vms".to_owned(), w().machines.to_owned()),
            (format!("/vms/{name}"), name.clone()),
        ];
        view! {
            {bar(trail, w().new_clone.to_owned())}
            {load(move || name.clone(), |vm| all(calls(vm)), read, |old, new| *old = new, shown)}
        }
    };
    one.into_any()
}

fn calls(vm: String) -> [RawCall; 4] {
    let query = ListQuery {
        page_size: Some(MAX_PAGE_SIZE),
        ..ListQuery::default()
    };
    let all = ListQuery::default();
    [
        GetVm { vm: vm.clone() }.raw(),
        ListSnapshots { vm, query }.raw(),
        ListNetworks { query: all.clone() }.raw(),
        ListStorages { query: all }.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        vm: body(bodies, 0)?,
        snapshots: body::<SnapshotPage>(bodies, 1)?.snapshots,
        networks: body::<NetworkPage>(bodies, 2)?.networks,
        storages: body::<StoragePage>(bodies, 3)?.storages,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    on_change(move |change| {
        let mut after = data.get_untracked();
        let id = after.vm.id;
        if let Some(vm) = Vm::of(change) {
            newer(&mut after.vm, vm);
        }
        apply(&mut after.snapshots, change, false, |s| s.vm == id);
        if data.with_untracked(|before| *before != after) {
            data.set(after);
        }
    });
    let name = data.with_untracked(|d| d.vm.name.to_string());
    let action = format!("/do/vms/{name}/clone");
    let fields = Fields::of(&action);
    let here = format!("/vms/{name}");
    let asked = use_location()
        .query
        .with_untracked(|q| q.get_str("source").unwrap_or_default().to_owned());
    let first = fields.typed("source").unwrap_or(asked);
    // What is chosen, for the summary; the form itself keeps what it has.
    let source = RwSignal::new(first.clone());
    let full = RwSignal::new(fields.typed("mode").as_deref() == Some(CloneMode::Full.word()));
    let start = RwSignal::new(fields.ticked("start", true));
    let verdict =
        move || may(Privilege::CloneCreate, None).and_then(|()| data.with(|d| can_clone(d, &source.get())));
    let chosen = move |e: leptos::ev::Event| source.set(event_target_value(&e));
    let title = put(w().clone_title, &[&name]);
    let networks = networks(&data.get_untracked().networks);
    let quiesce = fields.tick("quiesce", w().quiesce.to_owned(), w().quiesce_hint, true);
    view! {
        <Title text=title.clone()/>
        <div class="cols form">
            <form method="post" action=action class="sheet">
                <div class="sheet-in">
                    <h1 tabindex="-1">{title}</h1>
                    <p class="soft lead">{w().clone_lead}</p>
                    {fields.error(&format!("{here}/clone"))}
                    <div class="field">
                        <label for="source">{w().source}</label>
                        <select id="source" name="source" on:change=chosen aria-describedby="source-about">
                            {move || data.with(|d| sources(d, &first))}
                        </select>
                        <small id="source-about">{w().source_hint}</small>
                    </div>
                    <div hidden=move || source.with(|s| s != SOURCE_NOW)>{quiesce}</div>
                    {modes(full)}
                    {target(&fields, data)}
                    {place::storage(&fields, &data.get_untracked().storages, w().where_source_is)}
                    {fields.choice("network", w().network, w().network_hint.to_owned(), networks, "")}
                    {starting(&fields, start)}
                    {identity(&fields)}
                </div>
                <footer>
                    <a class="button" href=here.clone()>
                        {w().never_mind}
                    </a>
                    {fields.submit("go", put(w().clone_it, &[&name]), verdict)}
                </footer>
            </form>
            <div class="stack">
                <section class="panel" aria-labelledby="happens-title">
                    <header>
                        <h2 id="happens-title">{w().what_happens}</h2>
                    </header>
                    <div class="in happens">
                        {move || data.with(|d| happens(d, &source.get(), full.get(), start.get()))}
                    </div>
                </section>
            </div>
        </div>
    }
    .into_any()
}

/// Whether the server would take it.
fn can_clone(data: &Data, source: &str) -> can::Verdict {
    match source {
        "" => can::can_clone_latest(&data.vm),
        SOURCE_NOW => can::can_clone_now(&data.vm),
        id => match find(data, id) {
            Some(snapshot) => can::can_clone_from(&data.vm, snapshot),
            None => Err(Status::not_found("snapshot", id)),
        },
    }
}

fn find<'a>(data: &'a Data, reference: &str) -> Option<&'a Snapshot> {
    data.snapshots
        .iter()
        .find(|s| s.id() == reference || s.name.as_str() == reference)
}

fn latest(data: &Data) -> Option<&Snapshot> {
    let id = data.vm.latest_snapshot?;
    data.snapshots.iter().find(|s| s.id == id)
}

/// The snapshots, the newest first.
fn sources(data: &Data, first: &str) -> AnyView {
    let option = |value: String, word: String| {
        let on = value == first;
        view! {
            <option value=value selected=on>
                {word}
            </option>
        }
    };
    let newest = match latest(data) {
        Some(s) => put(w().source_latest, &[s.name.as_str()]),
        None => w().source_latest_none.to_owned(),
    };
    let mut all = vec![
        option(String::new(), newest),
        option(SOURCE_NOW.to_owned(), w().source_now.to_owned()),
    ];
    let mut snapshots: Vec<_> = data
        .snapshots
        .iter()
        .filter(|s| s.state == SnapshotState::Ready)
        .collect();
    snapshots.sort_by_key(|s| std::cmp::Reverse((s.create_time, s.id)));
    for s in snapshots {
        let when = format::absolute(s.create_time, 0);
        let (word, _) = consistency(s.consistency);
        all.push(option(s.id(), format!("{} · {word} · {when}", s.name)));
    }
    all.into_any()
}

fn modes(full: RwSignal<bool>) -> AnyView {
    let one = |mode: CloneMode, label: &'static str, why: &'static str| {
        let is_full = mode == CloneMode::Full;
        view! {
            <label class="card">
                <input
                    type="radio"
                    name="mode"
                    value=mode.word()
                    checked=full.get_untracked() == is_full
                    on:change=move |_| full.set(is_full)
                />
                <span>
                    <b>{label}</b>
                    <small>{why}</small>
                </span>
            </label>
        }
    };
    view! {
        <fieldset>
            <legend>{w().mode}</legend>
            <div class="two">
                {one(CloneMode::Linked, w().mode_linked, w().mode_linked_why)}
                {one(CloneMode::Full, w().mode_full, w().mode_full_why)}
            </div>
        </fieldset>
    }
    .into_any()
}

fn target(fields: &Fields, data: RwSignal<Data>) -> AnyView {
    let (name, cpus, memory) = data.with_untracked(|d| {
        (
            d.vm.name.to_string(),
            d.vm.cpus.to_string(),
            d.vm.memory_mib.to_string(),
        )
    });
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: put(w().clone_name_hint, &[&name]),
        is_name: true,
        ..Line::default()
    });
    let cpus = fields.line(Line {
        name: "cpus",
        label: w().cpus,
        kind: "number",
        min: Some(1),
        max: Some(can::limit::CPUS),
        placeholder: cpus,
        hint: w().as_source.to_owned(),
        ..Line::default()
    });
    let memory = fields.line(Line {
        name: "memoryMib",
        label: w().memory_mib,
        kind: "number",
        min: Some(can::limit::MIN_MEMORY_MIB),
        max: Some(can::limit::MAX_MEMORY_MIB),
        placeholder: memory,
        hint: w().as_source.to_owned(),
        ..Line::default()
    });
    view! {
        {name}
        <div class="two">{cpus} {memory}</div>
    }
    .into_any()
}

fn networks(all: &[Network]) -> Vec<(String, String)> {
    let mut options = vec![
        (String::new(), w().network_isolated.to_owned()),
        (NETWORK_NONE.to_owned(), w().network_none.to_owned()),
    ];
    options.extend(place::networks(all));
    options
}

fn starting(fields: &Fields, start: RwSignal<bool>) -> AnyView {
    let on = start.get_untracked();
    let timeout = fields.line(Line {
        name: "bootTimeoutSeconds",
        label: w().boot_timeout,
        kind: "number",
        min: Some(1),
        max: Some(can::limit::BOOT_TIMEOUT_SECONDS),
        value: DEFAULT_BOOT_TIMEOUT_SECONDS.to_string(),
        ..Line::default()
    });
    let pattern = fields.line(Line {
        name: "bootPattern",
        label: w().boot_pattern,
        hint: w().boot_pattern_hint.to_owned(),
        ..Line::default()
    });
    let changed = move |e: leptos::ev::Event| start.set(event_target_checked(&e));
    view! {
        <label class="check">
            <input type="checkbox" name="start" checked=on on:change=changed/>
            <span>{w().start_and_prove} <small>{w().start_and_prove_hint}</small></span>
        </label>
        <div class="two" hidden=move || !start.get()>
            {timeout}
            {pattern}
        </div>
    }
    .into_any()
}

pub(super) fn identity(fields: &Fields) -> AnyView {
    let open = ["userData", "metaData", "networkConfig", "adapt"]
        .iter()
        .any(|n| fields.typed(n).is_some_and(|t| !t.is_empty()));
    view! {
        <details class="unfold" open=open>
            <summary>{w().cloud_init}</summary>
            <div class="sheet-in">
                {fields.tick("adapt", w().adapt.to_owned(), w().adapt_hint, false)}
                {fields.text("userData", "user-data", w().user_data_hint)}
                {fields.text("metaData", "meta-data", w().meta_data_hint)}
                {fields.text("networkConfig", "network-config", "")}
            </div>
        </details>
    }
    .into_any()
}

/// What will happen, line by line.
fn happens(data: &Data, source: &str, full: bool, start: bool) -> AnyView {
    let vm = data.vm.name.as_str();
    let (from, consistent) = match source {
        SOURCE_NOW => (put(w().happens_now, &[vm]), None),
        reference => {
            let snapshot = if reference.is_empty() {
                latest(data)
            } else {
                find(data, reference)
            };
            match snapshot {
                Some(s) => (
                    put(w().happens_from, &[vm, s.name.as_str()]),
                    Some(consistency(s.consistency).1),
                ),
                None => (w().happens_no_snapshot.to_owned(), None),
            }
        }
    };
    let bytes: u64 = data.vm.guest_disks().map(|d| d.virtual_bytes).sum();
    let disks = if full {
        put(w().happens_full, &[&format::bytes(bytes)])
    } else {
        w().happens_linked.to_owned()
    };
    let free = data
        .storages
        .iter()
        .find(|s| s.default)
        .map(|s| put(w().happens_free, &[&format::bytes(s.free_bytes)]));
    let age = latest(data).filter(|_| source.is_empty()).map(|s| {
        let (clock, at) = (clock(), s.create_time);
        move || {
            let ago = format::ago(clock.now.get(), at);
            put(w().happens_age, &[&ago])
        }
    });
    let boots = if start {
        w().happens_start
    } else {
        w().happens_no_start
    };
    view! {
        <ol class="happens">
            <li>
                {from} " " {age} {consistent.map(|c| view! { <span class="sub">{c}</span> })}
            </li>
            <li>
                {disks} {free.map(|f| view! { <span class="sub">{f}</span> })}
            </li>
            <li>{w().happens_identity}</li>
            <li>{boots}</li>
        </ol>
        <div class="note">{put(w().happens_source, &[vm])}</div>
    }
    .into_any()
}
