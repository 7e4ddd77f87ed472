//! The console as a whole: what every page shares, and which page stands where.

use crate::components::frame::Frame;
use crate::env::{Clock, Env, Flashes, May};
use crate::feed::{Feed, Link};
use crate::hydration::piece;
use crate::pages;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::components::{FlatRoutes, Route, Router};
use leptos_router::hooks::use_location;
use leptos_router::{Lazy, SsrMode, path};

/// The console.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    let env = Env::of_page();
    let clock = Clock {
        now: RwSignal::new(env.now),
        zone: RwSignal::new(0),
    };
    let flashes = Flashes(RwSignal::new(env.flash.clone()));
    let feed = Feed {
        link: RwSignal::new(Link::Connecting),
        reloads: RwSignal::new(0),
    };
    provide_context(May(env.rights.clone()));
    provide_context(clock);
    provide_context(flashes);
    provide_context(feed);
    let (routing, set_routing) = signal(false);
    view! {
        <Title formatter=|title| format!("{title} · Offshoot")/>
        <Router set_is_routing=set_routing>
            {piece(move || inside(env, routing))}
        </Router>
    }
}

/// What needs the router around it.
fn inside(env: Env, routing: ReadSignal<bool>) -> AnyView {
    if let (Some(clock), Some(feed), Some(flashes)) = (use_context(), use_context(), use_context()) {
        crate::live::start(&env, clock, feed, flashes);
    }
    let path = use_location().pathname;
    #[cfg(feature = "hydrate")]
    crate::live::arrivals(routing, path);
    let page = if path.with_untracked(|p| p == "/login") {
        // The way in and out is a whole page load: what is signed in decides everything else.
        pages::login::page()
    } else if path.with_untracked(|p| p == "/login/code") {
        pages::login::code()
    } else {
        let frame = || {
            view! {
                <Frame>
                    <FlatRoutes fallback=pages::not_found>
                        <Route path=path!("/") view=pages::overview::page ssr=SsrMode::Async/>
                        <Route path=path!("/vms") view={Lazy::<pages::Vms>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/vms/new") view={Lazy::<pages::NewVm>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/vms/:vm") view={Lazy::<pages::OneVm>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/vms/:vm/clone") view={Lazy::<pages::NewClone>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/vms/:vm/console") view={Lazy::<pages::VmConsole>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/vms/:vm/edit") view={Lazy::<pages::EditVm>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/hosts") view={Lazy::<pages::Hosts>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/storages") view={Lazy::<pages::Storages>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/networks") view={Lazy::<pages::Networks>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/fork-points") view={Lazy::<pages::ForkPoints>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/images") view={Lazy::<pages::Images>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/copies") view={Lazy::<pages::Copies>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/copies/:copy") view={Lazy::<pages::OneCopy>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/copies/:copy/files") view={Lazy::<pages::CopyFiles>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/policies") view={Lazy::<pages::Policies>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/policies/new") view={Lazy::<pages::NewPolicy>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/policies/:policy") view={Lazy::<pages::OnePolicy>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/policies/:policy/edit") view={Lazy::<pages::EditPolicy>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/migrations") view={Lazy::<pages::Migrations>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/migrations/new") view={Lazy::<pages::NewMigration>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/migration-groups/:group") view={Lazy::<pages::OneGroup>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/migrations/:vm") view={Lazy::<pages::OneMigration>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/migrations/:vm/edit") view={Lazy::<pages::EditMigration>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/sources/:source") view={Lazy::<pages::OneSource>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/targets") view={Lazy::<pages::Targets>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/targets/:target") view={Lazy::<pages::OneTarget>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/jobs") view={Lazy::<pages::Jobs>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/jobs/:job") view={Lazy::<pages::OneJob>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/settings") view={Lazy::<pages::Settings>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/settings/two-factor") view={Lazy::<pages::TwoFactor>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/users") view={Lazy::<pages::Users>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/users/:user") view={Lazy::<pages::OneUser>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/roles") view={Lazy::<pages::Roles>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/roles/:role") view={Lazy::<pages::OneRole>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/audit") view={Lazy::<pages::Audit>::new()} ssr=SsrMode::Async/>
                        <Route path=path!("/notices") view={Lazy::<pages::Notices>::new()} ssr=SsrMode::Async/>
                    </FlatRoutes>
                </Frame>
            }
        };
        piece(move || frame().into_any())
    };
    view! {
        {page}
        <div id="announcer" class="hidden" role="status"></div>
        <div class="loading" class:on=move || routing.get() aria-hidden="true" title=w().loading></div>
    }
    .into_any()
}
