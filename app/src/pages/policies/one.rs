//! One policy: what it says, and which copies it would keep with these numbers or with others.

use super::{HERE, ago_or_when, kept, looks, machines, may_manage, numbers, schedule, state, window_line};
use crate::components::button::{self, Button};
use crate::components::copies::facts;
use crate::components::dialog::{cancel, dialog};
use crate::components::field::Fields;
use crate::components::frame::bar;
use crate::components::load::{Bodies, Loading, all, body, load};
use crate::components::state::{Tone, pill};
use crate::components::time::ago;
use crate::format;
use crate::hydration::piece;
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::use_query_map;
use leptos_router::params::ParamsMap;
use shared::Status;
use shared::api::{Call, GetPolicy, ListQuery, ListVms, MAX_PAGE_SIZE, PreviewPolicy, VmPage};
use shared::can::Verdict;
use shared::feed::Noun;
use shared::policy::Policy;
use shared::policy::retain::{
    CopyVerdict, KeepReason, PreviewGroup, PreviewRetention, Retention, RetentionPreview,
};
use std::collections::HashMap;

/// How many copies of a machine at a target are drawn.
const DRAWN: usize = 60;

struct Data {
    policy: Policy,
    /// Names of machines, by id.
    names: HashMap<String, String>,
    /// The numbers that are tried.
    rules: Retention,
    preview: RetentionPreview,
}

/// What the address says when there are numbers in it, be they none at all.
const TRIES: &str = "try";

/// The numbers in the address: those of the policy where it has none.
fn tried(query: &ParamsMap, own: Retention) -> Retention {
    if query.get_str(TRIES).is_none() {
        return own;
    }
    let fields = numbers(&own).map(|(field, ..)| field);
    let number = |n: usize| query.get_str(fields[n]).and_then(|v| v.parse().ok());
    Retention {
        keep_last: number(0),
        hourly: number(1),
        daily: number(2),
        weekly: number(3),
        monthly: number(4),
        yearly: number(5),
        minimum_age_hours: number(6),
    }
}

pub fn page() -> AnyView {
    let (name, looks) = (param("policy"), looks(Some(Noun::Copy)));
    let query = use_query_map();
    let page = move || {
        let name = name.get();
        view! {
            {bar(vec![(HERE.to_owned(), w().policies.to_owned())], name.clone())}
            {load(
                move || {
                    let tries = query.with(|q| q.to_query_string());
                    format!("{} {tries}", looks.get())
                },
                move |_| fetch(name.clone(), query.get_untracked()),
                read,
                |old, new| *old = new,
                shown,
            )}
        }
    };
    page.into_any()
}

fn fetch(name: String, query: ParamsMap) -> Loading {
    let way = crate::backend::Way::here();
    let vms = ListVms {
        query: ListQuery {
            page_size: Some(MAX_PAGE_SIZE),
            ..ListQuery::default()
        },
    };
    let vms = all([vms.raw()]);
    Box::pin(async move {
        let answer = way.send(GetPolicy { policy: name }.raw()).await?;
        let policy: Policy = crate::backend::read(&answer)?;
        let retention = tried(&query, policy.retention);
        let request = PreviewRetention {
            retention,
            time_zone: policy.time_zone().to_owned(),
            vms: policy.vms.iter().map(ToString::to_string).collect(),
            label: policy.label.clone(),
            targets: policy.targets.clone(),
        };
        let preview = PreviewPolicy {
            policy: policy.id.to_string(),
            request,
        };
        let (preview, vms) = futures_util::join!(way.send(preview.raw()), vms);
        // Numbers always serialise.
        let rules = serde_json::to_string(&retention).unwrap_or_default();
        Ok([vec![answer, preview?, rules], vms?].concat())
    })
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let vms: VmPage = body(bodies, 3)?;
    Ok(Data {
        policy: body(bodies, 0)?,
        preview: body(bodies, 1)?,
        rules: body(bodies, 2)?,
        names: vms
            .vms
            .into_iter()
            .map(|vm| (vm.id.to_string(), vm.name.to_string()))
            .collect(),
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let policy = Memo::new(move |_| data.with(|d| d.policy.clone()));
    let name = policy.with_untracked(|p| p.name.to_string());
    view! {
        <Title text=name.clone()/>
        <div class="title">
            <h1 tabindex="-1">{name.clone()}</h1>
            <span role="status">{move || policy.with(state)}</span>
            <div class="actions">{piece(move || (move || policy.with(actions)).into_any())}</div>
        </div>
        <div class="cols">
            <div class="stack">
                <section class="panel" aria-labelledby="preview-title">
                    <header>
                        <h2 id="preview-title">{w().preview}</h2>
                        {move || {
                            data.with(|d| {
                                let of = [format::count(d.preview.keep), format::count(d.preview.drop)];
                                view! { <span class="soft" role="status">{put(w().preview_sum, &[&of[0], &of[1]])}</span> }
                            })
                        }}
                    </header>
                    <div class="in">{rules(data)} {move || data.with(keep_these)}</div>
                    {move || data.with(groups)}
                </section>
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="policy-title">
                    <header>
                        <h2 id="policy-title">{w().policy}</h2>
                        {move || policy.with(|p| button::copy(p.id.to_string(), w().copy_id))}
                    </header>
                    <div class="in">{move || data.with(about)}</div>
                </section>
            </div>
        </div>
        {piece(move || delete(policy))}
    }
    .into_any()
}

fn actions(policy: &Policy) -> AnyView {
    let (name, may) = (policy.name.as_str(), may_manage());
    let go = |to, label, class, verdict: &Verdict| {
        let button = Button {
            to,
            label,
            class,
            ..Button::default()
        };
        button::link(button, verdict)
    };
    let post = |action: &str, label| Button {
        to: format!("/do/policies/{name}/{action}"),
        label,
        back: format!("{HERE}/{name}"),
        ..Button::default()
    };
    let (switch, label) = if policy.enabled {
        ("off", w().switch_off)
    } else {
        ("on", w().switch_on)
    };
    view! {
        {button::post(post("run", w().run_now), &may)}
        {button::post(post(switch, label), &may)}
        {go(format!("{HERE}/{name}/edit"), w().edit_dots, "", &may)}
        {go(format!("{HERE}/{name}?do=delete"), w().delete_dots, "danger", &may)}
    }
    .into_any()
}

fn about(data: &Data) -> AnyView {
    let policy = &data.policy;
    let targets: Vec<_> = policy
        .targets
        .iter()
        .map(|t| view! { <a href=format!("/targets/{t}")>{t.to_string()}</a> " " })
        .collect();
    let named: Vec<_> = policy
        .vms
        .iter()
        .map(|id| {
            let id = id.to_string();
            let name = data.names.get(&id).unwrap_or(&id).clone();
            view! { <a href=format!("/vms/{id}")>{name}</a> " " }
        })
        .collect();
    let of = view! { <span class="sub">{machines(policy)}</span> {named} };
    let with = match (policy.memory, policy.quiesce) {
        (true, _) => w().with_memory,
        (false, true) => w().quiesce_yes,
        (false, false) => w().quiesce_no,
    };
    let verify = match policy.verify {
        Some(rule) => put(w().boot_every_nth, &[&rule.boot_every.to_string()]),
        None => w().no.to_owned(),
    };
    let windows: Vec<_> = policy
        .window
        .iter()
        .map(|window| view! { <li>{format!("{} · {}", window_line(window), window.time_zone)}</li> })
        .collect();
    let windows = if windows.is_empty() {
        w().window_always.into_any()
    } else {
        view! { <ul class="plain">{windows}</ul> }.into_any()
    };
    let mut rows = vec![
        (w().schedule, schedule(policy).into_any()),
        (w().machines, of.into_any()),
        (w().targets, targets.into_any()),
        (w().kept_copies, kept(&policy.retention).into_any()),
        (w().file_systems, with.into_any()),
        (w().boots_to_see, verify.into_any()),
        (w().window, windows),
        (w().made, ago(policy.create_time)),
    ];
    if let Some(next) = policy.next_time.filter(|_| policy.enabled) {
        rows.insert(1, (w().next_copy, ago_or_when(next)));
    }
    facts(rows)
}

/// The numbers to try: a plain form, which the live page follows as they change.
fn rules(data: RwSignal<Data>) -> AnyView {
    let query = use_query_map();
    let name = data.with_untracked(|d| d.policy.name.to_string());
    let now = Memo::new(move |_| query.with(|q| data.with(|d| tried(q, d.policy.retention))));
    let boxes: Vec<_> = now
        .with_untracked(numbers)
        .into_iter()
        .enumerate()
        .map(|(at, (field, label, _))| {
            let id = format!("try-{field}");
            let value = move || {
                let (_, _, n) = now.with(numbers)[at];
                n.map(|n| n.to_string()).unwrap_or_default()
            };
            view! {
                <div class="field">
                    <label for=id.clone()>{label}</label>
                    <input id=id name=field type="number" min="1" value=untrack(value) prop:value=value autocomplete="off"/>
                </div>
            }
        })
        .collect();
    view! {
        <p class="soft">{w().preview_lead}</p>
        <form method="get" action=format!("{HERE}/{name}") class="numbers" data-filter="">
            {boxes}
            <input type="hidden" name=TRIES value="1"/>
            <button class="plain-only">{w().preview_do}</button>
        </form>
    }
    .into_any()
}

/// The button that makes the numbers that were tried those of the policy; nothing while they are.
fn keep_these(data: &Data) -> Option<AnyView> {
    if data.rules == data.policy.retention {
        return None;
    }
    let name = data.policy.name.as_str();
    let action = format!("/do/policies/{name}/retention");
    let fields = Fields::of(&action);
    let hidden: Vec<_> = numbers(&data.rules)
        .into_iter()
        .filter_map(|(field, _, n)| Some((field, n?.to_string())))
        .map(|(field, n)| view! { <input type="hidden" name=field value=n/> })
        .collect();
    Some(
        view! {
            <form method="post" action=action class="choices">
                {fields.error(&format!("{HERE}/{name}"))}
                {hidden}
                {fields.submit("go", w().keep_these, may_manage)}
                <a class="button" href=format!("{HERE}/{name}")>
                    {w().never_mind}
                </a>
            </form>
        }
        .into_any(),
    )
}

fn groups(data: &Data) -> AnyView {
    if data.preview.groups.iter().all(|g| g.copies.is_empty()) {
        return view! { <p class="none">{w().preview_none}</p> }.into_any();
    }
    let all: Vec<_> = data
        .preview
        .groups
        .iter()
        .enumerate()
        .map(|(n, group)| one_group(data, group, n))
        .collect();
    view! { {all} }.into_any()
}

/// The copies of a machine at a target, each with what keeps it.
fn one_group(data: &Data, group: &PreviewGroup, n: usize) -> AnyView {
    let vm = group.vm.to_string();
    let name = data.names.get(&vm).unwrap_or(&vm).clone();
    let id = format!("kept-{n}");
    let rows: Vec<_> = group.copies.iter().take(DRAWN).map(verdict).collect();
    let more = group.copies.len().saturating_sub(DRAWN);
    let more = (more > 0).then(|| {
        let text = put(w().older_copies, &[&format::count(more as u64)]);
        view! { <p class="none">{text}</p> }
    });
    view! {
        <div class="line-of">
            <h3 id=id.clone()>{put(w().at_target, &[&name, group.target.as_str()])}</h3>
            <ol class="timeline" aria-labelledby=id>
                {rows}
            </ol>
            {more}
        </div>
    }
    .into_any()
}

fn verdict(copy: &CopyVerdict) -> AnyView {
    let (tone, word) = if copy.keep {
        (Tone::Good, w().is_kept)
    } else {
        (Tone::Warn, w().would_go)
    };
    let why: Vec<_> = copy.reasons.iter().map(|r| reason(*r)).collect();
    view! {
        <li>
            <span class=tone.ink()>{crate::components::state::shape(tone)}</span>
            <span class="what">
                <a href=format!("/copies/{}", copy.copy)>{ago(copy.time)}</a>
                <span class="sub">{why.join(", ")}</span>
            </span>
            <span class="sign">{pill(tone, word)}</span>
        </li>
    }
    .into_any()
}

fn reason(reason: KeepReason) -> &'static str {
    match reason {
        KeepReason::Unlimited => w().kept_unlimited,
        KeepReason::Last => w().kept_last,
        KeepReason::Hourly => w().kept_hourly,
        KeepReason::Daily => w().kept_daily,
        KeepReason::Weekly => w().kept_weekly,
        KeepReason::Monthly => w().kept_monthly,
        KeepReason::Yearly => w().kept_yearly,
        KeepReason::MinimumAge => w().kept_minimum_age,
        KeepReason::LegalHold => w().kept_legal_hold,
        KeepReason::Needed => w().kept_needed,
        KeepReason::Newest => w().kept_newest,
    }
}

fn delete(policy: Memo<Policy>) -> AnyView {
    let title = policy.with_untracked(|p| put(w().delete_policy_title, &[p.name.as_str()]));
    dialog("delete", title, move || {
        let name = policy.with_untracked(|p| p.name.to_string());
        let action = format!("/do/policies/{name}/delete");
        let (here, fields) = (format!("{HERE}/{name}"), Fields::of(&action));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=delete"))}
                <p class="soft">{w().delete_policy_loss}</p>
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit("danger", w().delete_policy_do, may_manage)}
                </footer>
            </form>
        }
        .into_any()
    })
}
