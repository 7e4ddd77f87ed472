//! What programs take of the processor, by what the system says of children that have ended.

use crate::Result;
use crate::report::{Figure, Limit};
use crate::stats::Sample;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// What steps have taken, each in every round.
#[derive(Default)]
pub struct Taken {
    cpu: BTreeMap<&'static str, Vec<f64>>,
    wall: BTreeMap<&'static str, Vec<f64>>,
}

impl Taken {
    /// Runs a step, and answers what it told. Nothing else may run at the same time.
    pub async fn step(&mut self, key: &'static str, command: &mut Command) -> Result<String> {
        // What was written before is not to be written now.
        rustix::fs::sync();
        let (begin, before) = (Instant::now(), children());
        let out = run(command).await?;
        let cpu = children() - before;
        // The whole takes some ten minutes.
        eprintln!("bench: {key}: {cpu:.2} s of a processor");
        self.note(key, cpu);
        self.wall
            .entry(key)
            .or_default()
            .push(begin.elapsed().as_secs_f64());
        Ok(out)
    }

    /// Notes seconds of a processor that were measured otherwise, or whatever a round has of something.
    pub fn note(&mut self, key: &'static str, value: f64) {
        self.cpu.entry(key).or_default().push(value);
    }

    fn sample(of: &BTreeMap<&'static str, Vec<f64>>, key: &str) -> Sample {
        of.get(key).into_iter().flatten().copied().collect()
    }

    /// The middle one of what was noted.
    pub fn median(&self, key: &str) -> f64 {
        Self::sample(&self.cpu, key).median()
    }

    /// All that was noted, in the order of the rounds.
    pub fn all(&self, key: &str) -> &[f64] {
        self.cpu.get(key).map_or(&[], Vec::as_slice)
    }

    /// Seconds on the clock, in the middle.
    pub fn wall(&self, key: &str) -> f64 {
        Self::sample(&self.wall, key).median()
    }

    /// What one step takes of the processor beside another.
    pub fn ratio(&self, figure: &'static str, ours: &str, theirs: &str, limit: Limit) -> Figure {
        let pairs = self.all(ours).iter().zip(self.all(theirs));
        let pairs: Sample = pairs.map(|(ours, theirs)| ours / theirs).collect();
        let mut noise = format!(
            "{:.2} s and {:.2} s of a processor, medians of {} in turn; single pairs {}",
            self.median(ours),
            self.median(theirs),
            pairs.len(),
            pairs.range(3)
        );
        if self.wall.contains_key(ours) && self.wall.contains_key(theirs) {
            noise += &format!(
                "; {:.1} s and {:.1} s on the clock",
                self.wall(ours),
                self.wall(theirs)
            );
        }
        Figure::new(figure, self.median(ours) / self.median(theirs), limit, noise)
    }
}

/// Runs a command to its end, and answers what it told. It does not outlive its being waited for.
pub async fn run(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| format!("{:?}: {e}", command.as_std().get_program()))?;
    if !out.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// Seconds that all children which have ended have taken of the processor, with theirs.
fn children() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place is ours and large enough; all zeros are an rusage as well, should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Seconds that all processors have been busy since the system began.
pub fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // User, nice, system; interrupts; what other machines took of this one.
    let busy: f64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|n| ticks.get(*n)).sum();
    Ok(busy / rustix::param::clock_ticks_per_second() as f64)
}
