//! A new machine.

use super::empty;
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::format;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{Call, HostPage, ImagePage, ListHosts, ListImages, ListQuery, RawCall};
use shared::can::limit;
use shared::place::{Host, Image};

/// What the form needs to know.
#[derive(Clone, Debug, PartialEq)]
struct Data {
    images: Vec<Image>,
    host: Option<Host>,
}

pub fn page() -> AnyView {
    let trail = vec![("/vms".to_owned(), w().machines.to_owned())];
    view! {
        <Title text=w().new_machine/>
        {bar(trail, w().new_machine.to_owned())}
        {load(String::new, |_| all(calls()), read, |old, new| *old = new, shown)}
    }
    .into_any()
}

fn calls() -> [RawCall; 2] {
    let query = ListQuery::default();
    [
        ListImages { query: query.clone() }.raw(),
        ListHosts { query }.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        images: body::<ImagePage>(bodies, 0)?.images,
        host: body::<HostPage>(bodies, 1)?.hosts.into_iter().next(),
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let action = "/do/vms/create";
    let fields = Fields::of(action);
    let data = data.get_untracked();
    if data.images.is_empty() {
        return view! {
            <h1 tabindex="-1">{w().new_machine}</h1>
            <section class="panel">
                {empty(w().no_images, view! { <code>"offshoot demo"</code> }.into_any())}
            </section>
        }
        .into_any();
    }
    let images: Vec<_> = data
        .images
        .iter()
        .map(|i| {
            let word = format!("{} · {}", i.name, format::bytes(i.virtual_bytes));
            (i.name.to_string(), word)
        })
        .collect();
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let cpus = fields.line(Line {
        name: "cpus",
        label: w().cpus,
        kind: "number",
        min: Some(1),
        max: Some(limit::CPUS),
        value: "1".to_owned(),
        required: true,
        ..Line::default()
    });
    let hint = data.host.map(|h| {
        let free = h.memory_mib.saturating_sub(h.memory_in_use_mib);
        crate::words::put(w().memory_free, &[&format::mib(free), h.name.as_str()])
    });
    let memory = fields.line(Line {
        name: "memoryMib",
        label: w().memory_mib,
        kind: "number",
        min: Some(limit::MIN_MEMORY_MIB),
        max: Some(limit::MAX_MEMORY_MIB),
        value: "512".to_owned(),
        hint: hint.unwrap_or_default(),
        required: true,
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h1 tabindex="-1">{w().new_machine}</h1>
                <p class="soft lead">{w().new_machine_lead}</p>
                {fields.error("/vms/new")}
                {name}
                {fields.choice("image", w().image, w().image_hint.to_owned(), images, "")}
                <div class="two">{cpus} {memory}</div>
                {fields.tick("start", w().start_when_made.to_owned(), "", true)}
            </div>
            <footer>
                <a class="button" href="/vms">
                    {w().never_mind}
                </a>
                <button class="go">{w().make_machine}</button>
            </footer>
        </form>
    }
    .into_any()
}
