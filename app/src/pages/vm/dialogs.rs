//! The dialogs of a machine's page: take a snapshot, delete.

use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::can;
use shared::vm::Vm;

pub fn snapshot(vm: Memo<Vm>) -> AnyView {
    let name = vm.with_untracked(|v| v.name.to_string());
    let title = put(w().snapshot_title, &[&name]);
    dialog("snapshot", title, move || {
        let action = format!("/do/vms/{name}/snapshot");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let name_field = fields.line(Line {
            name: "name",
            label: w().name,
            hint: w().snapshot_name_hint.to_owned(),
            is_name: true,
            ..Line::default()
        });
        let about = fields.line(Line {
            name: "description",
            label: w().description,
            ..Line::default()
        });
        let refused = move || vm.with(|v| can::can_snapshot(v).err().map(|e| e.message));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=snapshot"))}
                {name_field}
                {about}
                {fields.tick("quiesce", w().quiesce.to_owned(), w().quiesce_hint, true)}
                <div class="note">{w().snapshot_note}</div>
                {move || refused().map(|why| view! { <div class="alert warn" role="alert">{why}</div> })}
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    <button class="go" aria-disabled=move || refused().map(|_| "true")>
                        {w().take_snapshot}
                    </button>
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn delete(vm: Memo<Vm>) -> AnyView {
    let name = vm.with_untracked(|v| v.name.to_string());
    let title = put(w().delete_title, &[&name]);
    dialog("delete", title, move || {
        let action = format!("/do/vms/{name}/delete");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let lost = vm.with_untracked(|v| {
            let bytes: u64 = v.disks.iter().map(|d| d.virtual_bytes).sum();
            put(
                w().delete_loss,
                &[&v.disks.len().to_string(), &format::bytes(bytes), &name],
            )
        });
        let confirm = fields.line(Line {
            name: "confirm",
            label: w().delete_confirm,
            hint: put(w().delete_confirm_hint, &[&name]),
            required: true,
            ..Line::default()
        });
        let refused = move || vm.with(|v| can::can_delete(v).err().map(|e| e.message));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=delete"))}
                <p class="soft">{lost}</p>
                <input type="hidden" name="name" value=name.clone()/>
                {confirm}
                {move || refused().map(|why| view! { <div class="alert warn" role="alert">{why}</div> })}
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    <button class="danger" aria-disabled=move || refused().map(|_| "true")>
                        {put(w().delete_it, &[&name])}
                    </button>
                </footer>
            </form>
        }
        .into_any()
    })
}
