//! How fast the ledger decides and replays, and what it takes in memory.
//!
//! `cargo run --release -p ledger --example apply_rate -- [open locks] [requests] [--cold]`
//!
//! 1,000 partitions; 45 % locks, 35 % captures, 15 % releases, 5 % repeats and declines; random ids; policy, velocity,
//! idempotency, expiry and state hash on. Requests come in batches of 64, as from a frame. `--cold` leaves out the hint
//! that brings a batch's entries into the cache.

use std::time::Instant;

use ledger::{Config, Decision, Ledger};
use surety_protocol::*;

#[global_allocator]
static ALLOCATOR: memory::LargePages<std::alloc::System> = memory::LargePages(std::alloc::System);

const PARTITIONS: u64 = 1000;
const BATCH: usize = 64;
const TENANT: TenantId = TenantId(1);
const START: Time = Time::from_millis(1_700_000_000_000);

/// A generator of numbers that is good enough for ids (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }
}

/// An open lock as the generator remembers it.
#[derive(Clone, Copy)]
struct Open {
    id: Id,
    partition: PartitionHandle,
}

struct Load {
    ledger: Ledger,
    random: Random,
    now: Time,
    seq: Seq,
    open: Vec<Open>,
    sent: Vec<Record>,
    log: Vec<Record>,
    keeps_log: bool,
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let mut number = |default: usize| numbers.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (locks, requests) = (number(100_000), number(200_000));
    let is_cold = std::env::args().any(|argument| argument == "--cold");
    let config = Config {
        shard: ShardId(0),
        id_window: limits::ID_WINDOW_DEFAULT,
        ids_max: 1 << 30,
        locks_max: 1 << 30,
        index_secret: 42,
    };
    let mut load = Load {
        ledger: Ledger::new(config),
        random: Random(42),
        now: START,
        seq: Seq(1),
        open: Vec::new(),
        sent: Vec::new(),
        log: Vec::new(),
        keeps_log: true,
    };
    let empty = resident_bytes();
    load.set_up();
    load.keeps_log = false;
    let filled = load.fill(locks);
    println!("fill      {:>12.0} locks/s", filled);
    report("open lock", load.ledger.memory_bytes(), locks);
    println!(
        "          {:>12.0} resident bytes per open lock (with the generator's own 24)",
        (resident_bytes() - empty) as f64 / locks as f64
    );
    let requests_made = load.make_requests(requests);
    let busy = busy_ns();
    let rate = load.run(&requests_made, is_cold);
    let busy_rate = requests as f64 / ((busy_ns() - busy) as f64 / 1e9);
    println!("decide    {rate:>12.0} requests/s ({busy_rate:.0} for each second of processor time)");
    println!(
        "          {:>12} locks kept, {} ids remembered",
        load.ledger.locks_len(),
        load.ledger.ids_len()
    );
    let ids_before = load.ledger.ids_len();
    let bytes_before = load.ledger.memory_bytes();
    load.decline(locks);
    report("id", load.ledger.memory_bytes() - bytes_before, load.ledger.ids_len() - ids_before);
    replay_rate(config, locks.min(requests));
}

fn report(what: &str, bytes: usize, count: usize) {
    println!("memory    {:>12.1} bytes per {what}", bytes as f64 / count as f64);
}

/// Replays a log of the same mix, made beforehand.
fn replay_rate(config: Config, records: usize) {
    let mut load = Load {
        ledger: Ledger::new(config),
        random: Random(7),
        now: START,
        seq: Seq(1),
        open: Vec::new(),
        sent: Vec::new(),
        log: Vec::new(),
        keeps_log: true,
    };
    load.set_up();
    load.fill(records / 2);
    let made = load.make_requests(records);
    load.run(&made, true);
    let hash = load.ledger.state_hash();
    let mut ledger = Ledger::new(config);
    let begin = Instant::now();
    let (mut at, mut warmed) = (0, 0);
    while at < load.log.len() {
        if at >= warmed {
            warmed = (at + BATCH).min(load.log.len());
            ledger.warm(&load.log[at..warmed]);
        }
        let length = ledger::operation_len(&load.log[at..]).expect("a whole log");
        ledger.replay(Seq(at as u64 + 1), &load.log[at..at + length]).expect("the log that was made");
        at += length;
    }
    let rate = load.log.len() as f64 / begin.elapsed().as_secs_f64();
    ledger.advance(load.now, Seq(1), &mut Vec::new());
    assert_eq!(ledger.state_hash(), hash, "replay leads to the same state");
    println!("replay    {rate:>12.0} records/s ({} records)", load.log.len());
}

impl Load {
    fn set_up(&mut self) {
        let quotas = TenantBody {
            tenant: TENANT,
            locks_max: u64::MAX,
            ids_max: u64::MAX,
            tombstones_max: u64::MAX,
            advices_max: u64::MAX,
            enabled: 1,
            ..TenantBody::default()
        };
        self.operate(Kind::TenantSet, PartitionHandle(0), Amount(0), &quotas);
        let policy = Policy {
            velocity_count: u32::MAX,
            velocity_value: Amount(limits::AMOUNT_MAX),
            life_default: Time::from_secs(3600),
            ..Policy::default()
        };
        for number in 1..=PARTITIONS {
            let handle = PartitionHandle(number);
            let mut onchain = [0xcc; 32];
            onchain[24..].copy_from_slice(&number.to_be_bytes());
            let partition = PartitionBody { onchain, asset: AssetId(1), ..PartitionBody::default() };
            self.operate(Kind::PartitionCreate, handle, Amount(0), &partition);
            let grant = GrantBody { tenant: TENANT, rights: Rights::KNOWN.0, ..GrantBody::default() };
            self.operate(Kind::Grant, handle, Amount(0), &grant);
            let deposit = StakeBody { supplier: Address([1; 20]), nonce: 1, ..StakeBody::default() };
            self.operate(Kind::Deposit, handle, Amount(1 << 100), &deposit);
            let id = self.fresh_id();
            let records = long::split(Kind::Policy, id, handle, 0, &policy.to_bytes());
            self.decide(&operator(), records);
        }
    }

    fn operate<B: Body>(&mut self, kind: Kind, partition: PartitionHandle, amount: Amount, body: &B) {
        let id = self.fresh_id();
        self.decide(&operator(), vec![Record::new(kind, id, partition, amount, body)]);
    }

    fn decide(&mut self, by: &Caller, mut records: Vec<Record>) {
        let (mut replies, mut follow) = (Vec::new(), Vec::new());
        self.ledger.advance(self.now, self.seq, &mut follow);
        let decision = self.ledger.decide(self.now, by, self.seq, &mut records, &mut replies, &mut follow);
        assert_eq!((decision, replies[0].code()), (Decision::Logged, Code::Approved));
        self.seq.0 += records.len() as u64;
        if self.keeps_log {
            self.log.extend_from_slice(&records);
        }
    }

    fn fresh_id(&mut self) -> Id {
        let entropy = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        Id::from_parts(self.now, entropy)
    }

    fn lock(&mut self, amount: u128) -> Record {
        let partition = PartitionHandle(1 + self.random.next() % PARTITIONS);
        let body = LockBody {
            merchant: MerchantId(1 + self.random.next() % 100),
            category: 5411,
            ..LockBody::default()
        };
        let id = self.fresh_id();
        Record::new(Kind::Lock, id, partition, Amount(amount), &body)
    }

    /// Makes open locks; the rate.
    fn fill(&mut self, locks: usize) -> f64 {
        let made: Vec<Record> = (0..locks).map(|_| self.lock(1000)).collect();
        self.open.extend(made.iter().map(|lock| Open { id: lock.id, partition: lock.partition }));
        self.run(&made, false)
    }

    /// Makes a mix of requests beforehand, so that only the ledger is measured.
    fn make_requests(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.make_request()).collect()
    }

    fn make_request(&mut self) -> Record {
        let request = match self.random.below(100) {
            0..45 => {
                let lock = self.lock(1000);
                self.open.push(Open { id: lock.id, partition: lock.partition });
                lock
            }
            45..80 => {
                let at = self.random.below(self.open.len());
                self.change(Kind::Capture, self.open[at], 10)
            }
            80..95 => {
                let at = self.random.below(self.open.len());
                let open = self.open.swap_remove(at);
                self.change(Kind::Release, open, 0)
            }
            95..97 if !self.sent.is_empty() => {
                let at = self.random.below(self.sent.len());
                return self.sent[at];
            }
            _ => self.lock(limits::AMOUNT_MAX),
        };
        if self.sent.len() < 1 << 16 {
            self.sent.push(request);
        } else {
            let at = self.random.below(1 << 16);
            self.sent[at] = request;
        }
        request
    }

    fn change(&mut self, kind: Kind, open: Open, amount: u128) -> Record {
        let body = ChangeBody { lock: open.id, ..ChangeBody::default() };
        let id = self.fresh_id();
        Record::new(kind, id, open.partition, Amount(amount), &body)
    }

    /// Remembers ids without anything else: locks that are declined.
    fn decline(&mut self, count: usize) {
        let made: Vec<Record> = (0..count).map(|_| self.lock(limits::AMOUNT_MAX)).collect();
        self.run(&made, true);
    }

    /// Decides requests in batches; the rate.
    fn run(&mut self, requests: &[Record], is_cold: bool) -> f64 {
        let by = Caller { tenant: TENANT, roles: Roles::AUTHORIZER, actor: ActorId(7) };
        let (mut replies, mut follow) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let mut batch: Vec<Record> = Vec::with_capacity(BATCH);
        let begin = Instant::now();
        for requests in requests.chunks(BATCH) {
            // 64 requests in 13 us: five million a second.
            self.now = self.now.plus(Time(13_000));
            self.ledger.advance(self.now, self.seq, &mut follow);
            batch.clear();
            batch.extend_from_slice(requests);
            batch.iter_mut().for_each(|record| record.tenant = TENANT);
            if !is_cold {
                self.ledger.warm(&batch);
            }
            for record in &mut batch {
                let record = std::slice::from_mut(record);
                let decision = self.ledger.decide(self.now, &by, self.seq, record, &mut replies, &mut follow);
                if decision == Decision::Logged {
                    self.seq.0 += 1;
                    if self.keeps_log {
                        self.log.push(record[0]);
                    }
                }
            }
            assert!(follow.is_empty(), "an hour has not passed");
            std::hint::black_box(&replies);
            replies.clear();
        }
        requests.len() as f64 / begin.elapsed().as_secs_f64()
    }
}

fn operator() -> Caller {
    Caller { tenant: TenantId(0), roles: Roles::SETTLER | Roles::ADMIN, actor: ActorId(1) }
}

/// Nanoseconds that this process has run, as Linux tells it: on a busy machine less than the time that has passed.
fn busy_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Pages that the process holds, as Linux tells it; 0 elsewhere.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
