//! The money check of a run: what the replies said, against the engine's present state and against its durable log.

use std::future::Future;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use surety_client::{Client, LockRef, SubmitError, TailError};
use surety_protocol::{Amount, Code, End, Reply, Seq, ShardId};
use tokio::task::JoinSet;

use crate::check::{CheckReport, Checking};
use crate::random::Random;

/// Locks that are looked up; of more, so many by chance.
const LOOKUPS_MAX: usize = 200_000;
/// Look-ups under way.
const LOOKUPS_AT_ONCE: usize = 256;
/// How long the log may take to show a record that was answered, and an engine that is busy to look a lock up.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
/// Before a look-up is made again, for the first time; then twice as long each time.
const LOOKUP_PAUSE: Duration = Duration::from_millis(20);
const LOOKUP_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Differences that are told; the others are counted.
const TOLD_MAX: u64 = 3;

/// What the check came to: `ok`, or what differs, for each party.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyCheck {
    /// The replies among themselves.
    pub replies: String,
    /// A look-up of each payment's lock, after the run.
    pub lookups: String,
    /// The durable change stream: the record of every reply, once, and nothing doubled.
    pub log: String,
    /// Locks that were looked up, and found or not.
    pub looked_up: u64,
    /// Locks that were not looked up, since too many payments were made.
    pub left_out: u64,
    /// Replies whose record was found as it should be.
    pub recorded: u64,
}

/// A lock as the last reply about it has told it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) lock: LockRef,
    pub(crate) reply: Reply,
    /// False where the reply holds the lock's end alone: a door that tells no more.
    pub(crate) is_whole: bool,
}

/// Locks to be looked up, a fair choice of all.
#[derive(Debug)]
pub(crate) struct Sightings {
    kept: Vec<Seen>,
    all: u64,
    random: Random,
}

impl MoneyCheck {
    /// Of who has asked for nothing.
    pub(crate) fn of_nothing() -> Self {
        let ok = || "ok".to_owned();
        Self { replies: ok(), lookups: ok(), log: ok(), ..Self::default() }
    }

    /// True if all parties agree.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        [&self.replies, &self.lookups, &self.log].into_iter().all(|party| party == "ok")
    }
}

impl Sightings {
    pub(crate) fn new(seed: u64) -> Self {
        Self { kept: Vec::new(), all: 0, random: Random::new(seed) }
    }

    pub(crate) fn add(&mut self, seen: Seen) {
        self.all += 1;
        if self.kept.len() < LOOKUPS_MAX {
            return self.kept.push(seen);
        }
        let place = self.random.up_to(self.all - 1);
        if let Some(place) = usize::try_from(place).ok().and_then(|place| self.kept.get_mut(place)) {
            *place = seen;
        }
    }
}

/// Compares. `contradictions` are those that the run has counted; the client is asked for everything else.
pub(crate) async fn check(
    client: &Client,
    replies: &[Reply],
    sightings: Sightings,
    contradictions: u64,
) -> MoneyCheck {
    let (looked_up, left_out, lookups) = look_up_all(client, sightings, 1).await;
    let (log, recorded) = match read_log(client, replies).await {
        Ok(found) => (words(&found), found.verified),
        Err(reason) => (reason, 0),
    };
    let replies = say_contradictions(contradictions);
    MoneyCheck { replies, lookups, log, looked_up, left_out, recorded }
}

pub(crate) fn say_contradictions(count: u64) -> String {
    match count {
        0 => "ok".to_owned(),
        count => format!("{count} contradict their request, or what was answered before"),
    }
}

/// Looks the locks up: how many, how many were left out, and what differs. `step` is what the smallest amount that was told of them
/// holds of base units.
pub(crate) async fn look_up_all(client: &Client, sightings: Sightings, step: u128) -> (u64, u64, String) {
    let kept = sightings.kept.len() as u64;
    let found = look_up(client, sightings.kept, step).await;
    (kept - found.failed, sightings.all - kept, found.words())
}

async fn look_up(client: &Client, seen: Vec<Seen>, step: u128) -> Found {
    let mut waiting = seen.into_iter();
    let mut asked = JoinSet::new();
    let mut found = Found::default();
    loop {
        // An engine that does not answer for so long is not asked for the others.
        while found.failed == 0
            && asked.len() < LOOKUPS_AT_ONCE
            && let Some(seen) = waiting.next()
        {
            let client = client.clone();
            asked.spawn(async move {
                let LockRef { partition, id, .. } = seen.lock;
                let reply = until_found(LOG_PATIENCE, || client.lookup(partition, id, false)).await;
                reply.map(|reply| compare(&seen, reply, step))
            });
        }
        match asked.join_next().await {
            Some(Ok(Ok(None))) => {}
            Some(Ok(Ok(Some(difference)))) => found.differs(difference),
            Some(Ok(Err(error))) => found.fails(error.to_string()),
            Some(Err(fault)) => found.fails(fault.to_string()),
            None => break,
        }
    }
    found.failed += waiting.len() as u64;
    found
}

/// Asks again, which changes nothing, until there is an answer. That there is none says nothing of the lock.
async fn until_found<F>(patience: Duration, mut ask: impl FnMut() -> F) -> Result<Reply, SubmitError>
where
    F: Future<Output = Result<Reply, SubmitError>>,
{
    let (begun, mut pause) = (Instant::now(), LOOKUP_PAUSE);
    loop {
        let error = match ask().await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        if begun.elapsed() >= patience {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = LOOKUP_PAUSE_MAX.min(pause * 2);
    }
}

/// What look-ups came to.
#[derive(Debug, Default)]
struct Found {
    differing: u64,
    /// The first differences.
    told: Vec<String>,
    /// Locks of which nobody has told anything.
    failed: u64,
    /// Why the first of these failed.
    why: String,
}

impl Found {
    fn differs(&mut self, difference: String) {
        self.differing += 1;
        if self.differing <= TOLD_MAX {
            self.told.push(difference);
        }
    }

    fn fails(&mut self, why: String) {
        if self.failed == 0 {
            self.why = why;
        }
        self.failed += 1;
    }

    fn words(&self) -> String {
        let differences = self.told.join("; ") + &and_more(self.differing);
        let failures = match self.failed {
            0 => String::new(),
            failed => format!("{failed} locks could not be looked up: {}", self.why),
        };
        match (differences.is_empty(), failures.is_empty()) {
            (true, true) => "ok".to_owned(),
            (false, false) => format!("{differences}; {failures}"),
            _ => differences + &failures,
        }
    }
}

fn and_more(count: u64) -> String {
    match count.saturating_sub(TOLD_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    }
}

/// What differs between a lock's last reply and its look-up.
fn compare(seen: &Seen, found: Reply, step: u128) -> Option<String> {
    let (id, last) = (seen.lock.id, &seen.reply);
    let found = Reply { remaining: Amount(found.remaining.0 / step), ..found };
    // Time has gone on, and with it what was left open.
    if last.end() == End::Live && found.end() == End::Expired {
        return None;
    }
    let state = |reply: &Reply| match seen.is_whole {
        true => (reply.end(), reply.remaining, reply.version),
        // What has ended holds nothing.
        false if reply.end() == End::Live => (End::Live, Amount::ZERO, 0),
        false => (reply.end(), reply.remaining, 0),
    };
    if state(last) == state(&found) && found.code() != Code::NotFound {
        return None;
    }
    let say =
        |reply: &Reply| format!("{} remaining {} version {}", reply.end(), reply.remaining, reply.version);
    Some(format!("lock {id}: last answered {}, looked up {}", say(last), say(&found)))
}

/// Finds each reply's record in the durable change stream.
async fn read_log(client: &Client, replies: &[Reply]) -> Result<CheckReport, String> {
    let mut checking = Checking::new(replies);
    for shard in (0..client.shards()).map(ShardId) {
        let seqs =
            replies.iter().filter(|reply| reply.shard == shard && reply.seq > Seq(0)).map(|reply| reply.seq);
        let (Some(first), Some(last)) = (seqs.clone().min(), seqs.max()) else { continue };
        let mut tail = client.tail(shard, first);
        let mut through = Seq(0);
        while through < last {
            let batch = tokio::time::timeout(LOG_PATIENCE, tail.next_batch());
            let batch =
                batch.await.map_err(|_| format!("shard {shard}: the log does not reach seq {last}"))?;
            let batch = batch.map_err(|error: TailError| error.to_string())?;
            for (seq, record) in (batch.first.0..).map(Seq).zip(batch.records) {
                checking.on_record(shard, seq, None, record);
            }
            through = batch.through;
        }
    }
    Ok(checking.finish())
}

fn words(found: &CheckReport) -> String {
    if found.ok {
        return "ok".to_owned();
    }
    if found.acks == 0 {
        return "no reply to look for".to_owned();
    }
    let CheckReport { missing, different, doubled, .. } = found;
    let faults = found.faults.iter().take(usize::try_from(TOLD_MAX).unwrap_or(1));
    let told: Vec<_> = faults
        .map(|fault| format!("{} at {}:{}: {}", fault.id, fault.shard, fault.seq, fault.what))
        .collect();
    format!("{missing} missing, {different} different, {doubled} doubled: {}", told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::NotExecuted;
    use surety_protocol::{Id, PartitionHandle, Time};

    #[test]
    fn a_lock_that_is_not_as_it_was_told_is_named() {
        let lock = LockRef::new(PartitionHandle(1), Id(7));
        let last = Reply { remaining: Amount(5), version: 2, end: End::Live as u8, ..Reply::default() };
        let seen = Seen { lock, reply: last, is_whole: true };
        let found = Reply { code: Code::Approved as u8, ..last };
        assert_eq!(compare(&seen, found, 1), None);
        assert_eq!(compare(&seen, Reply { end: End::Expired as u8, remaining: Amount(0), ..found }, 1), None);
        let differs =
            |found: Reply| assert!(compare(&seen, found, 1).is_some_and(|text| text.contains("remaining 5")));
        differs(Reply { remaining: Amount(4), ..found });
        differs(Reply { version: 3, ..found });
        differs(Reply { end: End::Released as u8, ..found });
        differs(Reply { code: Code::NotFound as u8, ..found });
        let check = |last: End, found: End, remaining: u128| {
            let seen = Seen { is_whole: false, reply: Reply { end: last as u8, ..Reply::default() }, ..seen };
            let (code, end, remaining) = (Code::Approved as u8, found as u8, Amount(remaining));
            compare(&seen, Reply { code, end, remaining, version: 9, ..Reply::default() }, 1).is_none()
        };
        assert!(check(End::Live, End::Live, 7) && check(End::Final, End::Final, 0));
        assert!(!check(End::Final, End::Final, 1) && !check(End::Final, End::Released, 0));
        assert!(!check(End::Live, End::Released, 0));
    }

    #[tokio::test]
    async fn a_look_up_is_made_again_and_its_failure_is_no_difference() {
        let why = NotExecuted::Refused { code: Code::Overloaded, time: Time(0) };
        let busy = SubmitError::NotExecuted { id: Id(1), why };
        let mut times = 0;
        let ask = || {
            times += 1;
            std::future::ready(if times < 3 { Err(busy) } else { Ok(Reply::default()) })
        };
        assert!(until_found(LOG_PATIENCE, ask).await.is_ok());
        assert_eq!(times, 3);
        assert_eq!(until_found(Duration::ZERO, || std::future::ready(Err(busy))).await, Err(busy));

        let mut found = Found::default();
        assert_eq!(found.words(), "ok");
        found.fails(busy.to_string());
        found.fails("the second".to_owned());
        let failures = format!("2 locks could not be looked up: {busy}");
        assert_eq!(found.words(), failures);
        (0..5).for_each(|lock| found.differs(format!("lock {lock}")));
        assert_eq!(found.words(), format!("lock 0; lock 1; lock 2; and 2 more; {failures}"));
    }

    #[test]
    fn of_too_many_locks_a_choice_is_kept() {
        let mut sightings = Sightings::new(1);
        let more = LOOKUPS_MAX as u64 + 50_000;
        for number in 0..more {
            let lock = LockRef::new(PartitionHandle(1), Id(u128::from(number)));
            sightings.add(Seen { lock, reply: Reply::default(), is_whole: true });
        }
        assert_eq!((sightings.kept.len(), sightings.all), (LOOKUPS_MAX, more));
        let late = sightings.kept.iter().filter(|seen| seen.lock.id.0 >= LOOKUPS_MAX as u128).count();
        assert!((35_000..45_000).contains(&late), "{late}");
    }
}
