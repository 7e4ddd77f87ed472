//! The frame around every page: the rail, the bar, what was just done.

use super::error;
use super::list::throttled;
use super::palette::{Keys, Palette};
use super::state::{Tone, pill};
use crate::backend::call;
use crate::env::{flash, may, may_somewhere};
use crate::feed::{Change, Link, feed, on_change};
use crate::format;
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_router::hooks::use_location;
use serde::{Deserialize, Serialize};
use shared::access::{Me, Privilege};
use shared::api::{GetMe, GetSummary, ListHosts, ListQuery, Summary};
use shared::feed::Noun;
use shared::place::{Accelerator, Host};
use std::cell::RefCell;
use std::collections::HashMap;

/// How often the counts are asked for at most, in milliseconds.
const COUNT: i32 = 500;

/// What the rail shows of the whole; what cannot be had is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Whole {
    summary: Option<Summary>,
    host: Option<Host>,
    me: Option<Me>,
}

/// The frame.
#[component]
pub fn Frame(children: Children) -> AnyView {
    let counts = RwSignal::new(0_u32);
    let count = throttled(COUNT, move || {
        counts.try_update(|n| *n += 1);
    });
    let seen = RefCell::new(HashMap::new());
    on_change(move |change| {
        if counts_differ(&mut seen.borrow_mut(), change) {
            count();
        }
    });
    let reloads = feed().reloads;
    let whole = Resource::new(
        move || (counts.get(), reloads.get()),
        |_| {
            let (summary, me) = (call(&GetSummary {}), call(&GetMe {}));
            let hosts = call(&ListHosts {
                query: ListQuery::default(),
            });
            async move {
                let (summary, hosts, me) = futures_util::join!(summary, hosts, me);
                Whole {
                    summary: summary.ok(),
                    host: hosts.ok().and_then(|p| p.hosts.into_iter().next()),
                    me: me.ok(),
                }
            }
        },
    );
    view! {
        <a class="skip" href="#main">
            {w().skip}
        </a>
        <div class="frame">
            <nav class="rail" aria-label=w().main_nav>
                <a class="brand" href="/">
                    {leaf()} "Offshoot"
                </a>
                {piece(move || counted(whole))}
            </nav>
            <main class="main" id="main">
                {piece(move || children().into_any())}
            </main>
        </div>
        {piece(|| Toast().into_any())}
        {piece(|| Palette().into_any())}
        {piece(|| Keys().into_any())}
    }
    .into_any()
}

fn counted(whole: Resource<Whole>) -> AnyView {
    view! {
        <Transition fallback=|| rail(Whole::default())>
            {move || Suspend::new(async move { rail(whole.await) })}
        </Transition>
    }
    .into_any()
}

/// Whether a change may have changed the counts: a thing came, went, or is in another state.
fn counts_differ(seen: &mut HashMap<String, &'static str>, change: &Change) -> bool {
    match change {
        Change::Vm(vm) => seen.insert(vm.id.to_string(), vm.state.word()) != Some(vm.state.word()),
        Change::Job(job) => seen.insert(job.id.to_string(), job.state.word()) != Some(job.state.word()),
        Change::Gone(noun, _) => matches!(noun, Noun::Vm | Noun::Job),
        Change::Snapshot(_) | Change::Other(_) => false,
    }
}

/// The mark of the house.
pub fn leaf() -> AnyView {
    view! {
        <svg class="leaf" viewBox="0 0 20 20" aria-hidden="true">
            <path d="M10 18V8M10 12C10 8 6.5 6.5 3 6.5 3 10 6 12 10 12Z M10 9c0-4 3-6 7-6 0 4-3 6-7 6Z"></path>
        </svg>
    }
    .into_any()
}

fn rail(whole: Whole) -> AnyView {
    let path = use_location().pathname;
    let entry = move |href: &'static str, label: &'static str, count: Option<String>| {
        let here = move || {
            path.with(|p| match href {
                "/" => p == "/",
                _ => p == href || p.strip_prefix(href).is_some_and(|rest| rest.starts_with('/')),
            })
        };
        view! {
            <a class="entry" href=href aria-current=move || here().then_some("page")>
                {label}
                <span class="count">{count}</span>
            </a>
        }
    };
    let summary = whole.summary.as_ref();
    let some = |n: u64| (n > 0).then(|| format::count(n));
    let vms = summary.map(|s| format::count(s.vms));
    let jobs = summary.and_then(|s| some(s.active_jobs));
    let simulated = summary.is_some_and(|s| s.simulated);
    view! {
        {entry("/", w().overview, None)}
        {entry("/vms", w().machines, vms)}
        {entry("/fork-points", w().fork_points, None)}
        {entry("/images", w().images, None)}
        {may_somewhere(Privilege::CopyRead).is_ok().then(|| entry("/copies", w().copies, None))}
        {may(Privilege::TargetRead, None).is_ok().then(|| entry("/targets", w().targets, None))}
        {may(Privilege::TargetRead, None).is_ok().then(|| entry("/policies", w().policies, None))}
        {may(Privilege::MigrationRead, None).is_ok().then(|| entry("/migrations", w().migration, None))}
        {entry("/networks", w().networks, None)}
        {entry("/storages", w().storages, None)}
        {entry("/hosts", w().hosts, None)}
        {entry("/jobs", w().jobs, jobs)}
        {may(Privilege::UserManage, None).is_ok().then(|| entry("/users", w().users, None))}
        {may(Privilege::NoticeManage, None).is_ok().then(|| entry("/notices", w().notices, None))}
        {may(Privilege::AuditRead, None).is_ok().then(|| entry("/audit", w().audit, None))}
        {entry("/settings", w().settings, None)}
        <div class="foot">
            <span role="status">{link_state}</span>
            {simulated.then(|| pill(Tone::Warn, w().simulated))}
            {whole.host.map(|h| host(&h))}
            {whole.me.map(|m| person(&m))}
        </div>
    }
    .into_any()
}

fn link_state() -> AnyView {
    match feed().link.get() {
        Link::Connecting => pill(Tone::Still, w().connecting),
        Link::Live => pill(Tone::Good, w().live_word),
        Link::Lost => pill(Tone::Warn, w().link_lost),
    }
}

fn host(host: &Host) -> AnyView {
    let kind = match host.accelerator {
        Accelerator::Kvm => format!("QEMU {} · KVM", host.qemu_version),
        Accelerator::Tcg => format!("QEMU {} · TCG", host.qemu_version),
        Accelerator::Sim => "sim".to_owned(),
    };
    let (used, whole) = format::bytes_of(host.memory_in_use_mib << 20, host.memory_mib << 20);
    view! {
        <span class="host">
            {format!("{} · {kind}", host.name)} <br/>
            {put(w().memory_in_use, &[&used, &whole])}
        </span>
    }
    .into_any()
}

fn person(me: &Me) -> AnyView {
    view! {
        <form method="post" action="/logout" class="person">
            <span>{me.user.name.to_string()}</span>
            <button class="quiet">{w().sign_out}</button>
        </form>
    }
    .into_any()
}

/// The bar above a page: where it is, and the way to everything else. `trail` has what is above the page.
pub fn bar(trail: Vec<(String, String)>, here: String) -> AnyView {
    let trail: Vec<_> = trail
        .into_iter()
        .map(|(href, label)| view! { <a href=href>{label}</a> <span aria-hidden="true">" / "</span> })
        .collect();
    view! {
        <div class="bar">
            <nav class="crumbs" aria-label=w().breadcrumb>
                {trail}
                <span aria-current="page">{here}</span>
            </nav>
            <button type="button" class="find" data-opens="palette">
                <span>{w().search}</span>
                <kbd aria-hidden="true">{w().ctrl_k}</kbd>
            </button>
        </div>
    }
    .into_any()
}

/// What was just done, or went wrong where no form shows it.
#[component]
fn Toast() -> AnyView {
    let flash = flash();
    #[cfg(feature = "hydrate")]
    Effect::new(move |_| {
        let said = flash.with(|f| f.as_ref().filter(|f| f.error.is_none()).cloned());
        if said.as_ref().is_some_and(|f| f.secret.is_none()) {
            crate::live::browser::later(8_000, move || {
                if flash.with_untracked(|now| *now == said) {
                    flash.set(None);
                }
            });
        }
    });
    let shown = move || {
        let flash = flash.get().filter(|f| !f.inline || f.error.is_none())?;
        if let Some(error) = &flash.error {
            return Some(
                view! { <div class="toast bad">{error::explain(error)} {dismiss()}</div> }.into_any(),
            );
        }
        if flash.text.is_empty() {
            return None;
        }
        let job = flash.job.filter(|_| !flash.action.starts_with("/do/tokens/"));
        let see = job.map(|id| view! { <a href=format!("/jobs/{id}")>{w().see_job}</a> });
        Some(view! { <div class="toast"><span>{flash.text}</span> {see} {dismiss()}</div> }.into_any())
    };
    view! { <div class="toasts" role="status">{shown}</div> }.into_any()
}

fn dismiss() -> AnyView {
    let flash = flash();
    view! {
        <button type="button" class="quiet dismiss" aria-label=w().dismiss on:click=move |_| flash.set(None)>
            <svg viewBox="0 0 10 10" aria-hidden="true" class="shape">
                <path d="M1.5 1.5l7 7m0-7l-7 7"></path>
            </svg>
        </button>
    }
    .into_any()
}
