//! The durable change stream of one shard, followed across broken links.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use surety_protocol::{
    CURSORS_HAVE_EPOCHS, Cursor, Epoch, Record, Seq, ShardId, TailHead, TailStatus, Token, sabotage,
};

use crate::clock::IdSource;
use crate::options::Options;
use crate::transport::{Connector, OpenError, TailSource};

/// Follows the records of a shard that a completed sync covers, in order, each once.
///
/// Opens the stream at the first call and again whenever its link breaks, from where it was, each time with the newest
/// rollback token that its client has. A reader that may see only its
/// own records gets gaps in the seqs; [`Tail::cursor`] counts them as read.
pub struct Tail {
    connector: Arc<dyn Connector>,
    options: Options,
    shard: ShardId,
    /// Tells the newest rollback token that the client has of the shard.
    token: TokenSource,
    random: IdSource,
    source: Option<Box<dyn TailSource>>,
    /// The next seq that is wanted.
    next: Seq,
    /// The epoch of the record before it; see [`Cursor::epoch`].
    epoch: Epoch,
    /// The epoch of the record before the last frame.
    epoch_before: Epoch,
    /// The highest epoch that an engine of version 1 has spoken from.
    spoken: Epoch,
    /// Records of the last frame, and how many of them have been given out.
    records: Vec<Record>,
    given: usize,
    first: Seq,
    failures: u32,
}

/// Tells the newest rollback token of a shard.
pub(crate) type TokenSource = Box<dyn Fn() -> Option<Token> + Send + Sync>;

/// Why a tail cannot go on. All but a refusal mean that this cursor has no future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// The engine no longer keeps the wanted seq.
    #[error("seq {wanted} of shard {shard} is gone; the oldest that is left is {oldest}")]
    Lost {
        /// Which shard.
        shard: ShardId,
        /// Where the cursor stands.
        wanted: Seq,
        /// The first seq that can still be had.
        oldest: Seq,
    },
    /// The engine has not come that far: the cursor belongs to another history.
    #[error(
        "the cursor stands at seq {wanted} of shard {shard}, but the engine has synced only up to {synced}"
    )]
    Ahead {
        /// Which shard.
        shard: ShardId,
        /// Where the cursor stands.
        wanted: Seq,
        /// How far the engine has come.
        synced: Seq,
    },
    /// The record before the cursor is not the one that this reader has: the engine was restored from a backup, and part of
    /// what was read is not in its log any more.
    #[error(
        "the engine was restored: what was read of shard {shard} from seq {from} on was lost there, and the cursor stands at seq {wanted} after epoch {epoch}; put back what is kept of this reader from before seq {from}, or begin it anew"
    )]
    Parted {
        /// Which shard.
        shard: ShardId,
        /// Where the cursor stands.
        wanted: Seq,
        /// The epoch of the record before it, as it was read.
        epoch: Epoch,
        /// From here on, at the latest, the engine has other records, or none.
        from: Seq,
    },
    /// The engine refuses this client.
    #[error("the change stream of shard {shard} is refused: {error}")]
    Refused {
        /// Which shard.
        shard: ShardId,
        /// Why.
        error: OpenError,
    },
    /// The engine sent records that do not follow the ones before.
    #[error("the change stream of shard {shard} jumped from seq {expected} back to {found}")]
    OutOfOrder {
        /// Which shard.
        shard: ShardId,
        /// The least seq that could have come.
        expected: Seq,
        /// What came.
        found: Seq,
    },
    /// The engine is in an epoch before one that this tail has seen: it came back with older data, so its history is
    /// another one, and what follows the cursor there need not follow what was given out.
    #[error(
        "shard {shard} speaks from epoch {found}, but it has been in epoch {seen}: its history is another one"
    )]
    OtherHistory {
        /// Which shard.
        shard: ShardId,
        /// The highest epoch so far.
        seen: Epoch,
        /// What came.
        found: Epoch,
    },
}

/// The records of one frame.
#[derive(Clone, Copy, Debug)]
pub struct TailBatch<'a> {
    /// Seq of the first record.
    pub first: Seq,
    /// Consecutive records; none in a heartbeat.
    pub records: &'a [Record],
    /// Everything up to here has been delivered or is not for this reader.
    pub through: Seq,
    /// The epoch of these records, and of the record `through`; 0 if the engine does not tell.
    pub epoch: Epoch,
}

impl TailBatch<'_> {
    /// Where to come back with after this frame.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor { next: self.through.next(), epoch: self.epoch }
    }
}

impl Tail {
    pub(crate) fn new(
        connector: Arc<dyn Connector>,
        options: Options,
        shard: ShardId,
        from: Cursor,
        token: TokenSource,
    ) -> Self {
        let next = from.next.max(Seq(1));
        Self {
            connector,
            options,
            shard,
            token,
            random: IdSource::new(),
            source: None,
            next,
            epoch: from.epoch,
            epoch_before: from.epoch,
            spoken: Epoch(0),
            records: Vec::new(),
            given: 0,
            first: next,
            failures: 0,
        }
    }

    /// Where to come back with after a restart: everything before has been given out or is not for this reader.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        if self.given < self.records.len() { Seq(self.first.0 + self.given as u64) } else { self.next }
    }

    /// The cursor with the epoch that makes it name a record: what a reader keeps.
    #[must_use]
    pub fn position(&self) -> Cursor {
        let is_untouched = self.given == 0 && !self.records.is_empty();
        let epoch = if is_untouched { self.epoch_before } else { self.epoch };
        Cursor { next: self.cursor(), epoch }
    }

    /// The epoch of the last record that was read; 0 if the engine has not told.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Waits for the next record. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// [`TailError`]; broken links are not errors.
    pub async fn next(&mut self) -> Result<(Seq, Record), TailError> {
        while self.given >= self.records.len() {
            self.read_frame().await?;
        }
        let position = self.given;
        self.given += 1;
        Ok((Seq(self.first.0 + position as u64), self.records[position]))
    }

    /// Waits for the next frame, which may be a heartbeat without records. The cursor moves past it at once. Not to be
    /// mixed with [`Tail::next`] inside one frame: what that has not given out is given out here first.
    ///
    /// # Errors
    /// [`TailError`]; broken links are not errors.
    pub async fn next_batch(&mut self) -> Result<TailBatch<'_>, TailError> {
        if self.given >= self.records.len() {
            self.read_frame().await?;
        }
        let (first, given) = (Seq(self.first.0 + self.given as u64), self.given);
        self.given = self.records.len();
        let through = Seq(self.next.0 - 1);
        Ok(TailBatch { first, records: &self.records[given..], through, epoch: self.epoch })
    }

    async fn read_frame(&mut self) -> Result<(), TailError> {
        loop {
            self.open().await?;
            let Some(source) = &mut self.source else { continue };
            self.records.clear();
            self.given = 0;
            let records = &mut self.records;
            match poll_fn(|cx| source.poll_next(cx, records)).await {
                Ok((head, status)) => {
                    let version = source.version();
                    return self.take(head, status, version);
                }
                Err(closed) => {
                    self.records.clear();
                    self.source = None;
                    let error = OpenError::Closed(closed);
                    if error.is_refusal() {
                        return Err(TailError::Refused { shard: self.shard, error });
                    }
                    self.failures += 1;
                }
            }
        }
    }

    fn take(&mut self, head: TailHead, status: TailStatus, version: u16) -> Result<(), TailError> {
        let (shard, wanted) = (self.shard, self.next);
        if status != TailStatus::Records {
            self.records.clear();
            self.source = None;
        }
        match status {
            TailStatus::Lost => return Err(TailError::Lost { shard, wanted, oldest: head.first }),
            TailStatus::Ahead => return Err(TailError::Ahead { shard, wanted, synced: head.through }),
            TailStatus::Parted => {
                return Err(TailError::Parted { shard, wanted, epoch: self.epoch, from: head.first });
            }
            TailStatus::Records => {}
        }
        let tells_of_records = version >= CURSORS_HAVE_EPOCHS;
        if let Some(seen) = self.left_behind(head.epoch, tells_of_records) {
            self.records.clear();
            self.source = None;
            return Err(TailError::OtherHistory { shard, seen, found: head.epoch });
        }
        let after = head.first.0 + self.records.len() as u64;
        let is_heartbeat = self.records.is_empty();
        if !is_heartbeat && head.first < wanted {
            self.records.clear();
            self.source = None;
            return Err(TailError::OutOfOrder { shard, expected: wanted, found: head.first });
        }
        self.failures = 0;
        self.first = if is_heartbeat { wanted } else { head.first };
        let delivered = if is_heartbeat { wanted } else { Seq(after) };
        self.next = delivered.max(head.through.next());
        let epoch = if tells_of_records {
            head.epoch
        } else {
            self.spoken = head.epoch;
            Epoch(0)
        };
        self.epoch_before = self.epoch;
        // What is known of the record before the cursor stays so where nobody tells and the cursor has not moved.
        if epoch != Epoch(0) || self.next != wanted {
            self.epoch = epoch;
        }
        Ok(())
    }

    /// The epoch that an engine has been in, if the one that it tells now is before that.
    fn left_behind(&self, told: Epoch, tells_of_records: bool) -> Option<Epoch> {
        if sabotage!("another-history-followed") {
            return None;
        }
        if !tells_of_records {
            return Some(self.spoken).filter(|spoken| told < *spoken);
        }
        // What was never noted is no epoch, and nothing is compared with it.
        let is_known = self.epoch != Cursor::ANEW && told != Epoch(0);
        Some(self.epoch).filter(|seen| is_known && told < *seen)
    }

    async fn open(&mut self) -> Result<(), TailError> {
        if self.source.is_some() {
            return Ok(());
        }
        if self.failures > 0 {
            tokio::time::sleep(self.backoff()).await;
        }
        let token = (self.token)();
        let from = Cursor { next: self.next, epoch: self.epoch };
        let opened = self.connector.subscribe(self.shard, from, token.as_slice()).await;
        match opened {
            Ok(source) => self.source = Some(source),
            Err(error) if error.is_refusal() => {
                return Err(TailError::Refused { shard: self.shard, error });
            }
            Err(_) => self.failures += 1,
        }
        Ok(())
    }

    fn backoff(&self) -> Duration {
        self.options.backoff(self.failures, self.random.random())
    }
}
