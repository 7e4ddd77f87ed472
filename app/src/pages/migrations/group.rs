//! A group of machines that are carried over: its waves, and what is asked of all of them at once.

use super::{GROUPS, HERE, from_to, looks, may_manage, so_far, state, trouble};
use crate::components::button::{self, Button};
use crate::components::copies::facts;
use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, pill};
use crate::components::time::ago;
use crate::env::may;
use crate::hydration::piece;
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, GetGroup, ListMigratingVms, ListQuery, MAX_PAGE_SIZE, MigratingVmPage};
use shared::can::{Verdict, limit};
use shared::feed::Noun;
use shared::migrate::MigratingVm;
use shared::migrate::groups::{CutOverGroup, Group, GroupVerb};

#[derive(Clone)]
struct Data {
    group: Group,
    vms: Vec<MigratingVm>,
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        group: body(bodies, 0)?,
        vms: body::<MigratingVmPage>(bodies, 1)?.migrating_vms,
    })
}

pub fn page() -> AnyView {
    let name = param("group");
    let looks = looks(|change| matches!(change.noun(), Noun::MigratingVm | Noun::Job));
    let page = move || {
        let name = name.get();
        view! {
            {bar(vec![(HERE.to_owned(), w().migration.to_owned())], name.clone())}
            {load(
                move || looks.get().to_string(),
                move |_| {
                    let query = ListQuery {
                        filter: Some(format!("group={name}")),
                        page_size: Some(MAX_PAGE_SIZE),
                        ..ListQuery::default()
                    };
                    all([GetGroup { group: name.clone() }.raw(), ListMigratingVms { query }.raw()])
                },
                read,
                |old, new| *old = new,
                shown,
            )}
        }
    };
    page.into_any()
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let group = Memo::new(move |_| data.with(|d| d.group.clone()));
    let name = group.with_untracked(|g| g.name.to_string());
    let cut_over = {
        let name = name.clone();
        move || {
            let button = Button {
                to: format!("{GROUPS}/{name}?do=cutover"),
                label: w().group_cut_over_dots,
                class: "danger",
                ..Button::default()
            };
            button::link(button, &may_cut_over())
        }
    };
    view! {
        <Title text=name.clone()/>
        <div class="title">
            <h1 tabindex="-1">{name.clone()}</h1>
            <div class="actions">{piece(move || cut_over().into_any())}</div>
        </div>
        <section class="panel" aria-labelledby="progress-title">
            <header>
                <h2 id="progress-title">{w().group}</h2>
            </header>
            <div class="in">
                {move || group.with(progress)} {act(&name, group)}
            </div>
        </section>
        {move || data.with(waves)}
        {piece(move || dialog_of(group))}
    }
    .into_any()
}

fn may_cut_over() -> Verdict {
    may_manage()?;
    may(Privilege::VmCreate, None)?;
    may(Privilege::VmPower, None)
}

/// How far all of it has come.
pub fn progress(group: &Group) -> AnyView {
    let (moved, total) = (group.moved.to_string(), group.migrating_vms.to_string());
    let text = put(w().group_progress, &[&moved, &total]);
    let failing = (group.failing > 0).then(|| {
        let text = put(w().group_failing, &[&group.failing.to_string()]);
        view! { " " {pill(Tone::Bad, text)} }
    });
    let mut rows = Vec::new();
    if let Some(time) = group.oldest_sync_time {
        rows.push((w().group_oldest, ago(time)));
    }
    if let Some(job) = group.cutover_job {
        let link = view! { <a href=format!("/jobs/{job}")>{w().see_group_job}</a> };
        rows.push((w().job, link.into_any()));
    }
    let facts = (!rows.is_empty()).then(|| facts(rows));
    view! {
        <p role="status">
            <progress max=total value=moved aria-label=text.clone()></progress>
            " "
            {text.clone()}
            {failing}
        </p>
        {facts}
    }
    .into_any()
}

/// The choice of a wave, with all of them first.
fn wave_choice(fields: &Fields, name: &'static str, group: Memo<Group>) -> AnyView {
    let mut options = vec![(String::new(), w().every_wave.to_owned())];
    group.with_untracked(|g| {
        options.extend(g.waves.iter().map(|wave| {
            let number = wave.number.to_string();
            let word = put(w().wave_number, &[&number]);
            (number, word)
        }));
    });
    fields.choice(name, w().wave, String::new(), options, "")
}

/// What is asked of all machines, or of a wave.
fn act(name: &str, group: Memo<Group>) -> AnyView {
    let action = format!("/do/migrationGroups/{name}/act");
    let fields = Fields::of(&action);
    let why = Signal::derive(|| button::reason(&may_manage()));
    let asks = [
        (GroupVerb::Start, w().start),
        (GroupVerb::Pause, w().pause),
        (GroupVerb::Resume, w().resume),
        (GroupVerb::Cycle, w().cycle_now),
        (GroupVerb::Clone, w().clone_all),
        (GroupVerb::Adapt, w().adapt_all),
        (GroupVerb::Check, w().check_again),
        (GroupVerb::Extend, w().extend),
        (GroupVerb::Finalize, w().finalize_all),
    ];
    let buttons: Vec<_> = asks
        .into_iter()
        .map(|(verb, label)| {
            let of = format!("{action}-{verb}");
            button::submit(&of, Some(verb.word()), "", label.to_owned(), why)
        })
        .collect();
    view! {
        <form method="post" action=action.clone() aria-label=w().group_act>
            {fields.error(&format!("{GROUPS}/{name}"))}
            {wave_choice(&fields, "wave", group)}
            <div class="actions">{buttons}</div>
        </form>
    }
    .into_any()
}

fn waves(data: &Data) -> AnyView {
    let all: Vec<_> = data
        .group
        .waves
        .iter()
        .map(|wave| {
            let id = format!("wave-{}", wave.number);
            let title = put(w().wave_number, &[&wave.number.to_string()]);
            let rows: Vec<_> = data
                .vms
                .iter()
                .filter(|vm| vm.wave == wave.number)
                .map(row)
                .collect();
            view! {
                <section class="panel list" aria-labelledby=id.clone()>
                    <header>
                        <h2 id=id.clone()>{title}</h2>
                    </header>
                    <ul class="short">{rows}</ul>
                </section>
            }
        })
        .collect();
    all.into_any()
}

fn row(vm: &MigratingVm) -> AnyView {
    let name = vm.name.to_string();
    view! {
        <li>
            <span class="what">
                <a href=format!("{HERE}/{name}")>
                    <b>{name.clone()}</b>
                </a>
                " "
                {state(vm)}
                <span class="sub">{from_to(vm)}</span>
                <span class="sub">{so_far(vm)}</span>
                {trouble(vm)}
            </span>
        </li>
    }
    .into_any()
}

fn dialog_of(group: Memo<Group>) -> AnyView {
    let name = group.with_untracked(|g| g.name.to_string());
    dialog("cutover", put(w().title_cut_over_group, &[&name]), move || {
        let action = format!("/do/migrationGroups/{name}/cutover");
        let here = format!("{GROUPS}/{name}");
        let fields = Fields::of(&action);
        let seconds = fields.line(Line {
            name: "powerOffAfterSeconds",
            label: w().power_off_after,
            hint: w().cut_over_power_hint.to_owned(),
            kind: "number",
            min: Some(1),
            max: Some(limit::BOOT_TIMEOUT_SECONDS),
            value: CutOverGroup::default().power_off_after_seconds.to_string(),
            required: true,
            ..Line::default()
        });
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=cutover"))}
                <div class="alert warn">{w().group_cut_over_loss}</div>
                {wave_choice(&fields, "cutoverWave", group)}
                {seconds}
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit("danger", w().group_cut_over, may_cut_over)}
                </footer>
            </form>
        }
        .into_any()
    })
}
