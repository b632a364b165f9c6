//! The certificate service: reads the synced change stream, signs what it states in groups, and hands certificates out.
//!
//! It stands beside the engine and costs it nothing but a reader of its stream. What it must not forget is a book of merchants
//! and prices, and a shelf of certificates, which files keep; what is behind the last checkpoint is made again.

mod chain_check;
mod checkpoint;
mod counter;
mod desk;
mod shelf;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chain::DigestSigner;
use settlement::{Book, Domain, LockId, Positions};
use storage::DirectoryLock;
use surety_client::{Client, TailError};
use surety_protocol::{Address, Cursor, PartitionRow, Seq, ShardId, StateKind, StateQuery, Time, Token};

use crate::contract::Place;
use crate::durable;
use crate::error::SettlerError;
use crate::stream::{Losses, Stream, StreamError};
use checkpoint::Checkpoint;

pub use counter::Counter;
pub use desk::{Desk, Missed};
pub use shelf::{Extent, Mark, Restored, Shelf, ShelfError};

/// Records that are read before what they state is signed.
const RECORDS_AT_ONCE: usize = 1 << 14;

/// What a certificate service is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifierConfig {
    /// Its own directory, made if it is not there.
    pub directory: PathBuf,
    /// The contract that certificates are for.
    pub place: Place,
    /// How long after its deadline a lock's certificate is kept.
    pub claim_span: Time,
    /// Between two checkpoints: so much of the stream is read again after a crash.
    pub checkpoint_every: Duration,
    /// Locks that memory knows: those of the book, and those of the shelf's newest segment. About 400 bytes for each.
    pub locks_in_memory: usize,
}

/// Part of a shard's stream that the engine no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which shard.
    pub shard: ShardId,
    /// The first record that is missing.
    pub from: Seq,
    /// The first that is there.
    pub oldest: Seq,
}

/// What one turn came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertifierTurn {
    /// Locks of which there is a new certificate.
    pub made: Vec<LockId>,
    /// Certified locks of which there is none.
    pub missed: Vec<Missed>,
}

/// Signs what the stream states.
pub struct Certifier {
    config: CertifierConfig,
    client: Client,
    domain: Domain,
    desk: Desk,
    positions: Positions,
    stream: Stream,
    shelf: Arc<Shelf>,
    /// The directory is of a version that kept no signatures.
    is_unsigned: bool,
    /// Since then much of the stream is passed by that the last checkpoint would read again.
    has_lost: bool,
    saved: Instant,
    _lock: DirectoryLock,
}

impl Certifier {
    /// Goes on from a directory, or begins in an empty one. The client may read the whole stream.
    ///
    /// # Errors
    /// [`SettlerError`].
    pub fn open(
        config: CertifierConfig,
        client: Client,
        signer: Box<dyn DigestSigner + Send>,
    ) -> Result<Self, SettlerError> {
        durable::make_directory(&config.directory)?;
        let lock = DirectoryLock::acquire(&config.directory)?;
        let hello = client.hello();
        let contract = Address(config.place.manager.into_array());
        let domain = Domain { chain_id: config.place.chain_id, contract, engine: hello.engine };
        let shards = usize::from(hello.shards);
        let found = Checkpoint::read(&config.directory)?;
        let is_ours =
            |found: &Checkpoint| found.separator == domain.separator() && found.positions.0.len() == shards;
        if found.as_ref().is_some_and(|found| !is_ours(found)) {
            return Err(SettlerError::Foreign);
        }
        let is_new = found.is_none();
        let (positions, epochs, book, mark) = match found {
            Some(found) => (found.positions, found.epochs, found.book, found.mark),
            None => (Positions(vec![Seq(0); shards]), Vec::new(), Book::default(), None),
        };
        let is_unsigned = !is_new && mark.is_none();
        if is_unsigned {
            // Left by a first turn that was killed: the book has all of it.
            Shelf::clear(&config.directory)?;
        }
        let shelf = Arc::new(Shelf::open(&config.directory, domain, config.locks_in_memory, mark)?);
        let desk = Desk::new(signer, domain, book, shelf.clone(), config.locks_in_memory);
        // What it signs is what the records behind a loss say, whatever was lost.
        let stream = Stream::open(&client, &positions, &epochs, Losses::Pass);
        let saved = Instant::now();
        let mut certifier = Self {
            config,
            client,
            domain,
            desk,
            positions,
            stream,
            shelf,
            is_unsigned,
            has_lost: false,
            saved,
            _lock: lock,
        };
        if is_new {
            // From now on a shelf without a book is damage.
            certifier.save()?;
        }
        Ok(certifier)
    }

    /// The rollback tokens that a service has left in its directory, for `Client::over`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn tokens(directory: &std::path::Path) -> Result<Vec<Token>, SettlerError> {
        Ok(Checkpoint::read(directory)?.map_or_else(Vec::new, |checkpoint| checkpoint.tokens))
    }

    /// Where its certificates are to be had.
    #[must_use]
    pub fn shelf(&self) -> Arc<Shelf> {
        self.shelf.clone()
    }

    /// How far each shard was read.
    #[must_use]
    pub const fn positions(&self) -> &Positions {
        &self.positions
    }

    /// How long ago the last checkpoint was written.
    #[must_use]
    pub fn checkpoint_age(&self) -> Duration {
        self.saved.elapsed()
    }

    /// Reads what the stream has, and signs what that states. Whoever keeps certificates elsewhere does so before the next
    /// [`Certifier::save`], since what is before a checkpoint is not read again.
    ///
    /// # Errors
    /// [`SettlerError`]; what was stated and not signed is stated again after a restart. [`SettlerError::Gap`] if the engine has
    /// dropped records that were not read: see [`Certifier::accept`].
    pub fn turn(&mut self) -> Result<CertifierTurn, SettlerError> {
        if self.is_unsigned {
            self.desk.sign_all()?;
            self.save()?;
            self.is_unsigned = false;
        }
        for _ in 0..RECORDS_AT_ONCE {
            let (shard, seq, record) = match self.stream.take() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                // What was read before comes first: the stream says it again.
                Err(_) if !self.desk.is_idle() => break,
                Err(StreamError::Tail(TailError::Lost { shard, wanted, oldest })) => {
                    return Err(SettlerError::Gap(Gap { shard, from: wanted, oldest }));
                }
                Err(error) => return Err(error.into()),
            };
            self.desk.read(shard, seq, &record)?;
            if let Some(position) = self.positions.0.get_mut(usize::from(shard.0)) {
                *position = seq;
            }
        }
        let (made, missed) = self.desk.sign()?;
        Ok(CertifierTurn { made, missed })
    }

    /// Goes on behind a gap, and says which certificates came back that were handed out of the records in it or behind it, before this
    /// service was ended. No other lock that was made or raised in it gets a certificate by that, no merchant is known until it is set
    /// again, and no price until it is told again: what that leaves without a certificate is told by the turns that follow.
    ///
    /// A checkpoint is due then.
    ///
    /// # Errors
    /// The engine does not tell its partitions, or the directory cannot be written.
    pub async fn accept(&mut self, gap: Gap) -> Result<CertifierTurn, SettlerError> {
        let rows = self.client.state::<PartitionRow>(StateQuery::new(gap.shard, StateKind::Partitions));
        let unread = |error: surety_client::StateError| SettlerError::Engine(error.to_string());
        let rows = rows.await.map_err(unread)?.all().await.map_err(unread)?;
        let made = self.desk.lose(gap.shard, gap.from, gap.oldest)?;
        for row in rows {
            self.desk.book_mut().learn(row.partition, row.onchain, row.asset);
        }
        if let Some(position) = self.positions.0.get_mut(usize::from(gap.shard.0)) {
            *position = Seq(gap.oldest.0.saturating_sub(1));
        }
        let mut epochs = self.stream.epochs();
        if let Some(epoch) = epochs.get_mut(usize::from(gap.shard.0)) {
            // Nothing of what is before was read: there is nothing to compare, whatever the engine has lost since.
            *epoch = Cursor::ANEW;
        }
        self.stream = Stream::open(&self.client, &self.positions, &epochs, Losses::Pass);
        self.has_lost = true;
        Ok(CertifierTurn { made, missed: Vec::new() })
    }

    /// True if it is time for [`Certifier::save`].
    #[must_use]
    pub fn is_save_due(&self) -> bool {
        self.has_lost || self.saved.elapsed() >= self.config.checkpoint_every
    }

    /// Waits until the stream has something, or for so long.
    pub async fn wait(&mut self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.stream.wait()).await;
    }

    /// Forgets what can no longer be called, and notes where a restart goes on.
    ///
    /// # Errors
    /// The directory cannot be written.
    ///
    /// # Panics
    /// If something was stated and not signed: after a turn that has failed there is no checkpoint.
    pub fn save(&mut self) -> Result<(), SettlerError> {
        self.shelf.forget(|shard| self.desk.book().read_until(shard), self.config.claim_span);
        let mark = self.desk.save()?;
        let checkpoint = Checkpoint {
            separator: self.domain.separator(),
            positions: self.positions.clone(),
            book: self.desk.book().clone(),
            mark: Some(mark),
            tokens: self.client.tokens(),
            epochs: self.stream.epochs(),
        };
        checkpoint.write(&self.config.directory)?;
        self.shelf.sweep(|shard| self.positions.0.get(usize::from(shard.0)).copied().unwrap_or_default())?;
        self.saved = Instant::now();
        self.has_lost = false;
        Ok(())
    }
}

impl core::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Certifier")
            .field("directory", &self.config.directory)
            .field("signer", &self.desk.signer())
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}
