//! Against chains that QEMU's own tools made.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

const SECTOR: u64 = 512;

#[derive(Clone, Copy, Debug)]
enum Op {
    Write(u8),
    Zero,
    ZeroUnmap,
    Discard,
}

/// One layer: its size in sectors, what is done to it, at which part of it (in 65536ths) and for how many sectors, and
/// by how many sectors it grows then.
#[derive(Clone, Debug)]
struct Plan {
    sectors: u64,
    ops: Vec<(Op, u64, u64)>,
    grow: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        4 => (1..=255u8).prop_map(Op::Write),
        1 => Just(Op::Zero),
        1 => Just(Op::ZeroUnmap),
        1 => Just(Op::Discard),
    ];
    let length = prop_oneof![1..16u64, 1..600u64];
    let ops = prop::collection::vec((op, 0..65536u64, length), 0..8);
    (64..8000u64, ops, prop_oneof![2 => Just(0), 1 => 1..3000u64]).prop_map(|(sectors, ops, grow)| Plan {
        sectors,
        ops,
        grow,
    })
}

fn run(program: &str, args: &[&str], dir: &Path) {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && !said.contains("failed"),
        "{program} {args:?}: {said}"
    );
}

fn create(dir: &Path, n: usize, cluster: u64, bytes: u64) -> PathBuf {
    let (name, below) = (format!("{n}.qcow2"), format!("{}.qcow2", n.wrapping_sub(1)));
    let (options, bytes) = (format!("cluster_size={cluster}"), bytes.to_string());
    let mut args = vec!["create", "-q", "-f", "qcow2", "-o", &options];
    if n > 0 {
        args.extend(["-F", "qcow2", "-b", &below]);
    }
    args.extend([name.as_str(), &bytes]);
    run("qemu-img", &args, dir);
    dir.join(name)
}

fn io(dir: &Path, path: &Path, commands: &[String]) {
    let mut args = vec!["-f", "qcow2", "--cache=unsafe", "--discard=unmap"];
    commands.iter().for_each(|c| args.extend(["-c", c.as_str()]));
    args.push(path.to_str().unwrap());
    run("qemu-io", &args, dir);
}

/// What QEMU says that the layer shows.
fn view(dir: &Path, path: &Path) -> Vec<u8> {
    let raw = dir.join("view.raw");
    let args = ["convert", "-f", "qcow2", "-O", "raw"];
    let args = [&args[..], &[path.to_str().unwrap(), "view.raw"]].concat();
    run("qemu-img", &args, dir);
    std::fs::read(raw).unwrap()
}

/// Makes a layer, and says what its clusters may be about.
fn make(dir: &Path, n: usize, cluster: u64, plan: &Plan) -> (PathBuf, Vec<Range<u64>>) {
    let bytes = plan.sectors * SECTOR;
    let path = create(dir, n, cluster, bytes);
    let mut touched = Vec::new();
    let mut commands = Vec::new();
    for (op, part, sectors) in &plan.ops {
        let at = plan.sectors * part / 65536;
        let length = (*sectors).min(plan.sectors - at) * SECTOR;
        let at = at * SECTOR;
        commands.push(match op {
            Op::Write(byte) => format!("write -P {byte} {at} {length}"),
            Op::Zero => format!("write -z {at} {length}"),
            Op::ZeroUnmap => format!("write -z -u {at} {length}"),
            Op::Discard => format!("discard {at} {length}"),
        });
        touched.push(at..at + length);
    }
    if !commands.is_empty() {
        io(dir, &path, &commands);
    }
    if plan.grow > 0 {
        let grow = format!("+{}", plan.grow * SECTOR);
        run("qemu-img", &["resize", "-q", path.to_str().unwrap(), &grow], dir);
        touched.push(bytes..bytes + plan.grow * SECTOR);
    }
    for range in &mut touched {
        *range = range.start / cluster * cluster..range.end.next_multiple_of(cluster);
    }
    (path, touched)
}

/// All of a source, by two threads, in pieces that fit nothing.
fn all(source: &dyn Source) -> io::Result<Vec<u8>> {
    let mut all = vec![0xaa; source.bytes() as usize];
    let half = all.len() / 2;
    let (low, high) = all.split_at_mut(half);
    let read = |from: usize, part: &mut [u8]| {
        let mut pieces = part.chunks_mut(99_999).enumerate();
        pieces.try_for_each(|(n, piece)| source.read((from + n * 99_999) as u64, piece))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(move || read(half, high));
        read(0, low).and(other.join().unwrap())
    })?;
    Ok(all)
}

fn data(source: &dyn Source) -> io::Result<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while let Some(found) = source.data(at, source.bytes())? {
        assert!(at <= found.start && found.start < found.end && found.end <= source.bytes());
        at = found.end;
        ranges.push(found);
    }
    Ok(ranges)
}

/// Marks every sector in these ranges, as far as there are sectors.
fn marks<'a>(bytes: u64, ranges: impl IntoIterator<Item = &'a Range<u64>>) -> Vec<bool> {
    let mut marks = vec![false; (bytes / SECTOR) as usize];
    for range in ranges {
        let end = (range.end / SECTOR).min(marks.len() as u64);
        let begin = (range.start / SECTOR).min(end);
        marks[begin as usize..end as usize].fill(true);
    }
    marks
}

proptest! {
    #![proptest_config(Config { cases: 32, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..Config::default() })]

    #[test]
    fn it_shows_what_qemu_shows(
        bits in prop_oneof![2 => Just(16), 1 => Just(9), 1 => Just(12), 1 => Just(21)],
        plans in prop::collection::vec(plan(), 1..=5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let made: Vec<_> = (0..).zip(&plans).map(|(n, plan)| make(dir, n, 1 << bits, plan)).collect();
        let views: Vec<_> = made.iter().map(|(path, _)| view(dir, path)).collect();
        let chain: Vec<_> = made.iter().map(|(path, _)| path.clone()).collect();
        let frozen = Frozen::open(&chain).unwrap();
        let top = views.last().unwrap();
        let bytes = top.len() as u64;
        prop_assert_eq!(frozen.bytes(), bytes);
        prop_assert!(all(&frozen).unwrap() == *top, "the bytes differ");

        let may = marks(bytes, &data(&frozen).unwrap());
        let touched = marks(bytes, made.iter().flat_map(|(_, touched)| touched));
        for (n, sector) in top.chunks(SECTOR as usize).enumerate() {
            prop_assert!(may[n] || sector.iter().all(|b| *b == 0), "data was hidden at sector {}", n);
            prop_assert!(!may[n] || touched[n], "sector {} was said to have data", n);
        }

        prop_assert_eq!(frozen.changed_above(0).unwrap(), vec![0..bytes]);
        for base in 1..=chain.len() {
            let ranges = frozen.changed_above(base).unwrap();
            prop_assert!(ranges.windows(2).all(|two| two[0].end < two[1].start), "{:?}", ranges);
            let changed = marks(bytes, &ranges);
            // Where a layer ends, what is above it begins anew.
            let ends = views[base - 1..].iter().map(|view| view.len() as u64..u64::MAX);
            let above: Vec<_> = made[base..].iter().flat_map(|(_, touched)| touched.clone()).chain(ends).collect();
            let touched = marks(bytes, &above);
            let below = &views[base - 1];
            for (n, sector) in top.chunks(SECTOR as usize).enumerate() {
                let same = below.get(n * 512..(n + 1) * 512) == Some(sector);
                prop_assert!(changed[n] || same, "a change above {} was missed at sector {}", base, n);
                prop_assert!(!changed[n] || touched[n], "above {} nothing was done to sector {}", base, n);
            }
        }
    }
}

/// Three layers of 2 MiB and small clusters, as many tables and bytes as fit in a short test.
fn three(dir: &Path) -> Vec<PathBuf> {
    let plan = |from: u64| Plan {
        sectors: 4096,
        ops: (from..from + 6)
            .map(|n| (Op::Write(n as u8 + 1), n * 9001 % 65536, 100))
            .chain([(Op::Zero, from * 4000, 64)])
            .collect(),
        grow: 0,
    };
    let layers = (0..3).map(|n| make(dir, n, 1024, &plan(n as u64 * 7)));
    layers.map(|(path, _)| path).collect()
}

fn everything(chain: &[PathBuf]) -> io::Result<()> {
    let frozen = Frozen::open(chain)?;
    for base in 0..=chain.len() {
        frozen.changed_above(base)?;
    }
    data(&frozen)?;
    all(&frozen).map(drop)
}

#[test]
fn a_damaged_layer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let chain = three(dir.path());
    everything(&chain).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let whole: Vec<_> = chain.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let be64 = |file: &[u8], at: usize| u64::from_be_bytes(file[at..at + 8].try_into().unwrap());
    // Where the tables are: the head, the first level (16 entries), and what that names.
    let tables = whole.iter().map(|file| {
        let l1 = be64(file, 40) as usize;
        let l2 = (0..16).map(|n| (be64(file, l1 + n * 8) & 0x00ff_ffff_ffff_fe00) as usize);
        let l2 = l2.filter(|place| *place > 0).map(|place| place..place + 1024);
        [0..80, l1..l1 + 128].into_iter().chain(l2).collect::<Vec<_>>()
    });
    let tables: Vec<_> = tables.collect();
    let mut found = 0;
    for _ in 0..3000 {
        let n = random(3);
        let mut file = whole[n].clone();
        for _ in 0..=random(3) {
            let table = tables[n][random(tables[n].len())].clone();
            file[table.start + random(table.len())] ^= 1 << random(8);
        }
        std::fs::write(&chain[n], &file).unwrap();
        if let Err(e) = everything(&chain) {
            assert!(e.to_string().contains(chain[n].to_str().unwrap()), "{e}");
            found += 1;
        }
        std::fs::write(&chain[n], &whole[n]).unwrap();
    }
    assert!(found > 1000, "{found} of 3000 were found");
}

#[test]
fn a_layer_that_was_cut_short_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let chain = three(dir.path());
    for path in &chain {
        let whole = std::fs::read(path).unwrap();
        for clusters in 0..whole.len() / 1024 - 1 {
            std::fs::write(path, &whole[..clusters * 1024]).unwrap();
            let e = everything(&chain).unwrap_err().to_string();
            assert!(e.contains(path.to_str().unwrap()), "{e}");
        }
        std::fs::write(path, &whole).unwrap();
    }
}

#[test]
fn no_other_file_is_opened_and_nothing_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let chain = three(dir.path());
    let shows = view(dir.path(), &chain[2]);
    // A machine that runs: it writes to a layer above, and has those below open.
    let running = create(dir.path(), 3, 65536, 2 << 20);
    let mut qemu = Command::new("qemu-io")
        .args(["-f", "qcow2"])
        .arg(&running)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(qemu.stdout.take().unwrap());
    let mut tell = qemu.stdin.take().unwrap();
    let mut line = String::new();
    tell.write_all(b"write -P 9 0 64k\n").unwrap();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("wrote 65536"), "{line}");
    let frozen = Frozen::open(&chain).unwrap();
    assert!(all(&frozen).unwrap() == shows);
    drop(tell);
    assert!(qemu.wait().unwrap().success());
    // Who wants to write to a layer is not kept from it.
    io(dir.path(), &chain[2], &["write -P 1 0 512".into()]);
    drop(frozen);

    // The names in the heads lead nowhere, or to something else.
    for (n, name) in [(1, "nowhere"), (2, "0.qcow2")] {
        let path = chain[n].to_str().unwrap();
        run(
            "qemu-img",
            &["rebase", "-u", "-F", "qcow2", "-b", name, path],
            dir.path(),
        );
    }
    let mut now = shows;
    now[..512].fill(1);
    assert!(all(&Frozen::open(&chain).unwrap()).unwrap() == now);
}

#[test]
fn what_is_not_taken_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let chain = three(dir);
    let why = |chain: &[PathBuf]| everything(chain).unwrap_err().to_string();
    assert!(why(&[]).contains("no layer"));
    assert!(why(&chain[1..]).contains("1.qcow2 is not taken: it has a backing file"));
    assert!(why(&[chain[0].clone(), chain[0].clone()]).contains("it has no backing file"));
    assert!(why(&[dir.join("none")]).contains("open"));
    let base = Frozen::open(&chain).unwrap().changed_above(4).unwrap_err();
    assert!(base.to_string().contains("the chain has 3"), "{base}");

    run(
        "qemu-img",
        &["convert", "-c", "-O", "qcow2", "2.qcow2", "small.qcow2"],
        dir,
    );
    assert!(why(&[dir.join("small.qcow2")]).contains("is compressed"));
    for (name, options) in [
        ("wide.qcow2", "extended_l2=on"),
        ("apart.qcow2", "data_file=apart.raw"),
    ] {
        run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", options, name, "1M"],
            dir,
        );
        let why = why(&[dir.join(name)]);
        assert!(why.contains("features of qcow2") && why.contains(name), "{why}");
    }
}

#[test]
fn a_raw_base_shows_through() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = File::create(dir.join("base.raw")).unwrap();
    raw.set_len(8 << 20).unwrap();
    raw.write_all_at(&[5; 70_000], 3 << 20).unwrap();
    let args = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "base.raw",
        "top.qcow2",
    ];
    run("qemu-img", &[&args[..], &["9M"]].concat(), dir);
    let top = dir.join("top.qcow2");
    io(dir, &top, &["write -P 6 64k 64k".into()]);
    let frozen = Frozen::open_on_raw(&dir.join("base.raw"), std::slice::from_ref(&top)).unwrap();
    assert!(all(&frozen).unwrap() == view(dir, &top));
    let changed = [64 << 10..128 << 10, 8 << 20..9 << 20];
    assert_eq!(frozen.changed_above(1).unwrap(), changed);
    let data = data(&frozen).unwrap();
    assert_eq!(data[0], changed[0]);
    assert!(data[1].start <= 3 << 20 && data[1].end >= (3 << 20) + 70_000 && data[1].end < 4 << 20);
}

#[test]
fn a_large_empty_disk_is_gone_through_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = 1 << 40;
    let chain: Vec<_> = (0..2).map(|n| create(dir.path(), n, 65536, bytes)).collect();
    let end = bytes - 65536..bytes;
    io(dir.path(), &chain[0], &["write -P 1 512G 64k".into()]);
    io(dir.path(), &chain[1], &[format!("write -P 2 {} 64k", end.start)]);
    let frozen = Frozen::open(&chain).unwrap();
    let middle = 1 << 39..(1 << 39) + 65536;
    assert_eq!(data(&frozen).unwrap(), [middle, end.clone()]);
    assert_eq!(frozen.changed_above(1).unwrap(), [end]);
}
