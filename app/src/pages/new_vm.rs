//! A new machine.

use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::place;
use crate::env::may;
use crate::format;
use crate::forms::NETWORK_NONE;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{
    Call, HostPage, ImagePage, ListHosts, ListImages, ListNetworks, ListQuery, ListStorages, NetworkPage,
    RawCall, StoragePage,
};
use shared::can::limit;
use shared::place::{Host, Image, Network, Storage, USER_NETWORK};
use shared::vm::Firmware;

/// What the form needs to know.
#[derive(Clone, Debug, PartialEq)]
struct Data {
    images: Vec<Image>,
    host: Option<Host>,
    storages: Vec<Storage>,
    networks: Vec<Network>,
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

fn calls() -> [RawCall; 4] {
    let query = ListQuery::default();
    [
        ListImages { query: query.clone() }.raw(),
        ListHosts { query: query.clone() }.raw(),
        ListStorages { query: query.clone() }.raw(),
        ListNetworks { query }.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        images: body::<ImagePage>(bodies, 0)?.images,
        host: body::<HostPage>(bodies, 1)?.hosts.into_iter().next(),
        storages: body::<StoragePage>(bodies, 2)?.storages,
        networks: body::<NetworkPage>(bodies, 3)?.networks,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let action = "/do/vms/create";
    let fields = Fields::of(action);
    let data = data.get_untracked();
    let mut images = place::images(&data.images);
    let image_hint = if images.is_empty() {
        w().no_images
    } else {
        w().image_hint
    };
    images.push((String::new(), w().image_or_blank.to_owned()));
    let first = images[0].0.clone();
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
    let own_size = fields.line(Line {
        name: "imageGib",
        label: w().image_gib,
        kind: "number",
        min: Some(1),
        max: Some(limit::DISK_GIB),
        hint: w().image_gib_hint.to_owned(),
        ..Line::default()
    });
    let blank = fields.line(Line {
        name: "blankGib",
        label: w().add_blank,
        hint: w().add_blank_hint.to_owned(),
        ..Line::default()
    });
    let about = fields.line(Line {
        name: "description",
        label: w().description,
        ..Line::default()
    });
    let forwards = fields.line(Line {
        name: "forwards",
        label: w().forwards,
        hint: w().forwards_hint.to_owned(),
        ..Line::default()
    });
    let mut networks = place::networks(&data.networks);
    networks.push((NETWORK_NONE.to_owned(), w().network_none.to_owned()));
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h1 tabindex="-1">{w().new_machine}</h1>
                <p class="soft lead">{w().new_machine_lead}</p>
                {fields.error("/vms/new")}
                {name}
                <div class="two">
                    {fields.choice("image", w().image, image_hint.to_owned(), images, &first)}
                    {own_size}
                </div>
                {blank}
                {place::storage(&fields, &data.storages, w().default_where)}
                <div class="two">{cpus} {memory}</div>
                {fields.choice("network", w().network, String::new(), networks, USER_NETWORK)}
                {fields.tick("disconnected", w().start_disconnected.to_owned(), w().nic_connected_hint, false)}
                <details class="unfold">
                    <summary>{w().more}</summary>
                    <div class="sheet-in">
                        {forwards}
                        {about}
                        {fields.text("labels", w().labels, w().labels_hint)}
                        {place::firmware(&fields, Firmware::Bios, "")}
                        {place::autostart(&fields, None)}
                    </div>
                </details>
                {super::new_clone::identity(&fields)}
                {fields.tick("start", w().start_when_made.to_owned(), "", true)}
            </div>
            <footer>
                <a class="button" href="/vms">
                    {w().never_mind}
                </a>
                {fields.submit("go", w().make_machine, || may(Privilege::VmCreate, None))}
            </footer>
        </form>
    }
    .into_any()
}
