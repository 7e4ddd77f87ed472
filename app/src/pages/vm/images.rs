//! The dialogs of a machine's page that take its disks elsewhere: into an image, or into a file.

use super::data::Data;
use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::env::may;
use crate::format;
use crate::forms::EXPORT_NOW;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::Status;
use shared::access::Privilege;
use shared::image::ExportFormat;
use shared::snapshot::SnapshotState;
use shared::vm::Disk;

/// The machine's snapshots that are ready, the newest first, as a choice.
fn snapshots(data: &Data) -> Vec<(String, String)> {
    let ready = data.snapshots.iter().filter(|s| s.state == SnapshotState::Ready);
    ready
        .rev()
        .map(|s| (s.name.to_string(), s.name.to_string()))
        .collect()
}

/// Which disk, where there are several.
fn disk(fields: &Fields, data: &Data) -> Option<AnyView> {
    let disks: Vec<_> = data.vm.guest_disks().collect();
    let first = disks.first()?.number.to_string();
    // A form that does not say is about disk 0.
    (disks.len() > 1 || first != "0").then(|| {
        let word = |d: &Disk| {
            let name = put(w().disk_number, &[&d.number.to_string()]);
            format!("{name} · {}", format::bytes(d.virtual_bytes))
        };
        let all = disks.iter().map(|d| (d.number.to_string(), word(d))).collect();
        fields.choice("disk", w().disk, String::new(), all, &first)
    })
}

pub fn make(data: RwSignal<Data>) -> AnyView {
    let name = data.with_untracked(|d| d.vm.name.to_string());
    let title = put(w().image_of_title, &[&name]);
    dialog("image", title, move || {
        let action = format!("/do/vms/{name}/image");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let all = data.with_untracked(snapshots);
        let none = all.is_empty();
        let verdict = move || {
            may(Privilege::ImageCreate, None)?;
            if none {
                return Err(Status::precondition(w().image_of_none));
            }
            Ok(())
        };
        let named = fields.line(Line {
            name: "name",
            label: w().name,
            hint: w().name_hint.to_owned(),
            required: true,
            is_name: true,
            ..Line::default()
        });
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=image"))}
                {named}
                {fields.choice("snapshot", w().snapshot, String::new(), all, "")}
                {data.with_untracked(|d| disk(&fields, d))}
                <div class="note">{w().image_of_note}</div>
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("go", w().image_of_do, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn export(data: RwSignal<Data>) -> AnyView {
    let name = data.with_untracked(|d| d.vm.name.to_string());
    let title = put(w().export_title, &[&name]);
    dialog("export", title, move || {
        let action = format!("/do/vms/{name}/export");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let mut of = data.with_untracked(snapshots);
        let newest = of.first().map_or(EXPORT_NOW.to_owned(), |(name, _)| name.clone());
        of.push((EXPORT_NOW.to_owned(), w().export_now.to_owned()));
        of.push((String::new(), w().export_as_it_is.to_owned()));
        let formats = ExportFormat::ALL
            .iter()
            .map(|f| (f.word().to_owned(), f.word().to_owned()));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=export"))}
                {fields.choice("of", w().export_of, String::new(), of, &newest)}
                {fields.choice("format", w().export_format, String::new(), formats.collect(), ExportFormat::Qcow2.word())}
                {data.with_untracked(|d| disk(&fields, d))}
                <div class="note">{w().export_note}</div>
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("go", w().export_do, || may(Privilege::ImageExport, None))}
                </footer>
            </form>
        }
        .into_any()
    })
}
