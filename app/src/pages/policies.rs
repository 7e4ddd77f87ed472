//! Policies: when copies are made, of which machines, where they go, and which are kept.

pub mod edit;
pub mod one;

use super::empty;
use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::list::throttled;
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, pill};
use crate::components::time::ago;
use crate::env::{flash, may};
use crate::feed::on_change;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, ListPolicies, ListQuery, MAX_PAGE_SIZE, PolicyPage};
use shared::can::Verdict;
use shared::feed::Noun;
use shared::policy::retain::Retention;
use shared::policy::{Policy, Window};

pub const HERE: &str = "/policies";

/// Whether the person may change policies.
fn may_manage() -> Verdict {
    may(Privilege::TargetManage, None)
}

/// Counts up when what is shown of policies may be another: by the feed, or by a form of the page.
fn looks(also: Option<Noun>) -> RwSignal<u32> {
    let looks = RwSignal::new(0_u32);
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if change.noun() == Noun::Policy || Some(change.noun()) == also {
            look();
        }
    });
    let flash = flash();
    Effect::new(move |_| {
        if flash.with(|f| f.as_ref().is_some_and(|f| f.error.is_none())) {
            looks.update(|n| *n += 1);
        }
    });
    looks
}

pub fn page() -> AnyView {
    let looks = looks(None);
    view! {
        <Title text=w().policies/>
        {bar(Vec::new(), w().policies.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().policies}</h1>
            <div class="actions">{add()}</div>
        </div>
        <p class="soft">{w().policies_lead}</p>
        {load(
            move || looks.get().to_string(),
            move |_| {
                let query = ListQuery {
                    page_size: Some(MAX_PAGE_SIZE),
                    ..ListQuery::default()
                };
                all([ListPolicies { query }.raw()])
            },
            read,
            |old, new| *old = new,
            shown,
        )}
    }
    .into_any()
}

fn add() -> AnyView {
    let button = Button {
        to: format!("{HERE}/new"),
        label: w().new_policy,
        class: "go",
        ..Button::default()
    };
    button::link(button, &may_manage())
}

fn read(bodies: &Bodies) -> Result<Vec<Policy>, Status> {
    Ok(body::<PolicyPage>(bodies, 0)?.policies)
}

fn shown(data: RwSignal<Vec<Policy>>) -> AnyView {
    let rows = move || {
        data.with(|all| {
            if all.is_empty() {
                return empty(w().no_policies, add());
            }
            let rows: Vec<_> = all.iter().map(row).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    view! {
        <section class="panel list" aria-label=w().policies>
            {rows}
        </section>
    }
    .into_any()
}

/// Whether it is at work.
fn state(policy: &Policy) -> AnyView {
    if policy.enabled {
        pill(Tone::Good, w().policy_on)
    } else {
        pill(Tone::Still, w().switched_off)
    }
}

/// When copies are made.
fn schedule(policy: &Policy) -> String {
    match &policy.schedule {
        Some(schedule) => format!("{} · {}", schedule.cron, schedule.time_zone),
        None => w().only_by_hand.to_owned(),
    }
}

/// Which machines.
fn machines(policy: &Policy) -> String {
    let named =
        (!policy.vms.is_empty()).then(|| put(w().machines_named, &[&format::count(policy.vms.len() as u64)]));
    let label = policy.label.clone();
    named.into_iter().chain(label).collect::<Vec<_>>().join(" · ")
}

/// Which copies are kept.
fn kept(rules: &Retention) -> String {
    let all: Vec<String> = numbers(rules)
        .into_iter()
        .filter_map(|(_, label, n)| Some(format!("{label}: {}", n?)))
        .collect();
    if rules.keeps_all() {
        return w().keeps_all.to_owned();
    }
    all.join(" · ")
}

/// The numbers of a retention: the field of each, and its words.
fn numbers(rules: &Retention) -> [(&'static str, &'static str, Option<u32>); 7] {
    [
        ("retention.keepLast", w().keep_last, rules.keep_last),
        ("retention.hourly", w().keep_hourly, rules.hourly),
        ("retention.daily", w().keep_daily, rules.daily),
        ("retention.weekly", w().keep_weekly, rules.weekly),
        ("retention.monthly", w().keep_monthly, rules.monthly),
        ("retention.yearly", w().keep_yearly, rules.yearly),
        (
            "retention.minimumAgeHours",
            w().keep_minimum_age,
            rules.minimum_age_hours,
        ),
    ]
}

/// A window as it is typed: days, and from when to when.
fn window_line(window: &Window) -> String {
    let days = window.days.iter().map(|d| d.word().get(..3).unwrap_or_default());
    let hours = format!("{}-{}", window.from, window.to);
    let all: Vec<&str> = days.chain([hours.as_str()]).collect();
    all.join(" ")
}

fn row(policy: &Policy) -> AnyView {
    let name = policy.name.to_string();
    let targets: Vec<_> = policy.targets.iter().map(ToString::to_string).collect();
    let next = policy.next_time.filter(|_| policy.enabled);
    let next = next.map(|t| view! { <span class="sub">{w().next_copy} " " {ago_or_when(t)}</span> });
    view! {
        <li>
            <span class="what">
                <a href=format!("{HERE}/{name}")>
                    <b>{name.clone()}</b>
                </a>
                " " {state(policy)}
                <span class="sub">{schedule(policy)}</span>
                <span class="sub">{machines(policy)} " → " {targets.join(", ")}</span>
                <span class="sub">{kept(&policy.retention)}</span>
                {next}
            </span>
        </li>
    }
    .into_any()
}

/// A moment to come, as it stands on the person's clock.
fn ago_or_when(t: shared::Timestamp) -> AnyView {
    let clock = crate::env::clock();
    if t <= clock.now.get_untracked() {
        return ago(t);
    }
    view! { <time datetime=t.to_string()>{move || format::absolute(t, clock.zone.get())}</time> }.into_any()
}
