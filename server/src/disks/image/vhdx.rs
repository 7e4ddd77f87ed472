//! VHDX: the table of regions leads to the metadata, which says how large the disk is and whether it has a parent.

use super::{No, Window, le16, le32, le64, no};

/// Where the two copies of the table of regions are.
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
/// How much of a table is looked at: more entries than the format allows do not fit.
const TABLE: usize = 64 << 10;
/// A GUID as it is stored: its first three parts little-endian.
type Guid = [u8; 16];

const METADATA: Guid = guid(0x8B7C_A206_4790_4B9A_B8FE_575F_050F_886E);
const FILE_PARAMETERS: Guid = guid(0xCAA1_6737_FA36_4D43_B3B6_33F0_AA44_E76B);
const DISK_SIZE: Guid = guid(0x2FA5_4224_CD1B_4876_B211_5DBE_D83B_F4B8);
const PARENT_LOCATOR: Guid = guid(0xA8D3_5F2D_B30B_454D_ABF7_D3D8_4834_AB0C);

const fn guid(text: u128) -> Guid {
    let b = text.to_be_bytes();
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
    ]
}

/// The disk's size, in bytes.
pub fn look(file: Window<'_>) -> Result<u64, No> {
    let mut size = None;
    // Either copy may be the one that is read.
    for at in REGIONS {
        if let Some(found) = regions(file, at)? {
            if size.is_some_and(|s| s != found) {
                return no("its two tables of regions speak of different disks");
            }
            size = Some(found);
        }
    }
    match size {
        Some(size) => Ok(size),
        None => no("it is damaged: it has no table of regions"),
    }
}

/// The size of the disk that this table of regions leads to; none if there is no table.
fn regions(file: Window<'_>, at: u64) -> Result<Option<u64>, No> {
    let table = file.read(at, TABLE)?;
    if !table.starts_with(b"regi") {
        return Ok(None);
    }
    let mut size = None;
    for entry in entries(&table, 16, le32(&table, 8))? {
        if entry[..16] == METADATA {
            size = Some(metadata(file, le64(entry, 16), u64::from(le32(entry, 24)))?);
        }
    }
    match size {
        None => no("it is damaged: it has no metadata"),
        size => Ok(size),
    }
}

/// The entries of a table, each of 32 bytes.
fn entries(table: &[u8], from: usize, count: u32) -> Result<impl Iterator<Item = &[u8]>, No> {
    let end = (count as usize).checked_mul(32).and_then(|n| n.checked_add(from));
    match end.and_then(|end| table.get(from..end)) {
        Some(entries) => Ok(entries.chunks_exact(32)),
        None => no("it is damaged: a table has more entries than fit"),
    }
}

fn metadata(file: Window<'_>, at: u64, bytes: u64) -> Result<u64, No> {
    let table = file.read(at, TABLE)?;
    if !table.starts_with(b"metadata") {
        return no("it is damaged: its metadata are none");
    }
    let mut size = None;
    for entry in entries(&table, 32, u32::from(le16(&table, 10)))? {
        let offset = u64::from(le32(entry, 16));
        let item = match at.checked_add(offset) {
            Some(item) if offset < bytes => item,
            _ => return no("it is damaged: metadata lie outside of their region"),
        };
        let kind = &entry[..16];
        if kind == PARENT_LOCATOR {
            return no("it names a parent: merge it into one file first");
        }
        if kind == FILE_PARAMETERS && le32(&file.exactly(item, 8)?, 4) & 0b10 != 0 {
            return no("it stands on a parent: merge it into one file first");
        }
        if kind == DISK_SIZE {
            size = Some(le64(&file.exactly(item, 8)?, 0));
        }
    }
    match size {
        Some(size) => Ok(size),
        None => no("it is damaged: it does not say how large its disk is"),
    }
}
