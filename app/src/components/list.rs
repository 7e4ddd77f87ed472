//! Lists that stay fresh: a page of a list as the API gives it, each row with a signal of its own.

use super::load::{Bodies, all, body, load};
use crate::feed::{Change, Live, on_change};
use leptos::prelude::*;
use shared::Status;
use shared::api::{Call, JobPage, ListJobs, ListQuery, ListVms, RawCall, VmPage};
use shared::job::Job;
use shared::vm::Vm;

/// How often a list is loaded again at most, in milliseconds, when something came that it does not have.
const NUDGE: i32 = 400;

/// How many rows a page of a table has.
pub const ROWS: u32 = 50;

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Paged<T> {
    pub items: Vec<T>,
    pub next: String,
    pub total: u64,
}

/// A thing that the API lists.
pub trait Listed: Live {
    fn list(query: ListQuery) -> RawCall;
    fn read(bodies: &Bodies) -> Result<Paged<Self>, Status>;
}

impl Listed for Vm {
    fn list(query: ListQuery) -> RawCall {
        ListVms { query }.raw()
    }

    fn read(bodies: &Bodies) -> Result<Paged<Self>, Status> {
        let page: VmPage = body(bodies, 0)?;
        Ok(Paged {
            items: page.vms,
            next: page.next_page_token,
            total: page.total_size,
        })
    }
}

impl Listed for Job {
    fn list(query: ListQuery) -> RawCall {
        ListJobs { query }.raw()
    }

    fn read(bodies: &Bodies) -> Result<Paged<Self>, Status> {
        let page: JobPage = body(bodies, 0)?;
        Ok(Paged {
            items: page.jobs,
            next: page.next_page_token,
            total: page.total_size,
        })
    }
}

/// A row: its id and what stands in it.
pub type Row<T> = (String, ArcRwSignal<T>);

/// The rows of a list.
pub struct Rows<T: 'static>(pub RwSignal<Vec<Row<T>>>);

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rows<T> {}

fn row<T: Live>(item: &T) -> Row<T> {
    (item.id(), ArcRwSignal::new(item.clone()))
}

impl<T: Live> Rows<T> {
    fn new(items: &[T]) -> Self {
        Self(RwSignal::new(items.iter().map(row).collect()))
    }

    /// Takes a new page: rows that stay keep their signals, and the newer version of each.
    fn sync(self, items: &[T]) {
        let same = self.0.with_untracked(|rows| {
            rows.len() == items.len() && rows.iter().zip(items).all(|((id, _), i)| *id == i.id())
        });
        if same {
            self.0
                .with_untracked(|rows| rows.iter().zip(items).for_each(|((_, s), i)| put(s, i)));
            return;
        }
        self.0.update(|rows| {
            let mut old = std::mem::take(rows);
            for item in items {
                let id = item.id();
                match old.iter().position(|(i, _)| *i == id) {
                    Some(at) => {
                        let kept = old.swap_remove(at);
                        put(&kept.1, item);
                        rows.push(kept);
                    }
                    None => rows.push(row(item)),
                }
            }
        });
    }

    /// Takes a change; whether it was of a row that is here.
    fn apply(self, change: &Change) -> bool {
        if let Change::Gone(_, gone) = change {
            let here = self
                .0
                .with_untracked(|rows| rows.iter().any(|(id, _)| *id == gone.id));
            if here {
                self.0.update(|rows| rows.retain(|(id, _)| *id != gone.id));
            }
            // The next page has one to move up.
            return false;
        }
        let Some(item) = T::of(change) else { return true };
        let id = item.id();
        self.0.with_untracked(|rows| {
            let row = rows.iter().find(|(i, _)| *i == id);
            row.map(|(_, signal)| put(signal, item)).is_some()
        })
    }
}

fn put<T: Live>(signal: &ArcRwSignal<T>, new: &T) {
    let newer = signal.with_untracked(|old| new.generation() >= old.generation() && old != new);
    if newer {
        signal.set(new.clone());
    }
}

/// Loads a list and keeps it fresh. `show` gets the rows, and the page for its total and its next.
pub fn live_list<T: Listed>(
    query: Memo<ListQuery>,
    show: impl Fn(Rows<T>, RwSignal<Paged<T>>) -> AnyView + Send + Sync + 'static,
) -> AnyView {
    let nudges = RwSignal::new(0_u32);
    load(
        // What is asked for, and how often.
        move || format!("{} {}", nudges.get(), query.with(ListQuery::to_query)),
        move |_| all([T::list(query.get_untracked())]),
        T::read,
        |old, new| *old = new,
        move |data: RwSignal<Paged<T>>| {
            let rows = data.with_untracked(|page| Rows::new(&page.items));
            Effect::new(move |_| data.with(|page| rows.sync(&page.items)));
            let nudge = throttled(NUDGE, move || {
                nudges.try_update(|n| *n += 1);
            });
            on_change(move |change| {
                if change.noun() != T::NOUN {
                    return;
                }
                let plain = query
                    .with_untracked(|q| q.filter.is_none() && q.order_by.is_none() && q.page_token.is_none());
                // A filter or an order may see the changed thing elsewhere now.
                if !rows.apply(change) || !plain {
                    nudge();
                }
            });
            show(rows, data)
        },
    )
}

/// Runs at once, then at most every so many milliseconds, and once more after the last call.
#[cfg(feature = "hydrate")]
pub fn throttled(millis: i32, run: impl Fn() + 'static) -> impl Fn() {
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone, Copy, PartialEq)]
    enum Now {
        Idle,
        Waits,
        Again,
    }
    fn go(state: Rc<Cell<Now>>, millis: i32, run: Rc<dyn Fn()>) {
        run();
        state.set(Now::Waits);
        crate::live::browser::later(millis, move || {
            if state.replace(Now::Idle) == Now::Again {
                go(state, millis, run);
            }
        });
    }
    let state = Rc::new(Cell::new(Now::Idle));
    let run: Rc<dyn Fn()> = Rc::new(run);
    move || match state.get() {
        Now::Idle => go(state.clone(), millis, run.clone()),
        _ => state.set(Now::Again),
    }
}

/// There is no feed on the server.
#[cfg(not(feature = "hydrate"))]
pub fn throttled(_: i32, run: impl Fn() + 'static) -> impl Fn() {
    run
}
