//! VMDKs in one file: monolithicSparse and streamOptimized. Whatever names another file is refused.

use super::{No, Window, le32, le64, no};

/// Largest description that is read, in bytes.
const DESCRIPTION: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// What a stream says of its table of tables: it is in the footer.
const AT_END: u64 = u64::MAX;
/// Largest disk in sectors, so that its bytes can be counted.
const MOST_SECTORS: u64 = i64::MAX as u64 / SECTOR;

/// The disk's size, in bytes.
pub fn look(file: Window<'_>) -> Result<u64, No> {
    let head = file.exactly(0, 80)?;
    let capacity = check_head(&head)?;
    // The footer of a stream stands for the head, and says the same.
    if le64(&head, 56) == AT_END {
        let Some(at) = file.bytes.checked_sub(2 * SECTOR) else {
            return no("it ends too early");
        };
        let footer = file.exactly(at, 80)?;
        if check_head(&footer)? != capacity {
            return no("its head and its footer speak of different disks");
        }
    }
    let (at, sectors) = (le64(&head, 28), le64(&head, 36));
    if at == 0 || sectors == 0 {
        return no("it has no description of itself");
    }
    let (Some(at), Some(bytes)) = (at.checked_mul(SECTOR), sectors.checked_mul(SECTOR)) else {
        return no("its description is out of reach");
    };
    if bytes > DESCRIPTION {
        return no("its description is too long");
    }
    let text = file.exactly(at, bytes as usize)?;
    check_description(&text)?;
    Ok(capacity * SECTOR)
}

/// The number of sectors.
fn check_head(head: &[u8]) -> Result<u64, No> {
    if !head.starts_with(b"KDMV") {
        return no("its footer is none");
    }
    let (version, capacity) = (le32(head, 4), le64(head, 12));
    if !(1..=3).contains(&version) {
        return no(format!("version {version} of VMDK is not known"));
    }
    // QEMU takes this for a description that names other files.
    if capacity == 0 {
        return no("its disk has no bytes");
    }
    if capacity > MOST_SECTORS {
        return no("its disk is larger than any can be");
    }
    Ok(capacity)
}

fn check_description(text: &[u8]) -> Result<(), No> {
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    let mut extents = 0;
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            "parentcid" if !value.eq_ignore_ascii_case("ffffffff") => {
                return no("it stands on a parent: export it without, or flatten it first");
            }
            "parentfilenamehint" => return no("it names a parent: export it without, or flatten it first"),
            "createtype"
                if !["monolithicsparse", "streamoptimized"].contains(&&*value.to_ascii_lowercase()) =>
            {
                return no(format!(
                    "it is a VMDK of the kind {value:?}, which names other files: export it as one file \
                     (monolithicSparse or streamOptimized)"
                ));
            }
            _ => {}
        }
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
            extents += 1;
            let kind = words.nth(1).unwrap_or_default();
            if kind != "SPARSE" {
                return no(format!(
                    "it has an extent of the kind {kind:?}, which is another file"
                ));
            }
        }
    }
    if extents > 1 {
        return no("it has several extents, which are other files");
    }
    Ok(())
}
