//! One history, cut at every moment, in every way that its unsynced sectors and names allow, and again during each recovery.

use std::collections::HashSet;

use engine::{Begin, Config};
use surety_protocol::{Record, Seq, Time};

use super::counts::Counts;
use super::disk::Disk;
use super::life::{Life, Moment, Promise, Shape, Truth, config};
use crate::random::Random;

/// Cuts within cuts.
pub(super) const DEPTH_MAX: usize = 3;
/// Up to so many ways to lose power at one moment are all tried, by depth.
const EXHAUSTIVE_MAX: [u64; DEPTH_MAX + 1] = [256, 64, 16, 8];
/// Of more ways so many are drawn, beside none, all, each sector alone and each sector missing.
const SAMPLES: [u64; DEPTH_MAX + 1] = [24, 6, 2, 1];
/// One of so many states is opened, to be cut again: by depth.
const OPEN_ONE_OF: [u64; DEPTH_MAX] = [1, 3, 5];
/// One of so many states is asked again for everything that was acked.
const ASK_ONE_OF: u64 = 48;
/// One of so many states is read from its oldest record, too, and has its books checked.
const THOROUGH_ONE_OF: u64 = 32;

/// The shapes of histories, in turn: both modes, with and without guard, small, rolling, and long blocks that tear in many
/// ways.
pub(super) fn shape(seed: u64) -> Shape {
    use engine::Durability::{Fsync, Os};
    let small = Shape {
        durability: Fsync,
        guard: false,
        blocks: 10,
        requests_max: 6,
        snapshot_every: 4,
        restart_every: 7,
        cut_from: 1,
    };
    // A block takes a page, and a segment holds 64: the cuts are those around the roll and what retention then removes.
    let rolling =
        Shape { blocks: 140, requests_max: 2, snapshot_every: 29, restart_every: 0, cut_from: 56, ..small };
    let long = Shape { blocks: 8, requests_max: 70, snapshot_every: 3, ..small };
    match seed % 8 {
        0 => small,
        1 => Shape { guard: true, ..small },
        2 => Shape { durability: Os, ..small },
        3 => Shape { guard: true, ..long },
        4 => long,
        5 => Shape { durability: Os, ..long },
        6 => Shape { guard: seed.is_multiple_of(16), ..rolling },
        _ => Shape { durability: Os, ..rolling },
    }
}

/// Lives a history and cuts it everywhere.
///
/// # Errors
/// What did not hold, with what it takes to see it again.
pub(super) fn explore(seed: u64, states_max: u64) -> Result<Counts, String> {
    explore_shape(&shape(seed), seed, states_max).map_err(|failure| format!("seed {seed}: {failure}"))
}

fn explore_shape(shape: &Shape, seed: u64, states_max: u64) -> Result<Counts, String> {
    let mut life = Life::new(shape, seed, Disk::new());
    life.run(shape).map_err(|halt| format!("the history itself: {halt}"))?;
    let mut explorer = Explorer::new(config(shape, seed), &life.truth, seed);
    explorer.counts.histories = 1;
    explorer.counts.rolls = life.figures.rolls;
    explorer.counts.snapshots = life.figures.snapshots;
    explorer.counts.segments_removed = life.figures.segments_removed;
    let moments = life.moments.len() as u64;
    for (index, moment) in life.moments.iter().enumerate() {
        // What one moment does not use, the next may.
        explorer.states_left += states_max.div_ceil(moments.max(1));
        explorer.cut(moment, 0).map_err(|failure| format!("moment {index}: {failure}"))?;
    }
    explorer.counts.states_distinct = explorer.disks.len() as u64;
    Ok(explorer.counts)
}

/// Cuts, recovers and looks.
pub(super) struct Explorer<'a> {
    config: Config,
    truth: &'a Truth,
    random: Random,
    seen: HashSet<(u64, Promise)>,
    disks: HashSet<u64>,
    pub(super) counts: Counts,
    states_left: u64,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(config: Config, truth: &'a Truth, seed: u64) -> Self {
        Self {
            config,
            truth,
            random: Random::new(seed ^ 0x5eed),
            seen: HashSet::new(),
            disks: HashSet::new(),
            counts: Counts::default(),
            states_left: 0,
        }
    }

    /// After the end of a process: what is on the disk keeps the promise, whether the power goes, too, or not, and every reply
    /// that left is given again.
    pub(super) fn look_after(&mut self, moment: &Moment) -> Result<(), String> {
        let choices = moment.disk.choices();
        let all: Vec<usize> = choices.iter().map(|choice| choice - 1).collect();
        let mut ways = vec![vec![0; choices.len()], all];
        for _ in 0..4 {
            ways.push(choices.iter().map(|&choice| self.random.index(choice)).collect());
        }
        self.states_left = u64::MAX;
        for (index, way) in ways.iter().enumerate() {
            self.fall(moment, &choices, way, DEPTH_MAX)?;
            // Asking takes long: after the loss of all that could be lost is enough.
            if index > 0 {
                continue;
            }
            let mut disk = moment.disk.crash(way);
            let recovered = engine::recover(self.config, &mut disk, Begin::Snapshot, |_| {})
                .map_err(|error| format!("refused: {error}"))?;
            let found = recovered.report().last_seq;
            let now = recovered.report().last_time.plus(Time::from_millis(1));
            let engine = recovered.open(&mut disk, now).map_err(|error| format!("did not open: {error}"))?;
            self.ask_again(engine, disk, now, moment.replies, found)?;
        }
        Ok(())
    }

    /// Cuts the power at a moment, in all ways or in some.
    fn cut(&mut self, moment: &Moment, depth: usize) -> Result<(), String> {
        let choices = moment.disk.choices();
        let ways = choices.iter().fold(1_u64, |ways, &choice| ways.saturating_mul(choice as u64));
        if self.states_left == 0 {
            return Ok(());
        }
        self.counts.moments += 1;
        if ways <= EXHAUSTIVE_MAX[depth] {
            self.counts.moments_exhaustive += 1;
            return (0..ways).try_for_each(|way| self.fall(moment, &choices, &nth_way(&choices, way), depth));
        }
        let none = vec![0; choices.len()];
        let all: Vec<usize> = choices.iter().map(|choice| choice - 1).collect();
        self.fall(moment, &choices, &none, depth)?;
        self.fall(moment, &choices, &all, depth)?;
        for at in 0..choices.len() {
            let single = |base: &[usize], value| [&base[..at], &[value], &base[at + 1..]].concat();
            self.fall(moment, &choices, &single(&none, all[at]), depth)?;
            self.fall(moment, &choices, &single(&all, 0), depth)?;
        }
        for _ in 0..SAMPLES[depth] {
            let drawn: Vec<usize> = choices.iter().map(|&choice| self.random.index(choice)).collect();
            self.fall(moment, &choices, &drawn, depth)?;
        }
        Ok(())
    }

    /// One way to lose power, and what recovery makes of it.
    fn fall(
        &mut self,
        moment: &Moment,
        choices: &[usize],
        chosen: &[usize],
        depth: usize,
    ) -> Result<(), String> {
        if self.states_left == 0 {
            return Ok(());
        }
        let disk = moment.disk.crash(chosen);
        let keeps_all = choices.iter().zip(chosen).all(|(choices, chosen)| choices - 1 == *chosen);
        let promise = match keeps_all {
            true => Promise { least: moment.promise.acked.max(moment.promise.least), ..moment.promise },
            false => moment.promise,
        };
        let hash = disk.hash();
        if !self.seen.insert((hash, promise)) {
            self.counts.repeats_skipped += 1;
            return Ok(());
        }
        self.disks.insert(hash);
        self.states_left -= 1;
        self.recover(disk, promise, moment.replies, depth)
            .map_err(|failure| format!("depth {depth}, {promise:?}, chosen {chosen:?}: {failure}"))
    }

    fn recover(&mut self, disk: Disk, promise: Promise, replies: usize, depth: usize) -> Result<(), String> {
        let mut disk = disk;
        self.counts.states += 1;
        self.counts.states_by_depth[depth] += 1;
        let recovered = engine::recover(self.config, &mut disk, Begin::Snapshot, |_| {})
            .map_err(|error| format!("refused: {error}: {error:?}"))?;
        let report = recovered.report().clone();
        let found = report.last_seq;
        if found < promise.least || found > promise.most {
            return Err(format!("ended at seq {}", found.0));
        }
        if self.truth.states.get(&found) != Some(&recovered.ledger().state_hash()) {
            return Err(format!("another state at seq {}", found.0));
        }
        if found != Seq(0)
            && found != promise.least
            && self.truth.block_ends.binary_search(&found).is_err()
            && found != promise.most
        {
            return Err(format!("seq {} ends no block", found.0));
        }
        self.counts.torn += u64::from(report.torn.is_some());
        self.counts.from_snapshot += u64::from(report.snapshot.is_some());
        self.counts.snapshots_passed_over += report.unsound_snapshots.len() as u64;
        self.counts.with_block_in_flight += u64::from(found > promise.acked);
        if self.random.chance(1, THOROUGH_ONE_OF) {
            self.read_the_other_way(&disk, &recovered)?;
        }
        if depth >= DEPTH_MAX || !self.random.chance(1, OPEN_ONE_OF[depth]) {
            return Ok(());
        }
        self.open(disk, recovered, found, replies, depth)
    }

    /// The thorough reading comes to the same state as the quick one, and its books hold.
    fn read_the_other_way(&mut self, disk: &Disk, quick: &engine::Recovered) -> Result<(), String> {
        quick.ledger().verify().map_err(|error| format!("the books do not hold: {error}"))?;
        let whole = engine::recover(self.config, &mut disk.clone(), Begin::Oldest, |_| {})
            .map_err(|error| format!("refused from its oldest record: {error}"))?;
        if whole.ledger().state_hash() != quick.ledger().state_hash() {
            return Err("snapshot and log differ".into());
        }
        self.counts.read_both_ways += 1;
        Ok(())
    }

    /// Opens what was recovered, cuts the power at every moment of that, and looks at what was opened.
    fn open(
        &mut self,
        mut disk: Disk,
        recovered: engine::Recovered,
        found: Seq,
        replies: usize,
        depth: usize,
    ) -> Result<(), String> {
        let epoch = recovered.report().epoch;
        let now = recovered.report().last_time.plus(Time::from_millis(1));
        disk.watch();
        let engine = recovered.open(&mut disk, now).map_err(|error| format!("did not open: {error}"))?;
        if engine.epoch() <= epoch {
            return Err("the epoch was not raised".into());
        }
        // A cut during recovery must come to the same state as one clean recovery.
        let promise = Promise { least: found, acked: found, most: found };
        let mut moments = disk.take_watched();
        moments.push(disk.clone());
        for (call, disk) in moments.into_iter().enumerate() {
            let moment = Moment { disk, promise, replies };
            self.cut(&moment, depth + 1).map_err(|failure| format!("call {call} of recovery: {failure}"))?;
        }
        if self.random.chance(1, ASK_ONE_OF) {
            self.ask_again(engine, disk, now, replies, found)?;
        }
        Ok(())
    }

    /// Every reply that had left is given again; a block that is then written is found by the next recovery.
    fn ask_again(
        &mut self,
        mut engine: engine::Engine,
        mut disk: Disk,
        now: Time,
        replies: usize,
        found: Seq,
    ) -> Result<(), String> {
        for acked in self.truth.acked[..replies].iter().filter(|acked| acked.reply.seq <= found) {
            let bytes: Vec<_> = acked.operation.iter().map(Record::to_bytes).collect();
            let is_kept = now.minus(acked.operation[0].id.time()) < self.config.id_window;
            engine.handle(now, &acked.caller, 0, &bytes);
            while engine.wants_reserve().is_some() {
                let (name, bytes) = engine.wants_reserve().ok_or("there was one")?;
                wal::create_reserve(&mut disk, name, bytes).map_err(|error| error.to_string())?;
                engine.reserve_created(name);
            }
            while let Some(write) = engine.poll_write(now) {
                write.perform(&mut disk).map_err(|error| error.to_string())?;
                engine.on_written(write);
            }
            let again = engine.poll_reply().ok_or("no reply")?.1;
            let first = &acked.reply;
            let is_same = again.is_replayed()
                && (again.code, again.seq, again.approved) == (first.code, first.seq, first.approved);
            if is_kept && !is_same {
                return Err(format!("{first:?} became {again:?}"));
            }
            self.counts.replies_asked_again += u64::from(is_kept);
        }
        let hash = engine.ledger().state_hash();
        let last = engine.marks().acked;
        let after = engine::recover(self.config, &mut disk.crash_keeping_all(), Begin::Snapshot, |_| {})
            .map_err(|error| format!("refused after it had served: {error}"))?;
        if (after.report().last_seq, after.ledger().state_hash()) != (last, hash)
            || after.report().torn.is_some()
        {
            return Err("what was served after the recovery is not what the next one finds".into());
        }
        Ok(())
    }
}

/// A mixed-radix number, digit by digit.
fn nth_way(choices: &[usize], way: u64) -> Vec<usize> {
    let mut rest = way;
    let digit = |&choice: &usize| {
        let base = choice as u64;
        let digit = rest % base;
        rest /= base;
        usize::try_from(digit).expect("it is below a usize")
    };
    choices.iter().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_all_different_and_within_their_choices() {
        let choices = [2, 1, 3, 4];
        let ways: HashSet<Vec<usize>> = (0..24).map(|way| nth_way(&choices, way)).collect();
        assert_eq!(ways.len(), 24);
        assert!(ways.iter().flatten().zip(choices.iter().cycle()).all(|(digit, choice)| digit < choice));
    }

    #[test]
    fn a_seed_is_explored_the_same_way_twice_and_finds_nothing() {
        let mut total = Counts::default();
        for seed in 0..8 {
            let first = explore(seed, 1500).unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(Ok(&first), explore(seed, 1500).as_ref(), "seed {seed}");
            total.add(&first);
        }
        assert!(total.states > 3000 && total.states_by_depth.iter().all(|states| *states > 0), "{total:?}");
        let reached =
            [total.torn, total.from_snapshot, total.with_block_in_flight, total.replies_asked_again];
        assert!(reached.iter().all(|count| *count > 0), "{total:?}");
        assert!(total.rolls > 0 && total.snapshots > 0 && total.segments_removed > 0, "{total:?}");
    }
}
