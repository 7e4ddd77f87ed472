//! All machines.

use super::{contains, empty, query};
use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::list::{Paged, ROWS, Row, Rows, live_list};
use crate::components::state::vm_pill;
use crate::components::table::{self, bulk_bar, pager, sort_link};
use crate::components::time::{ago, took};
use crate::env::may;
use crate::format;
use crate::hydration::piece;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::Privilege;
use shared::api::ListQuery;
use shared::can;
use shared::vm::{PowerAction, Vm, VmState};

pub fn page() -> AnyView {
    let (typed, state, sort, page) = (query("q"), query("state"), query("sort"), query("page"));
    let asked = Memo::new(move |_| {
        let mut terms = contains("name", &typed.get());
        state.with(|s| {
            if !s.is_empty() {
                terms.push(format!("state={s}"));
            }
        });
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        ListQuery {
            page_size: Some(ROWS),
            page_token: some(page.get()),
            filter: some(terms.join(" ")),
            order_by: some(sort.get()),
        }
    });
    let filtered = Memo::new(move |_| asked.with(|q| q.filter.is_some() || q.page_token.is_some()));
    let states: Vec<_> = VmState::ALL
        .iter()
        .map(|s| {
            let word = match s {
                VmState::Stopped => w().stopped,
                VmState::Starting => w().starting,
                VmState::Running => w().running,
                VmState::Paused => w().paused,
                VmState::Stopping => w().stopping,
                VmState::Error => w().error,
            };
            (s.word(), word)
        })
        .collect();
    let hidden = vec![("sort", sort)];
    view! {
        <Title text=w().machines/>
        {bar(Vec::new(), w().machines.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().machines}</h1>
            <div class="actions">
                {table::filter("/vms", typed, vec![(w().state, w().every_state, "state", state, states)], hidden)}
                {create()}
            </div>
        </div>
        {live_list(asked, move |rows, data| table(rows, data, filtered))}
    }
    .into_any()
}

/// The way to a new machine.
fn create() -> AnyView {
    let button = Button {
        to: "/vms/new".to_owned(),
        label: w().new_machine,
        class: "go",
        ..Button::default()
    };
    button::link(button, &may(Privilege::VmCreate, None))
}

fn table(rows: Rows<Vm>, data: RwSignal<Paged<Vm>>, filtered: Memo<bool>) -> AnyView {
    let none = Memo::new(move |_| rows.0.with(Vec::is_empty));
    let begin = move || {
        if filtered.get() {
            empty(
                w().no_machine_fits,
                view! { <a class="button" href="/vms">{w().show_all}</a> }.into_any(),
            )
        } else {
            empty(w().no_machines, create())
        }
    };
    view! {
        <section class="panel list" aria-label=w().machines>
            {move || none.get().then(begin)}
            <table hidden=move || none.get()>
                <thead>
                    <tr>
                        {table::select_all()}
                        {sort_link("/vms", "name", w().name, "")}
                        {sort_link("/vms", "state", w().state, "")}
                        {sort_link("/vms", "cpus", w().cpus, "num")}
                        {sort_link("/vms", "memoryMib", w().memory, "num")}
                        <th scope="col" class="num">{w().disk}</th>
                        <th scope="col">{w().up}</th>
                        {sort_link("/vms", "createTime", w().made, "")}
                        <th scope="col">
                            <span class="hidden">{w().more}</span>
                        </th>
                    </tr>
                </thead>
                <tbody>
                    <For each=move || rows.0.get() key=|row| row.0.clone() children=|row| piece(|| one(row))/>
                </tbody>
            </table>
            {bulk_bar(
                "vms",
                &[
                    ("start", w().start, Privilege::VmPower),
                    ("shutdown", w().shut_down, Privilege::VmPower),
                    ("pause", w().pause, Privilege::VmPower),
                    ("resume", w().resume, Privilege::VmPower),
                    ("snapshot", w().take_snapshot, Privilege::SnapshotCreate),
                ],
            )}
            {pager("/vms", data)}
        </section>
    }
    .into_any()
}

fn one((_, vm): Row<Vm>) -> AnyView {
    let name = vm.with_untracked(|v| v.name.to_string());
    let (menu_of, menu_vm, page) = (name.clone(), vm.clone(), format!("/vms/{name}"));
    view! {
        <tr>
            {table::select(&name)}
            {move || vm.with(cells)}
            <td class="more">
                {button::row_menu(menu_of, page, move || menu_vm.with(menu))}
            </td>
        </tr>
    }
    .into_any()
}

fn cells(vm: &Vm) -> AnyView {
    let href = format!("/vms/{}", vm.name);
    let disk: u64 = vm.guest_disks().map(|d| d.virtual_bytes).sum();
    let busy = vm.locked_by.as_ref().map(|lock| {
        let href = format!("/jobs/{}", lock.job);
        view! { <a class="sub" href=href>{crate::components::job::kind_word(lock.kind)}</a> }
    });
    let error = vm.error.as_ref().map(|e| e.message.clone());
    view! {
        <td class="head">
            <a href=href>{vm.name.to_string()}</a>
            {busy}
        </td>
        <td>
            <span title=error>{vm_pill(vm)}</span>
        </td>
        <td class="num" data-label=w().cpus>
            {vm.cpus}
        </td>
        <td class="num" data-label=w().memory>
            {format::mib(vm.memory_mib.into())}
        </td>
        <td class="num" data-label=w().disk>
            {format::bytes(disk)}
        </td>
        <td data-label=w().up>{took(vm.running_since, None)}</td>
        <td class="soft" data-label=w().made>
            {ago(vm.create_time)}
        </td>
    }
    .into_any()
}

/// What can be done with a machine, as far as it needs no more than a click.
fn menu(vm: &Vm) -> AnyView {
    let name = vm.name.to_string();
    let power = |action: PowerAction, to: &str, label| {
        let button = Button {
            to: format!("/do/vms/{name}/{to}"),
            label,
            back: "/vms".to_owned(),
            ..Button::default()
        };
        button::post(
            button,
            &may(Privilege::VmPower, Some(vm.id)).and_then(|()| can::can_power(action, vm)),
        )
    };
    let go = |to: &str, label, verdict| {
        let button = Button {
            to: format!("/vms/{name}{to}"),
            label,
            ..Button::default()
        };
        button::link(button, &verdict)
    };
    view! {
        {power(PowerAction::Start, "start", w().start)}
        {power(PowerAction::ShutDown, "shutdown", w().shut_down)}
        {power(PowerAction::Pause, "pause", w().pause)}
        {power(PowerAction::Resume, "resume", w().resume)}
        {go("?do=snapshot", w().snapshot_dots, may(Privilege::SnapshotCreate, Some(vm.id)).and_then(|()| can::can_snapshot(vm)))}
        {go("/clone", w().clone_dots, may(Privilege::CloneCreate, None).and_then(|()| can::can_clone_now(vm).or_else(|_| can::can_clone_latest(vm))))}
        {go("?do=delete", w().delete_dots, may(Privilege::VmDelete, Some(vm.id)).and_then(|()| can::can_delete(vm)))}
        {button::copy(vm.id.to_string(), w().copy_id)}
    }
    .into_any()
}
