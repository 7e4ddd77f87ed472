//! Changes what a migration is asked.

use super::form::{self, Places};
use super::{HERE, may_ask};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::pages::param;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{Call, GetMigratingVm};
use shared::migrate::MigratingVm;
use shared::migrate::can::Verb;

#[derive(Clone)]
struct Data {
    vm: MigratingVm,
    places: Places,
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        vm: body(bodies, 0)?,
        places: Places::read(bodies, 1)?,
    })
}

pub fn page() -> AnyView {
    let name = param("vm");
    let page = move || {
        let name = name.get();
        let trail = vec![
            (HERE.to_owned(), w().migration.to_owned()),
            (format!("{HERE}/{name}"), name.clone()),
        ];
        view! {
            {bar(trail, w().change.to_owned())}
            {load(
                String::new,
                move |_| {
                    let vm = GetMigratingVm { vm: name.clone() };
                    all([vm.raw()].into_iter().chain(form::calls()))
                },
                read,
                |old, new| *old = new,
                shown,
            )}
        }
    };
    page.into_any()
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let Data { vm, places } = data.get_untracked();
    let title = put(w().edit_title, &[vm.name.as_str()]);
    let action = format!("/do/migrations/{}/edit", vm.name);
    let here = format!("{HERE}/{}", vm.name);
    let fields = Fields::of(&action);
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        value: vm.name.to_string(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    // What no field shows goes along as it is.
    let now = serde_json::to_string(&vm.target_defaults).unwrap_or_default();
    let group = vm.group.as_ref().map(ToString::to_string).unwrap_or_default();
    let verdict = {
        let vm = vm.clone();
        move || may_ask(Verb::Edit, &vm)
    };
    view! {
        <Title text=title.clone()/>
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
        </div>
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                {fields.error(&format!("{here}/edit"))}
                <input type="hidden" name="targetDefaults" value=now/>
                {name}
                {form::rhythm(&fields, &vm.policy)}
                {form::becomes(&fields, &vm.target_defaults, &places)}
                {form::group(&fields, group, vm.wave)}
            </div>
            <footer>
                <a class="button" href=here>
                    {w().never_mind}
                </a>
                {fields.submit("go", w().save, verdict)}
            </footer>
        </form>
    }
    .into_any()
}
