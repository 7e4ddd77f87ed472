//! The editor of a policy, and a new one.

use super::{HERE, may_manage, numbers, window_line};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{
    Call, GetPolicy, ListQuery, ListTargets, ListVms, MAX_PAGE_SIZE, RawCall, TargetPage, VmPage,
};
use shared::policy::retain::Retention;
use shared::policy::{Policy, UTC};

#[derive(Clone)]
struct Data {
    /// Names of the targets that there are.
    targets: Vec<String>,
    /// Ids and names of machines.
    vms: Vec<(String, String)>,
    /// What is changed; none of a new one.
    policy: Option<Policy>,
}

fn calls() -> [RawCall; 2] {
    let query = ListQuery {
        page_size: Some(MAX_PAGE_SIZE),
        ..ListQuery::default()
    };
    [
        ListTargets { query: query.clone() }.raw(),
        ListVms { query }.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let targets = body::<TargetPage>(bodies, 0)?.targets;
    let vms = body::<VmPage>(bodies, 1)?.vms;
    Ok(Data {
        targets: targets.iter().map(|t| t.name.to_string()).collect(),
        vms: vms
            .iter()
            .map(|vm| (vm.id.to_string(), vm.name.to_string()))
            .collect(),
        policy: if bodies.len() > 2 {
            Some(body(bodies, 2)?)
        } else {
            None
        },
    })
}

pub fn new() -> AnyView {
    let trail = vec![(HERE.to_owned(), w().policies.to_owned())];
    view! {
        <Title text=w().new_policy/>
        {bar(trail, w().new_policy.to_owned())}
        {load(String::new, |_| all(calls()), read, |old, new| *old = new, shown)}
    }
    .into_any()
}

pub fn page() -> AnyView {
    let name = param("policy");
    let page = move || {
        let name = name.get();
        let trail = vec![
            (HERE.to_owned(), w().policies.to_owned()),
            (format!("{HERE}/{name}"), name.clone()),
        ];
        view! {
            {bar(trail, w().change.to_owned())}
            {load(
                String::new,
                move |_| {
                    let policy = GetPolicy { policy: name.clone() };
                    all(calls().into_iter().chain([policy.raw()]))
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
    let data = data.get_untracked();
    let policy = data.policy.as_ref();
    let (title, action, here) = match policy {
        Some(policy) => (
            put(w().edit_title, &[policy.name.as_str()]),
            format!("/do/policies/{}/edit", policy.name),
            format!("{HERE}/{}/edit", policy.name),
        ),
        None => (
            w().new_policy.to_owned(),
            "/do/policies/create".to_owned(),
            format!("{HERE}/new"),
        ),
    };
    let fields = Fields::of(&action);
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        value: policy.map(|p| p.name.to_string()).unwrap_or_default(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let label = if policy.is_some() { w().save } else { w().add_it };
    view! {
        <Title text=title.clone()/>
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
        </div>
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                {fields.error(&here)}
                {name}
                {when(&fields, policy)}
                {which(&fields, &data)}
                {targets(&fields, &data)}
                {kept(&fields, policy.map(|p| p.retention).unwrap_or_default())}
                {how(&fields, policy)}
            </div>
            <footer>
                <a class="button" href=policy.map_or_else(|| HERE.to_owned(), |p| format!("{HERE}/{}", p.name))>
                    {w().never_mind}
                </a>
                {fields.submit("go", label, may_manage)}
            </footer>
        </form>
    }
    .into_any()
}

/// When copies are made.
fn when(fields: &Fields, policy: Option<&Policy>) -> AnyView {
    let schedule = policy.and_then(|p| p.schedule.as_ref());
    let first = if policy.is_none() { "@daily" } else { "" };
    let cron = fields.line(Line {
        name: "schedule.cron",
        label: w().schedule,
        hint: w().schedule_hint.to_owned(),
        value: schedule.map_or(first, |s| &s.cron).to_owned(),
        placeholder: "0 2 * * *".to_owned(),
        ..Line::default()
    });
    let zone = fields.line(Line {
        name: "schedule.timeZone",
        label: w().time_zone,
        hint: w().time_zone_hint.to_owned(),
        value: schedule.map_or(UTC, |s| &s.time_zone).to_owned(),
        placeholder: "Europe/Berlin".to_owned(),
        ..Line::default()
    });
    view! { <div class="two">{cron} {zone}</div> }.into_any()
}

/// Of which machines.
fn which(fields: &Fields, data: &Data) -> AnyView {
    let name_of = |id: String| {
        let known = data.vms.iter().find(|(i, _)| *i == id);
        known.map_or(id.clone(), |(_, name)| name.clone())
    };
    let policy = data.policy.as_ref();
    let named: Vec<_> = policy
        .map(|p| p.vms.iter().map(|id| name_of(id.to_string())).collect())
        .unwrap_or_default();
    let vms = fields.line(Line {
        name: "vms",
        label: w().machines,
        hint: w().policy_machines_hint.to_owned(),
        value: named.join(" "),
        placeholder: "web-1 db-1".to_owned(),
        ..Line::default()
    });
    let label = fields.line(Line {
        name: "label",
        label: w().label,
        hint: w().policy_label_hint.to_owned(),
        value: policy.and_then(|p| p.label.clone()).unwrap_or_default(),
        placeholder: "tier=gold".to_owned(),
        ..Line::default()
    });
    view! { <div class="two">{vms} {label}</div> }.into_any()
}

fn targets(fields: &Fields, data: &Data) -> AnyView {
    let policy = data.policy.as_ref();
    let asked = |name: &str| match policy {
        Some(policy) => policy.targets.iter().any(|t| t.as_str() == name),
        // The only one there is will be meant.
        None => data.targets.len() == 1,
    };
    let boxes: Vec<_> = data
        .targets
        .iter()
        .map(|name| {
            let on = fields.ticked_of("targets", name, asked(name));
            view! {
                <label class="check">
                    <input type="checkbox" name="targets" value=name.clone() checked=on/>
                    <span>{name.clone()}</span>
                </label>
            }
        })
        .collect();
    let none = data.targets.is_empty().then(|| {
        view! { <p class="soft">{w().no_targets} " " <a href="/targets?do=add">{w().add_target_dots}</a></p> }
    });
    view! {
        <fieldset>
            <legend>{w().targets}</legend>
            {boxes}
            {none}
        </fieldset>
    }
    .into_any()
}

fn kept(fields: &Fields, rules: Retention) -> AnyView {
    let boxes: Vec<_> = numbers(&rules)
        .into_iter()
        .map(|(name, label, n)| {
            fields.line(Line {
                name,
                label,
                kind: "number",
                min: Some(1),
                value: n.map(|n| n.to_string()).unwrap_or_default(),
                ..Line::default()
            })
        })
        .collect();
    view! {
        <fieldset>
            <legend>{w().kept_copies}</legend>
            <p class="soft">{w().kept_hint}</p>
            <div class="numbers">{boxes}</div>
        </fieldset>
    }
    .into_any()
}

/// With what, when they may run, and which are booted.
fn how(fields: &Fields, policy: Option<&Policy>) -> AnyView {
    let windows: Vec<_> = policy
        .map(|p| p.window.iter().map(window_line).collect())
        .unwrap_or_default();
    let verify = policy.and_then(|p| p.verify).map(|v| v.boot_every.to_string());
    let verify = fields.line(Line {
        name: "verify.bootEvery",
        label: w().boot_every,
        hint: w().boot_every_hint.to_owned(),
        kind: "number",
        min: Some(1),
        value: verify.unwrap_or_default(),
        ..Line::default()
    });
    let (memory, quiesce) = policy.map_or((false, true), |p| (p.memory, p.quiesce));
    view! {
        <fieldset>
            <legend>{w().taken_with}</legend>
            {fields.radio("with", "quiesce", w().quiesce, w().quiesce_hint, quiesce && !memory)}
            {fields.radio("with", "memory", w().snapshot_memory, "", memory)}
            {fields.radio("with", "", w().quiesce_no, "", !quiesce && !memory)}
        </fieldset>
        {fields.text_of("window", w().window, w().window_hint, windows.join("\n"))}
        {verify}
        {fields.tick("enabled", w().policy_enabled.to_owned(), "", policy.is_none_or(|p| p.enabled))}
    }
    .into_any()
}
