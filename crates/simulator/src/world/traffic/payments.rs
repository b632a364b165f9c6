//! What payments ask: locks, and what becomes of them.

use surety_protocol::{
    ALL_CAPTURES, Amount, ChangeBody, ConsumeBody, Flags, Kind, LockBody, MerchantId, QuoteId, Record,
};

use super::{QUOTES, Traffic};
use crate::random::Random;

impl Traffic<'_> {
    pub(super) fn payment(&mut self) -> Record {
        match self.random.below(100) {
            0..34 => self.lock(),
            34..38 => self.change(Kind::Increase),
            38..41 => self.change(Kind::Decrease),
            41..60 => self.change(Kind::Capture),
            60..70 => self.change(Kind::Release),
            70..74 => self.change(Kind::Reverse),
            74..79 => self.change(Kind::Refund),
            79..82 => self.change(Kind::Advice),
            82..91 => self.change(Kind::Settle),
            _ => self.consume(),
        }
    }

    pub(super) fn lock(&mut self) -> Record {
        let quote = match self.random.below(8) {
            0 | 1 => *self.random.pick(&QUOTES),
            2 if self.random.chance(1, 10) => QuoteId(1),
            _ => QuoteId(0),
        };
        let amount = self.amount();
        let body = LockBody {
            floor: if self.random.chance(1, 3) {
                Amount(u128::from(self.random.below(100)))
            } else {
                Amount(0)
            },
            merchant: MerchantId(self.random.below(6)),
            life_ms: match self.random.below(20) {
                0 => 0,
                1 => 4_000_000_000,
                _ => u32::try_from(1 + self.random.below(15_000)).unwrap_or(1),
            },
            category: u16::try_from(5_400 + self.random.below(3)).unwrap_or(0),
            quote,
            user: self.random.below(9),
            ..LockBody::default()
        };
        let mut flags = Flags(0);
        if self.random.chance(1, 5) {
            flags.0 |= Flags::CERTIFIED.0;
        }
        if self.random.chance(1, 8) {
            flags.0 |= Flags::SALE.0;
        }
        // Some locks come late: after their release, their look-up or their advice.
        let (partition, id) =
            if self.random.chance(1, 25) { self.target() } else { (self.partition(), self.id()) };
        Record::new(Kind::Lock, id, partition, amount, &body).with_flags(flags)
    }

    pub(super) fn change(&mut self, kind: Kind) -> Record {
        let (partition, lock) = self.target();
        let seen = self.oracle.lock((self.client.caller.tenant, partition), lock);
        let version = match (self.random.below(8), seen) {
            (0, _) => 1,
            (1..3, _) if kind != Kind::Increase => 0,
            (_, Some(seen)) => seen.version,
            _ => 0,
        };
        let total = seen.map_or(100, |seen| seen.total_asked());
        let held = seen.map_or(100, |seen| seen.remaining());
        let near = |random: &mut Random, amount: u128| match random.below(6) {
            0 => amount,
            1 => amount + 1 + u128::from(random.below(20)),
            2 => amount.saturating_sub(1),
            _ => u128::from(1 + random.below(u64::try_from(amount.min(1 << 40)).unwrap_or(1).max(1))),
        };
        let mut flags = Flags(0);
        let mut life_ms = 0;
        let amount = match kind {
            Kind::Increase => {
                life_ms = if self.random.chance(1, 2) { 0 } else { 1 + self.random.below(30_000) };
                total + u128::from(self.random.below(200))
            }
            Kind::Decrease => near(self.random, total),
            Kind::Capture | Kind::Advice => {
                let third = self.random.chance(1, 3);
                flags.0 |= if third { Flags::FINAL.0 } else { 0 };
                flags.0 |= if self.random.chance(1, 5) { Flags::ALL_OR_NOTHING.0 } else { 0 };
                near(self.random, held.max(1))
            }
            Kind::Refund => near(self.random, 60),
            _ => u128::from(self.random.chance(1, 100)),
        };
        let takes_index = matches!(kind, Kind::Reverse | Kind::Refund | Kind::Settle);
        let body = ChangeBody {
            lock,
            life_ms_or_actor: u32::try_from(life_ms).unwrap_or(0),
            capture: if takes_index { self.capture_index(kind) } else { 0 },
            version,
            ..ChangeBody::default()
        };
        let (id, mark) = super::may_last(self.id());
        // The mark may mean nothing to the kind, which then has an ordinary id.
        let id = if mark.are_lasting(kind) { id } else { self.id() };
        Record::new(kind, id, partition, Amount(amount), &body).with_flags(flags | mark)
    }

    pub(super) fn capture_index(&mut self, kind: Kind) -> u16 {
        match self.random.below(12) {
            0..4 if kind == Kind::Settle => ALL_CAPTURES,
            0 => ALL_CAPTURES,
            1 => 17,
            2 | 3 => 1,
            4 => 2,
            _ => 0,
        }
    }

    pub(super) fn consume(&mut self) -> Record {
        let (partition, lock) = self.target();
        let capture = self.capture_index(Kind::Settle);
        let seen = self.oracle.lock((self.client.caller.tenant, partition), lock);
        let amount = match (capture, seen) {
            (ALL_CAPTURES, Some(seen)) => {
                1 + self.random.below(u64::try_from(seen.remaining().min(1 << 40)).unwrap_or(0) + 3)
            }
            (ALL_CAPTURES, None) => 1,
            _ if self.random.chance(1, 10) => 5,
            _ => 0,
        };
        let body = ConsumeBody { lock, capture, ..ConsumeBody::default() };
        let id = self.id();
        Record::new(Kind::Consume, id, partition, Amount(amount.into()), &body)
    }
}
