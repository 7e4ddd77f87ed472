//! The test clones of a migration, and what people say of them.

use super::{HERE, may_ask, may_manage};
use crate::components::button::{self, Button};
use crate::components::error;
use crate::components::field::Fields;
use crate::components::state::{Tone, pill};
use crate::components::time::ago;
use crate::env::clock;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::Timestamp;
use shared::migrate::can::Verb;
use shared::migrate::views::{Judged, MigrationClone, MoveState};
use shared::migrate::{CloneVerdict, MigratingVm};

pub fn section(vm: Memo<MigratingVm>, clones: Memo<Vec<MigrationClone>>) -> AnyView {
    let name = vm.with_untracked(|v| v.name.to_string());
    let begin = move || {
        vm.with(|v| {
            let button = Button {
                to: format!("{HERE}/{}?do=clone", v.name),
                label: w().test_clone_dots,
                class: "quiet",
                ..Button::default()
            };
            button::link(button, &may_ask(Verb::Clone, v))
        })
    };
    let shown = move || {
        clones.with(|all| {
            if all.is_empty() {
                return view! { <p class="none">{w().no_test_clones}</p> }.into_any();
            }
            let rows: Vec<_> = all.iter().map(|clone| row(clone, &name)).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    view! {
        <section class="panel" aria-labelledby="test-clones-title">
            <header>
                <h2 id="test-clones-title">{w().test_clones}</h2>
                {begin}
            </header>
            {shown}
        </section>
    }
    .into_any()
}

/// How far a test clone or a cutover has come.
pub fn state(state: MoveState) -> AnyView {
    let (tone, word) = match state {
        MoveState::Pending => (Tone::Still, w().queued),
        MoveState::Active => (Tone::Busy, w().job_running),
        MoveState::Failed => (Tone::Bad, w().failed),
        MoveState::Succeeded => (Tone::Good, w().succeeded),
        MoveState::Cancelled => (Tone::Still, w().cancelled),
        MoveState::Cancelling => (Tone::Busy, w().unwinding),
    };
    pill(tone, word)
}

fn row(clone: &MigrationClone, migration: &str) -> AnyView {
    let there = clone.state == MoveState::Succeeded;
    let called = clone.target.as_ref().map(|t| t.name.to_string());
    let title = match &clone.target {
        Some(vm) if there => {
            view! { <a href=format!("/vms/{}", vm.id)><b>{vm.name.to_string()}</b></a> }.into_any()
        }
        _ => view! { <b>{called.clone().unwrap_or_else(|| "…".to_owned())}</b> }.into_any(),
    };
    let screen = clone.target.as_ref().filter(|_| there).map(|vm| {
        let to = format!("/vms/{}/console", vm.id);
        view! { <a href=to>{w().screen}</a> " · " }
    });
    let lines: Vec<_> = clone
        .error
        .as_ref()
        .map(|why| error::sentence(error::said(why)))
        .into_iter()
        .chain(clone.hold_reason.clone())
        .map(|line| view! { <span class="sub">{line}</span> })
        .collect();
    let removal = clone.remove_time.filter(|_| there).map(|t| {
        let vm = clone.target.as_ref().map(|vm| vm.id.clone());
        removal(t, vm.unwrap_or_default())
    });
    let judge = there.then(|| judge(clone, migration, called.unwrap_or_default()));
    view! {
        <li>
            <span class="what">
                {title} " " {state(clone.state)} " " {verdict(clone.judged.verdict)}
                <span class="sub">
                    {screen} <a href=format!("/copies/{}", clone.copy)>{w().of_upload}</a> " · "
                    <a href=format!("/jobs/{}", clone.id)>{w().see_job}</a> " · " {ago(clone.create_time)}
                </span>
                {judged(&clone.judged)}
                {lines}
                {removal}
            </span>
            {judge}
        </li>
    }
    .into_any()
}

fn verdict(verdict: Option<CloneVerdict>) -> Option<AnyView> {
    Some(match verdict? {
        CloneVerdict::Passed => pill(Tone::Good, w().verdict_passed),
        CloneVerdict::Failed => pill(Tone::Bad, w().verdict_failed),
    })
}

/// Who has judged it, when, and what else there was to say.
fn judged(judged: &Judged) -> Option<AnyView> {
    let time = judged.time?;
    let by = put(w().by_whom, &[&judged.by]);
    let note = (!judged.note.is_empty()).then(|| format!("{} · ", judged.note));
    Some(view! { <span class="sub">{note} {ago(time)} " " {by}</span> }.into_any())
}

/// Until when it is kept; from then on a person is asked, for nothing else removes it.
fn removal(time: Timestamp, vm: String) -> AnyView {
    let clock = clock();
    let due = Memo::new(move |_| clock.now.get() >= time);
    let shown = move || {
        if due.get() {
            let delete = format!("/vms/{vm}?do=delete");
            view! { {pill(Tone::Warn, w().removal_due)} " " <a href=delete>{w().delete_dots}</a> }.into_any()
        } else {
            let until = move || format::absolute(time, clock.zone.get());
            view! { {w().kept_until} " " <time datetime=time.to_string()>{until}</time> }.into_any()
        }
    };
    view! { <span class="sub">{shown}</span> }.into_any()
}

/// Asks whether it does what it should.
fn judge(clone: &MigrationClone, migration: &str, called: String) -> AnyView {
    let action = format!("/do/migrations/{migration}/judge/{}", clone.id);
    let fields = Fields::of(&action);
    let id = format!("note-{}", clone.id);
    let note = fields.typed("note").unwrap_or_else(|| clone.judged.note.clone());
    let why = Signal::derive(|| button::reason(&may_manage()));
    let says = |verdict: CloneVerdict, label: &'static str| {
        let of = format!("{action}-{verdict}");
        button::submit(&of, Some(verdict.word()), "", label.to_owned(), why)
    };
    let (passed, failed) = (
        says(CloneVerdict::Passed, w().verdict_passed),
        says(CloneVerdict::Failed, w().verdict_failed),
    );
    view! {
        <form method="post" action=action.clone() class="inline">
            {fields.error(&format!("{HERE}/{migration}"))}
            <div class="field">
                <label for=id.clone()>{put(w().verdict_note, &[&called])}</label>
                <input id=id name="note" value=note autocomplete="off"/>
            </div>
            {passed}
            {failed}
        </form>
    }
    .into_any()
}
