//! A machine, changed: what people see of it, and what it is made of.

use super::param;
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::place;
use crate::env::may;
use crate::format;
use crate::forms::NETWORK_NONE;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, GetVm, ImagePage, ListImages, ListNetworks, ListQuery, NetworkPage, RawCall};
use shared::can::{self, limit};
use shared::place::{Image, Network, NetworkKind};
use shared::vm::{Disk, Nic, Vm, VmState};

/// What the forms need to know.
#[derive(Clone, Debug, PartialEq)]
struct Data {
    vm: Vm,
    networks: Vec<Network>,
    images: Vec<Image>,
}

pub fn page() -> AnyView {
    let name = param("vm");
    let one = move || {
        let name = name.get();
        let trail = vec![
            ("/vms".to_owned(), w().machines.to_owned()),
            (format!("/vms/{name}"), name.clone()),
        ];
        view! {
            {bar(trail, w().edit_dots.trim_end_matches('…').to_owned())}
            {load(move || name.clone(), |vm| all(calls(vm)), read, |old, new| *old = new, shown)}
        }
    };
    one.into_any()
}

fn calls(vm: String) -> [RawCall; 3] {
    let query = ListQuery::default();
    [
        GetVm { vm }.raw(),
        ListNetworks { query: query.clone() }.raw(),
        ListImages { query }.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        vm: body(bodies, 0)?,
        networks: body::<NetworkPage>(bodies, 1)?.networks,
        images: body::<ImagePage>(bodies, 2)?.images,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let data = data.get_untracked();
    let title = put(w().edit_title, &[data.vm.name.as_str()]);
    view! {
        <Title text=title.clone()/>
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
        </div>
        <div class="cols form">
            {hardware(&data)}
            <div class="stack">{describe(&data.vm)}</div>
        </div>
    }
    .into_any()
}

/// The id stays when the name changes.
fn action(vm: &Vm, what: &str) -> String {
    format!("/do/vms/{}/{what}", vm.id)
}

fn describe(vm: &Vm) -> AnyView {
    let action = action(vm, "describe");
    let fields = Fields::of(&action);
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        value: vm.name.to_string(),
        hint: w().name_hint.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let about = fields.line(Line {
        name: "description",
        label: w().description,
        value: vm.description.clone(),
        ..Line::default()
    });
    let labels: Vec<_> = vm.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let verdict = may(Privilege::VmUpdate, Some(vm.id)).and_then(|()| can::can_rename(vm));
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h2>{w().describe_title}</h2>
                {fields.error(&format!("/vms/{}", vm.id))}
                {name}
                {about}
                {fields.text_of("labels", w().labels, w().labels_hint, labels.join("\n"))}
                {place::autostart(&fields, vm.autostart)}
            </div>
            <footer>
                {fields.submit("go", w().save, move || verdict.clone())}
            </footer>
        </form>
    }
    .into_any()
}

fn hardware(data: &Data) -> AnyView {
    let vm = &data.vm;
    let next = vm.started_next();
    let action = action(vm, "edit");
    let fields = Fields::of(&action);
    let later = match vm.state {
        VmState::Running | VmState::Paused => w().when_next,
        _ => w().when_now,
    };
    let cpus = fields.line(Line {
        name: "cpus",
        label: w().cpus,
        kind: "number",
        min: Some(1),
        max: Some(limit::CPUS),
        value: next.cpus.to_string(),
        hint: later.to_owned(),
        required: true,
        ..Line::default()
    });
    let memory = fields.line(Line {
        name: "memoryMib",
        label: w().memory_mib,
        kind: "number",
        min: Some(limit::MIN_MEMORY_MIB),
        max: Some(limit::MAX_MEMORY_MIB),
        value: next.memory_mib.to_string(),
        hint: later.to_owned(),
        required: true,
        ..Line::default()
    });
    let word = |d: &Disk| {
        format!(
            "{} · {}",
            put(w().disk_number, &[&d.number.to_string()]),
            format::bytes(d.virtual_bytes)
        )
    };
    let boot: Vec<_> = next
        .guest_disks()
        .map(|d| (d.number.to_string(), word(d)))
        .collect();
    let first = boot.first().map(|(n, _)| n.clone()).unwrap_or_default();
    let blank = fields.line(Line {
        name: "blankGib",
        label: w().add_blank,
        hint: w().add_blank_hint.to_owned(),
        ..Line::default()
    });
    let mut images = vec![(String::new(), w().no_image.to_owned())];
    images.extend(place::images(&data.images));
    let mut networks = vec![(NETWORK_NONE.to_owned(), w().no_image.to_owned())];
    networks.extend(place::networks(&data.networks));
    let disks: Vec<_> = next.guest_disks().map(|d| disk(&fields, d)).collect();
    let nics: Vec<_> = next
        .network_interfaces
        .iter()
        .map(|n| nic(&fields, n, &data.networks))
        .collect();
    let verdict = may(Privilege::VmUpdate, Some(vm.id)).and_then(|()| can::can_edit(vm));
    let here = format!("/vms/{}", vm.name);
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h2>{w().hardware_title}</h2>
                <p class="soft lead">{w().hardware_lead}</p>
                {fields.error(&format!("/vms/{}/edit", vm.id))}
                <div class="two">{cpus} {memory}</div>
                {place::firmware(&fields, next.firmware, later)}
                {fields.choice("bootFirst", w().boot_first, later.to_owned(), boot, &first)}
                {disks}
                {blank}
                {fields.choice("image", w().add_image, w().image_hint.to_owned(), images, "")}
                {nics}
                {fields.choice("addNetwork", w().add_nic, String::new(), networks, NETWORK_NONE)}
            </div>
            <footer>
                <a class="button" href=here>
                    {w().never_mind}
                </a>
                {fields.submit("go", w().change_it, move || verdict.clone())}
            </footer>
        </form>
    }
    .into_any()
}

/// A field of a device, whose name has the device's number.
fn field(
    fields: &Fields,
    name: String,
    label: String,
    value: String,
    hint: &'static str,
    number: bool,
) -> AnyView {
    let value = fields.typed(&name).unwrap_or(value);
    let about = format!("{name}-about");
    view! {
        <div class="field">
            <label for=name.clone()>{label}</label>
            <input
                id=name.clone()
                name=name
                type=if number { "number" } else { "text" }
                min=number.then_some("1")
                value=value
                autocomplete="off"
                spellcheck="false"
                aria-describedby=about.clone()
            />
            <small id=about>{hint}</small>
        </div>
    }
    .into_any()
}

fn tick(fields: &Fields, name: &'static str, number: u32, label: String) -> AnyView {
    let on = fields.typed(name).is_some_and(|v| v == number.to_string());
    view! {
        <label class="check">
            <input type="checkbox" name=name value=number.to_string() checked=on/>
            <span>{label}</span>
        </label>
    }
    .into_any()
}

fn disk(fields: &Fields, disk: &Disk) -> AnyView {
    let n = disk.number.to_string();
    // Only whole GiB are asked for: one of another size stays as it is if the field is left empty.
    let whole = disk.virtual_bytes.is_multiple_of(1 << 30);
    let size = if whole {
        (disk.virtual_bytes >> 30).to_string()
    } else {
        String::new()
    };
    view! {
        <fieldset class="stack">
            <legend>{format!("{} · {}", put(w().disk_number, &[&n]), format::bytes(disk.virtual_bytes))}</legend>
            {field(fields, format!("grow-{n}"), put(w().disk_size, &[&n]), size, w().disk_size_hint, true)}
            {tick(fields, "removeDisk", disk.number, put(w().remove_disk, &[&n]))}
        </fieldset>
    }
    .into_any()
}

fn nic(fields: &Fields, nic: &Nic, networks: &[Network]) -> AnyView {
    let n = nic.number.to_string();
    let id = format!("network-{n}");
    let chosen = fields.typed(&id).unwrap_or_else(|| nic.network.to_string());
    let options: Vec<_> = place::networks(networks)
        .into_iter()
        .map(|(value, word)| {
            let on = value == chosen;
            view! {
                <option value=value selected=on>
                    {word}
                </option>
            }
        })
        .collect();
    let forwards: Vec<_> = nic.forwards.iter().map(ToString::to_string).collect();
    let forwards = (nic.kind == NetworkKind::User || !forwards.is_empty()).then(|| {
        let label = put(w().nic_forwards, &[&n]);
        field(
            fields,
            format!("forwards-{n}"),
            label,
            forwards.join(" "),
            w().forwards_hint,
            false,
        )
    });
    view! {
        <fieldset class="stack">
            <legend>{format!("{} · {}", put(w().nic_number, &[&n]), nic.mac)}</legend>
            <div class="field">
                <label for=id.clone()>{put(w().nic_network, &[&n])}</label>
                <select id=id.clone() name=id>
                    {options}
                </select>
            </div>
            {forwards}
            {field(fields, format!("mac-{n}"), put(w().nic_mac, &[&n]), nic.mac.clone(), "", false)}
            {tick(fields, "removeNic", nic.number, put(w().remove_nic, &[&n]))}
        </fieldset>
    }
    .into_any()
}
