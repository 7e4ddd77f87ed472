//! Writes the words of each language into a file of its own, as the browser loads them.
//! Usage: words <folder>

#![allow(dead_code)]

#[path = "../app/src/words/languages.rs"]
mod languages;

use languages::Language;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).unwrap_or_default().into();
    for language in Language::ALL {
        std::fs::write(folder.join(language.file()), language.lines())?;
    }
    Ok(())
}
