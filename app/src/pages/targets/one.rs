//! One target: what was found there, how well it is, and the copies that it has.

use super::{HERE, away, checked, dialogs, kind, looks, may_manage, reach};
use crate::components::button::{self, Button};
use crate::components::copies::facts;
use crate::components::frame::bar;
use crate::components::list::ROWS;
use crate::components::load::{Bodies, all, body, load};
use crate::components::time::ago;
use crate::env::may_somewhere;
use crate::format;
use crate::hydration::piece;
use crate::pages::{copies, param};
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, CopyPage, GetTarget, ListCopies, ListQuery};
use shared::can::Verdict;
use shared::copy::Copy;
use shared::target::Target;

#[derive(Clone)]
struct Data {
    target: Target,
    /// The newest of its copies; none where the person may not see any.
    copies: Option<Vec<Copy>>,
}

pub fn page() -> AnyView {
    let (name, looks) = (param("target"), looks());
    let page = move || {
        let name = name.get();
        view! {
            {bar(vec![(HERE.to_owned(), w().targets.to_owned())], name.clone())}
            {load(
                move || looks.get().to_string(),
                move |_| {
                    let target = GetTarget { target: name.clone() };
                    let query = ListQuery {
                        page_size: Some(ROWS),
                        filter: Some(format!("target={name}")),
                        ..ListQuery::default()
                    };
                    let copies = may_somewhere(Privilege::CopyRead)
                        .is_ok()
                        .then(|| ListCopies { query }.raw());
                    all(std::iter::once(target.raw()).chain(copies))
                },
                read,
                |old, new| *old = new,
                shown,
            )}
        }
    };
    page.into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let copies = if bodies.len() > 1 {
        Some(body::<CopyPage>(bodies, 1)?.copies)
    } else {
        None
    };
    Ok(Data {
        target: body(bodies, 0)?,
        copies,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let target = Memo::new(move |_| data.with(|d| d.target.clone()));
    let name = target.with_untracked(|t| t.name.to_string());
    let copies = move || {
        data.with(|d| match &d.copies {
            None => view! { <p class="none">{put(w().lacks, &[Privilege::CopyRead.word()])}</p> }.into_any(),
            Some(all) if all.is_empty() => view! { <p class="none">{w().no_copies_there}</p> }.into_any(),
            Some(all) => copies::table(all),
        })
    };
    view! {
        <Title text=name.clone()/>
        <div class="title">
            <h1 tabindex="-1">{name.clone()}</h1>
            <span role="status">{move || target.with(reach)}</span>
            <span class="faint">{move || target.with(|t| kind(t.kind))}</span>
            <div class="actions">{piece(move || (move || target.with(actions)).into_any())}</div>
        </div>
        {move || {
            target
                .with(|t| t.away.is_some().then(|| view! { <div class="alert warn" role="alert">{away(t)}</div> }))
        }}
        <section class="panel" aria-labelledby="target-title">
            <header>
                <h2 id="target-title">{w().copy_target}</h2>
                {move || target.with(|t| button::copy(t.id.to_string(), w().copy_id))}
            </header>
            <div class="in">{move || target.with(about)}</div>
        </section>
        <section class="panel list" aria-labelledby="copies-title">
            <header>
                <h2 id="copies-title">{w().copies}</h2>
                <a href=format!("{}?target={name}", copies::HERE)>{w().all}</a>
            </header>
            {copies}
        </section>
        {piece(move || dialogs::edit(target))}
        {piece(move || dialogs::verify(target))}
        {piece(move || dialogs::prune(target))}
        {piece(move || dialogs::detach(target))}
    }
    .into_any()
}

fn actions(target: &Target) -> AnyView {
    let (name, may) = (target.name.as_str(), may_manage());
    let go = |what: &str, label, class, verdict: &Verdict| {
        let button = Button {
            to: format!("{HERE}/{name}?do={what}"),
            label,
            class,
            ..Button::default()
        };
        button::link(button, verdict)
    };
    let check = Button {
        to: format!("/do/targets/{name}/check"),
        label: w().check_again,
        back: format!("{HERE}/{name}"),
        ..Button::default()
    };
    // What is there is looked at only where it can be reached.
    let there = may.clone().and_then(|()| match &target.away {
        None => Ok(()),
        Some(why) => Err(Status::precondition(why.clone())),
    });
    view! {
        {button::post(check, &may)}
        {go("verify", w().verify_dots, "", &there)}
        {go("prune", w().prune_dots, "", &there)}
        {go("edit", w().edit_dots, "", &may)}
        {go("detach", w().detach_dots, "danger", &may)}
    }
    .into_any()
}

fn about(target: &Target) -> AnyView {
    let found = target.found;
    let micros = |n: u64| format::duration(n as i64);
    let put_word = if found.conditional_put {
        w().put_conditional
    } else {
        w().put_plain
    };
    let times = put(
        w().probe_took,
        &[&micros(found.write_micros), &micros(found.read_micros)],
    );
    let rate = match target.bytes_per_second {
        Some(bytes) => put(w().most_per_second, &[&format::bytes(bytes)]),
        None => w().no_rate_limit.to_owned(),
    };
    facts(vec![
        (
            w().where_it_is,
            view! { <code>{target.place.line()}</code> }.into_any(),
        ),
        (
            w().vault,
            view! { <code class="id">{target.vault.to_string()}</code> }.into_any(),
        ),
        (
            w().probed,
            view! { {ago(found.time)} <span class="sub">{put_word}</span> <span class="sub">{times}</span> }
                .into_any(),
        ),
        (w().verified, checked(target)),
        (w().copies, format::count(target.copies).into_any()),
        (w().copy_stored, format::bytes(target.stored_bytes).into_any()),
        (
            w().limits,
            format!(
                "{} · {rate}",
                put(w().at_once_most, &[&target.at_once.to_string()])
            )
            .into_any(),
        ),
        (w().added, ago(target.create_time)),
    ])
}
