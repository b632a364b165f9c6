//! What the demo does to its engine: payments of every sort, one after the other, by many workers at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use surety_client::{Client, Draft, LockRef, LockRequest, SubmitError};
use surety_protocol::{Amount, Kind, MerchantId, Record, Reply, SettleByAction};

use super::random::Random;
use super::tally::Tally;
use super::world::{FX, FX_QUOTE, MERCHANTS, RETAIL, SHORT_LIFE, STREET, TENANT};

/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// One thousandth of an AMP: amounts are multiples of it.
const STEP: u128 = 1_000_000_000_000_000;

/// What the workers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// True when no new payment is to begin.
    pub(crate) is_over: AtomicBool,
    /// Requests answered so far.
    pub(crate) answered: AtomicU64,
    /// Locks approved so far.
    pub(crate) locks: AtomicU64,
    /// Between two payments of one worker.
    pub(crate) pause: Duration,
    /// Replies whose amount is still to be altered, to prove that the check notices.
    pub(crate) to_tamper: AtomicBool,
}

/// One of many that send payments.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Sends payments, as the tenant.
    authorizer: Client,
    /// Tells what became of the payers' assets, as the operator.
    settler: Client,
    shared: Arc<Shared>,
    random: Random,
    /// Locks to be captured after they have expired, the earliest first.
    late: VecDeque<Late>,
    outcome: Outcome,
}

/// A lock that is to be captured when it has expired.
#[derive(Debug)]
struct Late {
    at: Instant,
    lock: LockRef,
    amount: Amount,
}

/// What a worker brings home.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What its replies say.
    pub(crate) tally: Tally,
    /// From request to reply, in microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// Requests that were definitely not executed.
    pub(crate) refused: u64,
    /// The first request whose outcome is unknown.
    pub(crate) unknown: Option<String>,
}

/// A sort of payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// Lock, capture, settle.
    Tap,
    /// Pre-authorise, capture twice, settle.
    Split,
    /// Raise the lock, then capture.
    Increase,
    /// The payer changes their mind.
    Release,
    /// The payer's asset fails: the merchant is paid from the collateral.
    Failure,
    /// A part goes back to the payer.
    Refund,
    /// A capture by mistake.
    Reverse,
    /// Replies are lost, and everything is sent again.
    Repeat,
    /// A price in dollars.
    Dollars,
    /// Locked and captured in one request.
    Sale,
    /// Locked and forgotten: it expires.
    Forgotten,
    /// Captured, and the payer's asset never comes: consumed when its time is over.
    Overdue,
    /// Captured after it has expired.
    Late,
    /// More than the policy allows.
    TooLarge,
    /// Still open when the demo ends.
    Open,
}

/// How often each sort comes, of all.
const STORIES: [(Story, u32); 15] = [
    (Story::Tap, 30),
    (Story::Split, 10),
    (Story::Increase, 6),
    (Story::Release, 12),
    (Story::Failure, 6),
    (Story::Refund, 6),
    (Story::Reverse, 4),
    (Story::Repeat, 6),
    (Story::Dollars, 6),
    (Story::Sale, 3),
    (Story::Forgotten, 4),
    (Story::Overdue, 3),
    (Story::Late, 1),
    (Story::TooLarge, 2),
    (Story::Open, 1),
];

impl Outcome {
    fn new() -> Self {
        let mut tally = Tally::default();
        for (partition, action) in [
            (RETAIL, SettleByAction::Consume),
            (STREET, SettleByAction::Consume),
            (FX, SettleByAction::Consume),
        ] {
            tally.add_partition(partition, action);
        }
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constant bounds are sound");
        Self { tally, latency_us, refused: 0, unknown: None }
    }

    /// Takes over what another worker has seen.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.tally.absorb(other.tally);
        // Both have the same bounds.
        let _ = self.latency_us.add(&other.latency_us);
        self.refused += other.refused;
        self.unknown = self.unknown.take().or(other.unknown);
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Self::new()
    }
}

impl Worker {
    /// A worker with a seed of its own.
    pub(crate) fn new(authorizer: Client, settler: Client, shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            authorizer,
            settler,
            shared,
            random: Random::new(seed),
            late: VecDeque::new(),
            outcome: Outcome::new(),
        }
    }

    /// Sends payments until the demo is over.
    pub(crate) async fn run(mut self) -> Outcome {
        while !self.shared.is_over.load(Ordering::Relaxed) && self.outcome.unknown.is_none() {
            if let Some(late) = self.late.pop_front_if(|late| late.at <= Instant::now()) {
                let _ = self.pay(late.lock.capture_last(late.amount)).await;
            }
            let story = self.pick();
            // A payment that is refused half-way stays as it is; the tally knows.
            let _ = self.tell(story).await;
            self.rest().await;
        }
        self.outcome
    }

    /// A pause of half to one and a half times what it should be, so that payments come as they come in the world.
    async fn rest(&mut self) {
        let pause = self.shared.pause;
        if !pause.is_zero() {
            let per_mille = u32::try_from(500 + self.random.below(1000)).unwrap_or(1000);
            tokio::time::sleep(pause * per_mille / 1000).await;
        }
    }

    fn pick(&mut self) -> Story {
        let total: u32 = STORIES.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.below(u64::from(total));
        for (story, weight) in STORIES {
            match left.checked_sub(u64::from(weight)) {
                Some(rest) => left = rest,
                None => return story,
            }
        }
        Story::Tap
    }

    /// Plays a payment; none if it did not come to its end.
    async fn tell(&mut self, story: Story) -> Option<()> {
        match story {
            Story::Tap => {
                let (lock, amount) = self.lock(RETAIL).await?;
                let captured = self.pay(lock.capture_last(amount)).await?;
                self.settle(lock.settle_capture(captured.capture)).await?;
            }
            Story::Split => {
                let (lock, amount) = self.lock(RETAIL).await?;
                self.pay(lock.capture(part(amount, 40))).await?;
                self.pay(lock.capture_last(part(amount, 30))).await?;
                self.settle(lock.settle()).await?;
            }
            Story::Increase => {
                let amount = self.amount();
                let request = self.request(RETAIL, amount);
                let (lock, reply) = self.lock_as(request).await?;
                let more = Amount(amount.0 + part(amount, 50).0);
                self.pay(lock.increase(more, reply.version)).await?;
                let captured = self.pay(lock.capture_last(part(more, 90))).await?;
                self.settle(lock.settle_capture(captured.capture)).await?;
            }
            Story::Release => {
                let (lock, _) = self.lock(RETAIL).await?;
                self.pay(lock.release()).await?;
            }
            Story::Failure => {
                let (lock, amount) = self.lock(RETAIL).await?;
                let captured = self.pay(lock.capture_last(amount)).await?;
                self.settle(lock.consume_capture(captured.capture)).await?;
            }
            Story::Refund => {
                let (lock, amount) = self.lock(RETAIL).await?;
                let captured = self.pay(lock.capture_last(amount)).await?;
                self.pay(lock.refund(captured.capture, part(amount, 25))).await?;
                self.settle(lock.settle_capture(captured.capture)).await?;
            }
            Story::Reverse => {
                let (lock, amount) = self.lock(RETAIL).await?;
                let captured = self.pay(lock.capture(part(amount, 60))).await?;
                self.pay(lock.reverse(captured.capture)).await?;
                self.pay(lock.release()).await?;
            }
            Story::Repeat => self.repeat().await?,
            Story::Dollars => {
                // 5 to 50 dollars, in millionths.
                let value = Amount(u128::from(5_000_000 + self.random.below(45_000_000)));
                let request = LockRequest { quote: FX_QUOTE, ..self.request(FX, value) };
                let (lock, _) = self.lock_as(request).await?;
                let captured = self.pay(lock.capture_last(part(value, 80))).await?;
                self.settle(lock.settle_capture(captured.capture)).await?;
            }
            Story::Sale => {
                let amount = self.amount();
                let request = LockRequest { is_sale: true, ..self.request(RETAIL, amount) };
                self.lock_as(request).await?;
            }
            Story::Forgotten => {
                self.lock(STREET).await?;
            }
            Story::Overdue => {
                let (lock, amount) = self.lock(STREET).await?;
                self.pay(lock.capture_last(amount)).await?;
            }
            Story::Late => {
                let (lock, amount) = self.lock(STREET).await?;
                let at = Instant::now() + SHORT_LIFE + Duration::from_millis(20);
                self.late.push_back(Late { at, lock, amount: part(amount, 50) });
            }
            Story::TooLarge => {
                let request = self.request(RETAIL, super::world::TOO_LARGE);
                self.lock_as(request).await?;
            }
            Story::Open => {
                self.lock(RETAIL).await?;
            }
        }
        Some(())
    }

    /// Sends lock and capture twice, byte for byte, as a router does after it has lost the replies.
    async fn repeat(&mut self) -> Option<()> {
        let amount = self.amount();
        let request = self.request(RETAIL, amount);
        let request = self.record(request.into());
        let first = self.submit(false, request).await?;
        let second = self.submit(false, request).await?;
        self.compare(&request, &first, &second);
        let lock = LockRef::new(RETAIL, request.id);
        let capture = self.record(lock.capture_last(amount));
        let first = self.submit(false, capture).await?;
        let second = self.submit(false, capture).await?;
        self.compare(&capture, &first, &second);
        self.settle(lock.settle_capture(first.capture)).await?;
        Some(())
    }

    fn compare(&mut self, request: &Record, first: &Reply, second: &Reply) {
        let same = second.is_replayed()
            && (first.code, first.seq, first.deadline) == (second.code, second.seq, second.deadline);
        if !same {
            self.outcome.tally.contradict(format!("the repeat of {} was answered differently", request.id));
        }
    }

    async fn lock(&mut self, partition: surety_protocol::PartitionHandle) -> Option<(LockRef, Amount)> {
        let amount = self.amount();
        let request = self.request(partition, amount);
        let (lock, _) = self.lock_as(request).await?;
        Some((lock, amount))
    }

    async fn lock_as(&mut self, request: LockRequest) -> Option<(LockRef, Reply)> {
        let record = self.record(request.into());
        let reply = self.submit(false, record).await?;
        reply.code().is_success().then_some((LockRef::new(request.partition, record.id), reply))
    }

    async fn pay(&mut self, draft: Draft) -> Option<Reply> {
        let record = self.record(draft);
        self.submit(false, record).await.filter(|reply| reply.code().is_success())
    }

    async fn settle(&mut self, draft: Draft) -> Option<Reply> {
        let record = self.record(draft.tenant(TENANT));
        self.submit(true, record).await.filter(|reply| reply.code().is_success())
    }

    /// Sends a request, and notes its reply; none if it has none.
    async fn submit(&mut self, by_settler: bool, record: Record) -> Option<Reply> {
        let client = if by_settler { &self.settler } else { &self.authorizer };
        let begun = Instant::now();
        match client.submit(record).await {
            Ok(mut reply) => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
                self.outcome.latency_us.saturating_record(micros.max(1));
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
                if record.kind() == Some(Kind::Lock) && reply.code().is_success() && !reply.is_replayed() {
                    self.shared.locks.fetch_add(1, Ordering::Relaxed);
                }
                self.tamper(&record, &mut reply);
                self.outcome.tally.note(&record, &reply);
                Some(reply)
            }
            Err(error @ SubmitError::NotExecuted { .. }) => {
                self.outcome.refused += 1;
                tracing::warn!(%error, "a request was refused");
                None
            }
            Err(error @ SubmitError::Unknown { .. }) => {
                self.outcome.unknown = Some(error.to_string());
                None
            }
        }
    }

    /// Alters the first capture's reply, if the demo is to prove that its check notices.
    fn tamper(&self, record: &Record, reply: &mut Reply) {
        let is_mark = record.kind() == Some(Kind::Capture) && reply.code().is_success();
        if is_mark && self.shared.to_tamper.swap(false, Ordering::Relaxed) {
            reply.approved.0 += 1;
        }
    }

    fn record(&self, draft: Draft) -> Record {
        draft.into_record(|| self.authorizer.new_id())
    }

    fn request(&mut self, partition: surety_protocol::PartitionHandle, amount: Amount) -> LockRequest {
        let merchant = MerchantId(1 + self.random.below(MERCHANTS));
        LockRequest { category: 5812, ..LockRequest::new(partition, amount, merchant) }
    }

    /// 1 to 1000 AMP.
    fn amount(&mut self) -> Amount {
        Amount(u128::from(1000 + self.random.below(999_000)) * STEP)
    }
}

/// So many per cent.
const fn part(amount: Amount, percent: u128) -> Amount {
    Amount(amount.0 * percent / 100)
}
