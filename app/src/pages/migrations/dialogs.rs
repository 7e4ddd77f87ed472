//! The dialogs of migration: add a source, make a test clone, cut over, finalize, delete.

use super::{HERE, may_ask, may_manage};
use crate::components::copies::facts;
use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::format;
use crate::forms::{SOURCE_DISKS, SOURCE_LIBVIRT, SOURCE_LOCAL};
use crate::words::{put, w};
use leptos::prelude::*;
use shared::can::limit;
use shared::migrate::can::Verb;
use shared::migrate::views::Forecast;
use shared::migrate::{CreateCutover, MigratingVm};

pub fn add_source() -> AnyView {
    dialog("add-source", w().add_source.to_owned(), || {
        let action = "/do/sources/create";
        let fields = Fields::of(action);
        let name = fields.line(Line {
            name: "name",
            label: w().name,
            hint: w().name_hint.to_owned(),
            required: true,
            is_name: true,
            ..Line::default()
        });
        let kinds = vec![
            (SOURCE_LOCAL.to_owned(), w().source_local.to_owned()),
            (SOURCE_DISKS.to_owned(), w().source_disks.to_owned()),
            (SOURCE_LIBVIRT.to_owned(), w().source_libvirt.to_owned()),
        ];
        let path = fields.line(Line {
            name: "disks.path",
            label: w().directory,
            hint: w().source_disks_hint.to_owned(),
            ..Line::default()
        });
        let uri = fields.line(Line {
            name: "libvirt.uri",
            label: w().source_uri,
            hint: w().source_uri_hint.to_owned(),
            ..Line::default()
        });
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{HERE}?do=add-source"))}
                {name}
                {fields.choice("kind", w().kind, w().source_kind_hint.to_owned(), kinds, SOURCE_LOCAL)}
                <div class="of-disks">{path}</div>
                <div class="of-libvirt">{uri}</div>
                <footer>
                    {cancel(HERE.to_owned(), w().never_mind)}
                    {fields.submit("go", w().add_it, may_manage)}
                </footer>
            </form>
        }
        .into_any()
    })
}

/// What a dialog of a migration does, and how its button looks and what it says.
struct Ask {
    /// As the address says it, and the form's action.
    what: &'static str,
    verb: Verb,
    class: &'static str,
    label: &'static str,
}

/// A dialog of a migration that asks for little.
fn ask(
    vm: Memo<MigratingVm>,
    title: &'static str,
    ask: Ask,
    asked: impl Fn(&Fields, &MigratingVm) -> AnyView + Send + Sync + 'static,
) -> AnyView {
    let Ask {
        what,
        verb,
        class,
        label,
    } = ask;
    let title = vm.with_untracked(|v| put(title, &[v.name.as_str()]));
    dialog(what, title, move || {
        let name = vm.with_untracked(|v| v.name.to_string());
        let action = format!("/do/migrations/{name}/{what}");
        let (here, fields) = (format!("{HERE}/{name}"), Fields::of(&action));
        let verdict = move || vm.with(|v| may_ask(verb, v));
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do={what}"))}
                {vm.with_untracked(|v| asked(&fields, v))}
                <footer>
                    {cancel(here, w().never_mind)}
                    {fields.submit(class, label, verdict)}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn clone(vm: Memo<MigratingVm>) -> AnyView {
    let of = Ask {
        what: "clone",
        verb: Verb::Clone,
        class: "go",
        label: w().test_clone_do,
    };
    ask(vm, w().test_clone_title, of, |fields, vm| {
        let name = fields.line(Line {
            name: "target.name",
            label: w().test_clone_name,
            hint: put(w().clone_name_hint, &[vm.name.as_str()]),
            is_name: true,
            ..Line::default()
        });
        let hours = fields.line(Line {
            name: "keepHours",
            label: w().keep_hours,
            hint: w().keep_hours_hint.to_owned(),
            kind: "number",
            min: Some(1),
            ..Line::default()
        });
        view! {
            <p class="soft">{w().test_clone_lead}</p>
            {name}
            {fields.tick("isolated", w().isolated_network.to_owned(), w().isolated_network_hint, true)}
            {fields.tick("start", w().start_when_made.to_owned(), "", true)}
            {hours}
        }
        .into_any()
    })
}

pub fn cut_over(vm: Memo<MigratingVm>, forecast: Memo<Forecast>) -> AnyView {
    let of = Ask {
        what: "cutover",
        verb: Verb::CutOver,
        class: "danger",
        label: w().cut_over_do,
    };
    ask(vm, w().title_cut_over, of, move |fields, vm| {
        let name = fields.line(Line {
            name: "target.name",
            label: w().target_vm_name,
            hint: w().name_hint.to_owned(),
            value: vm.target_defaults.name.as_ref().unwrap_or(&vm.name).to_string(),
            required: true,
            is_name: true,
            ..Line::default()
        });
        let seconds = fields.line(Line {
            name: "powerOffAfterSeconds",
            label: w().power_off_after,
            hint: w().cut_over_power_hint.to_owned(),
            kind: "number",
            min: Some(1),
            max: Some(limit::BOOT_TIMEOUT_SECONDS),
            value: CreateCutover::default().power_off_after_seconds.to_string(),
            required: true,
            ..Line::default()
        });
        let downtime = forecast.with_untracked(Forecast::downtime_millis);
        view! {
            <div class="alert warn">{put(w().cut_over_loss, &[&vm.source_vm_name])}</div>
            {facts(vec![(w().downtime, about(downtime).into_any())])}
            {name}
            {seconds}
        }
        .into_any()
    })
}

/// How long something is likely to take, if that was measured.
pub fn about(millis: Option<u64>) -> String {
    match millis {
        Some(millis) => put(
            w().forecast,
            &[&format::duration(millis.saturating_mul(1000) as i64)],
        ),
        None => w().not_measured.to_owned(),
    }
}

pub fn finalize(vm: Memo<MigratingVm>) -> AnyView {
    let of = Ask {
        what: "finalize",
        verb: Verb::Finalize,
        class: "danger",
        label: w().finalize_do,
    };
    ask(vm, w().title_finalize, of, |fields, vm| {
        view! {
            <p class="soft">{put(w().finalize_lead, &[vm.target_name.as_str()])}</p>
            {fields.tick("keepCopies", w().finalize_keep.to_owned(), w().finalize_keep_hint, false)}
        }
        .into_any()
    })
}

pub fn delete(vm: Memo<MigratingVm>) -> AnyView {
    let of = Ask {
        what: "delete",
        verb: Verb::Delete,
        class: "danger",
        label: w().delete_migration_do,
    };
    ask(vm, w().delete_it, of, |_, vm| {
        view! { <p class="soft">{put(w().delete_migration_loss, &[vm.target_name.as_str()])}</p> }.into_any()
    })
}
