//! The dialogs of a copy: bring it back in one of four ways, boot it, remove it.

use super::HERE;
use super::one::Data;
use crate::components::copies::{way, ways};
use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::env::may;
use crate::format;
use crate::forms::{NETWORK_NONE, START_AFTER, START_INSTANT, way as of};
use crate::words::{put, w};
use leptos::prelude::*;
use shared::Status;
use shared::access::Privilege;
use shared::can::{self, limit};
use shared::clone::DEFAULT_BOOT_TIMEOUT_SECONDS;
use shared::copy::{Copy, CopyDisk};
use shared::image::ExportFormat;
use shared::vm::Vm;

pub fn restore(data: RwSignal<Data>) -> AnyView {
    let way = way(of::VM);
    let title = data.with_untracked(|d| put(w().restore_title, &[d.copy.vm_name.as_str()]));
    dialog("restore", title, move || {
        let id = data.with_untracked(|d| d.copy.id.to_string());
        let here = format!("{HERE}/{id}");
        let all = [
            (of::VM, w().restore_new),
            (of::OVER, w().restore_over),
            (of::DISKS, w().restore_disks),
            (of::FILE, w().restore_file),
        ];
        let action = format!("/do/copies/{id}/restore");
        // Another way is another form.
        let shown = move || {
            let way = way.get();
            let fields = Fields::of(&action);
            let (asked, label, class) = data.with_untracked(|d| match way.as_str() {
                of::OVER => (over(d, &fields), w().restore_over_do, "danger"),
                of::DISKS => (disks(d, &fields), w().restore_do, "go"),
                of::FILE => (file(d, &fields), w().restore_file_do, "go"),
                _ => (new(d, &fields), w().restore_do, "go"),
            });
            let back = format!("{here}?do=restore&way={way}");
            let (onto, verdict_way) = (matches!(&*way, of::OVER | of::DISKS), way.clone());
            let verdict = move || {
                data.with(|d| {
                    may(Privilege::CopyRestore, Some(d.copy.vm))?;
                    if !matches!(&*verdict_way, of::OVER | of::DISKS | of::FILE) {
                        may(Privilege::VmCreate, None)?;
                    }
                    if onto && d.vms.is_empty() {
                        return Err(Status::precondition(w().restore_none_off));
                    }
                    Ok(())
                })
            };
            view! {
                {ways(w().restore_ways, &here, "restore", &all, &way)}
                <form method="post" action=action.clone()>
                    {fields.error(&back)}
                    <input type="hidden" name="way" value=way/>
                    {asked}
                    <footer>
                        {cancel(here.clone(), w().never_mind)}
                        {fields.submit(class, label, verdict)}
                    </footer>
                </form>
            }
        };
        shown.into_any()
    })
}

/// Whether what is brought back is started, and when.
fn starts(fields: &Fields) -> AnyView {
    view! {
        <fieldset>
            <legend>{w().start}</legend>
            {fields.radio("start", START_AFTER, w().start_after, "", true)}
            {fields.radio("start", START_INSTANT, w().start_instant, w().start_instant_hint, false)}
            {fields.radio("start", "", w().start_never, "", false)}
        </fieldset>
    }
    .into_any()
}

/// A new machine.
fn new(data: &Data, fields: &Fields) -> AnyView {
    let copy = &data.copy;
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        value: format!("{}-restored", copy.vm_name).chars().take(63).collect(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let number = |name, label, now: u32| {
        fields.line(Line {
            name,
            label,
            kind: "number",
            min: Some(1),
            placeholder: now.to_string(),
            ..Line::default()
        })
    };
    let named = |first: &'static str, all: &[String]| {
        let first = (String::new(), first.to_owned());
        std::iter::once(first)
            .chain(all.iter().map(|n| (n.clone(), n.clone())))
            .collect::<Vec<_>>()
    };
    let mut networks = named(w().restore_nics_as_they_were, &data.networks);
    networks.push((NETWORK_NONE.to_owned(), w().network_none.to_owned()));
    view! {
        {name}
        {starts(fields)}
        <details class="unfold">
            <summary>{w().more}</summary>
            <div class="sheet-in">
                {number("cpus", w().cpus, copy.machine.cpus)}
                {number("memoryMib", w().memory_mib, copy.machine.memory_mib)}
                {fields.choice("network", w().network, w().restore_nics_hint.to_owned(), networks, "")}
                {fields.choice("storage", w().storage, String::new(), named(w().default_where, &data.storages), "")}
            </div>
        </details>
    }
    .into_any()
}

/// Which of the machines that are off.
fn machine(data: &Data, fields: &Fields) -> AnyView {
    let fits = |vm: &&Vm| can::can_restore_onto(vm).is_ok();
    let own = data.vms.iter().find(|vm| vm.id == data.copy.vm);
    let own = own.map(|vm| vm.name.to_string()).unwrap_or_default();
    let all = data.vms.iter().filter(fits);
    let all = all.map(|vm| (vm.name.to_string(), vm.name.to_string())).collect();
    fields.choice("vm", w().machine, w().restore_vm_hint.to_owned(), all, &own)
}

/// Over the disks of a machine.
fn over(data: &Data, fields: &Fields) -> AnyView {
    let confirm = fields.line(Line {
        name: "confirm",
        label: w().delete_confirm,
        hint: w().restore_confirm_hint.to_owned(),
        required: true,
        ..Line::default()
    });
    view! {
        {machine(data, fields)}
        <div class="alert">{w().restore_over_loss}</div>
        {confirm}
        {starts(fields)}
    }
    .into_any()
}

fn disk_word(disk: &CopyDisk) -> String {
    let name = put(w().disk_number, &[&disk.number.to_string()]);
    format!("{name} · {}", format::bytes(disk.bytes))
}

/// What a guest sees as disks.
fn guest_disks(copy: &Copy) -> impl Iterator<Item = &CopyDisk> {
    copy.disks.iter().filter(|d| d.slot > 0)
}

/// Its disks, beside those of a machine.
fn disks(data: &Data, fields: &Fields) -> AnyView {
    let boxes: Vec<_> = guest_disks(&data.copy)
        .map(|disk| {
            let number = disk.number.to_string();
            let on = fields.ticked_of("number", &number, true);
            view! {
                <label class="check">
                    <input type="checkbox" name="number" value=number checked=on/>
                    <span>{disk_word(disk)}</span>
                </label>
            }
        })
        .collect();
    view! {
        {machine(data, fields)}
        <fieldset>
            <legend>{w().copy_disks}</legend>
            {boxes}
        </fieldset>
        <div class="note">{w().restore_disks_note}</div>
    }
    .into_any()
}

/// A disk, as a file.
fn file(data: &Data, fields: &Fields) -> AnyView {
    let all: Vec<_> = guest_disks(&data.copy)
        .map(|d| (d.number.to_string(), disk_word(d)))
        .collect();
    let formats = ExportFormat::ALL
        .iter()
        .map(|f| (f.word().to_owned(), f.word().to_owned()));
    let first = all.first().map(|(number, _)| number.clone()).unwrap_or_default();
    view! {
        {fields.choice("disk", w().disk, String::new(), all, &first)}
        {fields.choice("format", w().export_format, String::new(), formats.collect(), ExportFormat::Qcow2.word())}
        <div class="note">{w().export_note}</div>
    }
    .into_any()
}

pub fn boot(copy: Memo<Copy>) -> AnyView {
    let title = copy.with_untracked(|c| put(w().boot_title, &[c.vm_name.as_str()]));
    dialog("boot", title, move || {
        let (id, vm) = copy.with_untracked(|c| (c.id.to_string(), c.vm));
        let action = format!("/do/copies/{id}/boot");
        let (here, fields) = (format!("{HERE}/{id}"), Fields::of(&action));
        let timeout = fields.line(Line {
            name: "bootTimeoutSeconds",
            label: w().boot_timeout,
            kind: "number",
            min: Some(1),
            max: Some(limit::BOOT_TIMEOUT_SECONDS),
            value: DEFAULT_BOOT_TIMEOUT_SECONDS.to_string(),
            ..Line::default()
        });
        let pattern = fields.line(Line {
            name: "bootPattern",
            label: w().boot_pattern,
            hint: w().boot_pattern_hint.to_owned(),
            ..Line::default()
        });
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=boot"))}
                <p class="soft">{w().boot_lead}</p>
                {timeout}
                {pattern}
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit("go", w().boot_do, move || may(Privilege::CopyCreate, Some(vm)))}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn delete(copy: Memo<Copy>) -> AnyView {
    dialog("delete", w().delete_copy_title.to_owned(), move || {
        let (id, loss) = copy.with_untracked(|c| {
            let of = [
                c.vm_name.as_str(),
                c.snapshot_name.as_str(),
                c.target_name.as_str(),
            ];
            (c.id.to_string(), put(w().delete_copy_loss, &of))
        });
        let action = format!("/do/copies/{id}/delete");
        let (here, fields) = (format!("{HERE}/{id}"), Fields::of(&action));
        let verdict = move || {
            copy.with(|c| may(Privilege::CopyDelete, Some(c.vm)).and_then(|()| can::can_delete_copy(c)))
        };
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=delete"))}
                <p class="soft">{loss}</p>
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit("danger", w().delete_copy_do, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}
