//! Images: what machines are made from, what is still arriving, and what was written out to be fetched.

mod data;
mod dialogs;
mod upload;

use self::data::Data;
use super::{empty, query};
use crate::components::button::{self, Button};
use crate::components::frame::bar;
use crate::components::job::meter;
use crate::components::load::load;
use crate::components::table::pager;
use crate::components::time::ago;
use crate::env::may;
use crate::format;
use crate::hydration::piece;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::Privilege;
use shared::api::content_path;
use shared::image::{Export, Upload};
use shared::place::Image;

const HERE: &str = "/images";

pub fn page() -> AnyView {
    let (page, looks) = (query("page"), RwSignal::new(0_u32));
    view! {
        <Title text=w().images/>
        {bar(Vec::new(), w().images.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().images}</h1>
            <div class="actions">
                {ways()}
            </div>
        </div>
        {load(
            move || format!("{} {}", looks.get(), page.get()),
            move |_| data::fetch(page.get_untracked()),
            data::read,
            |old, new| *old = new,
            move |data| shown(data, looks),
        )}
    }
    .into_any()
}

/// The ways in which an image comes.
fn ways() -> AnyView {
    let way = |to: &str, label, class| {
        let button = Button {
            to: format!("{HERE}?do={to}"),
            label,
            class,
            ..Button::default()
        };
        button::link(button, &may(Privilege::ImageCreate, None))
    };
    view! {
        {way("path", w().image_path, "")}
        {way("url", w().image_url, "")}
        {way("upload", w().image_upload, "go")}
    }
    .into_any()
}

fn shown(data: RwSignal<Data>, looks: RwSignal<u32>) -> AnyView {
    data::follow(looks);
    let images = move || {
        data.with(|d| {
            if d.images.items.is_empty() {
                return empty(w().no_images_yet, ways());
            }
            let rows: Vec<_> = d.images.items.iter().map(image).collect();
            view! { <ul class="short">{rows}</ul> }.into_any()
        })
    };
    let pages = RwSignal::new(data.with_untracked(|d| d.images.clone()));
    Effect::new(move |_| pages.set(data.with(|d| d.images.clone())));
    let uploads = move || {
        data.with(|d| {
            if d.uploads.is_empty() {
                return ().into_any();
            }
            let rows: Vec<_> = d.uploads.iter().map(unfinished).collect();
            section("uploads", w().uploads, Some(w().upload_resume), rows)
        })
    };
    let exports = move || {
        data.with(|d| {
            if d.exports.is_empty() {
                return ().into_any();
            }
            let rows: Vec<_> = d.exports.iter().map(export).collect();
            section("exports", w().exports, None, rows)
        })
    };
    view! {
        <section class="panel list" aria-label=w().images>
            {images}
            {pager(HERE, pages)}
        </section>
        {uploads}
        {exports}
        {piece(|| upload::dialog(HERE))}
        {piece(|| dialogs::url(HERE))}
        {piece(|| dialogs::path(HERE))}
        {piece(|| dialogs::rename(HERE))}
        {piece(|| dialogs::delete(HERE))}
    }
    .into_any()
}

fn section(id: &'static str, title: &'static str, note: Option<&'static str>, rows: Vec<AnyView>) -> AnyView {
    view! {
        <section class="panel" aria-labelledby=id>
            <header>
                <h2 id=id>{title}</h2>
                {note.map(|note| view! { <span class="soft">{note}</span> })}
            </header>
            <ul class="short">{rows}</ul>
        </section>
    }
    .into_any()
}

fn image(image: &Image) -> AnyView {
    let open = |what: &str, label, class, privilege| {
        let button = Button {
            to: format!("{HERE}?do={what}&image={}", image.name),
            label,
            class,
            ..Button::default()
        };
        button::link(button, &may(privilege, None))
    };
    view! {
        <li>
            <span class="what">
                {image.name.to_string()}
                <span class="sub soft">
                    {format::bytes(image.virtual_bytes)} " · " {w().image_made} " " {ago(image.create_time)}
                </span>
            </span>
            {open("rename", w().image_rename_dots, "", Privilege::ImageUpdate)}
            {open("delete", w().delete_dots, "danger", Privilege::ImageDelete)}
        </li>
    }
    .into_any()
}

fn unfinished(upload: &Upload) -> AnyView {
    let discard = Button {
        to: format!("/do/uploads/{}/delete", upload.id),
        label: w().upload_discard,
        class: "danger",
        back: HERE.to_owned(),
        of: upload.name.to_string(),
        ..Button::default()
    };
    let (done, total) = (upload.received_bytes, upload.size_bytes);
    let arrived = put(w().upload_arrived, &[&format::bytes(done), &format::bytes(total)]);
    view! {
        <li>
            <span class="what">
                {upload.name.to_string()}
                <span class="sub">{meter(done, total, arrived)}</span>
            </span>
            {button::post(discard, &may(Privilege::ImageCreate, None))}
        </li>
    }
    .into_any()
}

fn export(export: &Export) -> AnyView {
    let remove = Button {
        to: format!("/do/exports/{}/delete", export.id),
        label: w().export_remove,
        class: "danger",
        back: HERE.to_owned(),
        of: export.name.clone(),
        ..Button::default()
    };
    view! {
        <li>
            <span class="what">
                {export.name.clone()}
                <span class="sub soft">{format::bytes(export.size_bytes)} " · " {ago(export.create_time)}</span>
            </span>
            <a class="button" href=content_path(&export.id.to_string()) download=export.name.clone() rel="external"
                aria-label=format!("{} {}", w().download, export.name)>
                {w().download}
            </a>
            {button::post(remove, &may(Privilege::ImageExport, None))}
        </li>
    }
    .into_any()
}
