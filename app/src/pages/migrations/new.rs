//! Carries a machine over: which, where it is uploaded to, how often, and what it is to be.

use super::form::{self, Places};
use super::{HERE, may_manage, whole};
use crate::backend::Way;
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, Loading, body, load};
use crate::env::may;
use crate::pages::query;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, GetInventory, ListSources, ListTargets, SourcePage, TargetPage, encode};
use shared::migrate::{CyclePolicy, Inventory, Source, SourceVm, TargetDefaults};

#[derive(Clone)]
struct Data {
    /// Names of the sources that there are.
    sources: Vec<String>,
    /// The one whose machines can be chosen; none where there is no source.
    source: Option<String>,
    /// Whether its machines are this server's.
    local: bool,
    /// Its machines that are not carried over yet.
    vms: Vec<SourceVm>,
    /// Names of targets; none where the person may not see them.
    targets: Option<Vec<String>>,
    places: Places,
}

pub fn page() -> AnyView {
    let trail = vec![(HERE.to_owned(), w().migration.to_owned())];
    let (source, vm) = (query("source"), query("vm"));
    view! {
        <Title text=w().carry_over/>
        {bar(trail, w().carry_over.to_owned())}
        {load(
            move || source.get(),
            fetch,
            read,
            |old, new| *old = new,
            move |data| {
                // Another source is another form; else what was typed stays.
                let source = Memo::new(move |_| data.with(|d| d.source.clone()));
                let form = move || {
                    source.track();
                    data.with_untracked(|d| shown(d, &vm.get_untracked()))
                };
                form.into_any()
            },
        )}
    }
    .into_any()
}

/// Loads the sources first: which of them the machine is chosen from may be left to us.
fn fetch(asked: String) -> Loading {
    // The way to the API is the context's that is here now, not after the first await.
    let way = Way::here();
    let targets = may(Privilege::TargetRead, None)
        .is_ok()
        .then(|| way.send(ListTargets { query: whole() }.raw()));
    let sources = way.send(ListSources { query: whole() }.raw());
    let places = form::calls().map(|call| way.send(call));
    Box::pin(async move {
        let sources = sources.await?;
        let page: SourcePage = crate::backend::read(&sources)?;
        let first = page.sources.first().map(|s| s.name.to_string());
        let source = if asked.is_empty() {
            first.unwrap_or_default()
        } else {
            asked
        };
        let inventory = if source.is_empty() {
            String::new()
        } else {
            let of = GetInventory {
                source: source.clone(),
            };
            way.send(of.raw()).await?
        };
        let targets = match targets {
            Some(targets) => targets.await?,
            None => String::new(),
        };
        let [networks, storages] = places;
        Ok(vec![
            sources,
            source,
            inventory,
            targets,
            networks.await?,
            storages.await?,
        ])
    })
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let there = |n: usize| bodies.get(n).filter(|body| !body.is_empty());
    let sources = body::<SourcePage>(bodies, 0)?.sources;
    // It may be asked for by its id, and is shown by its name.
    let asked = bodies.get(1).map_or("", String::as_str);
    let of = |s: &&Source| s.name.as_str() == asked || s.id.to_string() == asked;
    let source = sources.iter().find(of);
    let inventory = match there(2) {
        Some(_) => body(bodies, 2)?,
        None => Inventory::default(),
    };
    let targets = match there(3) {
        Some(_) => Some(body::<TargetPage>(bodies, 3)?.targets),
        None => None,
    };
    Ok(Data {
        places: Places::read(bodies, 4)?,
        source: source.map(|s| s.name.to_string()),
        local: source.is_some_and(|s| s.place.local.is_some()),
        sources: sources.iter().map(|s| s.name.to_string()).collect(),
        vms: inventory
            .vms
            .into_iter()
            .filter(|vm| vm.migrating_vm.is_none() && vm.refusal.is_none())
            .collect(),
        targets: targets.map(|all| all.iter().map(|t| t.name.to_string()).collect()),
    })
}

fn shown(data: &Data, chosen: &str) -> AnyView {
    let action = "/do/migrations/create";
    let fields = Fields::of(action);
    let source = data.source.clone().unwrap_or_default();
    let here = format!("{HERE}/new?source={}", encode(&source));
    let known = data.vms.iter().find(|vm| vm.id == chosen);
    // The new machine is called so, too: beside one of this server it needs a name of its own.
    let called = |vm: &SourceVm| {
        let end = if data.local { "-new" } else { "" };
        format!("{}{end}", vm.name)
    };
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        value: known.map(called).unwrap_or_default(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let no_source = data.source.is_none();
    let no_vm = data.vms.is_empty();
    let no_target = data.targets.as_ref().is_some_and(Vec::is_empty);
    let verdict = move || {
        may_manage()?;
        let why = match (no_source, no_vm, no_target) {
            (true, ..) => w().no_source_yet,
            (_, true, _) => w().none_left,
            (.., true) => w().no_target_yet,
            _ => return Ok(()),
        };
        Err(Status::precondition(why))
    };
    view! {
        <div class="title">
            <h1 tabindex="-1">{w().carry_over}</h1>
        </div>
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                {fields.error(&here)}
                <input type="hidden" name="source" value=source/>
                {sources(data)}
                {machine(&fields, &data.vms, chosen)}
                {name}
                {target(&fields, data.targets.as_deref())}
                {form::rhythm(&fields, &CyclePolicy::default())}
                {form::becomes(&fields, &TargetDefaults::default(), &data.places)}
                {form::group(&fields, String::new(), 1)}
            </div>
            <footer>
                <a class="button" href=HERE>
                    {w().never_mind}
                </a>
                {fields.submit("go", w().carry_over_do, verdict)}
            </footer>
        </form>
    }
    .into_any()
}

/// Which source: a link for each, for each has other machines.
fn sources(data: &Data) -> AnyView {
    if data.sources.is_empty() {
        let to = format!("{HERE}?do=add-source");
        return view! { <p class="soft">{w().no_sources_yet} " " <a href=to>{w().add_source_dots}</a></p> }
            .into_any();
    }
    let links: Vec<_> = data
        .sources
        .iter()
        .map(|name| {
            let current = (data.source.as_ref() == Some(name)).then_some("true");
            let href = format!("{HERE}/new?source={name}");
            view! {
                <a class="button" href=href aria-current=current data-noscroll="">
                    {name.clone()}
                </a>
            }
        })
        .collect();
    view! {
        <div class="field">
            <span class="soft">{w().source_word}</span>
            <div class="choices" role="group" aria-label=w().source_word>
                {links}
            </div>
        </div>
    }
    .into_any()
}

/// Which of its machines.
fn machine(fields: &Fields, vms: &[SourceVm], chosen: &str) -> AnyView {
    let word = |vm: &SourceVm| match vm.running {
        Some(true) => format!("{} · {}", vm.name, w().running),
        Some(false) => format!("{} · {}", vm.name, w().stopped),
        None => vm.name.clone(),
    };
    let all = vms.iter().map(|vm| (vm.id.clone(), word(vm))).collect();
    fields.choice(
        "sourceVm",
        w().source_vm,
        w().source_vm_hint.to_owned(),
        all,
        chosen,
    )
}

/// Where it is uploaded to: a choice where the person may see what there is.
fn target(fields: &Fields, targets: Option<&[String]>) -> AnyView {
    match targets {
        Some([]) => {
            let add = view! { <a href="/targets?do=add">{w().add_target_dots}</a> };
            view! { <p class="soft">{w().no_targets} " " {add}</p> }.into_any()
        }
        Some(all) => {
            let options = all.iter().map(|name| (name.clone(), name.clone())).collect();
            fields.choice("target", w().copy_target, String::new(), options, "")
        }
        None => fields.line(Line {
            name: "target",
            label: w().copy_target,
            required: true,
            ..Line::default()
        }),
    }
}
