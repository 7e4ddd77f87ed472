//! The instants of a machine that are kept, and what the memory of its family costs.

use super::data::Data;
#[cfg(feature = "hydrate")]
use super::data::forks;
use crate::components::fork_point;
#[cfg(feature = "hydrate")]
use crate::components::load::{all, body};
use crate::feed::on_change;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::VmId;
use shared::api::FamilyMember;
#[cfg(feature = "hydrate")]
use shared::api::{Family, ForkPointPage};
use shared::feed::Noun;

/// How often the memory is looked at, in milliseconds.
#[cfg(feature = "hydrate")]
const LOOK: i32 = 3_000;

/// Keeps both fresh: fork points when the feed tells of one, the memory from time to time.
#[cfg_attr(not(feature = "hydrate"), allow(unused_variables))]
pub fn follow(data: RwSignal<Data>) {
    let looks = RwSignal::new(0_u32);
    on_change(move |change| {
        if change.noun() == Noun::ForkPoint {
            looks.update(|n| *n += 1);
        }
    });
    #[cfg(feature = "hydrate")]
    {
        Effect::new(move |before: Option<()>| {
            looks.track();
            if before.is_some() {
                look(data);
            }
        });
        Effect::new(move |_| again(looks));
    }
}

#[cfg(feature = "hydrate")]
fn again(looks: RwSignal<u32>) {
    crate::live::browser::later(LOOK, move || {
        // Disposed when the page is left.
        if looks.try_update(|n| *n += 1).is_some() {
            again(looks);
        }
    });
}

#[cfg(feature = "hydrate")]
fn look(data: RwSignal<Data>) {
    // A tab that nobody sees need not know, and of a machine that is gone there is nothing to know.
    if crate::live::browser::hidden() || data.with_untracked(|d| d.gone) {
        return;
    }
    let loading = all(forks(data.with_untracked(|d| d.vm.id)));
    wasm_bindgen_futures::spawn_local(async move {
        // What was good stays while the server is away.
        let Ok(bodies) = loading.await else { return };
        let (Ok(points), Ok(family)) = (body::<ForkPointPage>(&bodies, 0), body::<Family>(&bodies, 1)) else {
            return;
        };
        let same = data.try_with_untracked(|d| d.points == points.fork_points && d.family == family);
        if same == Some(false) {
            data.try_update(|d| (d.points, d.family) = (points.fork_points, family));
        }
    });
}

/// Its fork points; nothing while there is none.
pub fn points(data: &Data) -> Option<AnyView> {
    if data.points.is_empty() {
        return None;
    }
    let back = format!("/vms/{}", data.vm.name);
    let rows: Vec<_> = data
        .points
        .iter()
        .map(|p| fork_point::row(p, &back, None))
        .collect();
    Some(
        view! {
            <section class="panel" aria-labelledby="points-title">
                <header>
                    <h2 id="points-title">{w().fork_points}</h2>
                </header>
                <ul class="short">{rows}</ul>
            </section>
        }
        .into_any(),
    )
}

/// What the memory of the machine and of those forked with it and from it costs; nothing for one that is alone.
pub fn family(data: &Data) -> Option<AnyView> {
    let (family, me) = (&data.family, data.vm.id);
    if family.members.len() < 2 {
        return None;
    }
    let rows: Vec<_> = family.members.iter().map(|m| bar(m, me)).collect();
    let frozen = family
        .frozen_bytes
        .map(|bytes| view! { <p class="soft">{put(w().family_frozen, &[&format::bytes(bytes)])}</p> });
    Some(
        view! {
            <section class="panel" aria-labelledby="family-title">
                <header>
                    <h2 id="family-title">{w().family}</h2>
                </header>
                <div class="in">
                    <p class="soft">{w().family_about}</p>
                    {frozen}
                    <ul class="family">{rows}</ul>
                </div>
            </section>
        }
        .into_any(),
    )
}

fn bar(member: &FamilyMember, me: VmId) -> AnyView {
    let all = u64::from(member.memory_mib) << 20;
    let memory = member.memory.unwrap_or_default();
    let part = |bytes: u64| {
        let hundredths = u128::from(bytes) * 10_000 / u128::from(all.max(1));
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    };
    let (own, shared) = (memory.private_bytes, memory.shared_bytes);
    let text = match member.memory {
        Some(_) => format!(
            "{} {} · {} {}",
            format::bytes(own),
            w().own_memory,
            format::bytes(shared),
            w().shared_memory
        ),
        None => w().stopped.to_owned(),
    };
    let name = member.name.to_string();
    let name = if member.vm == me {
        view! { <b>{name}</b> }.into_any()
    } else {
        view! { <a href=format!("/vms/{}", member.vm)>{name}</a> }.into_any()
    };
    view! {
        <li>
            <span class="who">{name} <span class="soft">{text}</span></span>
            <svg class="memory" aria-hidden="true" preserveAspectRatio="none">
                <rect class="all" width="100%" height="100%"></rect>
                <rect class="shared" width=part(own + shared) height="100%"></rect>
                <rect class="own" width=part(own) height="100%"></rect>
            </svg>
        </li>
    }
    .into_any()
}
