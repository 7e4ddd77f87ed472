//! One copy: what it is, whether it boots, and what can be done with it.

use super::{HERE, dialogs};
use crate::components::button::{self, Button};
use crate::components::copies::{boot_sign, facts, marks, size};
use crate::components::frame::bar;
use crate::components::list::throttled;
use crate::components::load::{Bodies, all, body, load};
use crate::components::time::ago;
use crate::components::tree::consistency;
use crate::env::{flash, may};
use crate::feed::{Change, on_change};
use crate::format;
use crate::hydration::piece;
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{
    Call, GetCopy, ListNetworks, ListQuery, ListStorages, ListVms, MAX_PAGE_SIZE, NetworkPage, StoragePage,
    VmPage,
};
use shared::can::{self, Verdict};
use shared::copy::Copy;
use shared::feed::Noun;
use shared::vm::Vm;

/// A copy, and what it can be brought back to.
#[derive(Clone)]
pub struct Data {
    pub copy: Copy,
    /// Machines that are off.
    pub vms: Vec<Vm>,
    pub storages: Vec<String>,
    pub networks: Vec<String>,
    /// Whether it was removed while we looked.
    pub gone: bool,
}

pub fn page() -> AnyView {
    let (id, looks) = (param("copy"), RwSignal::new(0_u32));
    // The switch of this page changes what the page shows, also where there is no feed.
    let flash = flash();
    Effect::new(move |_| {
        if flash.with(|f| f.as_ref().is_some_and(|f| f.error.is_none())) {
            looks.update(|n| *n += 1);
        }
    });
    let page = move || {
        let id = id.get();
        let short = id.get(..8).unwrap_or(&id).to_owned();
        view! {
            {bar(vec![(HERE.to_owned(), w().copies.to_owned())], short)}
            {load(
                move || looks.get().to_string(),
                move |_| {
                    let off = |state: &str| ListQuery {
                        page_size: Some(MAX_PAGE_SIZE),
                        filter: Some(format!("state={state}")),
                        ..ListQuery::default()
                    };
                    all([
                        GetCopy { copy: id.clone() }.raw(),
                        ListVms { query: off("STOPPED") }.raw(),
                        ListVms { query: off("ERROR") }.raw(),
                        ListStorages { query: ListQuery::default() }.raw(),
                        ListNetworks { query: ListQuery::default() }.raw(),
                    ])
                },
                read,
                |old, new| *old = new,
                move |data| shown(data, looks),
            )}
        }
    };
    page.into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let mut vms = body::<VmPage>(bodies, 1)?.vms;
    vms.extend(body::<VmPage>(bodies, 2)?.vms);
    let storages = body::<StoragePage>(bodies, 3)?.storages;
    let networks = body::<NetworkPage>(bodies, 4)?.networks;
    Ok(Data {
        copy: body(bodies, 0)?,
        vms,
        storages: storages.iter().map(|s| s.name.to_string()).collect(),
        networks: networks.iter().map(|n| n.name.to_string()).collect(),
        gone: false,
    })
}

fn follow(data: RwSignal<Data>, looks: RwSignal<u32>) {
    let id = data.with_untracked(|d| d.copy.id.to_string());
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| match change {
        Change::Gone(Noun::Copy, gone) if gone.id == id => data.update(|d| d.gone = true),
        Change::Other(Noun::Copy) => look(),
        _ => {}
    });
}

fn shown(data: RwSignal<Data>, looks: RwSignal<u32>) -> AnyView {
    follow(data, looks);
    let copy = Memo::new(move |_| data.with(|d| d.copy.clone()));
    let title = copy.with_untracked(|c| put(w().copy_of, &[c.vm_name.as_str()]));
    let gone = Memo::new(move |_| data.with(|d| d.gone));
    view! {
        <Title text=title.clone()/>
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
            <span role="status">{move || copy.with(boot_sign)}</span>
            <span>{move || copy.with(marks)}</span>
            <div class="actions">{piece(move || (move || copy.with(actions)).into_any())}</div>
        </div>
        {move || gone.get().then(|| view! { <div class="alert" role="alert">{w().copy_gone}</div> })}
        {move || copy.with(damage)}
        <div class="cols">
            <div class="stack">
                {move || copy.with(proof)}
                <section class="panel" aria-labelledby="disks-title">
                    <header>
                        <h2 id="disks-title">{w().copy_disks}</h2>
                    </header>
                    {move || copy.with(disks)}
                </section>
                <section class="panel" aria-labelledby="moved-title">
                    <header>
                        <h2 id="moved-title">{w().copy_moved}</h2>
                    </header>
                    <div class="in">{move || copy.with(moved)}</div>
                </section>
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="copy-title">
                    <header>
                        <h2 id="copy-title">{w().copy_word}</h2>
                        {move || copy.with(|c| button::copy(c.id.to_string(), w().copy_id))}
                    </header>
                    <div class="in">{move || copy.with(about)}</div>
                </section>
                <section class="panel" aria-labelledby="hold-title">
                    <header>
                        <h2 id="hold-title">{w().legal_hold}</h2>
                        {move || copy.with(hold)}
                    </header>
                    <div class="in soft">
                        {move || if copy.with(|c| c.legal_hold) { w().held_now } else { w().held_not }}
                    </div>
                </section>
            </div>
        </div>
        {piece(move || dialogs::restore(data))}
        {piece(move || dialogs::boot(copy))}
        {piece(move || dialogs::delete(copy))}
    }
    .into_any()
}

fn actions(copy: &Copy) -> AnyView {
    let at = |rest: &str| format!("{HERE}/{}{rest}", copy.id);
    let go = |to, label, class, verdict: Verdict| {
        let button = Button {
            to,
            label,
            class,
            ..Button::default()
        };
        button::link(button, &verdict)
    };
    let may = |privilege| may(privilege, Some(copy.vm));
    view! {
        {go(at("?do=boot"), w().boot_dots, "", may(Privilege::CopyCreate))}
        {go(at("/files"), w().browse_files, "", may(Privilege::CopyRestore))}
        {go(at("?do=restore"), w().restore_dots, "go", may(Privilege::CopyRestore))}
        {go(
            at("?do=delete"),
            w().delete_dots,
            "danger",
            may(Privilege::CopyDelete).and_then(|()| can::can_delete_copy(copy)),
        )}
    }
    .into_any()
}

/// What is wrong with it.
fn damage(copy: &Copy) -> Option<AnyView> {
    if copy.damage.is_empty() {
        return None;
    }
    let lines: Vec<_> = copy
        .damage
        .iter()
        .map(|line| view! { <li>{line.clone()}</li> })
        .collect();
    Some(
        view! {
            <div class="alert" role="alert">
                <p>
                    <b>{w().copy_hurt}</b>
                </p>
                <ul class="plain">{lines}</ul>
            </div>
        }
        .into_any(),
    )
}

/// How it booted, with the guest's screen.
fn proof(copy: &Copy) -> Option<AnyView> {
    let booted = copy.booted.as_ref()?;
    let picture = booted.screen.then(|| {
        let src = format!("/api/v1/jobs/{}/screen", booted.job);
        view! {
            <div class="screen kept">
                <img src=src alt=put(w().screen_of, &[copy.vm_name.as_str()])/>
            </div>
        }
    });
    let matched = booted.proof.matched.clone();
    let matched = matched.map(|line| view! { <code class="line">{line}</code> });
    let error = booted.error.clone().map(|why| view! { <p>{why}</p> });
    Some(
        view! {
            <section class="panel" aria-labelledby="proof-title">
                <header>
                    <h2 id="proof-title">{w().proof}</h2>
                    <a href=format!("/jobs/{}", booted.job)>{w().see_job}</a>
                </header>
                {picture}
                <div class="in">
                    <p>{boot_sign(copy)}</p>
                    {error}
                    {matched}
                </div>
            </section>
        }
        .into_any(),
    )
}

fn disks(copy: &Copy) -> AnyView {
    let rows: Vec<_> = copy
        .disks
        .iter()
        .map(|disk| {
            let name = if disk.slot > 0 {
                put(w().disk_number, &[&disk.number.to_string()])
            } else {
                w().firmware.to_owned()
            };
            view! {
                <li>
                    <span class="what">{name}</span>
                    <span>{format::bytes(disk.bytes)}</span>
                </li>
            }
        })
        .collect();
    view! { <ul class="short">{rows}</ul> }.into_any()
}

/// What was moved to make it.
fn moved(copy: &Copy) -> AnyView {
    let figures = copy.figures;
    let bytes = |n: u64| format::bytes(n).into_any();
    let how = if copy.incremental {
        w().copy_incremental
    } else {
        w().copy_full
    };
    facts(vec![
        (w().copy_how, how.into_any()),
        (w().copy_size, bytes(figures.logical_bytes)),
        (w().copy_read, bytes(figures.read_bytes)),
        (w().copy_stored, bytes(figures.stored_bytes)),
        (w().saved_by_dedupe, bytes(figures.saved_by_dedupe())),
        (w().saved_by_compression, bytes(figures.saved_by_compression())),
    ])
}

fn about(copy: &Copy) -> AnyView {
    let target = copy.target_name.to_string();
    let (consistent, why) = consistency(copy.consistency);
    let mut rows: Vec<(&'static str, AnyView)> = vec![
        (
            w().machine,
            view! { <a href=format!("/vms/{}", copy.vm)>{copy.vm_name.to_string()}</a> }.into_any(),
        ),
        (w().snapshot, copy.snapshot_name.to_string().into_any()),
        (w().copy_moment, ago(copy.snapshot_time)),
        (
            w().copy_target,
            view! { <a href=format!("/targets/{target}")>{target.clone()}</a> }.into_any(),
        ),
        (w().copy_made, ago(copy.create_time)),
        (
            w().file_systems,
            view! { {consistent} <span class="sub">{why}</span> }.into_any(),
        ),
        (w().copy_size, format::bytes(size(copy)).into_any()),
        (w().cpus, copy.machine.cpus.into_any()),
        (w().memory, format::mib(copy.machine.memory_mib.into()).into_any()),
        (w().firmware, copy.machine.firmware.word().into_any()),
    ];
    for (key, value) in &copy.machine.labels {
        let tag = view! { <span class="tag">{format!("{key}={value}")}</span> };
        rows.push((w().label, tag.into_any()));
    }
    if let Some(job) = copy.job {
        let link = view! { <a href=format!("/jobs/{job}")>{w().see_job}</a> };
        rows.push((w().job, link.into_any()));
    }
    facts(rows)
}

/// The switch of the legal hold.
fn hold(copy: &Copy) -> AnyView {
    let (action, label) = if copy.legal_hold {
        ("release", w().take_hold_back)
    } else {
        ("hold", w().put_on_hold)
    };
    let button = Button {
        to: format!("/do/copies/{}/{action}", copy.id),
        label,
        class: "quiet",
        back: format!("{HERE}/{}", copy.id),
        ..Button::default()
    };
    button::post(button, &may(Privilege::CopyDelete, Some(copy.vm)))
}
