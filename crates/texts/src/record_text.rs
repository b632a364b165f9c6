//! A record as people and programs read it: every field under its name, amounts as decimal strings.

use core::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use surety_protocol::{
    ALL_CAPTURES, ActorId, Amount, ChangeBody, Code, ConsumeBody, ControlBody, Flags, GrantBody, Kind,
    LockBody, LossBody, MerchantBody, PartitionBody, Policy, PriceBody, Record, ReleaseGroup, Rights, Seq,
    ShardId, StakeBody, TenantBody, TenantId, Time, long,
};

use crate::policy_text::PolicyText;
use crate::values::{hex_text, moment_text, rights_text};

/// Named values, in the order in which they are printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn push(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    /// Fields that say nothing are left out.
    fn push_some(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = value.into();
        if !matches!(&value, Value::Null) && value != json!("0") && value != json!(0) {
            self.0.push((name, value));
        }
    }

    fn amount(&mut self, name: &'static str, amount: Amount) {
        self.push_some(name, amount.to_string());
    }

    fn moment(&mut self, name: &'static str, at: Time) {
        if at != Time::ZERO {
            self.push(name, moment_text(at));
        }
    }

    fn actor(&mut self, actor: ActorId) {
        if actor != ActorId(0) {
            self.push("actor", actor.to_string());
        }
    }

    /// One line: `name=value name=value`.
    pub fn to_line(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.0 {
            if !line.is_empty() {
                line.push(' ');
            }
            let _ = match value {
                Value::String(text) => write!(line, "{name}={text}"),
                other => write!(line, "{name}={other}"),
            };
        }
        line
    }

    #[cfg(test)]
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Describes a record. `parts` are the continuations behind it, if it is the head of a long one.
pub fn describe(shard: ShardId, seq: Seq, record: &Record, parts: &[Record]) -> Fields {
    let mut fields = Fields::default();
    fields.push("shard", shard.0);
    fields.push("seq", seq.0);
    let Some(kind) = record.kind() else {
        fields.push("kind", format!("unknown({})", record.kind));
        fields.push("bytes", hex_text(&record.to_bytes()));
        return fields;
    };
    if kind == Kind::Continuation {
        fields.push("kind", kind.name());
        fields.push("payload", hex_text(&record.to_bytes()[..surety_protocol::limits::CONTINUATION_BYTES]));
        return fields;
    }
    fields.moment("time", record.time);
    fields.push("kind", kind.name());
    fields.push(
        "code",
        record.code().map_or_else(|| format!("unknown({})", record.code), |code| code.to_string()),
    );
    fields.push("id", record.id.to_string());
    fields.push("partition", record.partition.to_string());
    if record.tenant != TenantId(0) {
        fields.push("tenant", record.tenant.0);
    }
    let flags = flag_names(record.flags());
    if !flags.is_empty() {
        fields.push("flags", flags.join(","));
    }
    fields.amount("amount", record.amount);
    fields.amount("result", record.result);
    body(&mut fields, kind, record, parts);
    fields
}

/// Names of the marks of a record.
pub fn flag_names(flags: Flags) -> Vec<&'static str> {
    [
        ("linked", Flags::LINKED),
        ("final", Flags::FINAL),
        ("all_or_nothing", Flags::ALL_OR_NOTHING),
        ("certified", Flags::CERTIFIED),
        ("sale", Flags::SALE),
        ("burn", Flags::BURN),
        ("lasting", Flags::LASTING),
        ("late", Flags::LATE),
        ("excess", Flags::EXCESS),
        ("exposed", Flags::EXPOSED),
    ]
    .into_iter()
    .filter(|(_, flag)| flags.has(*flag))
    .map(|(name, _)| name)
    .collect()
}

fn body(fields: &mut Fields, kind: Kind, record: &Record, parts: &[Record]) {
    match kind {
        Kind::Lock => lock(fields, &record.body()),
        Kind::Increase
        | Kind::Decrease
        | Kind::Capture
        | Kind::Release
        | Kind::Reverse
        | Kind::Refund
        | Kind::Advice
        | Kind::Lookup
        | Kind::Settle
        | Kind::GuaranteeCalled
        | Kind::GuaranteePaid
        | Kind::GuaranteeDismissed
        | Kind::Expire
        | Kind::AutoSettle
        | Kind::Mature => change(fields, kind, &record.body()),
        Kind::Consume | Kind::AutoConsume => consume(fields, &record.body()),
        Kind::Deposit | Kind::Reward | Kind::Withdraw | Kind::WithdrawPaid => stake(fields, &record.body()),
        Kind::Price => price(fields, &record.body()),
        Kind::PartitionCreate => partition(fields, &record.body()),
        Kind::TenantSet => tenant(fields, &record.body()),
        Kind::Grant => grant(fields, &record.body()),
        Kind::MerchantSet => merchant(fields, &record.body()),
        Kind::Policy | Kind::ReleaseGroup => long_record(fields, kind, record, parts),
        Kind::BatchFinal
        | Kind::Deficit
        | Kind::RiskCap
        | Kind::Freeze
        | Kind::Unfreeze
        | Kind::Reconcile
        | Kind::Cover
        | Kind::WriteOff
        | Kind::Start
        | Kind::Checkpoint => control(fields, kind, &record.body()),
        Kind::Loss => loss(fields, &record.body()),
        Kind::Continuation => {}
    }
}

fn loss(fields: &mut Fields, body: &LossBody) {
    fields.push("life", format!("{:032x}", body.life));
    fields.push("after", body.after.0);
    fields.moment("from", body.from);
    fields.moment("until", body.until);
    fields.push("version_leap", body.version_leap);
    fields.push("capture_leap", body.capture_leap);
}

fn lock(fields: &mut Fields, body: &LockBody) {
    fields.push("merchant", body.merchant.0);
    fields.push_some("category", body.category);
    fields.push_some("quote", body.quote.0);
    fields.amount("floor", body.floor);
    fields.push_some("life_ms", body.life_ms);
    fields.moment("deadline", body.deadline);
    fields.push_some("price_seq", body.price_seq);
    fields.push_some("user", body.user);
}

fn change(fields: &mut Fields, kind: Kind, body: &ChangeBody) {
    fields.push("lock", body.lock.to_string());
    if matches!(
        kind,
        Kind::Capture
            | Kind::Reverse
            | Kind::Refund
            | Kind::Advice
            | Kind::Settle
            | Kind::AutoSettle
            | Kind::GuaranteePaid
    ) {
        fields.push("capture", capture(body.capture));
    }
    fields.push_some("version", body.version);
    fields.push_some("freed", body.freed.to_string());
    fields.moment("deadline", body.deadline);
    if kind == Kind::Increase {
        fields.push_some("life_ms", body.life_ms_or_actor);
    } else {
        fields.actor(ActorId(body.life_ms_or_actor));
    }
    fields.push_some("user", body.user);
}

fn capture(index: u16) -> Value {
    if index == ALL_CAPTURES { json!("all") } else { json!(index) }
}

fn consume(fields: &mut Fields, body: &ConsumeBody) {
    fields.push("lock", body.lock.to_string());
    fields.push("capture", capture(body.capture));
    fields.push("merchant", body.merchant.0);
    fields.push_some("freed", body.freed.to_string());
    fields.actor(body.actor);
    fields.push_some("user", body.user);
}

fn stake(fields: &mut Fields, body: &StakeBody) {
    fields.push_some("units", body.units.to_string());
    fields.push("supplier", body.supplier.to_string());
    fields.push_some("nonce", body.nonce);
    fields.moment("due", body.due);
    fields.actor(body.actor);
}

fn price(fields: &mut Fields, body: &PriceBody) {
    fields.push("asset", body.asset.0);
    fields.push("quote", body.quote.0);
    fields.push_some("ratio_bps", body.ratio_bps);
    fields.moment("observed", body.observed);
    fields.actor(body.actor);
}

fn partition(fields: &mut Fields, body: &PartitionBody) {
    fields.push("onchain", hex_text(&body.onchain));
    fields.push("asset", body.asset.0);
    fields.push("track_merchants", body.track_merchants == 1);
    fields.actor(body.actor);
}

fn tenant(fields: &mut Fields, body: &TenantBody) {
    fields.push("set_tenant", body.tenant.0);
    fields.push("enabled", body.enabled == 1);
    fields.push("locks_max", body.locks_max);
    fields.push("ids_max", body.ids_max);
    fields.push("tombstones_max", body.tombstones_max);
    fields.push("advices_max", body.advices_max);
    fields.push_some("rate_per_s", body.rate_per_s);
    fields.push_some("in_flight_max", body.in_flight_max);
    fields.push_some("open_locks_max", body.open_locks_max);
    fields.actor(body.actor);
}

fn grant(fields: &mut Fields, body: &GrantBody) {
    fields.push("to_tenant", body.tenant.0);
    fields.push("rights", rights_text(Rights(body.rights)));
    fields.actor(body.actor);
}

fn merchant(fields: &mut Fields, body: &MerchantBody) {
    fields.push("merchant", body.merchant.0);
    fields.push("payee", body.payee.to_string());
    fields.push("release_key", body.release_key.to_string());
    fields.push("enabled", body.enabled == 1);
    fields.actor(body.actor);
}

fn control(fields: &mut Fields, kind: Kind, body: &ControlBody) {
    match kind {
        Kind::Checkpoint => fields.push("state_hash", format!("{:032x}", body.reference)),
        Kind::Start => {
            fields.push("engine", format!("{:032x}", body.reference));
            fields.push("epoch", body.number);
            fields.push("id_window_ms", body.until.0 / 1_000_000);
        }
        Kind::BatchFinal => fields.push("batch", body.number),
        Kind::RiskCap => fields.moment("until", body.until),
        Kind::Freeze | Kind::Unfreeze => fields.push_some("reason", body.user),
        Kind::Reconcile => fields.push_some("note", body.user),
        _ => {
            fields.push_some("number", body.number);
            fields.push_some("user", body.user);
        }
    }
    fields.actor(body.actor);
}

fn long_record(fields: &mut Fields, kind: Kind, record: &Record, parts: &[Record]) {
    let body: ControlBody = record.body();
    fields.push("payload_bytes", body.number);
    fields.push_some("user", body.user);
    fields.actor(body.actor);
    let whole: Vec<Record> = core::iter::once(record).chain(parts).copied().collect();
    let Ok(payload) = long::join(&whole) else { return };
    match kind {
        Kind::Policy => {
            if let Some(policy) = Policy::from_bytes(&payload) {
                let text = serde_json::to_value(PolicyText::from(&policy));
                fields.push("policy", text.unwrap_or(Value::Null));
            }
        }
        _ => {
            if let Ok(group) = ReleaseGroup::from_bytes(&payload) {
                fields.push("release_key", group.key.to_string());
                fields.push("root", hex_text(&group.root));
                let entry = |entry: &surety_protocol::ReleaseEntry| {
                    json!({
                        "lock": entry.lock.to_string(),
                        "still_owed": entry.still_owed.to_string(),
                        "version": entry.version,
                    })
                };
                fields.push("entries", group.entries.iter().map(entry).collect::<Vec<_>>());
            }
        }
    }
}

/// The reply as JSON, for `ctl`.
pub fn reply_json(reply: &surety_protocol::Reply) -> Value {
    json!({
        "code": reply.code().name(),
        "end": reply.end().name(),
        "id": reply.id.to_string(),
        "approved": reply.approved.to_string(),
        "remaining": reply.remaining.to_string(),
        "free": reply.free.to_string(),
        "extra": reply.extra.to_string(),
        "shard": reply.shard.0,
        "seq": reply.seq.0,
        "epoch": reply.epoch.0,
        "version": reply.version,
        "capture": reply.capture,
        "deadline": moment_text(reply.deadline),
        "time": moment_text(reply.time),
        "replayed": reply.is_replayed(),
    })
}

/// True for codes that mean "done".
pub fn is_done(code: Code) -> bool {
    code.is_success()
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{Id, MerchantId, PartitionHandle};

    fn fields_of(record: &Record, parts: &[Record]) -> Fields {
        describe(ShardId(1), Seq(7), record, parts)
    }

    #[test]
    fn every_kind_is_described_in_text_and_json() {
        for kind in Kind::ALL {
            let record = Record::new(
                *kind,
                Id(5),
                PartitionHandle::new(ShardId(1), 2),
                Amount(9),
                &ControlBody::default(),
            );
            let fields = fields_of(&record, &[]);
            assert_eq!(fields.get("kind"), Some(&json!(kind.name())));
            assert!(fields.to_line().starts_with("shard=1 seq=7 "));
            let json: Value = serde_json::from_str(&serde_json::to_string(&fields).unwrap()).unwrap();
            assert_eq!(json["kind"], kind.name());
        }
    }

    #[test]
    fn a_lock_shows_its_money_as_decimal_strings() {
        let body = LockBody { merchant: MerchantId(3), life_ms: 500, ..LockBody::default() };
        let mut record =
            Record::new(Kind::Lock, Id(1 << 100), PartitionHandle(1), Amount(u128::MAX >> 24), &body)
                .with_flags(Flags::SALE | Flags::CERTIFIED);
        record.code = Code::Approved as u8;
        let fields = fields_of(&record, &[]);
        for (name, value) in [
            ("code", json!("APPROVED")),
            ("amount", json!((u128::MAX >> 24).to_string())),
            ("flags", json!("certified,sale")),
            ("merchant", json!(3)),
            ("partition", json!("0:1")),
            ("id", json!("00000010-0000-0000-0000-000000000000")),
        ] {
            assert_eq!(fields.get(name), Some(&value), "{name}");
        }
        assert_eq!(fields.get("quote"), None);
    }

    #[test]
    fn a_policy_is_shown_whole() {
        let policy = Policy { lock_max: Amount(77), ..Policy::default() };
        let records = long::split(Kind::Policy, Id(1), PartitionHandle(1), 0, &policy.to_bytes());
        let fields = fields_of(&records[0], &records[1..]);
        assert_eq!(fields.get("policy").map(|policy| policy["lock_max"].clone()), Some(json!("77")));
        let part = fields_of(&records[1], &[]);
        assert!(part.get("payload").is_some() && part.get("id").is_none());
    }

    #[test]
    fn a_byte_without_meaning_is_shown_as_it_is() {
        let record = Record {
            kind: 200,
            ..Record::new(Kind::Lock, Id(1), PartitionHandle(1), Amount(1), &LockBody::default())
        };
        assert_eq!(fields_of(&record, &[]).get("kind"), Some(&json!("unknown(200)")));
    }
}
