//! What a message means, once every field that it needs has been looked at.

use surety_protocol::{Amount, Id, MerchantId, PartitionHandle, ShardId, Time};

use super::calendar;
use super::codes::Refusal;
use super::ids::{Handle, Keys};
use super::rules::{Partitions, Rounding, Rules, Scale};
use crate::{Class, Dialect, Function, Message, Mti};

/// A message that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its type.
    pub mti: Mti,
    /// What it asks.
    pub ask: Ask,
    /// The id of the message: the same for its repeats.
    pub id: Id,
    /// The payment that it belongs to, by the acquirer's own number.
    pub handle: Option<Handle>,
    /// The message that it refers to.
    pub original: Option<Original>,
    /// Where it leads, of what is held in its currency. Empty if it names no card: then what it refers to has to be known.
    pub partitions: Partitions,
    /// Where it leads beside these: looked in, and given no amount. Empty if it can only make a lock.
    pub others: Partitions,
    /// Where it led before. Empty if it can only make a lock.
    pub former: Partitions,
    /// In base units; zero where nothing is asked for.
    pub amount: Amount,
    /// Its currency (field 49).
    pub currency: u16,
    /// How amounts of its currency are written.
    pub scale: Scale,
    /// Who is to be guaranteed.
    pub merchant: MerchantId,
    /// The merchant's category (ISO 18245).
    pub category: u16,
}

/// What a message asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// 0100: lock.
    Authorize {
        /// A part will do.
        partial: bool,
    },
    /// 0100 with the mark: more for a lock that there is.
    Increase,
    /// 0120: locked by a stand-in, and not to be declined.
    StandIn,
    /// 0200: locked and captured at once.
    Sale {
        /// A part will do.
        partial: bool,
    },
    /// 0220: captured for the last time, and not to be declined.
    Complete,
    /// 0400, 0420: taken back.
    Reverse {
        /// What is to stay; nothing if zero.
        stays: Amount,
    },
    /// 0500, 0520: totals are compared.
    Totals,
    /// 0800: about the link.
    Network(Network),
}

/// What a network message is about (field 70; field 24 of the 1993 edition).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// 001, 801.
    SignOn,
    /// 002, 802.
    SignOff,
    /// 161, 811.
    KeyChange,
    /// 201, 821.
    Cutover,
    /// 301, 831.
    Echo,
}

/// A message that another one names in its field 90.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// What it was, as far as the field says it.
    pub named: Named,
    /// Its id, had it been each of [`Named::ALL`]: all else in the field may be right where the type is not.
    ids: [Id; 4],
}

/// What a message was that can be completed or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// 0100, also one that raised a lock.
    Authorization,
    /// 0120.
    StandIn,
    /// 0200.
    Sale,
    /// 0220.
    Completion,
}

impl Named {
    /// In the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Authorization, Self::StandIn, Self::Sale, Self::Completion];

    /// What a message of a type was.
    const fn of(mti: Mti) -> Option<Self> {
        Some(match (mti.class, mti.function) {
            (Class::Authorization, Function::Request) => Self::Authorization,
            (Class::Authorization, Function::Advice) => Self::StandIn,
            (Class::Financial, Function::Request) => Self::Sale,
            (Class::Financial, Function::Advice) => Self::Completion,
            _ => return None,
        })
    }

    /// The class and function of its type, as ids are made of them.
    const fn kind(self) -> [u8; 2] {
        let (class, function) = match self {
            Self::Authorization => (Class::Authorization, Function::Request),
            Self::StandIn => (Class::Authorization, Function::Advice),
            Self::Sale => (Class::Financial, Function::Request),
            Self::Completion => (Class::Financial, Function::Advice),
        };
        [class as u8, function as u8]
    }
}

impl Original {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Id {
        self.ids[self.named as usize]
    }

    /// The same, had it been something else.
    #[must_use]
    pub const fn were_it(self, named: Named) -> Self {
        Self { named, ..self }
    }
}

/// A field that may be missing, and one that must not.
struct Fields<'a, 'b> {
    message: &'a Message<'b>,
    rules: &'a Rules,
    now: Time,
}

impl Intent {
    /// Reads what a message means.
    ///
    /// # Errors
    /// What it is refused for; see [`super::refuse`].
    pub fn read(message: &Message<'_>, rules: &Rules, now: Time) -> Result<Self, Refusal> {
        let fields = Fields { message, rules, now };
        let mti = message.mti();
        let kind = (mti.class, mti.function);
        match kind {
            (Class::Network, Function::Request) => return fields.network(),
            (Class::Reconciliation, Function::Request | Function::Advice) => return fields.totals(),
            _ => {}
        }
        let needed = needed(rules.dialect, mti).ok_or(Refusal::Unsupported)?;
        fields.must_have(needed)?;
        if matches!(mti.class, Class::Authorization | Class::Financial) {
            fields.check_debit()?;
        }
        let intent = fields.common()?;
        match kind {
            (Class::Authorization, Function::Request) if rules.increase.is_on(message) => {
                Ok(Self { ask: Ask::Increase, ..intent })
            }
            (Class::Authorization, Function::Request) => {
                Ok(Self { ask: Ask::Authorize { partial: rules.partial.is_on(message) }, ..intent })
            }
            (Class::Authorization, _) => Ok(Self { ask: Ask::StandIn, ..intent }),
            (Class::Financial, Function::Request) => {
                Ok(Self { ask: Ask::Sale { partial: rules.partial.is_on(message) }, ..intent })
            }
            (Class::Financial, _) => {
                let amount = fields.amount(4, Rounding::Down)?;
                Ok(Self { ask: Ask::Complete, amount, original: fields.original()?, ..intent })
            }
            _ => fields.reversal(intent),
        }
    }
}

impl Intent {
    /// True if the message may mean another thing where its reference (field 37) is not known. A sale, or what a stand-in has told, is
    /// where its card leads; but what field 90 calls an authorization may have raised a lock, which is anywhere, and a completion
    /// may have gone where its reference led.
    #[must_use]
    pub fn leans_on_reference(&self) -> bool {
        let original = self.original.map(|original| original.named);
        let is_routed = matches!(original, Some(Named::Sale | Named::StandIn));
        self.follows() && (!is_routed || self.leads_nowhere())
    }

    /// True if nothing but its reference tells which payment it is about.
    #[must_use]
    pub fn is_named_by_reference_alone(&self) -> bool {
        self.follows() && (self.original.is_none() || self.leads_nowhere())
    }

    fn follows(&self) -> bool {
        matches!(self.ask, Ask::Complete | Ask::Increase | Ask::Reverse { .. })
    }

    fn leads_nowhere(&self) -> bool {
        [self.partitions, self.others, self.former].iter().all(|list| list.as_slice().is_empty())
    }
}

/// The fields that a type must carry beside a card or account; none for a type that is not served.
const fn needed(dialect: Dialect, mti: Mti) -> Option<&'static [u8]> {
    const SHARED: &[u8] = &[3, 4, 7, 11, 32, 37, 41, 49];
    Some(match (dialect, mti.class, mti.function) {
        (Dialect::V1987, Class::Authorization, Function::Request)
        | (Dialect::V1987, Class::Financial, Function::Request) => {
            &[3, 4, 7, 11, 12, 13, 18, 22, 25, 32, 37, 41, 42, 49]
        }
        (Dialect::V1987, Class::Authorization, Function::Advice) => {
            &[3, 4, 7, 11, 12, 13, 18, 22, 25, 32, 37, 38, 39, 41, 42, 49, 60]
        }
        (Dialect::V1987, Class::Financial, Function::Advice) => &[3, 4, 7, 11, 32, 37, 38, 41, 42, 49],
        (Dialect::V1987, Class::Reversal, Function::Request | Function::Advice) => {
            &[4, 7, 11, 32, 39, 41, 49, 90]
        }
        (Dialect::V1993, Class::Authorization | Class::Financial, Function::Request) => {
            &[3, 4, 7, 11, 12, 22, 24, 26, 32, 37, 41, 42, 49]
        }
        (Dialect::V1993, Class::Authorization, Function::Advice) => {
            &[3, 4, 7, 11, 12, 22, 24, 26, 32, 37, 38, 39, 41, 42, 49]
        }
        (Dialect::V1993, Class::Financial, Function::Advice) => &[3, 4, 7, 11, 24, 32, 37, 38, 41, 42, 49],
        (Dialect::V1993, Class::Reversal, Function::Request | Function::Advice) => SHARED,
        _ => return None,
    })
}

impl Fields<'_, '_> {
    fn must_have(&self, fields: &[u8]) -> Result<(), Refusal> {
        match fields.iter().find(|field| !self.message.has(**field)) {
            Some(field) => Err(Refusal::Missing(*field)),
            None => Ok(()),
        }
    }

    fn exactly<const N: usize>(&self, field: u8) -> Result<[u8; N], Refusal> {
        let units = self.message.exactly(field);
        units.ok_or(if self.message.has(field) { Refusal::Format(field) } else { Refusal::Missing(field) })
    }

    fn number(&self, field: u8) -> Result<u64, Refusal> {
        self.message.number(field).ok_or(Refusal::Format(field))
    }

    /// What all payments share. The amount is that of a lock.
    fn common(&self) -> Result<Intent, Refusal> {
        self.check_dates()?;
        let currency = self.rules.currency(self.number(49)?).ok_or(Refusal::Currency)?;
        let merchant = match self.message.exactly(42) {
            Some(field) => self.rules.merchant(field).ok_or(Refusal::Merchant)?,
            None => MerchantId(0),
        };
        let category = match self.rules.dialect {
            Dialect::V1987 => self.message.number(18),
            Dialect::V1993 => self.message.number(26),
        };
        let (partitions, others) = self.in_currency(currency.number)?;
        Ok(Intent {
            mti: self.message.mti(),
            ask: Ask::Totals,
            id: self.id()?,
            handle: self.handle()?,
            original: None,
            partitions,
            others,
            former: self.former(),
            amount: self.amount(4, Rounding::Up)?,
            currency: currency.number,
            scale: currency.scale,
            merchant,
            category: u16::try_from(category.unwrap_or(0)).unwrap_or(0),
        })
    }

    fn keys(&self) -> Result<Keys, Refusal> {
        Ok(Keys {
            acquirer: if self.message.has(32) { self.number(32)? } else { 0 },
            terminal: self.message.exactly(41).unwrap_or([b' '; 8]),
            trace: self.exactly(11)?,
            sent: self.exactly(7)?,
            kind: Keys::kind_of(self.message.mti()),
        })
    }

    fn id(&self) -> Result<Id, Refusal> {
        self.keys()?.id(&self.rules.id_key.0, self.now).ok_or(Refusal::Format(7))
    }

    fn handle(&self) -> Result<Option<Handle>, Refusal> {
        let Some(reference) = self.message.exactly(37) else { return Ok(None) };
        let keys = self.keys()?;
        Ok(Some(Handle::new(&self.rules.id_key.0, keys.acquirer, keys.terminal, reference)))
    }

    /// Refuses what is no debit of the payer: a refund, a payment to the payer, an inquiry or a transfer would be served as a sale.
    fn check_debit(&self) -> Result<(), Refusal> {
        let [tens, _, _, _, _, _] = self.exactly(3)?;
        // 00 to 19 are debits, 20 to 29 credits, 30 to 39 inquiries, 40 and above transfers and others (ISO 8583, field 3).
        if matches!(tens, b'0' | b'1') { Ok(()) } else { Err(Refusal::Unsupported) }
    }

    fn check_dates(&self) -> Result<(), Refusal> {
        let message = self.message;
        let is_wrong = match self.rules.dialect {
            Dialect::V1987 => {
                let time = message.exactly(12).is_some_and(|digits| !calendar::is_time(digits));
                let date = message.exactly(13).is_some_and(|digits| !calendar::is_date(digits));
                if time { Some(12) } else { date.then_some(13) }
            }
            Dialect::V1993 => {
                let is_moment = |digits: [u8; 12]| {
                    let [_, _, m, n, d, e, time @ ..] = digits;
                    calendar::is_date([m, n, d, e]) && calendar::is_time(time)
                };
                message.exactly(12).is_some_and(|digits| !is_moment(digits)).then_some(12)
            }
        };
        is_wrong.map_or(Ok(()), |field| Err(Refusal::Format(field)))
    }

    fn amount(&self, field: u8, rounding: Rounding) -> Result<Amount, Refusal> {
        let amount = self.money(self.number(field)?, rounding)?;
        if amount == Amount::ZERO { Err(Refusal::Amount) } else { Ok(amount) }
    }

    fn money(&self, minor: u64, rounding: Rounding) -> Result<Amount, Refusal> {
        let currency = self.rules.currency(self.number(49)?).ok_or(Refusal::Currency)?;
        currency.scale.to_base(minor, rounding).ok_or(Refusal::Amount)
    }

    /// Where the message leads that is held in its currency, and for what follows a payment the rest. An amount of one currency
    /// must never be taken out of another: where nothing is held in it, nothing can be locked.
    fn in_currency(&self, currency: u16) -> Result<(Partitions, Partitions), Refusal> {
        let (held, others) =
            self.partitions()?.split(|partition| self.rules.held_in(partition) == Some(currency));
        match (held.as_slice().is_empty(), self.is_follower()) {
            (_, true) => Ok((held, others)),
            (false, false) => Ok((held, Partitions::default())),
            (true, false) => Err(Refusal::Currency),
        }
    }

    /// The partition that the accounts name, or the route of the card. A payment that names neither has to be known by its
    /// field 37; a lock has to name one.
    fn partitions(&self) -> Result<Partitions, Refusal> {
        for field in [102, 103] {
            if let Some(text) = self.message.units(field) {
                let partition = explicit(text).ok_or(Refusal::Format(field))?;
                return Ok(Partitions::new(&[partition]));
            }
        }
        if let Some(card) = self.message.units(2) {
            let route = self.rules.route(card);
            let led_before = !self.former().as_slice().is_empty();
            return route.or(led_before.then_some(Partitions::default())).ok_or(Refusal::NoRoute);
        }
        if self.is_follower() { Ok(Partitions::default()) } else { Err(Refusal::Missing(2)) }
    }

    /// Where the card led before, for what follows a payment. An account names its partition for good.
    fn former(&self) -> Partitions {
        let has_account = self.message.has(102) || self.message.has(103);
        let card = self.message.units(2).filter(|_| self.is_follower() && !has_account);
        card.map_or(Partitions::default(), |card| self.rules.former(card))
    }

    /// True for what is about a payment that there is.
    fn is_follower(&self) -> bool {
        let mti = self.message.mti();
        mti.class == Class::Reversal || (mti.class, mti.function) == (Class::Financial, Function::Advice)
    }

    /// The message that field 90 names. Of the 1993 edition field 56 tells no time of sending, so field 37 has to do.
    fn original(&self) -> Result<Option<Original>, Refusal> {
        if self.rules.dialect == Dialect::V1993 || !self.message.has(90) {
            return Ok(None);
        }
        let digits: [u8; 42] = self.exactly(90)?;
        let wrong = Refusal::Format(90);
        let piece = |from: usize, length: usize| digits.get(from..from + length).ok_or(wrong);
        let mti = piece(0, 4)?.try_into().map_err(|_| wrong)?;
        let mti = Mti::from_digits(mti).ok_or(wrong)?;
        let acquirer = piece(20, 11)?.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        let keys = Keys {
            acquirer: if acquirer == 0 { self.keys()?.acquirer } else { acquirer },
            terminal: self.message.exactly(41).unwrap_or([b' '; 8]),
            trace: piece(4, 6)?.try_into().map_err(|_| wrong)?,
            sent: piece(10, 10)?.try_into().map_err(|_| wrong)?,
            kind: Keys::kind_of(mti),
        };
        let named = Named::of(mti).ok_or(wrong)?;
        let id = |named: Named| Keys { kind: named.kind(), ..keys }.id(&self.rules.id_key.0, self.now);
        let [Some(a), Some(b), Some(c), Some(d)] = Named::ALL.map(id) else { return Err(wrong) };
        Ok(Some(Original { named, ids: [a, b, c, d] }))
    }

    /// Field 95 tells what is to stay (field 4 of the 1993 edition, beside the original amount in field 30).
    fn reversal(&self, intent: Intent) -> Result<Intent, Refusal> {
        let money = |digits: &[u8], field: u8| {
            let is_number = digits.iter().all(u8::is_ascii_digit);
            let minor =
                digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit.wrapping_sub(b'0')));
            if is_number { self.money(minor, Rounding::Up) } else { Err(Refusal::Format(field)) }
        };
        let (amount, stays) = match self.rules.dialect {
            Dialect::V1987 if self.message.has(95) => {
                let digits: [u8; 42] = self.exactly(95)?;
                (intent.amount, money(&digits[..12], 95)?)
            }
            Dialect::V1993 if self.message.has(30) => {
                let digits: [u8; 24] = self.exactly(30)?;
                (money(&digits[..12], 30)?, intent.amount)
            }
            _ => (intent.amount, Amount::ZERO),
        };
        if stays > amount {
            return Err(Refusal::OriginalAmount);
        }
        let original = self.original()?;
        // A completion may have gone where its reference led, which its own card or field 90 need not tell.
        if original.is_some_and(|original| original.named == Named::Completion) {
            self.must_have(&[37])?;
        }
        Ok(Intent { ask: Ask::Reverse { stays }, amount, original, ..intent })
    }

    fn network(&self) -> Result<Intent, Refusal> {
        let (field, version) = match self.rules.dialect {
            Dialect::V1987 => (70, 0),
            Dialect::V1993 => (24, 1000),
        };
        self.must_have(&[7, 11, field])?;
        let network = match self.number(field)? + version {
            1 | 1801 => Network::SignOn,
            2 | 1802 => Network::SignOff,
            161 | 1811 => Network::KeyChange,
            201 | 1821 => Network::Cutover,
            301 | 1831 => Network::Echo,
            _ => return Err(Refusal::Unsupported),
        };
        self.bare(Ask::Network(network))
    }

    fn totals(&self) -> Result<Intent, Refusal> {
        self.must_have(&[7, 11])?;
        // What it tells stands in a [`super::Statement`].
        self.bare(Ask::Totals)
    }

    /// A message that is about no payment.
    fn bare(&self, ask: Ask) -> Result<Intent, Refusal> {
        Ok(Intent {
            mti: self.message.mti(),
            ask,
            id: self.id()?,
            handle: None,
            original: None,
            partitions: Partitions::default(),
            others: Partitions::default(),
            former: Partitions::default(),
            amount: Amount::ZERO,
            currency: 0,
            scale: Scale { asset_decimals: 0, edge_decimals: 0 },
            merchant: MerchantId(0),
            category: 0,
        })
    }
}

/// A partition by name: `shard:number`.
fn explicit(text: impl Iterator<Item = u8>) -> Option<PartitionHandle> {
    let (mut shard, mut number, mut digits) = (None, 0_u64, 0);
    for unit in text {
        match unit {
            b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u64::from(unit - b'0'))?;
                digits += 1;
            }
            b':' if shard.is_none() && digits > 0 => {
                shard = Some(u16::try_from(number).ok()?);
                (number, digits) = (0, 0);
            }
            // Blanks behind it.
            b' ' if digits > 0 => {}
            _ => return None,
        }
    }
    let is_number = digits > 0 && number > 0 && number < 1 << 48;
    is_number.then_some(PartitionHandle::new(ShardId(shard?), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_tools_print_them() {
        let check = |text: &str, expect: Option<(u16, u64)>| {
            let expect = expect.map(|(shard, number)| PartitionHandle::new(ShardId(shard), number));
            assert_eq!(explicit(text.bytes()), expect, "{text}");
        };
        check("3:77", Some((3, 77)));
        check("0:1   ", Some((0, 1)));
        for bad in ["", "77", ":77", "3:", "3:0", "3:7:7", "65536:1", "0:281474976710656", "x", "-1:2"] {
            check(bad, None);
        }
    }
}
