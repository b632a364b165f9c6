//! The change stream of every shard, as one source: synced records only, each shard in order.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;

use settlement::Positions;
use surety_client::{Client, Tail, TailBatch, TailError};
use surety_protocol::{Cursor, Epoch, Kind, LossBody, Record, Seq, ShardId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames that wait to be read, for each shard.
const FRAMES: usize = 8;
/// How long a record that must be there may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the stream cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The cursor has no future, or the engine refuses it.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// The engine goes on after a loss: what was settled in the life that is lost may not be in its books.
    #[error(
        "shard {shard}: the engine goes on from a backup, and what it had decided after seq {after} is lost: batches, withdrawals and \
         guarantees of that time may be on chain and not in its books. This settler does not settle behind a loss: pause the contract as its \
         guardian, and read \"After a loss\" in the runbook"
    )]
    AfterLoss {
        /// Which shard.
        shard: ShardId,
        /// The last record that was kept.
        after: Seq,
    },
    /// The engine does not tell what it must have.
    #[error("shard {0} of the engine does not tell the records that it must have")]
    Silent(ShardId),
}

/// Consecutive records of one epoch.
struct Batch {
    first: Seq,
    records: Vec<Record>,
    epoch: Epoch,
}

type Frame = Result<Batch, TailError>;

/// All shards, each from a position of its own.
#[derive(Debug)]
pub(crate) struct Stream {
    shards: Vec<Shard>,
    losses: Losses,
}

/// What is done where an engine goes on after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Losses {
    /// Nothing behind it is read: what is on chain may not be in the books.
    Stop,
    /// It is read over: somebody has compared, or nothing depends on it.
    Pass,
}

#[derive(Debug)]
struct Shard {
    frames: mpsc::Receiver<Frame>,
    ready: VecDeque<(Seq, Record, Epoch)>,
    /// The epoch of the record that was taken last; 0 if it is not known.
    epoch: Epoch,
    /// Why nothing more comes.
    failure: Option<TailError>,
    reader: JoinHandle<()>,
}

impl Stream {
    /// Follows every shard from behind its position. `epochs` are those of the records there; of shards that it lacks they are not
    /// known.
    pub(crate) fn open(client: &Client, positions: &Positions, epochs: &[Epoch], losses: Losses) -> Self {
        let epochs = epochs.iter().copied().chain(std::iter::repeat(Epoch(0)));
        let open = |((shard, seq), epoch): ((u16, &Seq), Epoch)| {
            let cursor = Cursor { next: seq.next(), epoch };
            Shard::open(client.tail(ShardId(shard), cursor), epoch)
        };
        Self { shards: (0..).zip(&positions.0).zip(epochs).map(open).collect(), losses }
    }

    /// The epoch of the record of each shard that was taken last: with its position it names that record.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.shards.iter().map(|shard| shard.epoch).collect()
    }

    /// The next record that is there already.
    pub(crate) fn take(&mut self) -> Result<Option<(ShardId, Seq, Record)>, StreamError> {
        for (number, shard) in (0..).zip(&mut self.shards) {
            if let Some((seq, record)) = shard.take(ShardId(number), self.losses)? {
                return Ok(Some((ShardId(number), seq, record)));
            }
        }
        Ok(None)
    }

    /// The next record of one shard.
    pub(crate) async fn next_of(&mut self, shard: ShardId) -> Result<(Seq, Record), StreamError> {
        let losses = self.losses;
        let source = self.shards.get_mut(usize::from(shard.0)).ok_or(StreamError::Silent(shard))?;
        loop {
            if let Some(next) = source.take(shard, losses)? {
                return Ok(next);
            }
            match tokio::time::timeout(PATIENCE, source.frames.recv()).await {
                Ok(Some(frame)) => source.accept(frame),
                Ok(None) | Err(_) => return Err(StreamError::Silent(shard)),
            }
        }
    }

    /// Waits until there is something to take, of whichever shard.
    pub(crate) async fn wait(&mut self) {
        if self.shards.iter().any(|shard| !shard.ready.is_empty() || shard.failure.is_some()) {
            return;
        }
        std::future::poll_fn(|cx| {
            for shard in &mut self.shards {
                if let Poll::Ready(Some(frame)) = shard.frames.poll_recv(cx) {
                    shard.accept(frame);
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl Shard {
    fn open(mut tail: Tail, epoch: Epoch) -> Self {
        let (sender, frames) = mpsc::channel(FRAMES);
        let read = async move {
            loop {
                let frame = match tail.next_batch().await {
                    Ok(batch) if batch.records.is_empty() => continue,
                    Ok(TailBatch { first, records, epoch, .. }) => {
                        Ok(Batch { first, records: records.to_vec(), epoch })
                    }
                    Err(error) => Err(error),
                };
                let is_over = frame.is_err();
                if sender.send(frame).await.is_err() || is_over {
                    return;
                }
            }
        };
        Self { frames, ready: VecDeque::new(), epoch, failure: None, reader: tokio::spawn(read) }
    }

    fn take(&mut self, shard: ShardId, losses: Losses) -> Result<Option<(Seq, Record)>, StreamError> {
        if self.ready.is_empty()
            && let Ok(frame) = self.frames.try_recv()
        {
            self.accept(frame);
        }
        // It stays in front, so that nothing behind it is ever read.
        if let Some((_, record, _)) = self.ready.front()
            && record.kind() == Some(Kind::Loss)
            && losses == Losses::Stop
        {
            return Err(StreamError::AfterLoss { shard, after: record.body::<LossBody>().after });
        }
        match (self.ready.pop_front(), self.failure) {
            (Some((seq, record, epoch)), _) => {
                self.epoch = epoch;
                Ok(Some((seq, record)))
            }
            (None, Some(failure)) => Err(failure.into()),
            (None, None) => Ok(None),
        }
    }

    fn accept(&mut self, frame: Frame) {
        match frame {
            Ok(Batch { first, records, epoch }) => {
                let numbered = (first.0..).map(Seq).zip(records);
                self.ready.extend(numbered.map(|(seq, record)| (seq, record, epoch)));
            }
            Err(failure) => self.failure = Some(failure),
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
