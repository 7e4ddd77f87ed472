//! Where a machine comes from and what came of it, drawn.

use crate::words::{put, w};
use leptos::prelude::*;

const WIDTH: usize = 156;
const HEIGHT: usize = 36;
const GAP_X: usize = 28;
const GAP_Y: usize = 10;
const PAD: usize = 2;
/// How many letters fit into a box: of its name, and of what stands below in a smaller type.
const FITS: usize = 20;
const FITS_SUB: usize = 23;
/// How many clones are drawn; the rest are one box that says how many.
pub const DRAWN: usize = 7;

/// A thing in the drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub label: String,
    pub sub: String,
    /// Where a click goes; none for the machine itself, and for what is gone.
    pub href: Option<String>,
}

fn clip(text: &str, fits: usize) -> String {
    if text.chars().count() <= fits {
        return text.to_owned();
    }
    text.chars().take(fits - 1).chain(['…']).collect()
}

fn node(node: &Node, x: usize, y: usize, class: &'static str) -> AnyView {
    let (tx, ty) = (x + 10, y + 15);
    // Below a `<g>`, `<a>` and `<title>` are those of SVG; the ones of HTML are not drawn.
    let inner = view! {
        <g>
            <title>{format!("{}, {}", node.label, node.sub)}</title>
            <rect x=x y=y width=WIDTH height=HEIGHT rx="6"></rect>
            <text x=tx y=ty>
                {clip(&node.label, FITS)}
            </text>
            <text x=tx y=ty + 14 class="s">
                {clip(&node.sub, FITS_SUB)}
            </text>
        </g>
    };
    match &node.href {
        Some(href) => view! {
            <g class=class>
                <a href=href.clone()>{inner}</a>
            </g>
        }
        .into_any(),
        None => view! { <g class=class>{inner}</g> }.into_any(),
    }
}

/// The curve from the right side of one box to the left side of another.
fn edge(x: usize, y: usize, to_x: usize, to_y: usize) -> AnyView {
    let (y, to_y, mid) = (y + HEIGHT / 2, to_y + HEIGHT / 2, usize::midpoint(x, to_x));
    let d = format!("M{x} {y}C{mid} {y} {mid} {to_y} {to_x} {to_y}");
    view! { <path class="edge" d=d></path> }.into_any()
}

/// Ancestors, the oldest first; the machine; its clones.
pub fn draw(ancestors: &[Node], me: &Node, clones: &[Node]) -> AnyView {
    let step = HEIGHT + GAP_Y;
    let rows = clones.len().max(1);
    let height = rows * step - GAP_Y + 2 * PAD;
    let columns = ancestors.len() + 1 + usize::from(!clones.is_empty());
    let width = columns * (WIDTH + GAP_X) - GAP_X + 2 * PAD;
    let x = |column: usize| PAD + column * (WIDTH + GAP_X);
    let middle = PAD + (rows * step - GAP_Y - HEIGHT) / 2;

    let mut drawn = Vec::new();
    for (column, ancestor) in ancestors.iter().enumerate() {
        drawn.push(edge(x(column) + WIDTH, middle, x(column + 1), middle));
        drawn.push(node(ancestor, x(column), middle, "node"));
    }
    let mine = ancestors.len();
    for (row, clone) in clones.iter().enumerate() {
        let y = PAD + row * step;
        drawn.push(edge(x(mine) + WIDTH, middle, x(mine + 1), y));
        drawn.push(node(clone, x(mine + 1), y, "node"));
    }
    drawn.push(node(me, x(mine), middle, "node me"));

    let names = |nodes: &[Node]| {
        nodes
            .iter()
            .map(|n| n.label.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let from = if ancestors.is_empty() {
        w().nothing.to_owned()
    } else {
        names(ancestors)
    };
    let into = if clones.is_empty() {
        w().nothing.to_owned()
    } else {
        names(clones)
    };
    view! {
        <div class="drawing" tabindex="0" role="group" aria-label=put(w().lineage_of, &[&me.label, &from, &into])>
            <svg
                class="lineage"
                viewBox=format!("0 0 {width} {height}")
                width=width
                height=height
            >
                {drawn}
            </svg>
        </div>
    }
    .into_any()
}
