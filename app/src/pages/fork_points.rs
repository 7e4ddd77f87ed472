//! All instants that are kept, those of machines that are gone as well.

use super::{empty, query};
use crate::components::fork_point;
use crate::components::frame::bar;
use crate::components::list::{Paged, ROWS, throttled};
use crate::components::load::{Bodies, all, body, load};
use crate::components::table::pager;
use crate::feed::on_change;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::api::{Call, ForkPointPage, ListForkPoints, ListQuery};
use shared::feed::Noun;
use shared::fork::ForkPoint;

const HERE: &str = "/fork-points";

pub fn page() -> AnyView {
    let (page, looks) = (query("page"), RwSignal::new(0_u32));
    view! {
        <Title text=w().fork_points/>
        {bar(Vec::new(), w().fork_points.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().fork_points}</h1>
        </div>
        {load(
            move || format!("{} {}", looks.get(), page.get()),
            move |_| {
                let query = ListQuery {
                    page_size: Some(ROWS),
                    page_token: Some(page.get_untracked()).filter(|t| !t.is_empty()),
                    ..ListQuery::default()
                };
                all([ListForkPoints { query }.raw()])
            },
            read,
            |old, new| *old = new,
            move |data| shown(data, looks),
        )}
    }
    .into_any()
}

fn read(bodies: &Bodies) -> Result<Paged<ForkPoint>, Status> {
    let page: ForkPointPage = body(bodies, 0)?;
    Ok(Paged {
        items: page.fork_points,
        next: page.next_page_token,
        total: page.total_size,
    })
}

fn shown(data: RwSignal<Paged<ForkPoint>>, looks: RwSignal<u32>) -> AnyView {
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if change.noun() == Noun::ForkPoint {
            look();
        }
    });
    let rows = move || {
        data.with(|page| {
            if page.items.is_empty() {
                let machines = view! { <a class="button" href="/vms">{w().machines}</a> };
                return empty(w().no_fork_points, machines.into_any());
            }
            let rows: Vec<_> = page.items.iter().map(row).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    view! {
        <section class="panel list" aria-label=w().fork_points>
            {rows}
            {pager(HERE, data)}
        </section>
    }
    .into_any()
}

fn row(point: &ForkPoint) -> AnyView {
    let of = put(w().taken_of, &[point.vm_name.as_str()]);
    fork_point::row(point, HERE, Some(format!(" · {of}").into_any()))
}
