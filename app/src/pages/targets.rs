//! Targets: the places that copies go to.

mod dialogs;
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
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, ListQuery, ListTargets, MAX_PAGE_SIZE, TargetPage};
use shared::can::Verdict;
use shared::feed::Noun;
use shared::target::{Target, TargetKind};

pub const HERE: &str = "/targets";

/// Counts up when what is shown of targets may be another: by the feed, or by a form of the page.
fn looks() -> RwSignal<u32> {
    let looks = RwSignal::new(0_u32);
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if matches!(change.noun(), Noun::Target | Noun::Copy) {
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

/// Whether the person may change targets.
fn may_manage() -> Verdict {
    may(Privilege::TargetManage, None)
}

pub fn page() -> AnyView {
    let looks = looks();
    view! {
        <Title text=w().targets/>
        {bar(Vec::new(), w().targets.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().targets}</h1>
            <div class="actions">{add()}</div>
        </div>
        <p class="soft">{w().targets_lead}</p>
        {load(
            move || looks.get().to_string(),
            move |_| {
                let query = ListQuery {
                    page_size: Some(MAX_PAGE_SIZE),
                    ..ListQuery::default()
                };
                all([ListTargets { query }.raw()])
            },
            read,
            |old, new| *old = new,
            shown,
        )}
        {piece(dialogs::add)}
    }
    .into_any()
}

fn add() -> AnyView {
    let button = Button {
        to: format!("{HERE}?do=add"),
        label: w().add_target_dots,
        class: "go",
        ..Button::default()
    };
    button::link(button, &may_manage())
}

fn read(bodies: &Bodies) -> Result<Vec<Target>, Status> {
    Ok(body::<TargetPage>(bodies, 0)?.targets)
}

fn shown(data: RwSignal<Vec<Target>>) -> AnyView {
    let rows = move || {
        data.with(|all| {
            if all.is_empty() {
                return empty(w().no_targets, add());
            }
            let rows: Vec<_> = all.iter().map(row).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    view! {
        <section class="panel list" aria-label=w().targets>
            {rows}
        </section>
    }
    .into_any()
}

fn kind(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Local => w().target_local,
        TargetKind::S3 => w().target_s3,
        TargetKind::Remote => w().target_remote,
    }
}

/// Whether it can be reached.
fn reach(target: &Target) -> AnyView {
    match &target.away {
        None => pill(Tone::Good, w().target_here),
        Some(_) => pill(Tone::Warn, w().out_of_reach),
    }
}

/// Why it cannot be reached, and since when.
fn away(target: &Target) -> Option<AnyView> {
    let why = target.away.clone()?;
    let since = target
        .away_since
        .map(|t| view! { " · " {w().away_since} " " {ago(t)} });
    Some(view! { <span class="sub">{why} {since}</span> }.into_any())
}

/// How the last look at all of it has ended.
fn checked(target: &Target) -> AnyView {
    let Some(checked) = &target.checked else {
        return pill(Tone::Still, w().never_verified);
    };
    let part =
        (checked.percent < 100).then(|| format!(" · {}", put(w().a_sample, &[&checked.percent.to_string()])));
    let mark = if checked.damaged == 0 {
        pill(Tone::Good, w().verified_whole)
    } else {
        let (objects, copies) = (format::count(checked.damaged), format::count(checked.hurt_copies));
        pill(Tone::Bad, put(w().verified_damaged, &[&objects, &copies]))
    };
    view! {
        {mark} " "
        <span class="soft">
            <a href=format!("/jobs/{}", checked.job)>{w().verified_at} " " {ago(checked.time)}</a> {part}
        </span>
    }
    .into_any()
}

/// What it holds, and what goes there at once.
fn holds(target: &Target) -> String {
    let rate = match target.bytes_per_second {
        Some(bytes) => put(w().most_per_second, &[&format::bytes(bytes)]),
        None => w().no_rate_limit.to_owned(),
    };
    [
        put(w().copies_there, &[&format::count(target.copies)]),
        put(w().stored_there, &[&format::bytes(target.stored_bytes)]),
        put(w().at_once_most, &[&target.at_once.to_string()]),
        rate,
    ]
    .join(" · ")
}

fn row(target: &Target) -> AnyView {
    let name = target.name.to_string();
    let check = Button {
        to: format!("/do/targets/{name}/check"),
        label: w().check_again,
        class: "quiet",
        back: HERE.to_owned(),
        of: name.clone(),
        ..Button::default()
    };
    view! {
        <li>
            <span class="what">
                <a href=format!("{HERE}/{name}")>
                    <b>{name.clone()}</b>
                </a>
                " " {reach(target)}
                <span class="sub">{kind(target.kind)} " · " <code>{target.place.line()}</code></span>
                {away(target)}
                <span class="sub">{holds(target)}</span>
                <span class="sub">{checked(target)}</span>
            </span>
            {button::post(check, &may_manage())}
        </li>
    }
    .into_any()
}
