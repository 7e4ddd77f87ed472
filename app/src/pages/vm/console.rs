//! The screen and the serial line of a machine, live. The page is the frame around them; what is in it is `viewer/`, JavaScript that
//! is loaded here alone. Without scripts there is the last picture, and the log as text.

use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::load::{all, body, load};
use crate::components::{error, state};
use crate::env::may;
use crate::feed::{Change, Live, newer, on_change};
use crate::pages::{param, query};
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::Privilege;
use shared::api::{Call, GetVm};
use shared::can;
use shared::feed::Noun;
use shared::vm::{PowerAction, Vm, VmState};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Screen,
    Serial,
}

impl View {
    const fn word(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::Serial => "serial",
        }
    }

    fn address(self, vm: &str) -> String {
        match self {
            Self::Screen => format!("/vms/{vm}/console"),
            Self::Serial => format!("/vms/{vm}/console?view=serial"),
        }
    }
}

/// Keys that a browser or a system keeps for itself, as `KeyboardEvent.code` has them.
const KEYS: [(&str, &str); 8] = [
    ("Ctrl-Alt-F1", "ControlLeft AltLeft F1"),
    ("Ctrl-Alt-F2", "ControlLeft AltLeft F2"),
    ("Alt-Tab", "AltLeft Tab"),
    ("Alt-F4", "AltLeft F4"),
    ("Ctrl-W", "ControlLeft KeyW"),
    ("Super", "MetaLeft"),
    ("Esc", "Escape"),
    ("Print", "PrintScreen"),
];

#[derive(Clone, PartialEq)]
struct Data {
    vm: Vm,
    gone: bool,
}

pub fn page() -> AnyView {
    let name = param("vm");
    let one = move || {
        let name = name.get();
        let trail = vec![
            ("/vms".to_owned(), w().machines.to_owned()),
            (format!("/vms/{name}"), name.clone()),
        ];
        let fetch = |vm| all([GetVm { vm }.raw()]);
        view! {
            {bar(trail, w().console.to_owned())}
            {load(
                move || name.clone(),
                fetch,
                |bodies| Ok(Data { vm: body(bodies, 0)?, gone: false }),
                |old, new| *old = new,
                shown,
            )}
        }
    };
    one.into_any()
}

fn follow(data: RwSignal<Data>) {
    on_change(move |change| {
        let mut after = data.get_untracked();
        if let Change::Gone(Noun::Vm, gone) = change {
            after.gone |= gone.id == after.vm.id.to_string();
        }
        if let Some(vm) = Vm::of(change) {
            newer(&mut after.vm, vm);
        }
        if data.with_untracked(|before| *before != after) {
            data.set(after);
        }
    });
}

fn shown(data: RwSignal<Data>) -> AnyView {
    follow(data);
    let asked = query("view");
    let view = Memo::new(move |_| {
        if asked.with(|v| v == View::Serial.word()) {
            View::Serial
        } else {
            View::Screen
        }
    });
    let vm = Memo::new(move |_| data.with(|d| d.vm.clone()));
    let name = Memo::new(move |_| vm.with(|v| v.name.to_string()));
    // The viewer stays what it is for as long as these do.
    let at = Memo::new(move |_| {
        let (id, on) = vm.with(|v| (v.id.to_string(), v.state.has_process()));
        (on && !data.with(|d| d.gone)).then_some((view.get(), id))
    });
    let tab = move |one: View, label: &'static str| {
        view! {
            <a
                href=move || name.with(|name| one.address(name))
                aria-current=move || (view.get() == one).then_some("page")
            >
                {label}
            </a>
        }
    };
    view! {
        <Title text=move || put(w().console_of, &[&name.get()])/>
        <div class="title">
            <h1 tabindex="-1">{move || put(w().console_of, &[&name.get()])}</h1>
            {move || vm.with(state::vm_pill)}
            <nav class="views" aria-label=w().console_views>
                {tab(View::Screen, w().screen)}
                {tab(View::Serial, w().serial_line)}
            </nav>
        </div>
        {move || data.with(|d| d.gone).then(|| view! { <div class="alert" role="alert">{w().machine_gone}</div> })}
        {move || vm.with(|v| still(v, view.get()))}
        {move || match at.get() {
            Some((view, id)) => match may(Privilege::VmConsole, vm.with_untracked(|v| Some(v.id))) {
                Ok(()) => viewer(view, &id, &name.get_untracked()),
                Err(why) => error::panel(w().console_refused, &why),
            },
            None => vm.with(|v| off(v, view.get())),
        }}
        {script()}
    }
    .into_any()
}

fn power(vm: &Vm, view: View, action: PowerAction, to: &str, label: &'static str) -> AnyView {
    let button = Button {
        to: format!("/do/vms/{}/{to}", vm.name),
        label,
        class: "go",
        back: view.address(vm.name.as_str()),
        ..Button::default()
    };
    let may = may(Privilege::VmPower, Some(vm.id));
    button::post(button, &may.and_then(|()| can::can_power(action, vm)))
}

/// A guest that stands still neither answers nor draws.
fn still(vm: &Vm, view: View) -> Option<AnyView> {
    (vm.state == VmState::Paused).then(|| {
        view! {
            <div class="alert warn aside" role="status">
                <span>{w().console_paused}</span>
                {power(vm, view, PowerAction::Resume, "resume", w().resume)}
            </div>
        }
        .into_any()
    })
}

fn off(vm: &Vm, view: View) -> AnyView {
    let start = power(vm, view, PowerAction::Start, "start", w().start);
    view! { <div class="panel">{crate::pages::empty(w().console_off, start)}</div> }.into_any()
}

fn tool(action: &'static str, label: &'static str) -> AnyView {
    view! {
        <button type="button" data-do=action>
            {label}
        </button>
    }
    .into_any()
}

/// What the script brings to life. Nothing below `stage` is ours once it has: it draws into a shadow tree of that.
fn viewer(view: View, id: &str, name: &str) -> AnyView {
    let screen = view == View::Screen;
    let (path, label) = match view {
        View::Screen => ("vnc", put(w().screen_input, &[name])),
        View::Serial => ("console", put(w().serial_input, &[name])),
    };
    let keys: Vec<_> = KEYS
        .iter()
        .map(|(label, keys)| view! { <button type="button" data-keys=*keys>{*label}</button> })
        .collect();
    let log = format!("/api/v1/vms/{id}/serial");
    let states = [
        ("plain", w().console_plain),
        ("connecting", w().connecting),
        ("open", w().console_open),
        ("lost", w().console_lost),
        ("broken", w().console_broken),
    ]
    .map(|(state, text)| view! { <span data-when=state>{text}</span> });
    view! {
        <offshoot-viewer
            class="panel viewer"
            data-kind=view.word()
            data-src=format!("/api/v1/vms/{id}/{path}")
            data-label=label
            data-skipped=w().console_skipped
            data-cut=w().console_cut
        >
            <div class="tools" role="toolbar" aria-label=w().console_tools>
                {screen.then(|| view! {
                    <button type="button" data-keys="ControlLeft AltLeft Delete">"Ctrl-Alt-Del"</button>
                    <details class="menu keys">
                        <summary>{w().more_keys}</summary>
                        <div class="items">{keys}</div>
                    </details>
                })}
                {tool("paste", w().paste_dots)}
                {screen.then(|| view! {
                    <button type="button" data-do="fit" aria-pressed="true">{w().fit}</button>
                })}
                {tool("full", w().full_screen)}
                <a class="button quiet" href=log target="_blank">{w().log_as_text}</a>
                <span class="link" role="status">{states}</span>
            </div>
            <form class="paste" hidden>
                <label for="paste-text">{if screen { w().paste_screen } else { w().paste_serial }}</label>
                <textarea id="paste-text" rows="4" spellcheck="false" autocomplete="off"></textarea>
                <div class="aside">
                    <button type="submit" class="go">{w().paste_go}</button>
                    <button type="button" data-do="paste">{w().cancel}</button>
                    <span class="soft" role="status" data-untyped=w().paste_untyped></span>
                </div>
            </form>
            <div class="stage">
                {screen.then(|| view! {
                    <img src=format!("/api/v1/vms/{id}/screen") alt=put(w().screen_of, &[name])/>
                })}
            </div>
            <p class="soft how">{w().console_leave}</p>
        </offshoot-viewer>
    }
    .into_any()
}

/// The script, from the folder of this page's files.
fn script() -> AnyView {
    #[cfg(feature = "hydrate")]
    Effect::new(|_| run_script());
    view! { <script type="module" src=format!("{}viewer.js", folder())></script> }.into_any()
}

#[cfg(not(feature = "hydrate"))]
fn folder() -> String {
    use_context::<crate::Assets>().map_or_else(String::new, |assets| format!("/pkg/{}/", assets.version))
}

#[cfg(feature = "hydrate")]
fn folder() -> String {
    let sheet = crate::live::browser::find("link[rel=stylesheet]");
    let href = sheet.and_then(|link| link.get_attribute("href"));
    href.map_or_else(String::new, |href| href.trim_end_matches("app.css").to_owned())
}

/// Where the page was not loaded but gone to, the browser does not run a script that came with it: it is given one by hand. A module
/// that has run does not run again.
#[cfg(feature = "hydrate")]
fn run_script() {
    use crate::live::browser::{body, document};
    let made = document().create_element("script").and_then(|script| {
        script.set_attribute("type", "module")?;
        script.set_attribute("src", &format!("{}viewer.js", folder()))?;
        body().append_with_node_1(&script)
    });
    if let Err(e) = made {
        leptos::logging::error!("the viewer cannot be loaded: {e:?}");
    }
}
