//! What is in a copy: its file systems, their directories, and files to fetch.

use super::HERE;
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::time::ago;
use crate::env::may;
use crate::format;
use crate::pages::{param, query};
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::{Meta, Title};
use shared::Status;
use shared::access::Privilege;
use shared::api::{Call, FilePage, GetCopy, ListFileSystems, ListFiles, encode, file_content_path};
use shared::copy::{Copy, CopyFileSystems, FileEntry, FileKind, FileSystem, FilesQuery, FilesState};

/// How many entries a page of a directory has.
const ENTRIES: u32 = 500;

/// A directory of a copy; none before a file system is chosen.
struct Data {
    copy: Copy,
    opened: CopyFileSystems,
    files: Option<FilePage>,
}

/// What is looked at.
#[derive(Clone)]
struct At {
    copy: String,
    file_system: String,
    /// The directory, as a path from `/`.
    path: String,
}

pub fn page() -> AnyView {
    let (id, system, path) = (param("copy"), query("fs"), query("path"));
    let after = query("page");
    // Each directory is loaded for itself: one that cannot be read says so, instead of what was there before.
    let page = move || {
        let at = At {
            copy: id.get(),
            file_system: system.get(),
            path: whole(&path.get()),
        };
        let query = FilesQuery {
            file_system: at.file_system.clone(),
            path: at.path.clone(),
            page_size: Some(ENTRIES),
            page_token: Some(after.get()).filter(|t| !t.is_empty()),
        };
        let short = at.copy.get(..8).unwrap_or(&at.copy).to_owned();
        let trail = vec![
            (HERE.to_owned(), w().copies.to_owned()),
            (format!("{HERE}/{}", at.copy), short),
        ];
        let looked_at = at.clone();
        view! {
            {bar(trail, w().files.to_owned())}
            {load(
                String::new,
                move |_| {
                    let At { copy, file_system, .. } = at.clone();
                    let calls = [
                        GetCopy { copy: copy.clone() }.raw(),
                        ListFileSystems { copy: copy.clone() }.raw(),
                    ];
                    let query = query.clone();
                    let files = ListFiles { copy, query };
                    let files = (!file_system.is_empty()).then(|| files.raw());
                    all(calls.into_iter().chain(files))
                },
                read,
                |old, new| *old = new,
                move |data| shown(data, looked_at.clone()),
            )}
        }
    };
    page.into_any()
}

/// A path from `/`, whatever was typed.
fn whole(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        copy: body(bodies, 0)?,
        opened: body(bodies, 1)?,
        files: if bodies.len() > 2 {
            Some(body(bodies, 2)?)
        } else {
            None
        },
    })
}

fn shown(data: RwSignal<Data>, at: At) -> AnyView {
    let (title, moment) = data.with_untracked(|d| {
        let title = put(w().files_of, &[d.copy.vm_name.as_str()]);
        (title, ago(d.copy.snapshot_time))
    });
    let drawn = move || {
        data.with(|d| {
            view! {
                {opened(&d.opened, &at)}
                {d.files.as_ref().map(|files| directory(&d.copy, files, &at))}
            }
        })
    };
    view! {
        <Title text=title.clone()/>
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
            <span class="faint">{w().as_it_was} " " {moment}</span>
        </div>
        {drawn}
    }
    .into_any()
}

/// Where in the copy: a link to a directory.
fn link(at: &At, file_system: &str, path: &str) -> String {
    format!(
        "{HERE}/{}/files?fs={}&path={}",
        at.copy,
        encode(file_system),
        encode(path)
    )
}

/// The file systems, or how far it is until they are there: the page asks again by itself.
fn opened(opened: &CopyFileSystems, at: &At) -> AnyView {
    match opened.state {
        FilesState::Ready => systems(&opened.file_systems, at),
        FilesState::Opening => view! {
            <Meta http_equiv="refresh" content="3"/>
            <p class="panel none" role="status">{w().files_opening}</p>
        }
        .into_any(),
        FilesState::Failed => {
            view! { <p class="panel none" role="alert">{opened.error.clone()}</p> }.into_any()
        }
    }
}

fn systems(systems: &[FileSystem], at: &At) -> AnyView {
    if systems.is_empty() {
        return view! {
            <section class="panel" aria-label=w().file_system_words>
                <p class="none">{w().no_file_systems}</p>
            </section>
        }
        .into_any();
    }
    let rows: Vec<_> = systems
        .iter()
        .map(|system| {
            let name = system.device.clone();
            let label = [&system.label, &system.os, &system.disk];
            let label: String = label.into_iter().flatten().map(|l| format!(" · {l}")).collect();
            let shown = match &system.error {
                Some(why) => view! { {name} <span class="sub">{why.clone()}</span> }.into_any(),
                None => {
                    let here = (system.device == at.file_system).then_some("true");
                    let href = link(at, &system.device, "/");
                    view! { <a href=href aria-current=here>{name}</a> }.into_any()
                }
            };
            view! {
                <li>
                    <span class="what">
                        {shown} <span class="sub">{system.kind.clone()} {label}</span>
                    </span>
                    <span class="soft">{system.bytes.map(format::bytes)}</span>
                </li>
            }
        })
        .collect();
    view! {
        <section class="panel" aria-labelledby="systems-title">
            <header>
                <h2 id="systems-title">{w().file_system_words}</h2>
            </header>
            <ul class="short">{rows}</ul>
        </section>
    }
    .into_any()
}

/// The way down to the directory: each part leads there.
fn trail(at: &At) -> AnyView {
    let mut so_far = String::new();
    let parts: Vec<_> = at.path.split('/').filter(|p| !p.is_empty()).collect();
    let last = parts.len();
    let links: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(n, part)| {
            so_far = format!("{so_far}/{part}");
            let current = (n + 1 == last).then_some("location");
            view! {
                <a href=link(at, &at.file_system, &so_far) aria-current=current>{(*part).to_owned()}</a>
                <span aria-hidden="true">" / "</span>
            }
        })
        .collect();
    view! {
        <nav class="path mono" aria-label=w().path>
            <a href=link(at, &at.file_system, "/")>"/"</a>
            " "
            {links}
        </nav>
    }
    .into_any()
}

fn directory(copy: &Copy, files: &FilePage, at: &At) -> AnyView {
    let rows: Vec<_> = files.entries.iter().map(|f| entry(f, at)).collect();
    let none = files
        .entries
        .is_empty()
        .then(|| view! { <p class="none">{w().empty_directory}</p> });
    let more = (!files.next_page_token.is_empty()).then(|| {
        let here = link(at, &at.file_system, &at.path);
        let href = format!("{here}&page={}", encode(&files.next_page_token));
        view! { <nav class="pager" aria-label=w().pages><a class="button" href=href>{w().next_page}</a></nav> }
    });
    let fetch = may(Privilege::CopyRestore, Some(copy.vm)).is_ok().then(|| {
        let href = file_content_path(&at.copy, &at.file_system, &at.path);
        view! { <a class="button" href=href download="" rel="external">{w().fetch_directory}</a> }
    });
    view! {
        <section class="panel list" aria-label=put(w().directory_of, &[&at.path])>
            <header>{trail(at)} {fetch}</header>
            {none}
            <ul class="short">{rows}</ul>
            {more}
        </section>
    }
    .into_any()
}

fn entry(file: &FileEntry, at: &At) -> AnyView {
    let path = file.path.clone();
    let content = file_content_path(&at.copy, &at.file_system, &path);
    let name = file.name.clone();
    let shown = match file.kind {
        FileKind::Directory => {
            view! { <a href=link(at, &at.file_system, &path)>{format!("{name}/")}</a> }.into_any()
        }
        FileKind::Symlink => {
            let to = file.target.clone().map(|to| format!(" → {to}"));
            view! { {name.clone()} <span class="soft">{to}</span> }.into_any()
        }
        FileKind::File | FileKind::Other => name.clone().into_any(),
    };
    let fetch = matches!(file.kind, FileKind::File | FileKind::Directory).then(|| {
        let label = format!("{} {name}", w().download);
        view! {
            <a class="button quiet" href=content download="" rel="external" aria-label=label>
                {w().download}
            </a>
        }
    });
    let bytes = (file.kind == FileKind::File).then(|| format!("{} · ", format::bytes(file.bytes)));
    view! {
        <li>
            <span class="what">
                <span class="mono">{shown}</span>
                <span class="sub">{bytes} {file.modify_time.map(ago)}</span>
            </span>
            {fetch}
        </li>
    }
    .into_any()
}
