//! The dialogs of the page of images, but for the upload.

use crate::components::dialog::{cancel, dialog};
use crate::components::field::{Fields, Line};
use crate::env::may;
use crate::pages::query;
use crate::words::{put, w};
use leptos::prelude::*;
use shared::access::Privilege;
use shared::image::ImageFormat;

/// The name that an image gets.
pub fn name(fields: &Fields) -> AnyView {
    fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    })
}

/// What is asked about a file: its format and its checksum.
pub fn about(fields: &Fields) -> AnyView {
    let auto = (String::new(), w().image_format_auto.to_owned());
    let formats = ImageFormat::ALL
        .iter()
        .map(|f| (f.word().to_owned(), f.word().to_owned()));
    let formats = std::iter::once(auto).chain(formats).collect();
    let sha256 = fields.line(Line {
        name: "sha256",
        label: w().image_sha256,
        hint: w().image_sha256_hint.to_owned(),
        ..Line::default()
    });
    view! {
        <details class="unfold">
            <summary>{w().more}</summary>
            <div class="sheet-in">
                {fields.choice("format", w().image_format, w().image_format_hint.to_owned(), formats, "")}
                {sha256}
            </div>
        </details>
    }
    .into_any()
}

fn import(
    here: &'static str,
    what: &'static str,
    title: &'static str,
    line: fn() -> Line,
    go: &'static str,
) -> AnyView {
    dialog(what, title.to_owned(), move || {
        let action = "/do/images/import";
        let fields = Fields::of(action);
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do={what}"))}
                {name(&fields)}
                {fields.line(line())}
                {about(&fields)}
                <footer>
                    {cancel(here.to_owned(), w().never_mind)}
                    {fields.submit("go", go, || may(Privilege::ImageCreate, None))}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn url(here: &'static str) -> AnyView {
    let line = || Line {
        name: "url",
        label: w().image_address,
        hint: w().image_address_hint.to_owned(),
        placeholder: "https://".to_owned(),
        required: true,
        ..Line::default()
    };
    import(here, "url", w().image_url, line, w().image_fetch)
}

pub fn path(here: &'static str) -> AnyView {
    let line = || Line {
        name: "path",
        label: w().image_file_path,
        hint: w().image_path_hint.to_owned(),
        required: true,
        ..Line::default()
    };
    import(here, "path", w().image_path, line, w().image_import)
}

pub fn rename(here: &'static str) -> AnyView {
    let image = query("image");
    dialog("rename", w().image_rename.to_owned(), move || {
        let image = image.get();
        let action = format!("/do/images/{}/rename", shared::api::encode(&image));
        let fields = Fields::of(&action);
        let new = fields.line(Line {
            name: "name",
            label: w().name,
            hint: put(w().image_rename_title, &[&image]),
            value: image.clone(),
            required: true,
            is_name: true,
            ..Line::default()
        });
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=rename&image={image}"))}
                {new}
                <footer>
                    {cancel(here.to_owned(), w().never_mind)}
                    {fields.submit("go", w().image_rename, || may(Privilege::ImageUpdate, None))}
                </footer>
            </form>
        }
        .into_any()
    })
}

pub fn delete(here: &'static str) -> AnyView {
    let image = query("image");
    dialog("delete", w().image_delete.to_owned(), move || {
        let image = image.get();
        let action = format!("/do/images/{}/delete", shared::api::encode(&image));
        let fields = Fields::of(&action);
        view! {
            <form method="post" action=action>
                {fields.error(&format!("{here}?do=delete&image={image}"))}
                <p><b>{put(w().image_delete_title, &[&image])}</b></p>
                <div class="note">{w().image_delete_note}</div>
                <footer>
                    {cancel(here.to_owned(), w().never_mind)}
                    {fields.submit("danger", w().image_delete, || may(Privilege::ImageDelete, None))}
                </footer>
            </form>
        }
        .into_any()
    })
}
