//! What `settle run` and `settle certify` tell whoever watches them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::B256;
use parking_lot::Mutex;
use serde_json::{Value, json};
use settlement::life::Refusal;
use settler::{BatchLife, Certifier, CertifierTurn, Figures, Seen, Sending, Shelf};
use surety_protocol::{Seq, Time};
use telemetry::{Gauge, Page, Sort};

use crate::watched::Numbers;

/// How a settler stands, as of its last turn.
pub(super) struct SettlerNumbers {
    last: Mutex<(Figures, SystemTime)>,
    turns: Gauge,
    failures: Gauge,
    notices: Gauge,
}

/// The same, shared with the listener.
pub(super) type SharedSettler = Arc<SettlerNumbers>;

impl SettlerNumbers {
    pub(super) fn new(figures: Figures) -> SharedSettler {
        Arc::new(Self {
            last: Mutex::new((figures, SystemTime::now())),
            turns: Gauge::default(),
            failures: Gauge::default(),
            notices: Gauge::default(),
        })
    }

    /// A turn has come to its end, with so much to be told.
    pub(super) fn turned(&self, figures: Figures, notices: usize) {
        *self.last.lock() = (figures, SystemTime::now());
        self.turns.raise();
        (0..notices).for_each(|_| self.notices.raise());
    }

    /// A turn has failed, and is tried again.
    pub(super) fn failed(&self) {
        self.failures.raise();
    }
}

/// Where the life of batches is told; the console asks for it.
const BATCHES: &str = "batches";

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
        let (figures, at) = self.last.lock().clone();
        (name == BATCHES).then(|| batches_document(&figures, at.elapsed().unwrap_or_default()).to_string())
    }
}

/// How batches stand. Ages are those at the end of the last turn, which was so long ago.
fn batches_document(figures: &Figures, turned: Duration) -> Value {
    let (sealed, last_final, booked) = figures.progress;
    let chain = figures.seen.map(|seen| {
        json!({ "block": seen.block, "final_block": seen.finalized_block, "block_time_s": seen.block_time })
    });
    json!({
        "turn_age_ms": whole_ms(turned),
        "sealed": sealed,
        "final": last_final,
        "booked": booked,
        "waiting_records": figures.waiting_records,
        "waiting_age_ms": millis(figures.waiting_age),
        "unsettled_age_ms": millis(figures.unsettled_age),
        "pending_transactions": figures.pending,
        "chain": chain,
        "batches": figures.batches.iter().rev().map(batch_json).collect::<Vec<_>>(),
    })
}

/// Moments as milliseconds since the Unix epoch, amounts in base units as decimal strings: JSON's numbers end before them.
fn batch_json(life: &BatchLife) -> Value {
    let moment = |at: Option<Time>| at.map(millis);
    json!({
        "batch": life.seq,
        "stage": life.stage.name(),
        "held": life.held.map(refusal_name),
        "records": life.records,
        "partitions": life.partitions,
        "credited": life.credited.to_string(),
        "locked": life.locked.to_string(),
        "read": life.read.iter().map(|seq| seq.0.to_string()).collect::<Vec<_>>(),
        "transaction": life.transaction.map(|hash| B256::from(hash).to_string()),
        "block": life.block,
        "sealed_ms": millis(life.sealed_at),
        "posted_ms": moment(life.posted_at),
        "mined_ms": moment(life.mined_at),
        "final_ms": moment(life.final_at),
        "booked_ms": moment(life.booked_at),
    })
}

const fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::PayoutLimit => "payout_limit",
        Refusal::Insolvent => "insolvent",
        Refusal::Paused => "paused",
        Refusal::Other => "other",
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
