//! Bytes for disks, always the same.

use crate::Result;
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 64 << 10;

/// Numbers that look random and are not.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(bytes + 8);
        while all.len() < bytes {
            all.extend(self.next().to_le_bytes());
        }
        all.truncate(bytes);
        all
    }

    fn text(&mut self, bytes: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = [
            "copy",
            "the",
            "snapshot",
            "of",
            "a",
            "machine",
            "kept",
            "elsewhere",
        ];
        let mut all = String::with_capacity(bytes + 32);
        while all.len() < bytes {
            let n = self.next();
            all.push_str(WORDS.get(n as usize % WORDS.len()).unwrap_or(&""));
            all.push_str(&format!(" {} ", n >> 54));
        }
        let mut all = all.into_bytes();
        all.truncate(bytes);
        all
    }
}

/// So many random bytes.
pub fn noise(bytes: u64, to: &mut impl Write) -> Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(1 << 20);
        to.write_all(&random.fill(piece as usize))?;
        left -= piece;
    }
    Ok(to.flush()?)
}

/// Changes 1 % of a file, in blocks anywhere in what is used: one half is random then, the other text. Answers where.
pub fn change(path: &Path) -> Result<Vec<(u64, u64)>> {
    let file = File::options().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let mut used = Vec::new();
    let mut at = 0;
    while let Ok(from) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(from))?;
        used.extend(from.div_ceil(BLOCK)..at / BLOCK);
    }
    let wanted = (bytes / BLOCK).div_ceil(100) as usize;
    if used.len() < wanted {
        return Err(format!("{} uses {} blocks only", path.display(), used.len()).into());
    }
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut changed = Vec::with_capacity(wanted);
    for n in 0..wanted {
        let block = used.swap_remove(random.next() as usize % used.len()) * BLOCK;
        let new = match n % 2 {
            0 => random.fill(BLOCK as usize),
            _ => random.text(BLOCK as usize),
        };
        file.write_all_at(&new, block)?;
        changed.push((block, block + BLOCK));
    }
    changed.sort_unstable();
    Ok(changed)
}
