//! Writes memory without end, one byte in each page: `scribble MIB`. For tests of what travels while a guest runs.

use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;

const PAGE: usize = 4096;

fn main() -> ExitCode {
    let mib = std::env::args().nth(1).and_then(|mib| mib.parse::<usize>().ok());
    let Some(mib) = mib else {
        eprintln!("usage: scribble MIB");
        return ExitCode::from(2);
    };
    let mut memory = vec![0_u8; mib << 20];
    for round in 1_u64.. {
        for page in memory.chunks_mut(PAGE) {
            page[0] = round as u8 | 1;
        }
        black_box(&mut memory);
        if round == 1 {
            // Whoever waits for this line has nobody else to be told by.
            let _ = writeln!(std::io::stdout(), "scribbles over {mib} MiB");
        }
    }
    ExitCode::SUCCESS
}
