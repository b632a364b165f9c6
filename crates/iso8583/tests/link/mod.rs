//! An acquirer's host, and the real ledger behind the work for its messages.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "not every test binary asks for all of it")]

#[path = "../../../ledger/tests/world/mod.rs"]
pub mod world;

use std::collections::BTreeMap;

use iso8583::payment::{
    Currency, IdKey, Intent, Mark, Originals, Outcome, Route, Rules, Scale, Step, Work, answer, refuse,
};
use iso8583::{Codec, Dialect, Draft, Message, Mti, Profile};
use surety_protocol::{
    ActorId, Amount, Caller, ChangeBody, Code, ConsumeBody, Kind, Record, Reply, Rights, Roles,
};
use world::{MERCHANT, P1, P2, T1, World};

/// When every world begins, as field 7 says it: 2023-11-14 22:13:20.
pub const SENT: &str = "1114221320";
pub const CARD: &str = "4111111111111111";
/// Leads to the first partition, then to the second.
pub const WIDE_CARD: &str = "5500000000000004";
/// Leads to the second partition.
pub const OTHER_CARD: &str = "3400000000000090";

/// An acquirer's host and the work for its messages.
pub struct Link {
    pub world: World,
    pub codec: Codec,
    pub rules: Rules,
    pub originals: Originals,
    pub outcome: Option<Outcome>,
}

pub type Fields = BTreeMap<u8, String>;

pub fn rules(dialect: Dialect) -> Rules {
    let route = |prefix: &[u8], partitions: &[_]| Route {
        prefix: prefix.to_vec(),
        partitions: partitions.to_vec(),
        former: Vec::new(),
    };
    Rules {
        dialect,
        id_key: IdKey([9; 32]),
        // The world's amounts are small: one base unit is one minor unit.
        currencies: vec![Currency { number: 840, scale: Scale { asset_decimals: 2, edge_decimals: 2 } }],
        held_in: BTreeMap::new(),
        routes: vec![route(b"4", &[P1]), route(b"55", &[P1, P2]), route(b"5", &[P2]), route(b"34", &[P2])],
        merchants: BTreeMap::from([(*b"SHOP           ", MERCHANT)]),
        partial: Mark { field: 60, at: 0, unit: b'1' },
        increase: Mark { field: 60, at: 1, unit: b'1' },
    }
}

impl Link {
    pub fn new() -> Self {
        Self::of(Dialect::V1987, Profile::ASCII)
    }

    pub fn of(dialect: Dialect, profile: Profile) -> Self {
        let mut world = World::new();
        world.grant(P2, T1, Rights::KNOWN);
        Self {
            world,
            codec: Codec { dialect, profile },
            rules: rules(dialect),
            originals: Originals::new(1000),
            outcome: None,
        }
    }

    /// What a host writes.
    pub fn bytes(&self, mti: &str, fields: &Fields) -> Vec<u8> {
        let mut draft = Draft::new(self.codec.dialect);
        draft.reset(Mti::from_digits(mti.as_bytes().try_into().unwrap()).unwrap());
        fields.iter().for_each(|(field, text)| draft.set(*field, text.as_bytes()));
        let mut bytes = Vec::new();
        draft.encode(self.codec, &mut bytes).unwrap();
        bytes
    }

    /// Serves a message, and gives the fields of the reply.
    pub fn send(&mut self, mti: &str, fields: &Fields) -> Fields {
        let bytes = self.bytes(mti, fields);
        let message = Message::parse(self.codec, &bytes).unwrap();
        let mut draft = Draft::new(self.codec.dialect);
        let is_answered = match Intent::read(&message, &self.rules, self.world.now) {
            Err(refusal) => refuse(&message, refusal, &mut draft),
            Ok(intent) => {
                let outcome = self.serve(&intent);
                self.outcome = Some(outcome);
                answer(&message, &intent, &outcome, &mut draft)
            }
        };
        assert!(is_answered);
        let mut bytes = Vec::new();
        draft.encode(self.codec, &mut bytes).unwrap();
        let reply = Message::parse(self.codec, &bytes).unwrap();
        assert_eq!(Some(reply.mti()), message.mti().reply());
        let text = |field| String::from_utf8(reply.units(field).unwrap().collect()).unwrap();
        reply.fields().fields().map(|field| (field, text(field))).collect()
    }

    pub fn serve(&mut self, intent: &Intent) -> Outcome {
        let known = intent.handle.and_then(|handle| self.originals.find(handle));
        let (mut work, mut step) = Work::begin(intent, &self.rules, known);
        for _ in 0..80 {
            match step {
                Step::Done(outcome) => return outcome,
                Step::Send(record) => step = work.on_reply(&self.execute(record)),
            }
        }
        panic!("{intent:?} never ends");
    }

    /// What a message means.
    pub fn intent(&self, mti: &str, fields: &Fields) -> Intent {
        let bytes = self.bytes(mti, fields);
        let message = Message::parse(self.codec, &bytes).unwrap();
        Intent::read(&message, &self.rules, self.world.now).unwrap()
    }

    /// Executes a request of the work for a message.
    pub fn execute(&mut self, record: Record) -> Reply {
        assert!(record.check().is_ok_and(|kind| record.is_well_formed(kind)), "{record:?}");
        let logged = self.world.log.len();
        let reply = self.world.execute(&world::caller(T1), vec![record]).1.remove(0);
        self.world.log[logged..].iter().for_each(|record| self.originals.observe(record));
        reply
    }

    /// Settles or consumes the first capture of the lock that the last message was about.
    pub fn end_capture(&mut self, kind: Kind) {
        let place = self.outcome.unwrap().place.unwrap();
        let id = self.world.fresh_id();
        let record = if kind == Kind::Settle {
            let body = ChangeBody { lock: place.lock, ..ChangeBody::default() };
            Record::new(kind, id, place.partition, Amount::ZERO, &body)
        } else {
            let body = ConsumeBody { lock: place.lock, ..ConsumeBody::default() };
            Record::new(kind, id, place.partition, Amount::ZERO, &body)
        };
        let settler = Caller { tenant: T1, roles: Roles::SETTLER, actor: ActorId(1) };
        assert_eq!(self.world.execute(&settler, vec![record]).1[0].code(), Code::Approved);
    }

    /// Sends a message and checks field 39 of its reply.
    pub fn check(&mut self, mti: &str, fields: &Fields, expect: &str) -> Fields {
        let reply = self.send(mti, fields);
        assert_eq!(reply[&39], expect, "{mti} {fields:?}: {:?}", self.outcome);
        reply
    }

    /// F, H and U of the first partition, and X.
    pub fn money(&self) -> [u128; 4] {
        self.money_of(P1)
    }

    pub fn money_of(&self, partition: surety_protocol::PartitionHandle) -> [u128; 4] {
        let totals = self.world.ledger.partition(partition).unwrap();
        [totals.free, totals.held, totals.captured, totals.exposure]
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.world.log.iter().filter(|record| record.kind() == Some(kind)).count()
    }
}

/// A whole authorization: every field that one must carry.
pub fn payment(trace: u32, amount: u32) -> Fields {
    let fields = [
        (2, CARD),
        (3, "000000"),
        (7, SENT),
        (12, "231320"),
        (13, "1114"),
        (18, "5411"),
        (22, "051"),
        (25, "00"),
        (32, "123456"),
        (41, "TERM0001"),
        (42, "SHOP"),
        (49, "840"),
    ];
    let mut fields: Fields = fields.iter().map(|(field, text)| (*field, (*text).to_owned())).collect();
    fields.insert(4, format!("{amount:012}"));
    fields.insert(11, format!("{trace:06}"));
    fields.insert(37, format!("REF{trace:09}"));
    fields.insert(42, format!("{:15}", "SHOP"));
    fields
}

pub fn with(mut fields: Fields, field: u8, text: &str) -> Fields {
    fields.insert(field, text.to_owned());
    fields
}

pub fn without(mut fields: Fields, field: u8) -> Fields {
    fields.remove(&field);
    fields
}

/// A completion of, or an advice like, the message with this type and trace number.
pub fn following(mti: &str, trace: u32, of: u32, amount: u32) -> Fields {
    let fields = with(payment(trace, amount), 90, &format!("{mti}{of:06}{SENT}{:011}{:011}", 123_456, 0));
    with(with(fields, 37, &format!("REF{of:09}")), 38, "ABC123")
}

pub fn completion(mti: &str, trace: u32, of: u32, amount: u32) -> Fields {
    following(mti, trace, of, amount)
}

pub fn reversal(mti: &str, trace: u32, of: u32, amount: u32) -> Fields {
    with(without(following(mti, trace, of, amount), 38), 39, "68")
}

pub fn stand_in(trace: u32, amount: u32) -> Fields {
    with(with(with(payment(trace, amount), 38, "ABC123"), 39, "00"), 60, "00")
}

/// The same fields as the 1993 edition has them.
pub fn edition(dialect: Dialect, fields: Fields) -> Fields {
    if dialect == Dialect::V1987 {
        return fields;
    }
    let fields = without(without(without(fields, 13), 18), 25);
    let fields = with(with(fields, 12, "231114231320"), 22, "510101511344");
    with(with(fields, 24, "100"), 26, "5411")
}

/// Field 95: so much stays.
pub fn stays(amount: u32) -> String {
    format!("{amount:012}{:030}", 0)
}
