//! The ledger against requests, logs and snapshot entries of any making.

use ledger::{Config, Decision, Entry, EntryKind, Ledger, operation_len};
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, ChangeBody, GrantBody, Id, Kind, LockBody, MerchantBody,
    MerchantId, Operations, PartitionBody, PartitionHandle, Policy, PriceBody, QuoteId, Record, Rights,
    Roles, Seq, ShardId, StakeBody, TenantBody, TenantId, Time, admit, limits, long,
};

use crate::wire;

/// When every history of a probe begins.
pub(crate) const START: Time = Time::from_secs(1_700_000_000);
/// The partition that is furnished.
pub(crate) const PARTITION: PartitionHandle = PartitionHandle(1);
const OPERATOR: Caller = Caller { tenant: TenantId(0), roles: Roles::KNOWN, actor: ActorId(1) };
/// Steps of time, by three bits of the input.
const WAITS: [Time; 8] = [
    Time::ZERO,
    Time::from_millis(1),
    Time::from_secs(1),
    Time::from_secs(31),
    Time::from_secs(61),
    Time::from_secs(3700),
    Time::from_secs(90_000),
    Time::from_secs(8 * 86_400),
];

fn config() -> Config {
    Config {
        shard: ShardId(0),
        id_window: limits::ID_WINDOW_DEFAULT,
        ids_max: 1 << 12,
        locks_max: 1 << 12,
        index_secret: 7,
    }
}

/// An id by a byte, so that requests of an input can speak of each other.
pub(crate) fn id_of(byte: u8) -> Id {
    // A quarter of them is for later: what waits must still be able to ask.
    let later = Time::from_secs(60 * u64::from(byte.saturating_sub(192) >> 4));
    Id::from_parts(START.plus(later), u128::from(byte))
}

/// A ledger, its log, and its time.
pub(crate) struct Shard {
    ledger: Ledger,
    pub(crate) log: Vec<Record>,
    now: Time,
}

impl Shard {
    /// Two tenants, a partition with rules, collateral and a price, and a merchant.
    pub(crate) fn furnished() -> Self {
        let mut shard = Self { ledger: Ledger::new(config()), log: Vec::new(), now: START };
        for (at, operation) in furniture().iter_mut().enumerate() {
            let id = Id::from_parts(START, 0xf000 + at as u128);
            operation[0].id = id;
            shard.decide(&OPERATOR, operation);
        }
        let furnished = shard.log.len();
        assert!(furnished > furniture().len(), "all of it was logged, the policy with its continuations");
        shard
    }

    fn next_seq(&self) -> Seq {
        Seq(self.log.len() as u64 + 1)
    }

    fn wait(&mut self, span: Time) {
        self.now = self.now.plus(span);
        let mut due = Vec::new();
        while self.ledger.advance(self.now, self.next_seq(), &mut due) {
            self.log.append(&mut due);
        }
        self.log.append(&mut due);
    }

    /// As the engine does it: admission, then the ledger, then the log.
    fn decide(&mut self, caller: &Caller, operation: &mut [Record]) {
        if admit(operation, caller).is_err() {
            return;
        }
        for record in operation.iter_mut() {
            if let Some(kind) = record.kind() {
                record.set_actor(kind, caller.actor);
            }
        }
        self.wait(Time::ZERO);
        let (mut replies, mut follow) = (Vec::new(), Vec::new());
        let seq = self.next_seq();
        let before = self.ledger.state_hash();
        let decision = self.ledger.decide(self.now, caller, seq, operation, &mut replies, &mut follow);
        let asked = operation.iter().filter(|record| record.kind() != Some(Kind::Continuation)).count();
        assert_eq!(replies.len(), asked, "one reply for each request");
        match decision {
            Decision::Logged => {
                self.log.extend_from_slice(operation);
                self.log.append(&mut follow);
            }
            Decision::NotLogged => assert_eq!(self.ledger.state_hash(), before, "no trace of it is left"),
        }
    }
}

fn furniture() -> Vec<Vec<Record>> {
    let shard = PartitionHandle(0);
    let partition = PartitionBody {
        onchain: [0xcc; 32],
        asset: AssetId(1),
        track_merchants: 1,
        ..PartitionBody::default()
    };
    let policy = Policy {
        edge_unit: Amount(10),
        late_capture: 1,
        late_window: Time::from_secs(300),
        refund_window: Time::from_secs(600),
        settle_by: Time::from_secs(60),
        claim_margin: Time::from_secs(20),
        unbonding: Time::from_secs(30),
        headroom_bps: 700,
        tolerance_bps: 1000,
        fee_bps: 30,
        life_default: Time::from_secs(40),
        ..Policy::default()
    };
    let deposit = StakeBody { supplier: Address([9; 20]), nonce: 1, ..StakeBody::default() };
    let price = PriceBody { asset: AssetId(1), quote: QuoteId(978), observed: START, ..PriceBody::default() };
    let plain = |kind, at, amount, body: &dyn Fn(Record) -> Record| {
        vec![body(Record::new(kind, Id(0), at, Amount(amount), &LockBody::default()))]
    };
    let mut all = Vec::new();
    for tenant in [TenantId(1), TenantId(2)] {
        let admitted = TenantBody {
            tenant,
            locks_max: 1 << 10,
            ids_max: 1 << 10,
            tombstones_max: 100,
            advices_max: 100,
            enabled: 1,
            ..TenantBody::default()
        };
        all.push(plain(Kind::TenantSet, shard, 0, &|mut record| {
            record.set_body(&admitted);
            record
        }));
        let merchant = MerchantBody {
            merchant: MerchantId(7),
            payee: Address([5; 20]),
            release_key: Address([8; 20]),
            enabled: 1,
            ..MerchantBody::default()
        };
        all.push(plain(Kind::MerchantSet, shard, 0, &|mut record| {
            record.set_body(&merchant);
            Record { tenant, ..record }
        }));
    }
    all.push(plain(Kind::PartitionCreate, PARTITION, 0, &|mut record| {
        record.set_body(&partition);
        record
    }));
    all.push(long::split(Kind::Policy, Id(0), PARTITION, 0, &policy.to_bytes()));
    for tenant in [TenantId(1), TenantId(2)] {
        let grant = GrantBody { tenant, rights: Rights::KNOWN.0, ..GrantBody::default() };
        all.push(plain(Kind::Grant, PARTITION, 0, &|mut record| {
            record.set_body(&grant);
            record
        }));
    }
    all.push(plain(Kind::Deposit, PARTITION, 100_000, &|mut record| {
        record.set_body(&deposit);
        record
    }));
    all.push(plain(Kind::Price, shard, 1_000_000_000_000_000_000, &|mut record| {
        record.set_body(&price);
        record
    }));
    all
}

/// Requests to a furnished ledger: every invariant holds afterwards, and the log makes the same state again.
///
/// Input: steps of a byte (2 bits who sends, 3 bits how long to wait before) and a byte (how many records follow), then the
/// records. Ids whose upper half is zero are replaced by those of their lowest byte.
pub(crate) fn operations(input: &[u8]) {
    check(&play(input));
}

/// Plays an input to its end.
pub(crate) fn play(input: &[u8]) -> Shard {
    let mut shard = Shard::furnished();
    let mut rest = input;
    while let Some((&[how, count], behind)) = rest.split_first_chunk() {
        let (records, _) = behind.as_chunks::<RECORD_BYTES>();
        let taken = records.len().min(usize::from(count % 64) + 1);
        shard.wait(WAITS[usize::from(how >> 2 & 7)]);
        ask(&mut shard, &wire::caller(how), &records[..taken]);
        rest = &behind[taken * RECORD_BYTES..];
    }
    shard
}

fn ask(shard: &mut Shard, caller: &Caller, records: &[[u8; RECORD_BYTES]]) {
    let named: Vec<[u8; RECORD_BYTES]> = records.iter().map(name_ids).collect();
    for operation in Operations::new(named.as_flattened()) {
        let Ok(operation) = operation else { return };
        let mut operation: Vec<Record> = operation.iter().map(Record::from_bytes).collect();
        shard.decide(caller, &mut operation);
    }
}

fn name_ids(bytes: &[u8; RECORD_BYTES]) -> [u8; RECORD_BYTES] {
    let mut record = Record::from_bytes(bytes);
    if record.kind() == Some(Kind::Continuation) {
        return *bytes;
    }
    let name = |id: Id| if id.0 >> 64 == 0 { id_of(id.0.to_le_bytes()[0]) } else { id };
    record.id = name(record.id);
    let is_change = record.kind().is_some_and(|kind| {
        !matches!(kind.origin(), surety_protocol::Origin::Admin) && kind != Kind::Lock && !is_stake(kind)
    });
    if is_change {
        let mut body: ChangeBody = record.body();
        body.lock = name(body.lock);
        record.set_body(&body);
    }
    record.to_bytes()
}

fn is_stake(kind: Kind) -> bool {
    matches!(kind, Kind::Deposit | Kind::Reward | Kind::Withdraw | Kind::Price | Kind::RiskCap)
}

fn check(shard: &Shard) {
    if let Err(violation) = shard.ledger.verify() {
        panic!("{violation}");
    }
    let mut again = Ledger::new(config());
    let mut rest = &shard.log[..];
    let mut seq = Seq(1);
    while !rest.is_empty() {
        let length = operation_len(rest).expect("a log of whole operations");
        let (operation, behind) = rest.split_at(length);
        if let Err(divergence) = again.replay(seq, operation) {
            panic!("{divergence}");
        }
        seq.0 += length as u64;
        rest = behind;
    }
    // Time alone forgets, and it has told the live ledger more than the log says.
    again.advance(shard.now, seq, &mut Vec::new());
    assert_eq!(again.state_hash(), shard.ledger.state_hash(), "the log makes the same state");
}

/// Records as a log behind the furniture: refused, or sound.
pub(crate) fn replay(input: &[u8]) {
    let mut shard = Shard::furnished();
    let records: Vec<Record> = input.as_chunks().0.iter().map(Record::from_bytes).collect();
    let mut rest = &records[..];
    while let Some(length) = operation_len(rest).filter(|_| !rest.is_empty()) {
        let (operation, behind) = rest.split_at(length);
        if shard.ledger.replay(shard.next_seq(), operation).is_err() {
            // Of no use any more, by its own contract.
            return;
        }
        shard.log.extend_from_slice(operation);
        rest = behind;
    }
    if let Err(violation) = shard.ledger.verify() {
        panic!("{violation}");
    }
}

/// The log behind the furniture.
pub(crate) fn log_of(input: &[u8]) -> Vec<u8> {
    let furnished = Shard::furnished().log.len();
    play(input).log[furnished..].iter().flat_map(Record::to_bytes).collect()
}

/// The state after an input, as [`entries`] reads it.
pub(crate) fn entries_of(input: &[u8]) -> Vec<u8> {
    let shard = play(input);
    let mut bytes = shard.now.0.to_le_bytes().to_vec();
    for entry in shard.ledger.entries() {
        let length = u16::try_from(entry.as_bytes().len()).expect("entries are short");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(entry.as_bytes());
    }
    bytes
}

/// Entries of a snapshot, each behind its length, behind the time they are of.
pub(crate) fn entries(input: &[u8]) {
    let Some((time, mut rest)) = input.split_first_chunk() else { return };
    let mut entries = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        rest = behind;
        if let Ok(entry) = Entry::from_bytes(bytes.to_vec()) {
            assert_eq!(entry.as_bytes(), bytes);
            let _ = (entry.kind(), entry.key(), entry.hash(), entry.is_forgotten(&config(), START));
            entries.push(entry);
        }
    }
    load(Time(u64::from_le_bytes(*time)), entries);
}

/// What a ledger takes in, it gives out again, and its hash is that of what it has taken.
fn load(time: Time, mut entries: Vec<Entry>) {
    let Ok(ledger) = Ledger::from_entries(config(), time, entries.clone()) else { return };
    // A lock that nobody needs any more is not kept.
    entries.retain(|entry| entry.kind() != EntryKind::Lock || !entry.is_forgotten(&config(), time));
    let sum = entries.iter().fold(0_u128, |sum, entry| sum.wrapping_add(entry.hash()));
    assert_eq!(ledger.state_hash(), sum, "the hash of the state is that of its entries");
    entries.sort();
    let mut found: Vec<Entry> = ledger.entries().collect();
    found.sort();
    let differs = found.iter().zip(&entries).find(|(found, loaded)| found != loaded);
    assert!(found.len() == entries.len() && differs.is_none(), "what was loaded is there: {differs:02x?}");
    let _ = ledger.verify();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::seeds;

    #[test]
    fn the_seeds_get_past_admission_and_mostly_succeed() {
        let mut done = BTreeSet::new();
        let mut declined = 0;
        for input in seeds("operations") {
            for record in play(&input).log {
                match record.code() {
                    Some(code) if code.is_success() => {
                        done.insert(record.kind);
                    }
                    _ => declined += 1,
                }
            }
        }
        let wanted = [Kind::Capture, Kind::Refund, Kind::Settle, Kind::Consume, Kind::Expire, Kind::Withdraw];
        assert!(wanted.iter().all(|kind| done.contains(&(*kind as u8))), "{done:?}");
        assert!(done.len() >= 20 && declined >= 10, "{} kinds, {declined} declines", done.len());
    }
}
