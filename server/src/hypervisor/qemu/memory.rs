//! What the memory of a machine's process costs the host.

use shared::fork::MemoryUse;
use std::io;

/// Reads the map of a process. The guest's memory is told from the rest by its size.
pub fn of(pid: i32, memory_mib: u32) -> io::Result<MemoryUse> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    Ok(sum(&smaps, u64::from(memory_mib) << 10))
}

#[derive(Default)]
struct Mapping {
    size: u64,
    rss: u64,
    /// Pages of its own: written since they were mapped. What `Private_Dirty` counts are also pages of the file that nobody
    /// else has mapped just now.
    own: u64,
}

fn sum(smaps: &str, guest_kib: u64) -> MemoryUse {
    let mut all = Vec::<Mapping>::new();
    for line in smaps.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        // A mapping begins with its range of addresses; its fields follow.
        let kib = value
            .trim()
            .strip_suffix(" kB")
            .and_then(|n| n.trim().parse::<u64>().ok());
        match (key, kib) {
            ("Size", Some(n)) => all.push(Mapping {
                size: n,
                ..Mapping::default()
            }),
            ("Rss", Some(n)) => all.last_mut().into_iter().for_each(|m| m.rss = n),
            ("Anonymous", Some(n)) => all.last_mut().into_iter().for_each(|m| m.own = n),
            _ => {}
        }
    }
    let process: u64 = all.iter().map(|m| m.own).sum();
    let guest = all.iter().find(|m| m.size == guest_kib);
    let (rss, own) = guest.map_or((0, 0), |m| (m.rss, m.own));
    MemoryUse {
        private_bytes: own << 10,
        shared_bytes: rss.saturating_sub(own) << 10,
        process_private_bytes: process << 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_told_from_the_programs() {
        let smaps = "7f00-7f10 rw-p 00000000 00:19 12 /points/a.memory\nSize:             262144 kB\nRss:               98304 kB\n\
            Private_Dirty:     98304 kB\nAnonymous:          1024 kB\nVmFlags: rd wr\n\
            7f20-7f30 rw-p 00000000 00:00 0 \nSize:              65536 kB\nRss:               20480 kB\nAnonymous:         20480 kB\n";
        assert_eq!(
            sum(smaps, 256 << 10),
            MemoryUse {
                private_bytes: 1024 << 10,
                shared_bytes: 97280 << 10,
                process_private_bytes: 21504 << 10,
            }
        );
    }
}
