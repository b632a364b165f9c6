//! The certificate service: reads the synced change stream, signs what it states in groups, and hands certificates out.
//!
//! It stands beside the engine and costs it nothing but a reader of its stream. What it must not forget is a book of merchants,
//! prices and certified locks, which a file keeps; a signature that is lost is made again.

mod checkpoint;
mod counter;
mod shelf;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use chain::DigestSigner;
use settlement::{Book, CertifiedLock, Domain, LOCK_GROUP_MAX, LockGroup, LockId, Positions};
use storage::DirectoryLock;
use surety_client::Client;
use surety_protocol::{Address, Seq, Time, Token};

use crate::contract::Place;
use crate::error::SettlerError;
use crate::stream::Stream;
use checkpoint::Checkpoint;

pub use counter::Counter;
pub use shelf::Shelf;

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
}

/// Signs what the stream states.
pub struct Certifier {
    config: CertifierConfig,
    client: Client,
    signer: Box<dyn DigestSigner + Send>,
    domain: Domain,
    book: Book,
    positions: Positions,
    stream: Stream,
    shelf: Arc<Shelf>,
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
        std::fs::create_dir_all(&config.directory)?;
        let lock = DirectoryLock::acquire(&config.directory)?;
        let hello = client.hello();
        let contract = Address(config.place.manager.into_array());
        let domain = Domain { chain_id: config.place.chain_id, contract, engine: hello.engine };
        let begin = || Checkpoint {
            separator: domain.separator(),
            positions: Positions(vec![Seq(0); usize::from(hello.shards)]),
            book: Book::default(),
            tokens: Vec::new(),
        };
        let Checkpoint { separator, positions, book, .. } =
            Checkpoint::read(&config.directory)?.unwrap_or_else(begin);
        if separator != domain.separator() || positions.0.len() != usize::from(hello.shards) {
            return Err(SettlerError::Foreign);
        }
        let stream = Stream::open(&client, &positions);
        let shelf = Arc::new(Shelf::new(domain));
        let saved = Instant::now();
        let certifier =
            Self { config, client, signer, domain, book, positions, stream, shelf, saved, _lock: lock };
        // What was signed before the restart is signed again.
        let known: Vec<CertifiedLock> = certifier.book.certified().collect();
        certifier.sign(known)?;
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

    /// Reads what the stream has, and signs what that states. Says of which locks there is a new certificate: whoever keeps
    /// certificates elsewhere does so before the next [`Certifier::save`], since what is before a checkpoint is not read again.
    ///
    /// # Errors
    /// [`SettlerError`]; what was stated and not signed is stated again after a restart.
    pub fn turn(&mut self) -> Result<Vec<LockId>, SettlerError> {
        let mut stated = Vec::new();
        for _ in 0..RECORDS_AT_ONCE {
            let Some((shard, seq, record)) = self.stream.take()? else { break };
            if let Some(position) = self.positions.0.get_mut(usize::from(shard.0)) {
                *position = seq;
            }
            stated.extend(self.book.read(shard, seq, &record));
        }
        let made = stated.iter().map(|statement| statement.lock).collect();
        self.sign(stated)?;
        Ok(made)
    }

    /// True if it is time for [`Certifier::save`].
    #[must_use]
    pub fn is_save_due(&self) -> bool {
        self.saved.elapsed() >= self.config.checkpoint_every
    }

    /// Waits until the stream has something, or for so long.
    pub async fn wait(&mut self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.stream.wait()).await;
    }

    /// Forgets what can no longer be called, and notes where a restart goes on.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&mut self) -> Result<(), SettlerError> {
        self.book.forget(self.config.claim_span);
        self.shelf.keep_only(|lock| self.book.is_certified(lock));
        let checkpoint = Checkpoint {
            separator: self.domain.separator(),
            positions: self.positions.clone(),
            book: self.book.clone(),
            tokens: self.client.tokens(),
        };
        checkpoint.write(&self.config.directory)?;
        self.saved = Instant::now();
        Ok(())
    }

    fn sign(&self, stated: Vec<CertifiedLock>) -> Result<(), SettlerError> {
        for statements in stated.chunks(LOCK_GROUP_MAX) {
            let Ok(group) = LockGroup::new(statements.to_vec()) else { continue };
            let signature = self.signer.sign(&B256::from(group.digest(&self.domain)))?;
            self.shelf.put(group, signature);
        }
        Ok(())
    }
}

impl core::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Certifier")
            .field("directory", &self.config.directory)
            .field("signer", &self.signer.address())
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}
