//! The book of totals as a link uses it: filled by those who follow the change stream, kept in a file, asked by acquirers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::try_join_all;
use iso8583::payment::{Day, Figures, Refusal, Rules, Statement};
use parking_lot::Mutex;
use surety_client::protocol::{Cursor, Id, PartitionHandle, Seq, ShardId, Time};
use surety_client::{Client, TailBatch, TailError};

use crate::book::{Book, Owner};
use crate::book_file::{BookError, Claim};

pub(crate) struct Books {
    file: Option<PathBuf>,
    book: Mutex<Book>,
    /// There was no file: the first day begins now, whatever the engine has seen before.
    is_new: bool,
    /// What is in the file. Held while it is written, so that an older book never replaces a newer one.
    saved: Mutex<Option<Book>>,
    /// Whoever holds this writes the file; nobody after it is let go.
    claim: Mutex<Option<Claim>>,
}

impl Books {
    /// With a file, days end with cutovers; the first one begins with the first start, and has its date.
    pub(crate) fn open(
        file: Option<PathBuf>,
        owner: &Owner,
        shards: u16,
        now: Time,
    ) -> Result<Self, BookError> {
        let Some(path) = &file else {
            let book = Mutex::new(Book::of_calendar(owner.clone(), shards));
            return Ok(Self { file, book, is_new: false, saved: Mutex::new(None), claim: Mutex::new(None) });
        };
        // Before anything is read: another might still be writing it.
        let claim = Mutex::new(Some(Claim::take(path)?));
        let kept = Book::load(path, owner)?.map(|book| book.for_shards(shards));
        let (is_new, saved) = (kept.is_none(), Mutex::new(kept.clone()));
        let book = kept.unwrap_or_else(|| Book::of_cutovers(owner.clone(), shards, Day::of(now)));
        Ok(Self { file, book: Mutex::new(book), is_new, saved, claim })
    }

    /// What a shard has acknowledged before the link is served. A new book begins behind that.
    pub(crate) fn begin(&self, shard: ShardId, acked: Seq) {
        if self.is_new {
            self.book.lock().begin_after(shard, acked);
        }
    }

    /// Writes a new book, once it has begun in every shard: whatever is answered from now on is counted in its first day.
    pub(crate) fn begun(&self) -> Result<(), BookError> {
        let Some(file) = self.file.as_ref().filter(|_| self.is_new) else { return Ok(()) };
        let mut saved = self.saved.lock();
        let book = self.book.lock().clone();
        book.save(file)?;
        *saved = Some(book);
        Ok(())
    }

    pub(crate) fn observe(&self, shard: ShardId, batch: &TailBatch<'_>) {
        let mut book = self.book.lock();
        book.observe(shard, batch.first, batch.records, batch.through);
        book.note_epoch(shard, batch.cursor());
    }

    /// Where a book that was on file has come to in each shard of which it has counted anything.
    pub(crate) fn counted(&self) -> Vec<(ShardId, Cursor)> {
        if self.file.is_none() || self.is_new {
            return Vec::new();
        }
        let book = self.book.lock();
        let cursors = (0..).map(ShardId).map_while(|shard| Some((shard, book.cursor(shard)?)));
        cursors.filter(|(_, cursor)| cursor.next > Seq(1)).collect()
    }

    /// Refuses a book that has counted what the engine does not have, or not any more. All shards are asked at once: one in which
    /// nothing happens answers after a second.
    pub(crate) async fn compare(
        &self,
        client: &Client,
        counted: Vec<(ShardId, Cursor)>,
    ) -> Result<(), BookError> {
        let Some(file) = &self.file else { return Ok(()) };
        let compare = async |(shard, cursor)| match client.tail(shard, cursor).next_batch().await {
            Err(TailError::Parted { from, .. }) => Err(BookError::Parted { file: file.clone(), shard, from }),
            Err(TailError::Ahead { .. }) => Err(BookError::Foreign { file: file.clone() }),
            // Whatever else there is the stream that is read says, too.
            _ => Ok(()),
        };
        try_join_all(counted.into_iter().map(compare)).await.map(drop)
    }

    pub(crate) fn forget(&self, shard: ShardId, oldest: Seq) {
        self.book.lock().forget(shard, oldest);
    }

    /// Writes what is new. A book that cannot be written is told, and counted on in memory: the change stream still has it all.
    pub(crate) async fn save(self: &Arc<Self>) {
        let Some(file) = self.file.clone() else { return };
        let books = self.clone();
        let saving = tokio::task::spawn_blocking(move || {
            let mut saved = books.saved.lock();
            let book = books.book.lock().clone();
            if saved.as_ref() == Some(&book) || books.claim.lock().is_none() {
                return Ok(());
            }
            book.save(&file)?;
            *saved = Some(book);
            Ok::<(), BookError>(())
        });
        if let Ok(Err(error)) = saving.await {
            tracing::error!(%error, "totals are not written");
        }
    }

    /// Writes no more: the file may be another's from now on.
    pub(crate) fn close(&self) {
        let _writing = self.saved.lock();
        drop(self.claim.lock().take());
    }

    /// Begins the next business day, and is done once that is in the file. The present day then; none was begun by a repeat.
    pub(crate) async fn cut(
        self: &Arc<Self>,
        id: Id,
        day: Option<Day>,
        acked: Vec<Seq>,
        now: Time,
    ) -> Result<Day, Refusal> {
        let file = self.file.clone().ok_or(Refusal::Unsupported)?;
        let books = self.clone();
        let cutting = tokio::task::spawn_blocking(move || {
            let mut saved = books.saved.lock();
            if books.claim.lock().is_none() {
                return Err(Refusal::NotAvailable);
            }
            // Nothing is counted meanwhile: what was not cut durably must not be counted as if it were.
            let mut book = books.book.lock();
            let mut cut = book.clone();
            if cut.cut(id, day, &acked, now)? {
                cut.save(&file).map_err(|error| {
                    tracing::error!(%error, "no cutover");
                    Refusal::Fault
                })?;
                *saved = Some(cut.clone());
                *book = cut;
            }
            Ok(book.present(now))
        });
        cutting.await.unwrap_or(Err(Refusal::Fault))
    }

    /// Where something was counted.
    pub(crate) fn partitions(&self) -> BTreeSet<PartitionHandle> {
        self.book.lock().totals.keys().map(|(_, partition)| *partition).collect()
    }

    /// The figures that a statement is about, with their day and currency.
    pub(crate) fn figures(
        &self,
        statement: &Statement,
        rules: &Rules,
        now: Time,
    ) -> Result<((Day, u16), Figures), Refusal> {
        let (currency, scale) = rules.currency_of(statement)?;
        let book = self.book.lock();
        let day = statement.day.unwrap_or_else(|| book.closed(now));
        let totals = book.totals(day, now, |partition| rules.held_in(partition) == Some(currency))?;
        let figures = Figures::of(&totals, scale).ok_or(Refusal::Fault)?;
        Ok(((day, currency), figures))
    }
}
