//! The command `rot`: bytes flip, sectors and blocks are lost, swapped, doubled or come from elsewhere. What was durable is
//! there, or the shard refuses to start; it never starts with less.

mod damage;
mod left;

use std::collections::BTreeMap;

use damage::damages;
use left::lefts;

/// Damages durable data in every way, one damage at a time
///
/// Example: simulator rot --json
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Of so many flipped bytes one is tried; 1 is every byte
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Threads; 0 takes as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print nothing but one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of one kind of damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Damages tried.
    pub tried: u64,
    /// Of these, damages of what was durable.
    pub durable: u64,
    /// The shard refused to start.
    pub refused: u64,
    /// It started with the whole history: the damage was in nothing that counts, or there was another copy.
    pub whole: u64,
    /// It started without the last block, which nothing proves: no guard ring, no seal.
    pub unproven_lost: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.durable += other.durable;
        self.refused += other.refused;
        self.whole += other.whole;
        self.unproven_lost += other.unproven_lost;
    }
}

#[derive(Debug, serde::Serialize)]
struct Report {
    ok: bool,
    command: &'static str,
    stride: usize,
    log_bytes: usize,
    tried: u64,
    damaged_durable: u64,
    detected_percent: f64,
    tallies: BTreeMap<String, Tally>,
    failures: Vec<String>,
}

/// Runs the command; false if anything did not hold.
#[must_use]
pub fn run(args: &Args) -> bool {
    let threads = super::threads(args.threads);
    let (tallies, failures, log_bytes) = sweep(args.stride.max(1), threads);
    let sum = |of: fn(&Tally) -> u64| total(&tallies, of);
    let (durable, missed) = (sum(|tally| tally.durable), failures.len() as u64);
    let report = Report {
        ok: failures.is_empty() && durable > 0,
        command: "rot",
        stride: args.stride.max(1),
        log_bytes,
        tried: sum(|tally| tally.tried),
        damaged_durable: durable,
        detected_percent: 100.0 * durable.saturating_sub(missed) as f64 / durable.max(1) as f64,
        tallies,
        failures,
    };
    if !args.json {
        for (name, tally) in &report.tallies {
            println!("{name:40} {tally:?}");
        }
        report.failures.iter().take(20).for_each(|failure| println!("FAILED {failure}"));
    }
    crate::report::print(&report);
    report.ok
}

fn sweep(stride: usize, threads: usize) -> (BTreeMap<String, Tally>, Vec<String>, usize) {
    let share = |thread: usize| {
        let (mut tallies, mut failures) = (BTreeMap::<String, Tally>::new(), Vec::new());
        let lefts = lefts();
        for (index, left) in lefts.iter().enumerate() {
            let stranger = &lefts[(index + 1) % lefts.len()];
            assert_ne!(left.config.engine, stranger.config.engine);
            let all = damages(left, stranger, stride);
            for damage in all.iter().skip(thread).step_by(threads) {
                let mut tally = Tally::default();
                let checked = left.check(damage, &mut tally);
                for name in [damage.kind(), format!("all of {}", left.name)] {
                    tallies.entry(name).or_default().add(tally);
                }
                if let Err(failure) = checked {
                    failures.push(format!("{}: {}: {failure}", left.name, damage.told()));
                }
            }
        }
        assert!(lefts[..3].iter().all(|left| left.segments().len() == 1), "as they are named");
        let log_bytes = lefts[0].files[&lefts[0].segments()[0]].len();
        (tallies, failures, log_bytes)
    };
    let mut total = (BTreeMap::<String, Tally>::new(), Vec::new(), 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        for worker in workers {
            let (tallies, failures, log_bytes) = worker
                .join()
                .unwrap_or_else(|_| (BTreeMap::new(), vec!["a panic; its place is told above".into()], 0));
            for (name, more) in tallies {
                total.0.entry(name).or_default().add(more);
            }
            total.1.extend(failures);
            total.2 = log_bytes.max(total.2);
        }
    });
    total
}

/// The sum over all disks.
fn total(tallies: &BTreeMap<String, Tally>, of: fn(&Tally) -> u64) -> u64 {
    tallies.iter().filter(|(name, _)| name.starts_with("all of ")).map(|(_, tally)| of(tally)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rot_of_what_was_durable_is_always_refused() {
        // A prime; the command flips every byte.
        let (tallies, failures, log_bytes) = sweep(211, 2);
        assert_eq!(failures, Vec::<String>::new());
        assert_eq!(log_bytes, 256 * 1024);
        let sum = |of: fn(&Tally) -> u64| total(&tallies, of);
        assert!(sum(|tally| tally.durable) > 1000 && sum(|tally| tally.refused) > 1000, "{tallies:?}");
        for (name, tally) in tallies.iter().filter(|(name, _)| name.starts_with("all of ")) {
            let is_unproven = name.ends_with("its end unproven");
            assert_eq!(
                tally.unproven_lost > 0,
                is_unproven,
                "the known gap is told, and is the only one: {name}"
            );
        }
    }
}
