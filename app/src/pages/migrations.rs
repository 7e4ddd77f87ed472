//! Machines that are carried over, by how far they have come, and the sources that they live at.

mod clones;
mod cutover;
mod cycles;
mod dialogs;
pub mod edit;
mod form;
pub mod group;
pub mod new;
pub mod one;
pub mod sources;

use super::{empty, query};
use crate::components::button::{self, Button};
use crate::components::error;
use crate::components::frame::bar;
use crate::components::list::throttled;
use crate::components::load::{Bodies, all, body, load};
use crate::components::state::{Tone, pill};
use crate::components::table::filter_with;
use crate::env::{clock, flash, may};
use crate::feed::{Change, on_change};
use crate::format;
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::Privilege;
use shared::api::{
    Call, ListGroups, ListMigratingVms, ListQuery, ListSources, MAX_PAGE_SIZE, MigratingVmPage, SourcePage,
    encode,
};
use shared::can::Verdict;
use shared::feed::Noun;
use shared::migrate::MigratingState::{
    Active, Cutover, CuttingOver, Error, Expired, FinalSync, Finalized, Finalizing, FirstSync, Paused,
    Pending, Ready,
};
use shared::migrate::can::{Verb, can};
use shared::migrate::groups::{Group, Groups};
use shared::migrate::{MigratingState, MigratingVm, Source, SourcePlace};
use shared::{Status, Timestamp};
use std::collections::BTreeSet;

pub const HERE: &str = "/migrations";
/// Where groups have theirs.
const GROUPS: &str = "/migration-groups";
/// Where sources have their pages.
const SOURCES: &str = "/sources";

/// Whether the person may carry machines over.
fn may_manage() -> Verdict {
    may(Privilege::MigrationManage, None)
}

/// Whether the person may ask this of a migration, and its state allows it. What makes a machine, or switches one off, asks
/// for more.
fn may_ask(verb: Verb, vm: &MigratingVm) -> Verdict {
    may_manage()?;
    if matches!(verb, Verb::Clone | Verb::CutOver) {
        may(Privilege::VmCreate, None)?;
    }
    if verb == Verb::CutOver {
        may(Privilege::VmPower, None)?;
    }
    can(verb, vm)
}

/// Counts up when what is shown may be another: by a change that concerns it, or by a form of the page.
fn looks(concerns: impl Fn(&Change) -> bool + 'static) -> RwSignal<u32> {
    let looks = RwSignal::new(0_u32);
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if concerns(change) {
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

/// All of a list, as far as one page goes.
fn whole() -> ListQuery {
    ListQuery {
        page_size: Some(MAX_PAGE_SIZE),
        ..ListQuery::default()
    }
}

#[derive(Clone)]
struct Data {
    vms: Vec<MigratingVm>,
    sources: Vec<Source>,
    groups: Vec<Group>,
}

pub fn page() -> AnyView {
    let looks = looks(|change| matches!(change.noun(), Noun::MigratingVm | Noun::Source));
    let (typed, group) = (query("q"), query("group"));
    view! {
        <Title text=w().migration/>
        {bar(Vec::new(), w().migration.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().migration}</h1>
            <div class="actions">{add_source("")} {carry_over()}</div>
        </div>
        <p class="soft">{w().migration_lead}</p>
        {load(
            move || looks.get().to_string(),
            move |_| {
                let (query, sources) = (whole(), whole());
                all([
                    ListMigratingVms { query }.raw(),
                    ListSources { query: sources }.raw(),
                    ListGroups {}.raw(),
                ])
            },
            read,
            |old, new| *old = new,
            move |data| shown(data, typed, group),
        )}
        {piece(dialogs::add_source)}
    }
    .into_any()
}

fn add_source(class: &'static str) -> AnyView {
    let button = Button {
        to: format!("{HERE}?do=add-source"),
        label: w().add_source_dots,
        class,
        ..Button::default()
    };
    button::link(button, &may_manage())
}

fn carry_over() -> AnyView {
    let button = Button {
        to: format!("{HERE}/new"),
        label: w().carry_over,
        class: "go",
        ..Button::default()
    };
    button::link(button, &may_manage())
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        vms: body::<MigratingVmPage>(bodies, 0)?.migrating_vms,
        sources: body::<SourcePage>(bodies, 1)?.sources,
        groups: body::<Groups>(bodies, 2)?.groups,
    })
}

/// How far the groups have come.
fn groups_of(groups: &[Group]) -> AnyView {
    let rows: Vec<_> = groups
        .iter()
        .map(|of| {
            let name = of.name.to_string();
            view! {
                <li>
                    <span class="what">
                        <a href=format!("{GROUPS}/{name}")>
                            <b>{name.clone()}</b>
                        </a>
                        {group::progress(of)}
                    </span>
                </li>
            }
        })
        .collect();
    view! {
        <section class="panel list" aria-labelledby="groups-title">
            <header>
                <h2 id="groups-title">{w().groups}</h2>
            </header>
            <ul class="short">{rows}</ul>
        </section>
    }
    .into_any()
}

fn shown(data: RwSignal<Data>, typed: Memo<String>, group: Memo<String>) -> AnyView {
    // None while there is nothing to look through.
    let groups = Memo::new(move |_| data.with(|d| (!d.vms.is_empty()).then(|| groups(&d.vms))));
    let board = move || data.with(|d| typed.with(|typed| group.with(|group| board(d, typed, group))));
    let of_groups = move || data.with(|d| (!d.groups.is_empty()).then(|| groups_of(&d.groups)));
    let sources = move || data.with(|d| (!d.sources.is_empty()).then(|| sources_of(&d.sources)));
    view! {
        {move || groups.get().map(|all| filter(typed, group, all))}
        {board}
        {of_groups}
        {sources}
    }
    .into_any()
}

fn groups(vms: &[MigratingVm]) -> BTreeSet<String> {
    let all = vms.iter().filter_map(|vm| vm.group.as_ref());
    all.map(ToString::to_string).collect()
}

/// The search by name, and the choice of a group: a plain form, which the live page follows.
fn filter(typed: Memo<String>, group: Memo<String>, groups: BTreeSet<String>) -> AnyView {
    let options: Vec<_> = groups
        .into_iter()
        .map(|name| {
            let on = group.with_untracked(|g| *g == name);
            view! {
                <option value=name.clone() selected=on>
                    {name.clone()}
                </option>
            }
        })
        .collect();
    let select = view! {
        <select name="group" aria-label=w().group>
            <option value="">{w().every_group}</option>
            {options}
        </select>
    };
    filter_with(HERE, typed, select.into_any(), ().into_any())
}

fn board(data: &Data, typed: &str, group: &str) -> AnyView {
    let alone = |inside: AnyView| {
        view! {
            <section class="panel list" aria-label=w().migration>
                {inside}
            </section>
        }
        .into_any()
    };
    if data.vms.is_empty() {
        return alone(if data.sources.is_empty() {
            empty(w().no_sources_yet, add_source("go"))
        } else {
            empty(w().no_migrations, carry_over())
        });
    }
    let fits = |vm: &&MigratingVm| {
        let mut words = typed.split_whitespace();
        let grouped = group.is_empty() || vm.group.as_ref().is_some_and(|g| g.as_str() == group);
        grouped && words.all(|word| vm.name.as_str().contains(word))
    };
    let vms: Vec<_> = data.vms.iter().filter(fits).collect();
    if vms.is_empty() {
        let all = view! { <a class="button" href=HERE>{w().show_all}</a> };
        return alone(empty(w().no_machine_fits, all.into_any()));
    }
    let titles = [
        w().board_waiting,
        w().board_uploading,
        w().board_cutting_over,
        w().board_over,
    ];
    let columns: Vec<_> = titles
        .into_iter()
        .enumerate()
        .map(|(n, title)| {
            let here = vms.iter().filter(|vm| column_of(vm.state) == n);
            column(n, title, here.map(|vm| card(vm)).collect())
        })
        .collect();
    view! { <div class="board">{columns}</div> }.into_any()
}

/// In which column of the board a state stands.
const fn column_of(state: MigratingState) -> usize {
    match state {
        Pending | Ready | Error | Expired => 0,
        FirstSync | Active | Paused => 1,
        CuttingOver | FinalSync => 2,
        Cutover | Finalizing | Finalized => 3,
    }
}

fn column(n: usize, title: &'static str, cards: Vec<AnyView>) -> AnyView {
    let id = format!("board-{n}");
    let count = format::count(cards.len() as u64);
    let inside = if cards.is_empty() {
        view! { <p class="none">{w().board_none}</p> }.into_any()
    } else {
        view! { <ul class="short">{cards}</ul> }.into_any()
    };
    view! {
        <section class="panel" aria-labelledby=id.clone()>
            <header>
                <h2 id=id.clone()>{title}</h2>
                <span class="faint">{count}</span>
            </header>
            {inside}
        </section>
    }
    .into_any()
}

fn card(vm: &MigratingVm) -> AnyView {
    let name = vm.name.to_string();
    view! {
        <li>
            <span class="what">
                <a href=format!("{HERE}/{name}")>
                    <b>{name.clone()}</b>
                </a>
                " " {group(vm)}
                <span class="sub">{state(vm)}</span>
                <span class="sub">{from_to(vm)}</span>
                <span class="sub">{so_far(vm)}</span>
                {trouble(vm)}
            </span>
        </li>
    }
    .into_any()
}

/// The group that it is in.
fn group(vm: &MigratingVm) -> Option<AnyView> {
    let group = vm.group.as_ref()?.to_string();
    Some(view! { <span class="tag">{group}</span> }.into_any())
}

/// How far it has come.
fn state(vm: &MigratingVm) -> AnyView {
    let (tone, word) = match vm.state {
        Pending => (Tone::Busy, w().moving_pending),
        Ready => (Tone::Still, w().moving_ready),
        FirstSync => (Tone::Busy, w().moving_first_sync),
        Active => (Tone::Good, w().moving_active),
        Paused => (Tone::Warn, w().paused),
        CuttingOver => (Tone::Busy, w().moving_cutting_over),
        FinalSync => (Tone::Busy, w().moving_final_sync),
        Cutover => (Tone::Good, w().moving_cutover),
        Finalizing => (Tone::Busy, w().moving_finalizing),
        Finalized => (Tone::Still, w().moving_finalized),
        Error => (Tone::Bad, w().error),
        Expired => (Tone::Warn, w().moving_expired),
    };
    pill(tone, word)
}

/// Which machine of which source, and where it is uploaded to.
fn from_to(vm: &MigratingVm) -> String {
    put(
        w().from_to,
        &[
            &vm.source_vm_name,
            vm.source_name.as_str(),
            vm.target_name.as_str(),
        ],
    )
}

/// How far it is behind its source, and when the next cycle is; where it is over, the machine that it has become.
fn so_far(vm: &MigratingVm) -> AnyView {
    if let Some(machine) = became(vm) {
        return machine;
    }
    let next = next(vm).map(|next| view! { " · " {next} });
    let rate = vm.last_rate_bps.map(|bps| {
        let (n, unit) = format::rate(bps as f64);
        format!(" · {n} {unit}")
    });
    view! { {lag(vm)} {rate} {next} }.into_any()
}

/// The machine that it has become, where that is the one that counts.
fn became(vm: &MigratingVm) -> Option<AnyView> {
    let id = vm
        .target_vm
        .filter(|_| matches!(vm.state, Cutover | Finalizing | Finalized))?;
    Some(view! { <a href=format!("/vms/{id}")>{w().see_machine}</a> }.into_any())
}

/// How old what was uploaded is.
fn lag(vm: &MigratingVm) -> AnyView {
    let Some(since) = vm.last_sync_time else {
        return w().never_uploaded.into_any();
    };
    let clock = clock();
    (move || put(w().behind, &[&format::elapsed(clock.now.get().since(since))])).into_any()
}

/// The cycle at work, or when the next is due.
fn next(vm: &MigratingVm) -> Option<AnyView> {
    if let Some(job) = vm.current_cycle {
        let link = view! { <a href=format!("/jobs/{job}")>{w().cycle_at_work}</a> };
        return Some(link.into_any());
    }
    vm.next_time.filter(|_| vm.state.cycles()).map(until)
}

/// How long it is until a cycle.
fn until(next: Timestamp) -> AnyView {
    let clock = clock();
    let text = move || match next.since(clock.now.get()) {
        ..=0 => w().cycle_due.to_owned(),
        left => put(w().next_cycle_in, &[&format::elapsed(left)]),
    };
    text.into_any()
}

/// What is wrong, in a line.
fn trouble(vm: &MigratingVm) -> Option<AnyView> {
    if vm.error.is_none() && vm.failures == 0 {
        return None;
    }
    let why = vm.error.as_ref().map(|why| error::sentence(error::said(why)));
    let count = (vm.failures > 0).then(|| {
        let text = put(w().failed_in_a_row, &[&format::count(vm.failures.into())]);
        view! { {pill(Tone::Bad, text)} " " }
    });
    Some(view! { <span class="sub">{count} {why}</span> }.into_any())
}

/// What a source is.
fn place(place: &SourcePlace) -> String {
    match place {
        SourcePlace { local: Some(_), .. } => w().source_local.to_owned(),
        SourcePlace {
            disks: Some(disks), ..
        } => disks.path.clone(),
        SourcePlace {
            libvirt: Some(libvirt),
            ..
        } => libvirt.uri.clone(),
        // One that only a newer server knows.
        _ => "…".to_owned(),
    }
}

/// The address of the form that carries a machine over, with the machine chosen.
fn begin(source: &str, vm: &str) -> String {
    format!("{HERE}/new?source={}&vm={}", encode(source), encode(vm))
}

fn sources_of(sources: &[Source]) -> AnyView {
    let rows: Vec<_> = sources.iter().map(source).collect();
    view! {
        <section class="panel list" aria-labelledby="sources-title">
            <header>
                <h2 id="sources-title">{w().sources}</h2>
            </header>
            <ul class="short">{rows}</ul>
        </section>
    }
    .into_any()
}

fn source(source: &Source) -> AnyView {
    let name = source.name.to_string();
    let carries = put(w().source_carries, &[&format::count(source.migrating_vms)]);
    let to = format!("{SOURCES}/{name}");
    view! {
        <li>
            <span class="what">
                <b>{name.clone()}</b>
                <span class="sub">{place(&source.place)} " · " {carries}</span>
            </span>
            <a class="button quiet" href=to aria-label=format!("{} {name}", w().inventory)>
                {w().inventory}
            </a>
        </li>
    }
    .into_any()
}
