//! What states and signs: records in, certificates on the shelf.

use std::collections::BTreeSet;
use std::sync::Arc;

use alloy_primitives::B256;
use chain::DigestSigner;
use settlement::{Book, Domain, KeptLock, LOCK_GROUP_MAX, LockGroup, LockId, Unstated};
use surety_protocol::{Kind, Record, Seq, ShardId};

use super::shelf::{Mark, Shelf, ShelfError};
use crate::error::SettlerError;

/// A certified lock that has no certificate: somebody should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Which lock.
    pub lock: LockId,
    /// Why not.
    pub why: Unstated,
}

/// Reads records, and signs what they state in groups.
///
/// The book holds few locks: all others are laid aside on the shelf, and taken up again when a record is about one of them.
pub struct Desk {
    signer: Box<dyn DigestSigner + Send>,
    domain: Domain,
    book: Book,
    shelf: Arc<Shelf>,
    /// Certified locks that the book may have.
    locks_in_memory: usize,
    /// Locks of the book of which the shelf does not have all.
    altered: BTreeSet<LockId>,
    /// Each lock as it was when this was stated of it: what changes it later is behind the statement, and may never be read again.
    stated: Vec<KeptLock>,
    missed: Vec<Missed>,
}

impl Desk {
    /// Goes on from a book.
    #[must_use]
    pub fn new(
        signer: Box<dyn DigestSigner + Send>,
        domain: Domain,
        book: Book,
        shelf: Arc<Shelf>,
        locks_in_memory: usize,
    ) -> Self {
        let (altered, stated, missed) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { signer, domain, book, shelf, locks_in_memory, altered, stated, missed }
    }

    /// Takes the next record of a shard.
    ///
    /// # Errors
    /// [`SettlerError::Shelf`].
    ///
    /// # Panics
    /// Never: a book keeps the lock of which it has just stated something.
    pub fn read(&mut self, shard: ShardId, seq: Seq, record: &Record) -> Result<(), SettlerError> {
        if let Some(lock) = self.book.wanted(shard, seq, record) {
            self.take_up(&lock)?;
            if record.kind() == Some(Kind::Decrease) && self.book.is_certified(&lock) {
                self.altered.insert(lock);
            }
        }
        let why = self.book.unstated(shard, seq, record);
        let stated = self.book.read(shard, seq, record);
        match (stated, why) {
            (Some(statement), None) => {
                self.stated.push(*self.book.kept(&statement.lock).expect("what is stated is kept"));
            }
            (_, Some((lock, why))) => {
                if record.kind() == Some(Kind::Lock) {
                    // Without a price it would state nothing.
                    self.book.drop_lock(&lock);
                }
                self.missed.push(Missed { lock, why });
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// True if nothing waits to be signed or told.
    pub(super) const fn is_idle(&self) -> bool {
        self.stated.is_empty() && self.missed.is_empty()
    }

    /// Goes on behind records of a shard that nobody can read any more. Says which certificates of them, handed out before the last start,
    /// came back on the shelf.
    ///
    /// # Errors
    /// [`SettlerError::Shelf`].
    ///
    /// # Panics
    /// If something was stated and not signed.
    pub fn lose(&mut self, shard: ShardId, from: Seq, end: Seq) -> Result<Vec<LockId>, SettlerError> {
        // What comes back is newer than what the book has.
        self.lay_aside()?;
        let restored = self.shelf.restore(shard, from)?;
        self.book.lose(shard, end, restored.through);
        Ok(restored.locks)
    }

    /// Signs what was stated, and puts it on the shelf. Says of which locks there is a new certificate, and of which there is none.
    ///
    /// # Errors
    /// The key does not sign, or the shelf cannot be written: what was stated is stated again after a restart.
    ///
    /// # Panics
    /// Never: no group is empty, or too large.
    pub fn sign(&mut self) -> Result<(Vec<LockId>, Vec<Missed>), SettlerError> {
        let mut stated = std::mem::take(&mut self.stated);
        let made = stated.iter().map(|kept| kept.statement().lock).collect();
        for kept in stated.chunks_mut(LOCK_GROUP_MAX) {
            // The order of the group, since the shelf makes the paths of what it holds.
            kept.sort_by_key(|kept| (kept.statement().shard, kept.statement().seq));
            let statements = kept.iter().map(|kept| *kept.statement()).collect();
            let group = LockGroup::new(statements).expect("as many as a group may hold");
            let signature = self.signer.sign(&B256::from(group.digest(&self.domain)))?;
            self.shelf.put(kept.to_vec(), signature)?;
        }
        if self.book.certified_len() > self.locks_in_memory {
            self.lay_aside()?;
        }
        Ok((made, std::mem::take(&mut self.missed)))
    }

    /// Signs again what the book states: of a directory that kept no signatures.
    pub(super) fn sign_all(&mut self) -> Result<(), SettlerError> {
        let kept = self.book.certified().map(|statement| self.book.kept(&statement.lock).copied());
        self.stated = kept.flatten().collect();
        self.sign().map(drop)
    }

    /// Leaves nothing in memory that the shelf does not have, and makes that durable. Everything that was stated must be signed.
    ///
    /// # Errors
    /// [`SettlerError::Shelf`].
    ///
    /// # Panics
    /// If something was stated and not signed: it would never be.
    pub fn save(&mut self) -> Result<Mark, SettlerError> {
        self.lay_aside()?;
        Ok(self.shelf.sync()?)
    }

    /// Merchants, prices, and the locks that are not laid aside.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    pub(super) const fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    pub(super) fn signer(&self) -> alloy_primitives::Address {
        self.signer.address()
    }

    fn take_up(&mut self, lock: &LockId) -> Result<(), ShelfError> {
        if self.book.is_certified(lock) {
            return Ok(());
        }
        if let Some(kept) = self.shelf.kept(lock)? {
            self.book.take_up(kept);
        }
        Ok(())
    }

    fn lay_aside(&mut self) -> Result<(), ShelfError> {
        assert!(self.stated.is_empty(), "nothing is passed by that was stated and not signed");
        for lock in std::mem::take(&mut self.altered) {
            if let Some(kept) = self.book.kept(&lock) {
                self.shelf.keep(kept)?;
            }
        }
        self.book.lay_aside();
        Ok(())
    }
}

impl core::fmt::Debug for Desk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Desk").field("signer", &self.signer()).finish_non_exhaustive()
    }
}
