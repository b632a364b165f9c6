//! What `settle run` and `settle certify` tell whoever watches them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::B256;
use parking_lot::Mutex;
use settlement::life::Refusal;
use settler::{BatchLife, Certifier, CertifierTurn, Figures, Seen, Sending, Shelf, Stage};
use surety_protocol::{Seq, Time};
use telemetry::{Gauge, Page, Sort};
use texts::batches::{self, Decimal, Held};

use crate::watched::Numbers;

/// How a settler stands, as of its last turn.
pub(super) struct SettlerNumbers {
    /// Between two turns where there is nothing to do.
    interval: Time,
    /// Shared: who asks takes no more of the settler's time than a pointer does.
    last: Mutex<(Arc<Figures>, SystemTime)>,
    turns: Gauge,
    failures: Gauge,
    notices: Gauge,
}

/// The same, shared with the listener.
pub(super) type SharedSettler = Arc<SettlerNumbers>;

impl SettlerNumbers {
    pub(super) fn new(figures: Figures, interval: Time) -> SharedSettler {
        Arc::new(Self {
            interval,
            last: Mutex::new((Arc::new(figures), SystemTime::now())),
            turns: Gauge::default(),
            failures: Gauge::default(),
            notices: Gauge::default(),
        })
    }

    /// A turn has come to its end, with so much to be told.
    pub(super) fn turned(&self, figures: Figures, notices: usize) {
        *self.last.lock() = (Arc::new(figures), SystemTime::now());
        self.turns.raise();
        (0..notices).for_each(|_| self.notices.raise());
    }

    /// A turn has failed, and is tried again.
    pub(super) fn failed(&self) {
        self.failures.raise();
    }
}

impl Numbers for SharedSettler {
    fn tell(&self, page: &mut Page) {
        let (figures, at) = self.last.lock().clone();
        tell_batches(page, &figures);
        tell_streams(page, &figures);
        if let Some(seen) = figures.seen {
            tell_chain(page, seen);
        }
        let name = "surety_settler_transactions_total";
        page.family(
            name,
            Sort::Counter,
            "sendings of transactions by what the node has said, and those in a block",
        );
        for (sending, count) in Sending::ALL.iter().zip(figures.sendings) {
            page.sample(name, &[("outcome", &sending.name())], count);
        }
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "when the last turn ended, since 1970";
        page.single("surety_settler_last_turn_timestamp_seconds", Sort::Gauge, help, at);
        let help = "how long a settler with nothing to carry waits between two turns";
        let interval = Duration::from_nanos(self.interval.0).as_secs_f64();
        page.single("surety_settler_interval_seconds", Sort::Gauge, help, interval);
        let counters: [(&str, &str, &Gauge); 3] = [
            ("surety_settler_turns_total", "looks at stream and chain", &self.turns),
            (
                "surety_settler_failures_total",
                "turns that failed since engine or node did not answer",
                &self.failures,
            ),
            ("surety_settler_notices_total", "what somebody should read in its output", &self.notices),
        ];
        for (name, help, number) in counters {
            page.single(name, Sort::Counter, help, number.get());
        }
    }

    fn document(&self, name: &str) -> Option<String> {
        if name != batches::DOCUMENT {
            return None;
        }
        let (figures, at) = self.last.lock().clone();
        serde_json::to_string(&batches_told(&figures, at.elapsed().unwrap_or_default(), self.interval)).ok()
    }
}

/// How batches stand. Ages are those at the end of the last turn, which was so long ago.
fn batches_told(figures: &Figures, turned: Duration, interval: Time) -> batches::Told {
    let (sealed, last_final, booked) = figures.progress;
    let chain = |seen: Seen| batches::Chain {
        block: seen.block,
        final_block: seen.finalized_block,
        block_time_s: seen.block_time,
    };
    batches::Told {
        turn_age_ms: whole_ms(turned),
        interval_ms: millis(interval),
        sealed,
        last_final,
        booked,
        waiting_records: figures.waiting_records,
        waiting_age_ms: millis(figures.waiting_age),
        unsettled_age_ms: millis(figures.unsettled_age),
        pending_transactions: figures.pending as u64,
        chain: figures.seen.map(chain),
        batches: figures.batches.iter().rev().map(batch_told).collect(),
    }
}

fn batch_told(life: &BatchLife) -> batches::Batch {
    batches::Batch {
        batch: life.seq,
        stage: stage_told(life.stage),
        held: life.held.map(held_told),
        records: life.records.into(),
        partitions: life.partitions as u64,
        credited: Decimal(life.credited),
        locked: Decimal(life.locked),
        read: life.read.iter().map(|seq| Decimal(seq.0)).collect(),
        transaction: life.transaction.map(|hash| B256::from(hash).to_string()),
        block: life.block,
        sealed_ms: millis(life.sealed_at),
        posted_ms: life.posted_at.map(millis),
        mined_ms: life.mined_at.map(millis),
        final_ms: life.final_at.map(millis),
        booked_ms: life.booked_at.map(millis),
    }
}

const fn stage_told(stage: Stage) -> batches::Stage {
    match stage {
        Stage::Sealed => batches::Stage::Sealed,
        Stage::Posted => batches::Stage::Posted,
        Stage::Mined => batches::Stage::Mined,
        Stage::Final => batches::Stage::Final,
        Stage::Booked => batches::Stage::Booked,
    }
}

const fn held_told(refusal: Refusal) -> Held {
    match refusal {
        Refusal::PayoutLimit => Held::PayoutLimit,
        Refusal::Insolvent => Held::Insolvent,
        Refusal::Paused => Held::Paused,
        Refusal::Other => Held::Other,
    }
}

fn tell_batches(page: &mut Page, figures: &Figures) {
    let (sealed, last_final, booked) = figures.progress;
    let name = "surety_settler_batch_seq";
    page.family(name, Sort::Gauge, "number of the last batch that was sealed, is final, was booked");
    for (state, seq) in [("sealed", sealed), ("final", last_final), ("booked", booked)] {
        page.sample(name, &[("state", &state)], seq);
    }
    let gauges: [(&str, &str, f64); 6] = [
        (
            "surety_settler_waiting_age_seconds",
            "how long the oldest change waits for a batch",
            seconds(figures.waiting_age),
        ),
        (
            "surety_settler_unsettled_age_seconds",
            "how long ago the oldest batch was sealed that is not final",
            seconds(figures.unsettled_age),
        ),
        ("surety_settler_waiting_records", "records that wait for a batch", whole(figures.waiting_records)),
        ("surety_settler_pending_transactions", "signed, and in no final block", figures.pending as f64),
        ("surety_settler_log_bytes", "length of the settler's log", whole(figures.log_bytes)),
        ("surety_settler_put_off", "changes that the engine has declined for now", figures.put_off as f64),
    ];
    for (name, help, value) in gauges {
        page.single(name, Sort::Gauge, help, value);
    }
}

fn tell_streams(page: &mut Page, figures: &Figures) {
    let name = "surety_settler_read_seq";
    tell_positions(page, name, "last record read of each shard", &figures.read);
    if let Some(settled) = &figures.settled {
        let name = "surety_settler_final_seq";
        tell_positions(page, name, "last record of each shard in a final batch, since the start", settled);
    }
}

fn tell_positions(page: &mut Page, name: &str, help: &str, positions: &[Seq]) {
    page.family(name, Sort::Gauge, help);
    for (shard, seq) in positions.iter().enumerate() {
        page.sample(name, &[("shard", &shard)], seq.0);
    }
}

fn tell_chain(page: &mut Page, seen: Seen) {
    let name = "surety_settler_block";
    page.family(name, Sort::Gauge, "number of the newest block, and of the newest that is final");
    page.sample(name, &[("state", &"latest")], seen.block);
    page.sample(name, &[("state", &"final")], seen.finalized_block);
    page.single("surety_settler_poster_balance_wei", Sort::Gauge, "of the poster's account", seen.balance);
    let help = "what transactions have cost in the last day";
    page.single("surety_settler_spent_day_wei", Sort::Gauge, help, seen.spent_today);
    let help = "of the newest block, per gas";
    page.single("surety_settler_base_fee_wei", Sort::Gauge, help, seen.base_fee);
}

/// How a certificate service stands, as of its last turn.
pub(super) struct CertifierNumbers {
    shelf: Arc<Shelf>,
    last: Mutex<(Vec<Seq>, Duration)>,
    made: Gauge,
    missed: Gauge,
    gaps: Gauge,
}

/// The same, shared with the listener.
pub(super) type SharedCertifier = Arc<CertifierNumbers>;

impl CertifierNumbers {
    pub(super) fn new(certifier: &Certifier) -> SharedCertifier {
        Arc::new(Self {
            shelf: certifier.shelf(),
            last: Mutex::new((certifier.positions().0.clone(), certifier.checkpoint_age())),
            made: Gauge::default(),
            missed: Gauge::default(),
            gaps: Gauge::default(),
        })
    }

    /// A turn has come to its end.
    pub(super) fn turned(&self, certifier: &Certifier, turn: &CertifierTurn) {
        *self.last.lock() = (certifier.positions().0.clone(), certifier.checkpoint_age());
        turn.made.iter().for_each(|_| self.made.raise());
        turn.missed.iter().for_each(|_| self.missed.raise());
    }

    /// Records were passed by that the engine no longer has.
    pub(super) fn skipped(&self) {
        self.gaps.raise();
    }
}

impl Numbers for SharedCertifier {
    fn tell(&self, page: &mut Page) {
        let (read, checkpoint_age) = self.last.lock().clone();
        tell_positions(page, "surety_certifier_read_seq", "last record read of each shard", &read);
        let help = "certificates that can be had";
        page.single("surety_certifier_shelf_certificates", Sort::Gauge, help, self.shelf.len());
        let help = "how long ago the last checkpoint was written, as of the last turn";
        page.single(
            "surety_certifier_checkpoint_age_seconds",
            Sort::Gauge,
            help,
            checkpoint_age.as_secs_f64(),
        );
        let counters: [(&str, &str, &Gauge); 3] = [
            ("surety_certifier_signed_total", "certificates made", &self.made),
            ("surety_certifier_missed_total", "certified locks without a certificate", &self.missed),
            ("surety_certifier_gaps_total", "times that records were gone before they were read", &self.gaps),
        ];
        for (name, help, number) in counters {
            page.single(name, Sort::Counter, help, number.get());
        }
    }
}

const fn millis(time: Time) -> u64 {
    time.0 / 1_000_000
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(time: Time) -> f64 {
    Duration::from_nanos(time.0).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "what is watched needs no more than 52 bits")]
const fn whole(number: u64) -> f64 {
    number as f64
}
