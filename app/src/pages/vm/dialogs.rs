//! The dialogs of a machine's page: fork, delete.

use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::env::{may, may_fork};
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;
use shared::can;
use shared::fork::ForkNics;
use shared::vm::{PowerAction, Vm};

pub fn fork(vm: Memo<Vm>) -> AnyView {
    let name = vm.with_untracked(|v| v.name.to_string());
    let title = put(w().fork_title, &[&name]);
    dialog("fork", title, move || {
        let action = format!("/do/vms/{name}/fork");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let names = fields.line(Line {
            name: "names",
            label: w().fork_names,
            hint: w().fork_names_hint.to_owned(),
            ..Line::default()
        });
        let count = fields.line(Line {
            name: "count",
            label: w().fork_count,
            hint: w().fork_count_hint.to_owned(),
            kind: "number",
            min: Some(1),
            max: Some(64),
            placeholder: "1".to_owned(),
            ..Line::default()
        });
        let nics = [
            (ForkNics::Disconnect, w().fork_disconnect),
            (ForkNics::Keep, w().fork_keep),
        ];
        let nics = nics.map(|(value, word)| (value.word().to_owned(), word.to_owned()));
        let nics = fields.choice(
            "networkInterfaces",
            w().fork_nics,
            w().fork_nics_hint.to_owned(),
            nics.into(),
            ForkNics::Disconnect.word(),
        );
        let point = fields.line(Line {
            name: "pointName",
            label: w().fork_point_name,
            is_name: true,
            ..Line::default()
        });
        let verdict = move || may_fork().and_then(|()| vm.with(can::can_fork));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=fork"))}
                {names}
                {count}
                {nics}
                <details class="unfold">
                    <summary>{w().more}</summary>
                    {fields.tick("keepPoint", w().fork_keep_point.to_owned(), w().fork_keep_point_hint, false)}
                    {point}
                    {fields.text("config", w().fork_config, w().fork_config_hint)}
                </details>
                <div class="note">{w().fork_note}</div>
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("go", w().fork_do, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn shut_down(vm: Memo<Vm>) -> AnyView {
    let name = vm.with_untracked(|v| v.name.to_string());
    let title = put(w().shut_down_title, &[&name]);
    dialog("shutdown", title, move || {
        let action = format!("/do/vms/{name}/shutdown");
        let (here, fields) = (format!("/vms/{name}"), Fields::of(&action));
        let after = fields.line(Line {
            name: "powerOffAfterSeconds",
            label: w().power_off_after,
            kind: "number",
            min: Some(1),
            max: Some(can::limit::BOOT_TIMEOUT_SECONDS),
            value: "60".to_owned(),
            hint: w().power_off_after_hint.to_owned(),
            ..Line::default()
        });
        let verdict = move || {
            vm.with(|v| {
                may(Privilege::VmPower, Some(v.id)).and_then(|()| can::can_power(PowerAction::ShutDown, v))
            })
        };
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=shutdown"))}
                <p class="soft">{w().shut_down_lead}</p>
                {after}
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("go", w().shut_down, verdict)}
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
            let bytes: u64 = v.guest_disks().map(|d| d.virtual_bytes).sum();
            put(
                w().delete_loss,
                &[&v.guest_disks().count().to_string(), &format::bytes(bytes), &name],
            )
        });
        let confirm = fields.line(Line {
            name: "confirm",
            label: w().delete_confirm,
            hint: put(w().delete_confirm_hint, &[&name]),
            required: true,
            ..Line::default()
        });
        let verdict =
            move || vm.with(|v| may(Privilege::VmDelete, Some(v.id)).and_then(|()| can::can_delete(v)));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=delete"))}
                <p class="soft">{lost}</p>
                <input type="hidden" name="name" value=name.clone()/>
                {confirm}
                <footer>
                    {cancel(here.clone(), w().never_mind)}
                    {fields.submit("danger", put(w().delete_it, &[&name]), verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}
