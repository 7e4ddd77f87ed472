//! One machine: its screen, what it is made of, its snapshots, where it comes from, what is going on with it.

pub mod console;
mod copies;
mod data;
mod dialogs;
mod forks;
mod images;
mod snapshots;

use self::data::{Data, Origin};
use super::param;
use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::lineage::{self, DRAWN, Node};
use crate::components::load::load;
use crate::components::time::{ago, took};
use crate::components::{error, job, screen, state, tree};
use crate::env::{may, may_fork};
use crate::format;
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::Privilege;
use shared::can::{self, Verdict};
use shared::edit::NextStart;
use shared::place::NetworkKind;
use shared::vm::{ConnectNics, LineageKind, Nic, PowerAction, Vm, VmState};

pub fn page() -> AnyView {
    let name = param("vm");
    let one = move || {
        let name = name.get();
        // An id says nothing to a person.
        let is_id = name.parse::<shared::VmId>().is_ok();
        let here = if is_id {
            w().machine.to_owned()
        } else {
            name.clone()
        };
        view! {
            {bar(vec![("/vms".to_owned(), w().machines.to_owned())], here)}
            {load(move || name.clone(), data::fetch, data::read, Data::merge, shown)}
        }
    };
    one.into_any()
}

fn shown(data: RwSignal<Data>) -> AnyView {
    data::follow(data);
    forks::follow(data);
    copies::follow(data);
    let vm = Memo::new(move |_| data.with(|d| d.vm.clone()));
    let name = Memo::new(move |_| vm.with(|v| v.name.to_string()));
    let gone = Memo::new(move |_| data.with(|d| d.gone));
    let tree_of_snapshots = move || {
        data.with(|d| {
            let changed: Option<u64> = d.vm.guest_disks().map(|k| k.allocated_bytes).sum();
            tree::snapshots(&d.vm, &d.snapshots, changed)
        })
    };
    let jobs = move || {
        data.with(|d| {
            if d.jobs.is_empty() {
                view! { <p class="none">{w().no_jobs_here}</p> }.into_any()
            } else {
                job::short_list(&d.jobs)
            }
        })
    };
    let all_jobs = move || name.with(|n| format!("/jobs?q={n}"));
    let take = move || {
        vm.with(|v| {
            let button = Button {
                to: format!("/vms/{}?do=snapshot", v.name),
                label: w().take_one,
                class: "quiet",
                ..Button::default()
            };
            button::link(
                button,
                &may(Privilege::SnapshotCreate, Some(v.id)).and_then(|()| can::can_snapshot(v)),
            )
        })
    };
    view! {
        <Title text=move || name.get()/>
        <div class="title">
            <h1 tabindex="-1">{move || name.get()}</h1>
            {move || vm.with(state::vm_pill)}
            <span class="faint">{move || vm.with(about)}</span>
            <div class="actions">{piece(move || (move || vm.with(actions)).into_any())}</div>
        </div>
        {move || gone.get().then(|| view! { <div class="alert" role="alert">{w().machine_gone}</div> })}
        {move || vm.with(|v| v.error.as_ref().map(|e| error::panel(w().what_went_wrong, e)))}
        {move || vm.with(paused_why)}
        <div class="cols">
            <div class="stack">
                <section class="panel" aria-label=w().screen>
                    {piece(move || screen::live(vm))}
                    <div class="power">
                        {piece(move || (move || vm.with(power)).into_any())}
                        <a class="button" href=move || name.with(|n| format!("/vms/{n}/console"))>
                            {w().open_console}
                        </a>
                    </div>
                </section>
                <section class="panel" aria-labelledby="lineage-title">
                    <header>
                        <h2 id="lineage-title">{w().lineage}</h2>
                    </header>
                    <div class="in">{piece(move || (move || data.with(drawing)).into_any())}</div>
                </section>
                {piece(move || copies::section(data))}
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="machine-title">
                    <header>
                        <h2 id="machine-title">{w().machine}</h2>
                        {move || vm.with(|v| button::copy(v.id.to_string(), w().copy_id))}
                    </header>
                    <div class="in">{piece(move || (move || data.with(facts)).into_any())}</div>
                </section>
                <section class="panel" aria-labelledby="snapshots-title">
                    <header>
                        <h2 id="snapshots-title">{w().snapshots}</h2>
                        {take}
                    </header>
                    {piece(move || tree_of_snapshots.into_any())}
                </section>
                {piece(move || (move || data.with(forks::points)).into_any())}
                {piece(move || (move || data.with(forks::family)).into_any())}
                <section class="panel" aria-labelledby="jobs-title">
                    <header>
                        <h2 id="jobs-title">{w().jobs_here}</h2>
                        <a href=all_jobs>{w().all}</a>
                    </header>
                    {piece(move || jobs.into_any())}
                </section>
            </div>
        </div>
        {piece(move || snapshots::take(vm))}
        {piece(move || snapshots::revert(data))}
        {piece(move || snapshots::delete(data))}
        {piece(move || dialogs::fork(vm))}
        {piece(move || dialogs::shut_down(vm))}
        {piece(move || dialogs::delete(vm))}
        {piece(move || images::make(data))}
        {piece(move || images::export(data))}
        {piece(move || copies::copy_now(data))}
    }
    .into_any()
}

/// How long it is up, and who holds it.
fn about(vm: &Vm) -> AnyView {
    let up = vm
        .running_since
        .map(|since| view! { {w().up_for} " " {took(Some(since), None)} });
    let lock = vm.locked_by.as_ref().map(|lock| {
        let href = format!("/jobs/{}", lock.job);
        let word = job::kind_word(lock.kind);
        view! { <span>" · " {w().held_by} " " <a href=href>{word}</a></span> }
    });
    view! { {up} {lock} }.into_any()
}

fn actions(vm: &Vm) -> AnyView {
    let at = |rest: &str| format!("/vms/{}{rest}", vm.name);
    let go = |to, label, class, verdict: Verdict| {
        let button = Button {
            to,
            label,
            class,
            ..Button::default()
        };
        button::link(button, &verdict)
    };
    // A stopped machine is forked from an instant of it that was kept.
    let fork = may_fork().and_then(|()| can::can_fork(vm));
    let clone = may(Privilege::CloneCreate, None)
        .and_then(|()| can::can_clone_latest(vm).or_else(|why| can::can_clone_now(vm).map_err(|_| why)));
    view! {
        {go(at("?do=snapshot"), w().snapshot_dots, "", may(Privilege::SnapshotCreate, Some(vm.id)).and_then(|()| can::can_snapshot(vm)))}
        {go(at("?do=fork"), w().fork_dots, "", fork)}
        {go(at("/clone"), w().clone_dots, "go", clone)}
        {button::menu(
            vm.name.to_string(),
            view! {
                {go(at("/edit"), w().edit_dots, "", may(Privilege::VmUpdate, Some(vm.id)).and_then(|()| can::can_rename(vm)))}
                {go(at("?do=shutdown"), w().shut_down_dots, "", may(Privilege::VmPower, Some(vm.id)).and_then(|()| can::can_power(PowerAction::ShutDown, vm)))}
                {go(at("?do=copy"), w().copy_now_dots, "", copies::may_copy(vm))}
                {go(at("?do=image"), w().image_of_dots, "", may(Privilege::ImageCreate, None))}
                {go(at("?do=export"), w().export_dots, "", may(Privilege::ImageExport, None))}
                {go(at("?do=delete"), w().delete_dots, "danger", may(Privilege::VmDelete, Some(vm.id)).and_then(|()| can::can_delete(vm)))}
            }
            .into_any(),
        )}
    }
    .into_any()
}

fn power(vm: &Vm) -> AnyView {
    let back = format!("/vms/{}", vm.name);
    let one = |action, to: &str, label, class| {
        let button = Button {
            to: format!("/do/vms/{}/{to}", vm.name),
            label,
            class,
            back: back.clone(),
            ..Button::default()
        };
        button::post(
            button,
            &may(Privilege::VmPower, Some(vm.id)).and_then(|()| can::can_power(action, vm)),
        )
    };
    // What undoes the other stands in its place; the rest stays where it is.
    let pause = if vm.state == VmState::Paused {
        one(PowerAction::Resume, "resume", w().resume, "")
    } else {
        one(PowerAction::Pause, "pause", w().pause, "")
    };
    view! {
        {one(PowerAction::Start, "start", w().start, "")}
        {one(PowerAction::ShutDown, "shutdown", w().shut_down, "")}
        {pause}
        {one(PowerAction::Reset, "reset", w().reset, "")}
        {one(PowerAction::PowerOff, "power-off", w().power_off, "danger")}
    }
    .into_any()
}

/// The button that connects a NIC, or takes it off its network.
fn cable(vm: &Vm, nic: &Nic, connect: bool) -> AnyView {
    let (action, label) = if connect {
        ("connect", w().connect)
    } else {
        ("disconnect", w().disconnect)
    };
    let button = Button {
        to: format!("/do/vms/{}/{action}", vm.name),
        label,
        class: "quiet",
        back: format!("/vms/{}", vm.name),
        of: nic.mac.clone(),
        field: Some(("nic", nic.number.to_string())),
    };
    let request = ConnectNics {
        nics: vec![nic.number],
    };
    button::post(
        button,
        &may(Privilege::VmUpdate, Some(vm.id)).and_then(|()| can::can_connect(connect, &request, vm)),
    )
}

/// What waits for the next start, a line for each.
fn next_start(vm: &Vm, next: &NextStart) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |sentence: &str, parts: &[&str]| lines.push(put(sentence, parts));
    if let Some(n) = next.cpus {
        say(w().next_cpus, &[&n.to_string()]);
    }
    if let Some(mib) = next.memory_mib {
        say(w().next_memory, &[&format::mib(mib.into())]);
    }
    if let Some(n) = next.boot_order.first() {
        say(w().next_boot, &[&n.to_string()]);
    }
    let firmware = vm.started_next().firmware;
    if firmware != vm.firmware {
        say(w().next_firmware, &[firmware.word()]);
    }
    for disk in next.add_disks.iter().filter(|d| !d.is_variables()) {
        say(
            w().next_disk_added,
            &[&disk.number.to_string(), &format::bytes(disk.virtual_bytes)],
        );
    }
    for growth in &next.grow_disks {
        say(
            w().next_disk_grows,
            &[&growth.disk.to_string(), &format::bytes(growth.virtual_bytes)],
        );
    }
    for n in &next.remove_disks {
        say(w().next_disk_removed, &[&n.to_string()]);
    }
    for nic in &next.add_nics {
        say(
            w().next_nic_added,
            &[&nic.number.to_string(), nic.network.as_str()],
        );
    }
    for new in &next.macs {
        say(w().next_nic_mac, &[&new.nic.to_string(), &new.mac]);
    }
    for n in &next.remove_nics {
        say(w().next_nic_removed, &[&n.to_string()]);
    }
    lines
}

fn paused_why(vm: &Vm) -> Option<AnyView> {
    use shared::vm::PauseReason;
    let text = match vm.pause_reason? {
        PauseReason::User => return None,
        PauseReason::NoSpace => w().why_no_space,
        PauseReason::IoError => w().why_io_error,
        PauseReason::GuestPanicked => w().why_panicked,
    };
    Some(view! { <div class="alert warn" role="alert">{text}</div> }.into_any())
}

fn facts(data: &Data) -> AnyView {
    let vm = &data.vm;
    let mut rows: Vec<(&'static str, AnyView)> = Vec::new();
    if !vm.description.is_empty() {
        rows.push((w().description, vm.description.clone().into_any()));
    }
    rows.extend([
        (w().cpus, vm.cpus.into_any()),
        (w().memory, format::mib(vm.memory_mib.into()).into_any()),
    ]);
    let waiting = vm
        .at_next_start
        .as_ref()
        .map(|next| next_start(vm, next))
        .unwrap_or_default();
    if !waiting.is_empty() {
        let lines: Vec<_> = waiting
            .into_iter()
            .map(|line| view! { <li>{line}</li> })
            .collect();
        rows.push((
            w().at_next_start,
            view! { <ul class="plain">{lines}</ul> }.into_any(),
        ));
    }
    if let Some(turn) = vm.autostart {
        rows.push((
            w().autostart,
            put(w().autostart_turn, &[&turn.to_string()]).into_any(),
        ));
    }
    for disk in vm.guest_disks() {
        let chain = match disk.chain_length {
            0 | 1 => String::new(),
            n => format!(" · {}", put(w().chain_of, &[&n.to_string()])),
        };
        let own = disk.allocated_bytes;
        let own = own.map(|n| format!(" · {}", put(w().bytes_allocated, &[&format::bytes(n)])));
        let text = view! {
            {format::bytes(disk.virtual_bytes)}
            <span class="soft">{own} {chain}</span>
        };
        rows.push((w().disk, text.into_any()));
    }
    for nic in &vm.network_interfaces {
        let kind = match nic.kind {
            _ if !nic.connected => w().nic_disconnected,
            NetworkKind::User => w().net_user,
            NetworkKind::Bridge => w().net_bridge,
            NetworkKind::Isolated => w().net_isolated,
        };
        let text = view! {
            {nic.network.to_string()}
            <span class="soft">{if nic.network.as_str() == kind { " · ".to_owned() } else { format!(" · {kind} · ") }}</span>
            <span class="mono">{nic.mac.clone()}</span>
            <span class="soft">{nic.forwards.iter().map(|f| format!(" · {f}")).collect::<String>()}</span>
            " "
            {cable(vm, nic, !nic.connected)}
        };
        rows.push((w().network, text.into_any()));
    }
    if vm.network_interfaces.is_empty() {
        rows.push((w().network, w().net_none.into_any()));
    }
    rows.push((w().firmware, vm.firmware.word().into_any()));
    let origin = match &data.origins.last() {
        Some(Origin {
            name,
            href: Some(href),
            ..
        }) => view! { {kind(vm.lineage.kind)} " " <a href=href.clone()>{name.clone()}</a> }.into_any(),
        Some(origin) => format!("{} {}", kind(vm.lineage.kind), origin.name).into_any(),
        None => kind(vm.lineage.kind).into_any(),
    };
    rows.push((w().origin, origin));
    rows.push((w().made, ago(vm.create_time)));
    for (key, value) in &vm.labels {
        rows.push((
            w().label,
            view! { <span class="tag">{format!("{key}={value}")}</span> }.into_any(),
        ));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(term, value)| {
            view! {
                <dt>{term}</dt>
                <dd>{value}</dd>
            }
        })
        .collect();
    view! { <dl class="facts">{rows}</dl> }.into_any()
}

fn kind(kind: LineageKind) -> &'static str {
    match kind {
        LineageKind::Created => w().from_image,
        LineageKind::Imported => w().imported,
        LineageKind::Clone => w().clone_from_vm,
        LineageKind::InstantClone => w().instant_clone_of,
        LineageKind::Restore => w().restored_from,
        LineageKind::Cutover => w().cut_over_from,
    }
}

fn drawing(data: &Data) -> AnyView {
    let origins: Vec<Node> = data
        .origins
        .iter()
        .map(|o| Node {
            label: o.name.clone(),
            sub: o.what.clone(),
            href: o.href.clone(),
        })
        .collect();
    let (_, word) = state::vm_tone(&data.vm);
    let me = Node {
        label: data.vm.name.to_string(),
        sub: put(
            w().state_and_snapshots,
            &[word, &data.snapshots.len().to_string()],
        ),
        href: None,
    };
    let mut clones: Vec<Node> = data
        .clones
        .iter()
        .take(DRAWN)
        .map(|clone| {
            if clone.lineage.kind == LineageKind::InstantClone {
                return Node {
                    label: clone.name.to_string(),
                    sub: w().kind_fork.to_lowercase(),
                    href: Some(format!("/vms/{}", clone.name)),
                };
            }
            let from = clone.lineage.source_snapshot;
            let from = data.snapshots.iter().find(|s| Some(s.id) == from);
            Node {
                label: clone.name.to_string(),
                sub: match from {
                    Some(snapshot) => put(w().clone_of_snapshot, &[snapshot.name.as_str()]),
                    None => w().clone_word.to_owned(),
                },
                href: Some(format!("/vms/{}", clone.name)),
            }
        })
        .collect();
    let more = data.clone_count.saturating_sub(clones.len() as u64);
    if more > 0 {
        clones.push(Node {
            label: put(w().more_clones, &[&format::count(more)]),
            sub: w().clone_word.to_owned(),
            href: None,
        });
    }
    lineage::draw(&origins, &me, &clones)
}
