//! qcow2: what its head says, and whether its tables lie in the file. QEMU reads zeros where a file was cut off, so a
//! disk would silently be empty.

use super::{No, Window, no};
use crate::disks::header::Header;

/// Largest first table, in bytes: QEMU takes no larger one.
const FIRST_TABLE: u64 = 32 << 20;
/// Where an entry says that its table is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// The disk's size, in bytes.
pub fn look(file: Window<'_>, head: &[u8]) -> Result<u64, No> {
    let header = Header::parse(head).map_err(No::Refused)?;
    if let Some(why) = header.refusal() {
        return no(why);
    }
    let be = |at: usize, bytes: usize| head[at..at + bytes].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let (cluster_bits, entries, at) = (be(20, 4), be(36, 4), be(40, 8));
    if !(9..=21).contains(&cluster_bits) {
        return no("it is damaged: its clusters have a size that none can have");
    }
    let bytes = entries * 8;
    if bytes > FIRST_TABLE || at.checked_add(bytes).is_none_or(|end| end > file.bytes) {
        return no("it is damaged, or was cut off: its first table lies outside of it");
    }
    let table = file.exactly(at, bytes as usize)?;
    let cut = table.chunks_exact(8).any(|entry| {
        let at = entry.iter().fold(0, |n, b| n << 8 | u64::from(*b)) & OFFSET;
        at != 0 && at + (1 << cluster_bits) > file.bytes
    });
    if cut {
        return no("it is damaged, or was cut off: one of its tables lies outside of it");
    }
    Ok(header.virtual_bytes)
}
