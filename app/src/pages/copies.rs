//! Copies of all machines, the newest first.

mod dialogs;
pub mod files;
pub mod one;

use super::{contains, empty, query};
use crate::components::copies::{boot_sign, marks, size};
use crate::components::frame::bar;
use crate::components::list::{Paged, ROWS, throttled};
use crate::components::load::{Bodies, all, body, load};
use crate::components::table::{self, pager};
use crate::components::time::ago;
use crate::env::may;
use crate::feed::on_change;
use crate::format;
use crate::words::w;
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, CopyPage, ListCopies, ListQuery, ListTargets, TargetPage};
use shared::copy::Copy;
use shared::feed::Noun;

pub const HERE: &str = "/copies";

#[derive(Clone)]
struct Data {
    page: Paged<Copy>,
    /// Names of the targets that copies are looked for at.
    targets: Vec<String>,
}

pub fn page() -> AnyView {
    let (typed, target, page) = (query("q"), query("target"), query("page"));
    let looks = RwSignal::new(0_u32);
    let asked = move || {
        let mut terms = contains("vmName", &typed.get());
        target.with(|t| {
            if !t.is_empty() {
                terms.push(format!("target={t}"));
            }
        });
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        ListQuery {
            page_size: Some(ROWS),
            page_token: some(page.get()),
            filter: some(terms.join(" ")),
            order_by: None,
        }
    };
    view! {
        <Title text=w().copies/>
        {bar(Vec::new(), w().copies.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().copies}</h1>
        </div>
        {load(
            move || format!("{} {}", looks.get(), asked().to_query()),
            move |_| {
                let query = untrack(asked);
                let targets = may(Privilege::TargetRead, None)
                    .is_ok()
                    .then(|| ListTargets { query: ListQuery::default() }.raw());
                all(std::iter::once(ListCopies { query }.raw()).chain(targets))
            },
            read,
            |old, new| *old = new,
            move |data| shown(data, looks, typed, target),
        )}
    }
    .into_any()
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    let page: CopyPage = body(bodies, 0)?;
    let targets = if bodies.len() > 1 {
        let page: TargetPage = body(bodies, 1)?;
        page.targets.iter().map(|t| t.name.to_string()).collect()
    } else {
        Vec::new()
    };
    Ok(Data {
        page: Paged {
            items: page.copies,
            next: page.next_page_token,
            total: page.total_size,
        },
        targets,
    })
}

fn shown(data: RwSignal<Data>, looks: RwSignal<u32>, typed: Memo<String>, target: Memo<String>) -> AnyView {
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if matches!(change.noun(), Noun::Copy | Noun::Target) {
            look();
        }
    });
    let paged = RwSignal::new(data.with_untracked(|d| d.page.clone()));
    Effect::new(move |_| paged.set(data.with(|d| d.page.clone())));
    let targets = Memo::new(move |_| data.with(|d| d.targets.clone()));
    let filtered = move || typed.with(|t| !t.is_empty()) || target.with(|t| !t.is_empty());
    let rows = move || {
        data.with(|d| {
            if d.page.items.is_empty() {
                return none(filtered());
            }
            table(&d.page.items)
        })
    };
    view! {
        {move || filter(typed, target, targets.get())}
        <section class="panel list" aria-label=w().copies>
            {rows}
            {pager(HERE, paged)}
        </section>
    }
    .into_any()
}

/// The search by machine, and the choice of a target: a plain form, which the live page follows.
fn filter(typed: Memo<String>, target: Memo<String>, targets: Vec<String>) -> AnyView {
    let options: Vec<_> = targets
        .into_iter()
        .map(|name| {
            let on = target.with_untracked(|t| *t == name);
            view! {
                <option value=name.clone() selected=on>
                    {name.clone()}
                </option>
            }
        })
        .collect();
    let select = view! {
        <select name="target" aria-label=w().copy_target>
            <option value="">{w().every_target}</option>
            {options}
        </select>
    };
    table::filter_with(HERE, typed, select.into_any(), ().into_any())
}

fn none(filtered: bool) -> AnyView {
    if filtered {
        let all = view! { <a class="button" href=HERE>{w().show_all}</a> };
        return empty(w().no_copy_fits, all.into_any());
    }
    let machines = view! { <a class="button" href="/vms">{w().machines}</a> };
    empty(w().no_copies, machines.into_any())
}

/// Copies as a table.
pub fn table(copies: &[Copy]) -> AnyView {
    let rows: Vec<_> = copies.iter().map(row).collect();
    view! {
        <table>
            <thead>
                <tr>
                    <th scope="col">{w().copy_word}</th>
                    <th scope="col">{w().copy_boots}</th>
                    <th scope="col">{w().copy_moment}</th>
                    <th scope="col">{w().copy_target}</th>
                    <th scope="col" class="num">{w().copy_size}</th>
                    <th scope="col" class="num">{w().copy_stored}</th>
                </tr>
            </thead>
            <tbody>{rows}</tbody>
        </table>
    }
    .into_any()
}

fn row(copy: &Copy) -> AnyView {
    let target = copy.target_name.to_string();
    view! {
        <tr>
            <td class="head wrap">
                <a href=format!("{HERE}/{}", copy.id)>{copy.vm_name.to_string()}</a>
                <small class="soft">{copy.snapshot_name.to_string()} {marks(copy)}</small>
            </td>
            <td data-label=w().copy_boots>{boot_sign(copy)}</td>
            <td class="soft" data-label=w().copy_moment>
                {ago(copy.snapshot_time)}
            </td>
            <td data-label=w().copy_target>
                <a class="soft" href=format!("/targets/{target}")>{target.clone()}</a>
            </td>
            <td class="num" data-label=w().copy_size>
                {format::bytes(size(copy))}
            </td>
            <td class="num" data-label=w().copy_stored>
                {format::bytes(copy.figures.stored_bytes)}
            </td>
        </tr>
    }
    .into_any()
}
