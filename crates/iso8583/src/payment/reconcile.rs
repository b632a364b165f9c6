//! Reconciliation (0500, 0520): an acquirer's own totals of a business day beside ours.

use surety_protocol::{Code, Time};

use super::answer::begin;
use super::calendar::Day;
use super::codes::{EdgeCode, Refusal, edge_code};
use super::rules::{Rules, Scale};
use super::totals::Totals;
use crate::{Dialect, Draft, Message};

/// Counts and amounts of either edition that a message must carry, in order.
const FIELDS: [u8; 12] = [74, 75, 76, 77, 81, 82, 83, 84, 86, 87, 88, 89];
const NET: u8 = 97;
/// Of the 1993 edition alone: authorizations taken back.
const AUTHORIZATION_REVERSALS: u8 = 90;

/// What an acquirer tells of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which day; the one that was closed last if it names none.
    pub day: Option<Day>,
    /// In which currency; none if it names none.
    pub currency: Option<u16>,
    /// Its own figures.
    pub told: Figures,
}

/// The figures of a day, amounts being in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// In the order of their fields.
    values: [u64; 12],
    /// Field 90 of the 1993 edition; of a statement that does not carry it none.
    authorization_reversals: Option<u64>,
    /// Field 97: positive if more was debited.
    net: i64,
}

impl Statement {
    /// Reads what a message tells.
    ///
    /// # Errors
    /// A field that is missing or makes no sense.
    pub fn read(message: &Message<'_>, now: Time) -> Result<Self, Refusal> {
        let day = Day::settlement(message, now)?;
        let currency = [50, 49].into_iter().find_map(|field| message.number(field));
        Ok(Self {
            day,
            currency: currency.and_then(|number| u16::try_from(number).ok()),
            told: Figures::read(message)?,
        })
    }
}

impl Day {
    /// The business day that a message names: field 15; of the 1993 edition field 28 or 15.
    ///
    /// # Errors
    /// If it is no day.
    pub fn settlement(message: &Message<'_>, now: Time) -> Result<Option<Self>, Refusal> {
        let field = if message.codec().dialect == Dialect::V1993 && message.has(28) { 28 } else { 15 };
        if !message.has(field) {
            return Ok(None);
        }
        let day = match message.codec().dialect {
            Dialect::V1987 => message.exactly(field).and_then(|digits| Self::from_month(digits, now)),
            Dialect::V1993 => message.exactly(field).and_then(Self::from_year),
        };
        day.map(Some).ok_or(Refusal::Format(field))
    }
}

impl Figures {
    /// What these totals come to. None if sixteen digits cannot say it.
    #[must_use]
    pub fn of(totals: &Totals, scale: Scale) -> Option<Self> {
        let minor = |base: u128| scale.to_minor_sum(base);
        let (debited, back) = (minor(totals.debited)?, minor(totals.debited_back)?);
        Some(Self {
            values: [
                0,
                0,
                totals.debits,
                totals.debit_reversals,
                totals.authorizations,
                0,
                0,
                0,
                0,
                0,
                debited,
                back,
            ],
            authorization_reversals: Some(totals.authorization_reversals),
            net: i64::try_from(debited).ok()? - i64::try_from(back).ok()?,
        })
    }

    fn read(message: &Message<'_>) -> Result<Self, Refusal> {
        let number = |field: u8| match message.number(field) {
            Some(number) => Ok(number),
            None if message.has(field) => Err(Refusal::Format(field)),
            None => Err(Refusal::Missing(field)),
        };
        let mut values = [0; 12];
        for (value, field) in values.iter_mut().zip(FIELDS) {
            *value = number(field)?;
        }
        let is_new = message.codec().dialect == Dialect::V1993;
        let has_reversals = is_new && message.has(AUTHORIZATION_REVERSALS);
        let authorization_reversals =
            if has_reversals { Some(number(AUTHORIZATION_REVERSALS)?) } else { None };
        Ok(Self { values, authorization_reversals, net: net(message)? })
    }

    /// True if a statement of these agrees with ours.
    fn agrees(&self, ours: &Self) -> bool {
        let reversals = self.authorization_reversals.or(ours.authorization_reversals);
        (self.values, self.net, reversals) == (ours.values, ours.net, ours.authorization_reversals)
    }
}

/// Field 97: `C` or `D`, and sixteen digits.
fn net(message: &Message<'_>) -> Result<i64, Refusal> {
    if !message.has(NET) {
        return Err(Refusal::Missing(NET));
    }
    let wrong = Refusal::Format(NET);
    let [sign, digits @ ..]: [u8; 17] = message.exactly(NET).ok_or(wrong)?;
    let amount = digits.iter().try_fold(0_i64, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')).ok_or(wrong)
    })?;
    match sign {
        b'D' => Ok(amount),
        b'C' => Ok(-amount),
        _ => Err(wrong),
    }
}

/// Drafts the reply to a statement: our figures, and whether they are the acquirer's. Figures that differ are no error of the message: field 66
/// says so (2; 1 if they agree), field 39 of the 1993 edition (501; 500). False if the message wants no reply.
pub fn reconciled(
    message: &Message<'_>,
    statement: &Statement,
    (day, currency): (Day, u16),
    ours: &Figures,
    draft: &mut Draft,
) -> bool {
    let is_balanced = statement.told.agrees(ours);
    let row = edge_code(Code::Approved);
    let row = EdgeCode { iso1993: if is_balanced { *b"500" } else { *b"501" }, ..row };
    if !begin(message, &row, draft) {
        return false;
    }
    let digits = day.digits();
    match message.codec().dialect {
        Dialect::V1987 => {
            draft.set(15, &digits[2..]);
            draft.set_number(66, if is_balanced { 1 } else { 2 });
        }
        Dialect::V1993 => {
            draft.set(28, &digits);
            draft.set_number(AUTHORIZATION_REVERSALS, ours.authorization_reversals.unwrap_or(0));
        }
    }
    draft.set_number(50, currency.into());
    for (field, value) in FIELDS.into_iter().zip(ours.values) {
        draft.set_number(field, value);
    }
    let mut net = [0; 17];
    net[0] = if ours.net < 0 { b'C' } else { b'D' };
    let mut rest = ours.net.unsigned_abs();
    for digit in net[1..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    draft.set(NET, &net);
    true
}

impl Rules {
    /// The currency of a statement: the one that it names, or the only one. With its scale.
    ///
    /// # Errors
    /// If the link does not take it, or takes several and none is named.
    pub fn currency_of(&self, statement: &Statement) -> Result<(u16, Scale), Refusal> {
        let only = if let [only] = self.currencies.as_slice() { Some(only.number) } else { None };
        let number = statement.currency.or(only).ok_or(Refusal::Missing(50))?;
        self.currency(number.into()).map(|currency| (number, currency.scale)).ok_or(Refusal::Currency)
    }
}
