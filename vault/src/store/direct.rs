//! Reading and writing past the system's cache. What a vault has is large, and read or written once: to lay it into the cache
//! takes more of a processor than to hash, pack and seal it, and drives out what the machines on this host want there.

use bytes::Bytes;
use rustix::fs::{OFlags, fcntl_setfl};
use std::fs::File;
use std::io::{self, IoSlice, Seek, Write};
use std::ops::Range;

/// In bytes. What is smaller may be wanted again soon, and goes through the cache.
const LEAST: usize = 1 << 20;

/// Of places in memory, places in files and lengths; no disk in use asks for more.
const BLOCK: usize = 4096;

/// What is written at once, in bytes.
const STAGE: usize = 1 << 20;

/// Writes these pieces to a file that is empty.
pub fn write(file: &mut File, pieces: &[Bytes]) -> io::Result<()> {
    let size: usize = pieces.iter().map(Bytes::len).sum();
    if size < LEAST || !past_cache(file) {
        return through_cache(file, pieces);
    }
    match blocks(file, pieces) {
        // Its blocks are larger, or it has no way past the cache after all.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
            fcntl_setfl(&*file, OFlags::empty())?;
            file.rewind()?;
            through_cache(file, pieces)
        }
        written => written,
    }
}

fn past_cache(file: &File) -> bool {
    fcntl_setfl(file, OFlags::DIRECT).is_ok()
}

fn through_cache(file: &mut File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let n = file.write_vectored(left)?;
        if n == 0 && left.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, n);
    }
    Ok(())
}

fn blocks(file: &mut File, pieces: &[Bytes]) -> io::Result<()> {
    let mut memory = vec![0; STAGE + BLOCK];
    let begin = memory.as_ptr().align_offset(BLOCK);
    let stage = &mut memory[begin..begin + STAGE];
    let mut filled = 0;
    for mut piece in pieces.iter().map(|piece| &piece[..]) {
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(STAGE - filled));
            stage[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            piece = later;
            if filled == STAGE {
                file.write_all(stage)?;
                filled = 0;
            }
        }
    }
    let (whole, rest) = stage[..filled].split_at(filled - filled % BLOCK);
    file.write_all(whole)?;
    // No disk writes a part of a block.
    fcntl_setfl(&*file, OFlags::empty())?;
    file.write_all(rest)
}

/// This range of a file that is so long.
pub fn read(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = range.end.saturating_sub(range.start) as usize;
    if length < LEAST || !past_cache(file) {
        return cached(file, range.start, Vec::with_capacity(length), length);
    }
    let before = (range.start % BLOCK as u64) as usize;
    let wanted = before + length;
    let mut bytes: Vec<u8> = Vec::with_capacity(BLOCK + wanted.next_multiple_of(BLOCK));
    let begin = bytes.as_ptr().align_offset(BLOCK);
    bytes.resize(begin, 0);
    let at = range.start - before as u64;
    let room = &mut bytes.spare_capacity_mut()[..wanted.next_multiple_of(BLOCK)];
    let read = match rustix::io::pread(file, room, at) {
        Ok((read, _)) => read.len().min(wanted),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::INTR) => 0,
        Err(e) => return Err(e.into()),
    };
    // SAFETY: behind `begin`, which has been set, the system has written this many bytes.
    unsafe { bytes.set_len(begin + read) };
    // A call that was interrupted ends where it likes.
    fcntl_setfl(file, OFlags::empty())?;
    let bytes = cached(file, at + read as u64, bytes, wanted - read)?;
    Ok(bytes.slice(begin + before..))
}

/// So many bytes of a file from there on, behind what is there already.
fn cached(file: &File, from: u64, mut bytes: Vec<u8>, more: usize) -> io::Result<Bytes> {
    let (begin, end) = (bytes.len(), bytes.len() + more);
    bytes.reserve_exact(more);
    while bytes.len() < end {
        let at = from + (bytes.len() - begin) as u64;
        // Into what nobody has written yet, and no further than the range.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => bytes.truncate(end),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n / 7 + n / 4096) as u8).collect()
    }

    fn pieces(all: &[u8], cuts: &[usize]) -> Vec<Bytes> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (all.len() + 1)).collect();
        cuts.extend([0, all.len()]);
        cuts.sort_unstable();
        let piece = |pair: &[usize]| Bytes::copy_from_slice(&all[pair[0]..pair[1]]);
        cuts.windows(2).map(piece).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_was_written_is_read(
            length in 0_usize..5 << 20,
            cuts in proptest::collection::vec(any::<usize>(), 0..5),
            ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..8),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let all = bytes(length);
            write(&mut file, &pieces(&all, &cuts)).unwrap();
            prop_assert_eq!(file.metadata().unwrap().len(), length as u64);
            prop_assert!(read(&file, 0..length as u64).unwrap() == all);
            for (a, b) in ranges {
                let (a, b) = (a % (length as u64 + 1), b % (length as u64 + 1));
                let (from, to) = (a.min(b), a.max(b));
                prop_assert!(read(&file, from..to).unwrap() == all[from as usize..to as usize], "{from}..{to}");
            }
        }
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        write(&mut file, &pieces(&bytes(3 << 20), &[])).unwrap();
        let why = read(&file, 0..(3 << 20) + 1).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// A file system in memory has blocks of its own, or no way past the cache.
    #[test]
    fn a_file_system_without_a_way_past_its_cache_serves_too() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        let all = bytes((2 << 20) + 17);
        write(&mut file, &pieces(&all, &[5, 1 << 20])).unwrap();
        assert!(read(&file, 3..(2 << 20) + 17).unwrap() == all[3..]);
    }
}
