//! The pages. All but the one for signing in are loaded by the browser when they are first seen.

mod audit;
mod copies;
mod edit_vm;
mod fork_points;
mod images;
mod job;
mod jobs;
pub mod login;
mod migrations;
mod new_clone;
mod new_vm;
mod notices;
pub mod overview;
mod people;
mod places;
mod policies;
mod settings;
mod targets;
mod vm;
mod vms;

use crate::components::error;
use crate::components::frame::bar;
use crate::words::w;
use leptos::prelude::*;
use leptos_router::LazyRoute;
use leptos_router::hooks::{use_params_map, use_query_map};
use shared::Status;

/// Pages that the browser loads together: the more there are of these, the more small files there would be with what
/// two or three of them share.
macro_rules! lazy {
    ($($load:ident $preload:ident { $($(#[$doc:meta])* $Page:ident: $page:path;)* })*) => {$(
        #[lazy]
        fn $load(page: &'static str) -> AnyView {
            match page {
                $(stringify!($Page) => $page(),)*
                _ => not_found(),
            }
        }

        $(
            $(#[$doc])*
            pub struct $Page;

            impl LazyRoute for $Page {
                fn data() -> Self {
                    Self
                }

                async fn view(_: Self) -> AnyView {
                    $load(stringify!($Page)).await
                }

                async fn preload() {
                    #[cfg(feature = "hydrate")]
                    $preload().await;
                }
            }
        )*
    )*};
}

lazy! {
    lists __preload_lists {
        /// `/vms`
        Vms: vms::page;
        /// `/jobs`
        Jobs: jobs::page;
    }
    details __preload_details {
        /// `/vms/{vm}`
        OneVm: vm::page;
        /// `/vms/{vm}/console`
        VmConsole: vm::console::page;
        /// `/jobs/{job}`
        OneJob: job::page;
    }
    sheets __preload_sheets {
        /// `/vms/new`
        NewVm: new_vm::page;
        /// `/vms/{vm}/clone`
        NewClone: new_clone::page;
        /// `/vms/{vm}/edit`
        EditVm: edit_vm::page;
        /// `/hosts`
        Hosts: places::hosts;
        /// `/storages`
        Storages: places::storages;
        /// `/networks`
        Networks: places::networks;
        /// `/fork-points`
        ForkPoints: fork_points::page;
        /// `/images`
        Images: images::page;
        /// `/copies`
        Copies: copies::page;
        /// `/copies/{copy}`
        OneCopy: copies::one::page;
        /// `/copies/{copy}/files`
        CopyFiles: copies::files::page;
        /// `/policies`
        Policies: policies::page;
        /// `/policies/new`
        NewPolicy: policies::edit::new;
        /// `/policies/{policy}`
        OnePolicy: policies::one::page;
        /// `/policies/{policy}/edit`
        EditPolicy: policies::edit::page;
        /// `/migrations`
        Migrations: migrations::page;
        /// `/migrations/new`
        NewMigration: migrations::new::page;
        /// `/migrations/{vm}`
        OneMigration: migrations::one::page;
        /// `/migrations/{vm}/edit`
        EditMigration: migrations::edit::page;
        /// `/migration-groups/{group}`
        OneGroup: migrations::group::page;
        /// `/sources/{source}`
        OneSource: migrations::sources::page;
        /// `/targets`
        Targets: targets::page;
        /// `/targets/{target}`
        OneTarget: targets::one::page;
        /// `/settings`
        Settings: settings::page;
        /// `/settings/two-factor`
        TwoFactor: people::two_factor::page;
        /// `/users`
        Users: people::users::page;
        /// `/users/{user}`
        OneUser: people::user::page;
        /// `/roles`
        Roles: people::roles::page;
        /// `/roles/{role}`
        OneRole: people::roles::one;
        /// `/audit`
        Audit: audit::page;
        /// `/notices`
        Notices: notices::page;
    }
}

/// A part of the path.
pub fn param(name: &'static str) -> Memo<String> {
    let params = use_params_map();
    Memo::new(move |_| params.with(|p| p.get_str(name).unwrap_or_default().to_owned()))
}

/// A part of the query.
pub fn query(name: &'static str) -> Memo<String> {
    let query = use_query_map();
    Memo::new(move |_| query.with(|q| q.get_str(name).unwrap_or_default().to_owned()))
}

/// What stands where nothing is.
pub fn not_found() -> AnyView {
    let path = leptos_router::hooks::use_location().pathname.get_untracked();
    view! {
        {bar(Vec::new(), w().not_found.to_owned())}
        {error::page(&Status::not_found("page", path))}
    }
    .into_any()
}

/// One line, and the button that begins.
pub fn empty(line: &'static str, action: AnyView) -> AnyView {
    view! {
        <div class="empty">
            <p>{line}</p>
            {action}
        </div>
    }
    .into_any()
}

/// A filter term for a value that a person typed: terms stand with spaces between, so a term has none.
pub fn contains(field: &str, typed: &str) -> Vec<String> {
    typed
        .split_whitespace()
        .map(|word| format!("{field}:{word}"))
        .collect()
}
