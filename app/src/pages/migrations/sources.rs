//! One source: what it has, and what is carried over from it.

use super::{HERE, SOURCES, begin, looks, may_manage, place};
use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, pill};
use crate::format;
use crate::hydration::piece;
use crate::pages::{empty, param};
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{Call, GetInventory, GetSource};
use shared::can::Verdict;
use shared::feed::Noun;
use shared::migrate::{Inventory, Source, SourceVm};

#[derive(Clone)]
struct Data {
    source: Source,
    inventory: Inventory,
}

pub fn page() -> AnyView {
    // What a source has may be machines of this server; into a directory nobody looks until the page is opened.
    let looks = looks(|change| matches!(change.noun(), Noun::Source | Noun::MigratingVm | Noun::Vm));
    let name = param("source");
    let page = move || {
        let name = name.get();
        view! {
            {bar(vec![(HERE.to_owned(), w().migration.to_owned())], name.clone())}
            {load(
                move || looks.get().to_string(),
                move |_| {
                    let source = || name.clone();
                    all([GetSource { source: source() }.raw(), GetInventory { source: source() }.raw()])
                },
                read,
                |old, new| *old = new,
                shown,
            )}
        }
    };
    page.into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        source: body(bodies, 0)?,
        inventory: body(bodies, 1)?,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let source = Memo::new(move |_| data.with(|d| d.source.clone()));
    let inventory = Memo::new(move |_| data.with(|d| d.inventory.clone()));
    let name = source.with_untracked(|s| s.name.to_string());
    let rows = {
        let name = name.clone();
        move || inventory.with(|all| table(all, &name))
    };
    let about = move || {
        source.with(|s| {
            let carries = put(w().source_carries, &[&format::count(s.migrating_vms)]);
            format!("{} · {carries}", place(&s.place))
        })
    };
    view! {
        <Title text=name.clone()/>
        <div class="title">
            <h1 tabindex="-1">{name}</h1>
            <span class="faint">{about}</span>
            <div class="actions">{piece(move || (move || source.with(actions)).into_any())}</div>
        </div>
        <section class="panel list" aria-labelledby="inventory-title">
            <header>
                <h2 id="inventory-title">{w().inventory}</h2>
            </header>
            {rows}
        </section>
    }
    .into_any()
}

fn actions(source: &Source) -> AnyView {
    let remove = Button {
        to: format!("/do/sources/{}/remove", source.name),
        label: w().remove_source,
        class: "danger",
        back: format!("{SOURCES}/{}", source.name),
        ..Button::default()
    };
    button::post(remove, &may_remove(source))
}

/// Whether it may be removed: nothing is carried over from it.
fn may_remove(source: &Source) -> Verdict {
    may_manage()?;
    match source.migrating_vms {
        0 => Ok(()),
        n => Err(Status::precondition(put(w().source_in_use, &[&format::count(n)]))),
    }
}

fn table(inventory: &Inventory, source: &str) -> AnyView {
    if inventory.vms.is_empty() {
        return empty(w().inventory_empty, ().into_any());
    }
    let rows: Vec<_> = inventory.vms.iter().map(|vm| row(vm, source)).collect();
    view! {
        <table>
            <thead>
                <tr>
                    <th scope="col">{w().machine}</th>
                    <th scope="col">{w().state}</th>
                    <th scope="col" class="num">{w().cpus}</th>
                    <th scope="col" class="num">{w().memory}</th>
                    <th scope="col">{w().firmware}</th>
                    <th scope="col" class="num">{w().copy_disks}</th>
                    <th scope="col">{w().migration}</th>
                </tr>
            </thead>
            <tbody>{rows}</tbody>
        </table>
    }
    .into_any()
}

fn row(vm: &SourceVm, source: &str) -> AnyView {
    let runs = match vm.running {
        Some(true) => Some(pill(Tone::Good, w().running)),
        Some(false) => Some(pill(Tone::Still, w().stopped)),
        None => None,
    };
    let disks = format!(
        "{} · {}",
        vm.disk_bytes.len(),
        format::bytes(vm.disk_bytes.iter().sum())
    );
    let carried = match vm.migrating_vm {
        Some(id) => view! { <a href=format!("{HERE}/{id}")>{w().is_carried_over}</a> }.into_any(),
        None => {
            let button = Button {
                to: begin(source, &vm.id),
                label: w().carry_over_dots,
                ..Button::default()
            };
            let refused = |why: &String| Err(Status::precondition(why.clone()));
            let may = may_manage().and_then(|()| vm.refusal.as_ref().map_or(Ok(()), refused));
            button::link(button, &may)
        }
    };
    view! {
        <tr>
            <td class="head wrap">
                {vm.name.clone()}
                {vm.os.clone().map(|os| view! { <span class="sub">{os}</span> })}
                {vm.refusal.clone().map(|why| view! { <span class="sub wrong">{why}</span> })}
            </td>
            <td data-label=w().state>{runs}</td>
            <td class="num" data-label=w().cpus>
                {vm.cpus.map(|n| n.to_string())}
            </td>
            <td class="num" data-label=w().memory>
                {vm.memory_mib.map(|n| format::mib(n.into()))}
            </td>
            <td data-label=w().firmware>{vm.firmware.map(|f| f.word())}</td>
            <td class="num" data-label=w().copy_disks>
                {disks}
            </td>
            <td data-label=w().migration>{carried}</td>
        </tr>
    }
    .into_any()
}
