//! Questions to an engine's history, and its answers: documents that this crate carries and does not read.

use alloc::vec::Vec;

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::limits::{ANSWER_BYTES_MAX, FRAME_RECORDS_MAX, RECORD_BYTES};
use crate::{FrameError, FrameKind};

/// The first version of the wire that has questions to a history.
pub const QUERY_VERSION: u16 = 2;
/// Bytes before the document of a question.
pub const QUERY_HEAD_BYTES: usize = 16;
/// Bytes before a part of an answer.
pub const ANSWER_HEAD_BYTES: usize = 32;
/// Bytes of a document that one frame holds.
pub const QUERY_PART_BYTES_MAX: usize = FRAME_RECORDS_MAX * RECORD_BYTES;

/// The first 16 bytes of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct QueryHead {
    /// Bytes of the document behind it; zeros follow up to a multiple of [`RECORD_BYTES`], but there is at least one such.
    pub bytes: u32,
    /// Zero.
    pub reserved: [u8; 12],
}

/// The first 32 bytes of a part of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct AnswerHead {
    /// Bytes of the whole document, the same in each of its parts.
    pub total: u32,
    /// Bytes of this part of it; zeros follow up to a multiple of [`RECORD_BYTES`].
    pub bytes: u32,
    /// 0: the document is the history's. Else a [`QueryRefusal`], and the document tells people why; the same in each of its parts.
    pub status: u8,
    /// 1 if another part follows, 0 if not.
    pub has_more: u8,
    /// Zero.
    pub reserved: [u8; 22],
}

const _: () = assert!(size_of::<ArchivedQueryHead>() == QUERY_HEAD_BYTES);
const _: () = assert!(size_of::<ArchivedAnswerHead>() == ANSWER_HEAD_BYTES);

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why the history was not asked, or has not answered. Asking changes nothing, so it may always be tried again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum QueryRefusal {
            $($(#[$doc])* $name = $value,)*
        }

        impl QueryRefusal {
            /// Every one.
            pub const ALL: &'static [QueryRefusal] = &[$(QueryRefusal::$name),*];

            /// The name in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(QueryRefusal::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// The engine keeps no history.
    NoHistory = 1, "NO_HISTORY";
    /// It keeps one that does not answer now.
    Away = 2, "AWAY";
    /// As many questions are out as may be, or too many have come in this second.
    Busy = 3, "BUSY";
    /// The certificate may not ask, or not on behalf of whom the question names.
    Forbidden = 4, "FORBIDDEN";
    /// The document is no question.
    Malformed = 5, "MALFORMED";
    /// The document is longer than a question may be.
    TooLong = 6, "TOO_LONG";
}

/// Bytes that a part takes in its frame.
const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(RECORD_BYTES)
}

/// Writes the body of a query frame.
///
/// # Panics
/// If the document has more than [`QUERY_PART_BYTES_MAX`] bytes; a question has fewer.
#[must_use]
pub fn write_query(document: &[u8]) -> Vec<u8> {
    assert!(document.len() <= QUERY_PART_BYTES_MAX, "a question fits into a frame");
    let head = QueryHead { bytes: to_u32(document.len()), reserved: [0; 12] };
    let fixed: [u8; QUERY_HEAD_BYTES] = archive::write(&head);
    let mut body = [&fixed[..], document].concat();
    body.resize(QUERY_HEAD_BYTES + padded(document.len().max(1)), 0);
    body
}

/// Reads the body of a query frame: its document.
///
/// # Errors
/// [`FrameError::Body`] if the length is not that of the document, [`FrameError::Padding`] if a byte that has no meaning is not zero.
pub fn read_query(body: &[u8]) -> Result<&[u8], FrameError> {
    let wrong = FrameError::Body(FrameKind::Query);
    let (fixed, rest) = body.split_at_checked(QUERY_HEAD_BYTES).ok_or(wrong)?;
    let head: QueryHead = archive::read(fixed).ok_or(wrong)?;
    if head.reserved != [0; 12] {
        return Err(FrameError::Padding);
    }
    let bytes = usize::try_from(head.bytes).map_err(|_| wrong)?;
    document(rest, bytes, padded(bytes.max(1)), wrong)
}

/// Writes the body of an answer frame.
///
/// # Panics
/// If the part has more than [`QUERY_PART_BYTES_MAX`] bytes.
#[must_use]
pub fn write_answer(status: Option<QueryRefusal>, total: usize, part: &[u8], has_more: bool) -> Vec<u8> {
    assert!(part.len() <= QUERY_PART_BYTES_MAX, "a part of an answer fits into a frame");
    let head = AnswerHead {
        total: to_u32(total),
        bytes: to_u32(part.len()),
        status: status.map_or(0, |refusal| refusal as u8),
        has_more: u8::from(has_more),
        reserved: [0; 22],
    };
    let fixed: [u8; ANSWER_HEAD_BYTES] = archive::write(&head);
    let mut body = [&fixed[..], part].concat();
    body.resize(ANSWER_HEAD_BYTES + padded(part.len()), 0);
    body
}

/// Reads the body of an answer frame: how to read the part that stands in it, and that part.
///
/// # Errors
/// [`FrameError::Body`] if a length, the status or `has_more` are wrong, [`FrameError::Padding`] if a byte that has no meaning is not zero.
pub fn read_answer(body: &[u8]) -> Result<(AnswerHead, Option<QueryRefusal>, &[u8]), FrameError> {
    let wrong = FrameError::Body(FrameKind::Answer);
    let (fixed, rest) = body.split_at_checked(ANSWER_HEAD_BYTES).ok_or(wrong)?;
    let head: AnswerHead = archive::read(fixed).ok_or(wrong)?;
    if head.reserved != [0; 22] {
        return Err(FrameError::Padding);
    }
    let refusal = QueryRefusal::ALL.iter().copied().find(|refusal| *refusal as u8 == head.status);
    let (total, bytes) = (usize::try_from(head.total), usize::try_from(head.bytes));
    let (total, bytes) = (total.map_err(|_| wrong)?, bytes.map_err(|_| wrong)?);
    let is_known = (head.status == 0 || refusal.is_some()) && head.has_more <= 1;
    // A part that brings nothing could go on for ever.
    let is_sound = bytes <= total && total <= ANSWER_BYTES_MAX && (head.has_more == 0 || bytes > 0);
    if !is_known || !is_sound {
        return Err(wrong);
    }
    Ok((head, refusal, document(rest, bytes, padded(bytes), wrong)?))
}

/// The first `bytes` of exactly `padded` ones, the others of which are zero.
fn document(rest: &[u8], bytes: usize, padded: usize, wrong: FrameError) -> Result<&[u8], FrameError> {
    if rest.len() != padded {
        return Err(wrong);
    }
    let (document, zeros) = rest.split_at(bytes);
    if zeros.iter().all(|byte| *byte == 0) { Ok(document) } else { Err(FrameError::Padding) }
}

/// Of a length that was found to be bounded.
fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_and_their_lengths_are_those_of_their_frames() {
        for length in [0, 1, 127, 128, 129, QUERY_PART_BYTES_MAX] {
            let question = alloc::vec![b'q'; length];
            let body = write_query(&question);
            assert_eq!(body.len() % RECORD_BYTES, QUERY_HEAD_BYTES, "{length}");
            assert_eq!(read_query(&body), Ok(&question[..]), "{length}");
            assert!(read_query(&body[..body.len() - 1]).is_err() && read_query(&body[..8]).is_err());
            let mut longer = body.clone();
            longer.extend([0; RECORD_BYTES]);
            assert_eq!(read_query(&longer), Err(FrameError::Body(FrameKind::Query)), "{length}");
            let mut padded = body;
            padded[QUERY_HEAD_BYTES - 1] = 1;
            assert_eq!(read_query(&padded), Err(FrameError::Padding), "{length}");
        }
        let mut body = write_query(b"{}");
        body[QUERY_HEAD_BYTES + 2] = b' ';
        assert_eq!(read_query(&body), Err(FrameError::Padding), "behind the document");
    }

    #[test]
    fn answers_survive_in_parts() {
        let check = |refusal, part: &[u8], has_more| {
            let body = write_answer(refusal, 1000, part, has_more);
            let (head, read, document) = read_answer(&body).unwrap();
            assert_eq!((read, document, head.total), (refusal, part, 1000));
            assert_eq!(head.has_more, u8::from(has_more));
        };
        check(None, &[7; 1000], false);
        check(None, &[7; 300], true);
        check(None, &[], false);
        for refusal in QueryRefusal::ALL {
            check(Some(*refusal), b"why", false);
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        let wrong = Err(FrameError::Body(FrameKind::Answer));
        assert_eq!(read_answer(&write_answer(None, 1000, &[], true)), wrong, "it brings nothing");
        assert_eq!(read_answer(&write_answer(None, 2, b"abc", false)), wrong, "more than all of it");
        assert_eq!(read_answer(&write_answer(None, ANSWER_BYTES_MAX + 1, b"abc", true)), wrong, "too long");
        for (at, value) in [(8, 7), (8, 255), (9, 2)] {
            let mut body = write_answer(None, 3, b"abc", false);
            body[at] = value;
            assert_eq!(read_answer(&body), wrong, "byte {at}");
        }
        for at in [10, 31, ANSWER_HEAD_BYTES + 3] {
            let mut body = write_answer(None, 3, b"abc", false);
            body[at] = 1;
            assert_eq!(read_answer(&body), Err(FrameError::Padding), "byte {at}");
        }
    }
}
