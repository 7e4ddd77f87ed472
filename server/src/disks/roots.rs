//! Directories of the host that a person may name files in.

use shared::Status;
use std::path::{Path, PathBuf};

/// What a path leads to, if it is below one of the directories that are configured.
pub fn below(roots: &[PathBuf], path: &str) -> Result<PathBuf, Status> {
    let refused = || {
        let all: Vec<_> = roots.iter().map(|r| r.display().to_string()).collect();
        Status::invalid(
            "path",
            match all.as_slice() {
                [] => "images are not imported by path here: image_roots names the directories that they may be in".into(),
                all => format!("{path} is not below {}: image_roots names the directories", all.join(" or ")),
            },
        )
    };
    let asked = Path::new(path);
    // What is elsewhere is not even looked for.
    let within = |path: &Path| roots.iter().any(|r| path.starts_with(r));
    let really = |p: &Path| std::fs::canonicalize(p);
    let roots_really: Vec<_> = roots.iter().filter_map(|r| really(r).ok()).collect();
    if !within(asked) && !roots_really.iter().any(|r| asked.starts_with(r)) {
        return Err(refused());
    }
    let found = really(asked).map_err(|e| Status::invalid("path", format_args!("{path}: {e}")))?;
    if roots_really.iter().any(|r| found.starts_with(r)) {
        Ok(found)
    } else {
        Err(refused())
    }
}
