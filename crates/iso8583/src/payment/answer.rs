//! The reply to a message.

use surety_protocol::{Amount, Code, Id};

use super::codes::{EdgeCode, Refusal, edge_code};
use super::intent::Intent;
use super::work::{Outcome, Verdict};
use crate::{Dialect, Draft, Message};

/// Fields that a reply gives back as they came. Neither tracks nor PINs are among them.
const ECHOED: &[u8] =
    &[2, 3, 4, 7, 11, 12, 13, 15, 24, 28, 32, 33, 37, 41, 42, 49, 50, 66, 70, 90, 95, 100, 102, 103];

/// Drafts the reply to a message that was served. False if the message wants none, or its outcome is not known.
pub fn answer(message: &Message<'_>, intent: &Intent, outcome: &Outcome, draft: &mut Draft) -> bool {
    let row = match outcome.verdict {
        Verdict::Code(code) => edge_code(code),
        Verdict::Refused(refusal) => refusal.edge_code(),
        Verdict::Unknown => return false,
    };
    if !begin(message, &row, draft) {
        return false;
    }
    if let Some(place) = outcome.place.filter(|_| outcome.is_success()) {
        draft.set(38, &approval_code(place.lock));
    }
    if outcome.verdict == Verdict::Code(Code::Partial) {
        tell_part(message, intent, outcome.approved, draft);
    }
    true
}

/// Drafts the reply to a message that was refused, also to one that could be read in part. False if the message wants none.
pub fn refuse(message: &Message<'_>, refusal: Refusal, draft: &mut Draft) -> bool {
    begin(message, &refusal.edge_code(), draft)
}

pub(super) fn begin(message: &Message<'_>, row: &EdgeCode, draft: &mut Draft) -> bool {
    let Some(mti) = message.mti().reply() else { return false };
    draft.reset(mti);
    ECHOED.iter().for_each(|field| draft.copy(message, *field));
    draft.set(39, row.field_39(message.codec().dialect));
    true
}

/// The approved part in field 4, the original amount in field 54 (30 of the 1993 edition).
fn tell_part(message: &Message<'_>, intent: &Intent, approved: Amount, draft: &mut Draft) {
    let asked: [u8; 12] = message.exactly(4).unwrap_or([b'0'; 12]);
    let approved = intent.scale.to_minor(approved).unwrap_or(0);
    draft.set_number(4, approved);
    match message.codec().dialect {
        Dialect::V1987 => {
            // Account and amount type (57: original amount), currency, sign, amount.
            let mut text = *b"0057000D000000000000";
            text[4..7].copy_from_slice(&message.exactly::<3>(49).unwrap_or([b'0'; 3]));
            text[8..].copy_from_slice(&asked);
            draft.set(54, &text);
        }
        Dialect::V1993 => {
            let mut text = [b'0'; 24];
            text[..12].copy_from_slice(&asked);
            draft.set(30, &text);
        }
    }
}

/// Six letters and digits out of the lock's id (field 38): the same whenever it is asked for.
#[must_use]
pub fn approval_code(lock: Id) -> [u8; 6] {
    const LETTERS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut rest = lock.0 & u128::from(u64::MAX >> 2);
    [(); 6].map(|()| {
        let letter = LETTERS[usize::try_from(rest % 36).unwrap_or(0)];
        rest /= 36;
        letter
    })
}
