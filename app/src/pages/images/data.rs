//! What the page of images shows, loaded and kept fresh.

use crate::backend::{Outcome, Way};
use crate::components::list::{Paged, ROWS, throttled};
use crate::components::load::{Bodies, Loading, body};
use crate::feed::on_change;
use leptos::prelude::*;
use shared::api::{Call, ExportPage, ImagePage, ListExports, ListImages, ListQuery, ListUploads, UploadPage};
use shared::feed::Noun;
use shared::image::{Export, Upload};
use shared::place::Image;
use shared::{Code, Status};

/// Images, and what is on its way in and out.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    pub images: Paged<Image>,
    pub uploads: Vec<Upload>,
    pub exports: Vec<Export>,
}

pub fn fetch(page: String) -> Loading {
    let query = ListQuery {
        page_size: Some(ROWS),
        page_token: Some(page).filter(|t| !t.is_empty()),
        ..ListQuery::default()
    };
    let way = Way::here();
    let images = way.send(ListImages { query }.raw());
    let query = ListQuery::default();
    let uploads = way.send(ListUploads { query: query.clone() }.raw());
    let exports = way.send(ListExports { query }.raw());
    Box::pin(async move {
        let (images, uploads, exports) = futures_util::join!(images, uploads, exports);
        Ok(vec![
            images?,
            if_allowed(uploads, "uploads")?,
            if_allowed(exports, "exports")?,
        ])
    })
}

/// Who may not see these sees none.
fn if_allowed(outcome: Outcome, noun: &str) -> Outcome {
    match outcome {
        Err(e) if e.code == Code::PermissionDenied => Ok(format!("{{\"{noun}\":[]}}")),
        outcome => outcome,
    }
}

pub fn read(bodies: &Bodies) -> Result<Data, Status> {
    let images: ImagePage = body(bodies, 0)?;
    Ok(Data {
        images: Paged {
            items: images.images,
            next: images.next_page_token,
            total: images.total_size,
        },
        uploads: body::<UploadPage>(bodies, 1)?.uploads,
        exports: body::<ExportPage>(bodies, 2)?.exports,
    })
}

/// Looks again when one of them changes.
pub fn follow(looks: RwSignal<u32>) {
    let look = throttled(400, move || {
        looks.try_update(|n| *n += 1);
    });
    on_change(move |change| {
        if matches!(change.noun(), Noun::Image | Noun::Upload | Noun::Export) {
            look();
        }
    });
}
