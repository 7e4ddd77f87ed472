//! The dialogs of a machine's snapshots: take one, revert to one, delete one.

use super::data::Data;
use crate::components::dialog::{cancel, dialog};
use crate::components::error;
use crate::components::field::{Fields, Line};
use crate::env::may;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_router::hooks::use_location;
use shared::access::Privilege;
use shared::can;
use shared::snapshot::Snapshot;
use shared::vm::Vm;

pub fn take(vm: Memo<Vm>) -> AnyView {
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
        let verdict = move || {
            vm.with(|v| may(Privilege::SnapshotCreate, Some(v.id)).and_then(|()| can::can_snapshot(v)))
        };
        let runs = Memo::new(move |_| vm.with(|v| can::can_snapshot_memory(v).is_ok()));
        let form = fields.clone();
        // One of them: what the guest has not written yet is in the memory.
        let with = move || match runs.get() {
            true => view! {
                {form.radio("with", "quiesce", w().quiesce, w().quiesce_hint, true)}
                {form.radio("with", "memory", w().snapshot_memory, w().snapshot_memory_hint, false)}
                {form.radio("with", "", w().quiesce_no, "", false)}
                <div class="note">{w().snapshot_note}</div>
            }
            .into_any(),
            false => view! { <div class="note">{w().snapshot_note_off}</div> }.into_any(),
        };
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=snapshot"))}
                {name_field}
                {about}
                {with}
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("go", w().take_snapshot, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

/// The snapshot that the address names.
fn named(data: RwSignal<Data>) -> Memo<Option<Snapshot>> {
    let query = use_location().query;
    Memo::new(move |_| {
        let id = query.with(|q| q.get("snapshot"))?;
        data.with(|d| d.snapshots.iter().find(|s| s.id.to_string() == id).cloned())
    })
}

fn none(here: String) -> AnyView {
    view! {
        <p class="soft">{w().no_such_snapshot}</p>
        <footer>{cancel(here, w().close)}</footer>
    }
    .into_any()
}

pub fn revert(data: RwSignal<Data>) -> AnyView {
    let (name, snapshot) = (data.with_untracked(|d| d.vm.name.to_string()), named(data));
    dialog("revert", put(w().revert_title, &[&name]), move || {
        let here = format!("/vms/{name}");
        let Some(to) = snapshot.get_untracked() else {
            return none(here);
        };
        let action = format!("/do/vms/{name}/revert");
        let fields = Fields::of(&action);
        let keep_name = fields.line(Line {
            name: "name",
            label: w().revert_keep_name,
            hint: w().snapshot_name_hint.to_owned(),
            is_name: true,
            ..Line::default()
        });
        let runs = data.with_untracked(|d| d.vm.state.has_process());
        let id = to.id.to_string();
        let goes_on = to
            .memory
            .then(|| data.with_untracked(|d| can::can_go_on(&d.vm, &to)));
        let memory = match &goes_on {
            None => None,
            Some(Ok(())) => Some(fields.tick(
                "memory",
                w().revert_memory.to_owned(),
                w().revert_memory_hint,
                true,
            )),
            Some(Err(why)) => {
                let why = error::sentence(&why.message);
                Some(
                    view! {
                        <label class="check">
                            <input type="checkbox" disabled/>
                            <span>{w().revert_memory} <small>{why}</small></span>
                        </label>
                    }
                    .into_any(),
                )
            }
        };
        let disks_only = !matches!(goes_on, Some(Ok(())));
        let back = format!("{here}?do=revert&snapshot={id}");
        let loss = put(w().revert_loss, &[&name, to.name.as_str()]);
        let verdict = move || {
            data.with(|d| {
                may(Privilege::SnapshotRevert, Some(d.vm.id)).and_then(|()| can::can_revert(&d.vm, &to))
            })
        };
        view! {
            <form method="post" action=action>
                {fields.error(&back)}
                <input type="hidden" name="snapshot" value=id/>
                <p class="soft">{loss}</p>
                {fields.tick("keepCurrent", w().revert_keep.to_owned(), w().revert_keep_hint, true)}
                {keep_name}
                {memory}
                {disks_only.then(|| fields.tick("start", w().revert_start.to_owned(), "", runs))}
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit("danger", w().revert_do, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn delete(data: RwSignal<Data>) -> AnyView {
    let (name, snapshot) = (data.with_untracked(|d| d.vm.name.to_string()), named(data));
    let title = put(w().delete_snapshot_title, &[&name]);
    dialog("delete-snapshot", title, move || {
        let here = format!("/vms/{name}");
        let Some(of) = snapshot.get_untracked() else {
            return none(here);
        };
        let action = format!("/do/vms/{name}/delete-snapshot");
        let fields = Fields::of(&action);
        let id = of.id.to_string();
        let back = format!("{here}?do=delete-snapshot&snapshot={id}");
        let (loss, label) = (
            put(w().delete_snapshot_loss, &[of.name.as_str()]),
            put(w().delete_snapshot_it, &[of.name.as_str()]),
        );
        let verdict = move || {
            data.with(|d| {
                may(Privilege::SnapshotDelete, Some(d.vm.id))
                    .and_then(|()| can::can_delete_snapshot(&d.vm, &of))
            })
        };
        view! {
            <form method="post" action=action>
                {fields.error(&back)}
                <input type="hidden" name="snapshot" value=id/>
                <p class="soft">{loss}</p>
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit("danger", label, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}
