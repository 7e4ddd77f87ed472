//! Fills memory, then writes one byte of each page again and again: `scribble MIB [ROUNDS]`. Without a number of rounds it
//! never ends; after them it holds what it has. For tests of what travels while a guest runs.

use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;

const PAGE: usize = 4096;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|n| n.parse::<u64>());
    let (mib, rounds) = match (numbers.next(), numbers.next()) {
        (Some(Ok(mib)), None) => (mib, u64::MAX),
        (Some(Ok(mib)), Some(Ok(rounds))) => (mib, rounds),
        _ => {
            eprintln!("usage: scribble MIB [ROUNDS]");
            return ExitCode::from(2);
        }
    };
    let mut memory = vec![0x5a_u8; (mib << 20) as usize];
    // Whoever waits for this line has nobody else to be told by.
    let _ = writeln!(std::io::stdout(), "scribbles over {mib} MiB");
    for round in 1..rounds {
        for page in memory.chunks_mut(PAGE) {
            page[0] = round as u8 | 1;
        }
        black_box(&mut memory);
    }
    loop {
        std::thread::park();
        black_box(&mut memory);
    }
}
