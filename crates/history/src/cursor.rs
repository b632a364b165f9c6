//! Where to go on: how far each shard has been looked at.
//!
//! Within a shard the order of records is the order of time: the replica takes none that is older than the one before. So one seq for
//! each shard says what of it a walk has behind it, whatever the other shards do: however many records share a moment, and however far
//! apart the shards are indexed, nothing is left out and nothing comes twice.
//!
//! What a cursor holds tells how many records everybody has together. So it goes out sealed, and every number has the same length.

use core::fmt;
use core::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use surety_protocol::limits::SHARDS_MAX;
use surety_protocol::{Seq, ShardId, Time};

use crate::bytes::Reader;
use crate::error::{HistoryError, QueryError};
use crate::keys::OpenBy;
use crate::query::Order;
use crate::reader::Scope;
use crate::seal::{Key, Of, SEAL_BYTES};

/// First byte of a cursor: of which form it is.
const VERSION: u8 = 2;
/// What stands in a statement's cursor beside how far it has come.
const STATEMENT_BYTES_MAX: usize = 8 + 8 + 1 + 16 * 16;
/// Bytes of the longest cursor.
const BYTES_MAX: usize = 1 + SEAL_BYTES + 3 + 8 * SHARDS_MAX + STATEMENT_BYTES_MAX;
/// Longer texts are not even looked at.
const TEXT_MAX: usize = BYTES_MAX.div_ceil(3) * 4;

/// Defines a cursor: opaque bytes, as text base64 of the URL alphabet.
macro_rules! cursors {
    ($($(#[$doc:meta])* $name:ident: $of:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// It is sealed with a key of the store, for whoever asked: it stays good however the index grows, and for as long as that is
            /// not made anew. As text it is base64 of the URL alphabet.
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name(Vec<u8>);

            impl $name {
                pub(crate) fn seal(key: &Key, scope: Scope, plain: &[u8]) -> Result<Self, HistoryError> {
                    key.seal($of, scope, plain).map(Self)
                }

                /// What is in it, read by `take` to its end.
                pub(crate) fn open<T>(
                    &self,
                    key: &Key,
                    scope: Scope,
                    take: impl FnOnce(&mut Reader<'_>) -> Option<T>,
                ) -> Result<T, QueryError> {
                    let read = || {
                        let plain = key.open($of, scope, &self.0)?;
                        let mut reader = Reader(&plain);
                        take(&mut reader).filter(|_| reader.0.is_empty())
                    };
                    read().ok_or_else(|| self.refused())
                }

                /// That it is none of an answer to such a question.
                pub(crate) fn refused(&self) -> QueryError {
                    refused(&self.to_string())
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    let bytes = [&[VERSION][..], &self.0].concat();
                    f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
                }
            }

            impl FromStr for $name {
                type Err = QueryError;

                fn from_str(text: &str) -> Result<Self, QueryError> {
                    let short = Some(text).filter(|text| text.len() <= TEXT_MAX);
                    let bytes = short.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
                    let sealed = bytes.as_deref().and_then(|bytes| bytes.strip_prefix(&[VERSION]));
                    sealed.map(|sealed| Self(sealed.to_vec())).ok_or_else(|| refused(text))
                }
            }
        )*
    };
}

fn refused(text: &str) -> QueryError {
    QueryError::Cursor(text.chars().take(64).collect())
}

cursors! {
    /// Where a walk over records or locks goes on.
    Cursor: Of::Records;
    /// Where a walk over live locks goes on.
    OpenCursor: Of::Open;
    /// Where a statement goes on, and what it has come to. Good for the same account and period alone.
    StatementCursor: Of::Statement;
}

/// How far a walk has come: what is in a [`Cursor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) order: Order,
    /// By shard: ascending the last seq that has been looked at, descending the lowest.
    seqs: Vec<Seq>,
}

impl Progress {
    pub(crate) const fn new(order: Order, seqs: Vec<Seq>) -> Self {
        Self { order, seqs }
    }

    /// How far a shard has been looked at. A shard that was not there when the walk began is new to an ascending one, and none of a
    /// descending one's.
    pub(crate) fn looked_at(&self, shard: ShardId) -> Seq {
        let unknown = if self.order == Order::Ascending { Seq(0) } else { Seq(1) };
        self.seqs.get(usize::from(shard.0)).copied().unwrap_or(unknown)
    }

    /// Takes back that a record, and what comes behind it in its shard, has been looked at by an ascending walk.
    pub(crate) fn take_back(&mut self, shard: ShardId, seq: Seq) {
        if let Some(looked_at) = self.seqs.get_mut(usize::from(shard.0)) {
            *looked_at = (*looked_at).min(Seq(seq.0.saturating_sub(1)));
        }
    }

    pub(crate) const fn shards(&self) -> usize {
        self.seqs.len()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.order as u8];
        let shards = u16::try_from(self.seqs.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&shards.to_be_bytes());
        self.seqs.iter().for_each(|seq| bytes.extend_from_slice(&seq.0.to_be_bytes()));
        bytes
    }

    pub(crate) fn take(from: &mut Reader<'_>) -> Option<Self> {
        let order = match from.byte()? {
            0 => Order::Ascending,
            1 => Order::Descending,
            _ => return None,
        };
        let shards = usize::from(u16::from_be_bytes(from.take()?));
        if shards > SHARDS_MAX {
            return None;
        }
        let seq = |_| from.take().map(|bytes| Seq(u64::from_be_bytes(bytes)));
        let seqs = (0..shards).map(seq).collect::<Option<Vec<Seq>>>()?;
        Some(Self { order, seqs })
    }
}

/// Behind which live lock a walk goes on: what is in an [`OpenCursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenPlace {
    pub(crate) by: OpenBy,
    /// When the lock was made, or its deadline.
    pub(crate) time: Time,
    pub(crate) shard: ShardId,
    /// The record that made it.
    pub(crate) seq: Seq,
}

impl OpenPlace {
    pub(crate) fn to_bytes(self) -> [u8; 19] {
        crate::keys::open(self.by, self.time, self.shard, self.seq)
    }

    pub(crate) fn take(from: &mut Reader<'_>) -> Option<Self> {
        let by = match from.byte()? {
            1 => OpenBy::Age,
            2 => OpenBy::Deadline,
            _ => return None,
        };
        let time = Time(u64::from_be_bytes(from.take()?));
        let shard = ShardId(u16::from_be_bytes(from.take()?));
        Some(Self { by, time, shard, seq: Seq(u64::from_be_bytes(from.take()?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [3; 32];

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let key = Key::of(KEY);
        let all = vec![Seq(u64::MAX); SHARDS_MAX];
        for order in [Order::Ascending, Order::Descending] {
            for seqs in [vec![], vec![Seq(0)], vec![Seq(7), Seq(300), Seq(0)], all.clone()] {
                let progress = Progress::new(order, seqs);
                let cursor = Cursor::seal(&key, Scope::Operator, &progress.to_bytes()).unwrap();
                let read: Cursor = cursor.to_string().parse().unwrap();
                assert_eq!(read, cursor);
                assert_eq!(read.open(&key, Scope::Operator, Progress::take).unwrap(), progress);
            }
        }
        for by in [OpenBy::Age, OpenBy::Deadline] {
            let place = OpenPlace { by, time: Time(u64::MAX), shard: ShardId(7), seq: Seq(1) };
            let cursor = OpenCursor::seal(&key, Scope::Operator, &place.to_bytes()).unwrap();
            let read: OpenCursor = cursor.to_string().parse().unwrap();
            assert_eq!(read.open(&key, Scope::Operator, OpenPlace::take).unwrap(), place);
        }
        let longest = vec![0; BYTES_MAX - 1 - SEAL_BYTES];
        let cursor = StatementCursor::seal(&key, Scope::Operator, &longest).unwrap();
        assert!(cursor.to_string().parse::<StatementCursor>().is_ok(), "the longest one has room");
    }

    #[test]
    fn a_text_that_is_damaged_in_any_place_is_no_cursor() {
        let key = Key::of(KEY);
        let open = |text: &str| {
            text.parse::<Cursor>().and_then(|cursor| cursor.open(&key, Scope::Operator, Progress::take))
        };
        let progress = Progress::new(Order::Ascending, vec![Seq(7), Seq(300), Seq(0)]);
        let text = Cursor::seal(&key, Scope::Operator, &progress.to_bytes()).unwrap().to_string();
        assert_eq!(open(&text).unwrap(), progress);
        for at in 0..text.len() {
            assert!(open(&text[..at]).is_err(), "cut at {at}");
            for other in ["A", "-", "=", " "].iter().filter(|other| text[at..=at] != ***other) {
                let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert!(matches!(open(&wrong), Err(QueryError::Cursor(_))), "{wrong}");
            }
        }
        let many = Progress::new(Order::Ascending, vec![Seq(7); SHARDS_MAX + 1]);
        let long = Cursor::seal(&key, Scope::Operator, &many.to_bytes()).unwrap();
        assert!(
            long.open(&key, Scope::Operator, Progress::take).is_err(),
            "of more shards than an engine has"
        );
        let other: OpenCursor = text.parse().unwrap();
        assert!(other.open(&key, Scope::Operator, OpenPlace::take).is_err(), "a cursor of something else");
        assert!("x".repeat(TEXT_MAX + 1).parse::<Cursor>().is_err());
    }

    /// A tenant's cursors are of one length, however many records the others have.
    #[test]
    fn the_length_of_a_cursor_tells_nothing() {
        let length = |seq| Progress::new(Order::Ascending, vec![Seq(seq); 5]).to_bytes().len();
        assert_eq!(length(0), length(u64::MAX));
    }
}
