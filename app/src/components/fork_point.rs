//! A fork point in a list: what it is, who stands on it, and what may be done with it.

use super::button::{self, Button};
use super::time::ago;
use crate::env::{may, may_fork};
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;
use shared::can;
use shared::fork::ForkPoint;

/// A row; `taken_of` says of which machine, where that is not known from the page.
pub fn row(point: &ForkPoint, back: &str, taken_of: Option<AnyView>) -> AnyView {
    let one = |action: &str, label, class, verdict| {
        let button = Button {
            to: format!("/do/forkPoints/{}/{action}", point.id),
            label,
            class,
            back: back.to_owned(),
            of: point.name.to_string(),
            ..Button::default()
        };
        button::post(button, &verdict)
    };
    let about = put(w().fork_point_about, &[&format::bytes(point.memory_bytes)]);
    view! {
        <li>
            <span class="what">
                {point.name.to_string()}
                <span class="sub soft">{about} {taken_of} " · " {ago(point.create_time)}</span>
                <span class="sub soft">{standing(point)}</span>
            </span>
            {one("fork", w().fork_again, "", may_fork().and_then(|()| can::can_fork_point(point)))}
            {one("delete", w().delete_point, "danger", may(Privilege::ForkDelete, Some(point.vm)).and_then(|()| can::can_delete_point(point)))}
        </li>
    }
    .into_any()
}

/// Who stands on it.
fn standing(point: &ForkPoint) -> AnyView {
    if point.clones == 0 {
        return w().nobody_stands.into_any();
    }
    let all: Vec<_> = point
        .standing
        .iter()
        .enumerate()
        .map(|(n, vm)| {
            let comma = if n == 0 { " " } else { ", " };
            view! { {comma} <a href=format!("/vms/{}", vm.id)>{vm.name.to_string()}</a> }
        })
        .collect();
    let more = point.clones.saturating_sub(point.standing.len() as u64);
    let more = (more > 0).then(|| put(w().and_more, &[&more.to_string()]));
    view! { {put(w().stand_on_it, &[&point.clones.to_string()])} {all} {more} }.into_any()
}
