//! The messages of a payment, and what names them.

use iso8583::payment::{Day, Rules, sent_at};
use iso8583::{Class, Dialect, Draft, Function, Message, Mti};
use surety_protocol::{MerchantId, PartitionHandle, Time};

/// Field 32.
const ACQUIRER: u64 = 100_000;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// 0100.
    Authorize,
    /// 0120.
    StandIn,
    /// 0200.
    Sale,
    /// 0220.
    Complete,
    /// 0400.
    TakeBack,
}

/// What names a message: beside the acquirer and the terminal its type, its trace number and its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) mti: Mti,
    pub(super) trace: u32,
    /// Field 7.
    pub(super) sent: [u8; 10],
}

/// What replies are matched by: class, trace number and moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u8, u32, [u8; 10]);

/// What a message says beside what names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) terminal: [u8; 8],
    /// Field 37: the payment.
    pub(super) reference: [u8; 12],
    pub(super) partition: PartitionHandle,
    pub(super) currency: u16,
    /// In minor units.
    pub(super) minor: u64,
    pub(super) merchant: MerchantId,
    /// Field 38, of what the payment began with.
    pub(super) approval: [u8; 6],
    /// What is completed or taken back.
    pub(super) original: Option<Numbers>,
}

/// A reply, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) mti: Mti,
    /// Field 39.
    pub(super) code: Vec<u8>,
    /// Field 38.
    pub(super) approval: Option<[u8; 6]>,
    /// Field 4.
    pub(super) minor: Option<u64>,
    /// Fields 32, 37 and 41 are those of this host's payments.
    pub(super) reference: Option<[u8; 12]>,
    /// Its code of authentication is right, or the link has none.
    pub(super) is_proved: bool,
}

impl Say {
    pub(super) const fn mti(self, dialect: Dialect) -> Mti {
        let (class, function) = match self {
            Self::Authorize => (Class::Authorization, Function::Request),
            Self::StandIn => (Class::Authorization, Function::Advice),
            Self::Sale => (Class::Financial, Function::Request),
            Self::Complete => (Class::Financial, Function::Advice),
            Self::TakeBack => (Class::Reversal, Function::Request),
        };
        Mti { version: dialect.version(), class, function, origin: 0 }
    }
}

impl Numbers {
    pub(super) const fn key(&self) -> Key {
        Key(self.mti.class as u8, self.trace, self.sent)
    }

    /// Field 90 of a message about the one with these.
    fn named(&self) -> String {
        let sent = String::from_utf8_lossy(&self.sent);
        format!("{}{:06}{sent}{ACQUIRER:011}{:011}", self.mti, self.trace, 0)
    }
}

/// The key of a message that has come; none if it has no such fields.
pub(super) fn key_of(message: &Message<'_>) -> Option<Key> {
    let trace = u32::try_from(message.number(11)?).ok()?;
    Some(Key(message.mti().class as u8, trace, message.exactly(7)?))
}

/// What is looked at of a reply to this terminal.
pub(super) fn heard(message: &Message<'_>, terminal: [u8; 8], is_proved: bool) -> Heard {
    let is_ours = message.number(32) == Some(ACQUIRER) && message.exactly(41) == Some(terminal);
    Heard {
        mti: message.mti(),
        code: message.units(39).into_iter().flatten().collect(),
        approval: message.exactly(38),
        minor: message.number(4),
        reference: message.exactly(37).filter(|_| is_ours),
        is_proved,
    }
}

/// Drafts a payment's message.
pub(super) fn draft(say: Say, numbers: &Numbers, content: &Content, rules: &Rules, now: Time) -> Draft {
    let dialect = rules.dialect;
    let mut draft = Draft::new(dialect);
    draft.reset(numbers.mti);
    draft.set(3, b"000000");
    draft.set_number(4, content.minor);
    draft.set(7, &numbers.sent);
    draft.set(11, format!("{:06}", numbers.trace).as_bytes());
    draft.set_number(32, ACQUIRER);
    draft.set(37, &content.reference);
    draft.set(41, &content.terminal);
    draft.set(42, format!("{:015}", content.merchant.0).as_bytes());
    draft.set(49, format!("{:03}", content.currency).as_bytes());
    draft.set(102, content.partition.to_string().as_bytes());
    if matches!(say, Say::StandIn | Say::Complete) {
        draft.set(38, &content.approval);
    }
    match dialect {
        Dialect::V1987 => set_old(&mut draft, say, numbers, content),
        Dialect::V1993 => set_new(&mut draft, say, numbers, now),
    }
    draft
}

/// What the 1987 edition asks for besides.
fn set_old(draft: &mut Draft, say: Say, numbers: &Numbers, content: &Content) {
    if matches!(say, Say::Authorize | Say::StandIn | Say::Sale) {
        draft.set(12, &numbers.sent[4..]);
        draft.set(13, &numbers.sent[..4]);
        draft.set(18, b"5411");
        draft.set(22, b"051");
        draft.set(25, b"00");
        // No mark.
        draft.set(60, b"00");
    }
    match say {
        Say::StandIn => draft.set(39, b"00"),
        Say::TakeBack => draft.set(39, b"17"),
        Say::Authorize | Say::Sale | Say::Complete => {}
    }
    if let Some(original) = &content.original {
        draft.set(90, original.named().as_bytes());
    }
}

/// What the 1993 edition asks for besides. What a message is about it names by field 37 alone.
fn set_new(draft: &mut Draft, say: Say, numbers: &Numbers, now: Time) {
    draft.set(24, if say == Say::TakeBack { b"400" } else { b"100" });
    if matches!(say, Say::Authorize | Say::StandIn | Say::Sale) {
        let moment = [&Day::of(now).digits()[..], &numbers.sent[4..]].concat();
        draft.set(12, &moment);
        draft.set(22, b"210101210001");
        draft.set(26, b"5411");
        draft.set(60, b"00");
    }
    if say == Say::StandIn {
        draft.set(39, b"000");
    }
}

/// A sign-on.
pub(super) fn sign_on(dialect: Dialect, trace: u32, now: Time) -> (Numbers, Draft) {
    let is_old = dialect == Dialect::V1987;
    let (class, function) = (Class::Network, Function::Request);
    let mti = Mti { version: dialect.version(), class, function, origin: if is_old { 0 } else { 4 } };
    let numbers = Numbers { mti, trace, sent: sent_at(now) };
    let mut draft = Draft::new(dialect);
    draft.reset(mti);
    draft.set(7, &numbers.sent);
    draft.set(11, format!("{trace:06}").as_bytes());
    if is_old {
        draft.set(70, b"001")
    } else {
        draft.set(24, b"801")
    }
    (numbers, draft)
}

/// The answer to a network message of the link's own, such as an echo; none to anything else.
pub(super) fn echo(message: &Message<'_>) -> Option<Draft> {
    let dialect = message.codec().dialect;
    let reply = message.mti().reply().filter(|reply| reply.class == Class::Network)?;
    let mut draft = Draft::new(dialect);
    draft.reset(reply);
    [7, 11, 24, 70].into_iter().for_each(|field| draft.copy(message, field));
    draft.set(39, if dialect == Dialect::V1987 { b"00" } else { b"800" });
    Some(draft)
}
