//! What comes from outside, converted by the helper.

use super::helper::Helper;
use super::image::Found;
use super::qemu_img::{create, finish};
use super::tool::{measured, run, said, spawn_error};
use super::{DiskError, LayerFile, Progress, QemuImg, blockdev, header, helper, part, remove_file};
use shared::image::ImageFormat;
use std::path::Path;

impl QemuImg {
    /// Converts what came from outside, by the helper: a layer is made for it to write to, and looked at afterwards.
    pub(super) async fn convert_shut_in(
        &self,
        helper: &Helper,
        from: &Path,
        found: &Found,
        to: &LayerFile,
        progress: Progress<'_>,
    ) -> Result<(), DiskError> {
        let refused = |e| match e {
            // What qemu-img says of the file, not of this host.
            DiskError::Tool { why, .. } if !why.starts_with("error: ") => DiskError::Refused {
                path: from.to_owned(),
                why: format!("it cannot be read: {why}"),
            },
            e => e,
        };
        let source = format!("json:{}", blockdev::found(helper::INPUT, found));
        if found.format != ImageFormat::Raw {
            // Where a file is cut off QEMU reads zeros, and says nothing.
            let checked = helper::with_files(helper, from, None, 0, &["check", "-q", &source]).output();
            let out = checked.await.map_err(spawn_error)?;
            // 3: clusters that nobody uses, which does no harm.
            if !matches!(out.status.code(), Some(0 | 3)) {
                let why = said(&String::from_utf8_lossy(&[out.stderr, out.stdout].concat()));
                let (op, path) = ("check", from.to_owned());
                return Err(refused(DiskError::Tool { op, path, why }));
            }
        }
        let args = ["measure", "--output=json", "-O", "qcow2", &source];
        let mut command = helper::with_files(helper, from, None, 0, &args);
        let total = measured(&run("measure", from, &mut command).await.map_err(refused)?, from)?;

        let half = part(&to.path);
        remove_file(&to.path)?;
        create(to, &[], found.virtual_bytes).await?;
        let args = [
            "convert",
            "-p",
            "-W",
            "-n",
            "--target-is-zero",
            "-O",
            "qcow2",
            &source,
            helper::OUTPUT,
        ];
        // A layer that is full has some tables beside its data.
        let most = found.virtual_bytes + found.virtual_bytes / 64 + (64 << 20);
        let command = helper::with_files(helper, from, Some(&half), most, &args);
        self.copy(command, &to.path, total, progress)
            .await
            .map_err(refused)?;

        let header = header::Header::read(&half)?;
        if header.refusal().is_some() || header.virtual_bytes != found.virtual_bytes {
            return Err(DiskError::Refused {
                path: from.to_owned(),
                why: "what became of it is no layer that stands for itself".into(),
            });
        }
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        std::os::unix::fs::chown(&half, Some(user.as_raw()), Some(group.as_raw()))
            .map_err(DiskError::io("take back", &half))?;
        finish(&to.path).await
    }
}
