//! The file of a link's book: replaced whole, so that it is always one or the other.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iso8583::payment::{Day, Totals};
use serde::{Deserialize, Serialize};
use surety_client::protocol::{Epoch, Id, PartitionHandle, Seq, ShardId};

use crate::book::{Book, Cut, Owner};

/// Why a book cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The file cannot be read or written.
    #[error("{file}: {error}", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no book.
    #[error("{file}: no book of totals: {reason}", file = file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another link is writing it.
    #[error("{file}: in use by another link", file = file.display())]
    Taken {
        /// Which file.
        file: PathBuf,
    },
    /// It has counted records that the engine gave up in a restore.
    #[error(
        "{file}: the engine was restored, and what this book counts of shard {shard} from seq {from} on was lost there; put it away, or back to one of before that", file = file.display()
    )]
    Parted {
        /// Which file.
        file: PathBuf,
        /// Which shard.
        shard: ShardId,
        /// From here on, at the latest, the engine has other records.
        from: Seq,
    },
    /// It is the book of another engine, tenant or link, or of a history that this engine does not have.
    #[error("{file}: the totals of another engine, tenant or link", file = file.display())]
    Foreign {
        /// Which file.
        file: PathBuf,
    },
}

/// The right to write a book, which one link has at a time: two would each put its own in the other's place.
pub(crate) struct Claim(#[expect(dead_code, reason = "held open")] File);

impl Claim {
    /// Locks the file beside the book, as the book itself is replaced whenever it is written. The lock ends with the process.
    pub(crate) fn take(book: &Path) -> Result<Self, BookError> {
        let error = |error| BookError::File { file: book.to_owned(), error };
        let lock = File::options().create(true).truncate(false).write(true).open(beside(book, ".lock"));
        let lock = lock.map_err(error)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(TryLockError::WouldBlock) => Err(BookError::Taken { file: book.to_owned() }),
            Err(TryLockError::Error(other)) => Err(error(other)),
        }
    }
}

/// The file with something behind its whole name, which is in the way of no other book.
fn beside(book: &Path, ending: &str) -> PathBuf {
    let mut name = book.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    engine: String,
    tenant: u32,
    link: String,
    next: Vec<u64>,
    /// Older books have none, and the program that wrote them takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    epochs: Vec<u32>,
    incomplete: Option<u32>,
    #[serde(default)]
    cut: Vec<CutText>,
    #[serde(default)]
    total: Vec<TotalText>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CutText {
    day: u32,
    id: String,
    after: Vec<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TotalText {
    day: u32,
    partition: u64,
    authorizations: u64,
    authorization_reversals: u64,
    debits: u64,
    debit_reversals: u64,
    debited: String,
    debited_back: String,
}

impl Book {
    /// Reads a book. None if there is none yet.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or belongs to somebody else.
    pub(crate) fn load(file: &Path, owner: &Owner) -> Result<Option<Self>, BookError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BookError::File { file: file.to_owned(), error }),
        };
        let damaged = |reason: String| BookError::Damaged { file: file.to_owned(), reason };
        let text: Text = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        let is_own = (text.engine == owner.engine.to_string())
            && (text.tenant, &text.link) == (owner.tenant.0, &owner.link);
        if !is_own {
            return Err(BookError::Foreign { file: file.to_owned() });
        }
        text.into_book(owner.clone()).ok_or_else(|| damaged("a number that is none".into())).map(Some)
    }

    /// Puts the book in the place of the one that is there.
    ///
    /// # Errors
    /// If it cannot be written; then the old one is still there.
    pub(crate) fn save(&self, file: &Path) -> Result<(), BookError> {
        self.replace(file).map_err(|error| BookError::File { file: file.to_owned(), error })
    }

    fn replace(&self, file: &Path) -> io::Result<()> {
        let text = toml::to_string(&self.to_text()).map_err(io::Error::other)?;
        let new = beside(file, ".new");
        let mut writer = File::create(&new)?;
        writer.write_all(text.as_bytes())?;
        writer.sync_all()?;
        std::fs::rename(&new, file)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn to_text(&self) -> Text {
        let seqs = |of: &[Seq]| of.iter().map(|seq| seq.0).collect();
        let cut =
            |cut: &Cut| CutText { day: cut.day.0, id: format!("{:032x}", cut.id.0), after: seqs(&cut.after) };
        let total = |((day, partition), totals): (&(Day, PartitionHandle), &Totals)| TotalText {
            day: day.0,
            partition: partition.0,
            authorizations: totals.authorizations,
            authorization_reversals: totals.authorization_reversals,
            debits: totals.debits,
            debit_reversals: totals.debit_reversals,
            debited: totals.debited.to_string(),
            debited_back: totals.debited_back.to_string(),
        };
        Text {
            engine: self.owner.engine.to_string(),
            tenant: self.owner.tenant.0,
            link: self.owner.link.clone(),
            next: seqs(&self.next),
            epochs: epochs_to_text(&self.epochs),
            incomplete: self.incomplete.map(|day| day.0),
            cut: self.cuts.iter().map(cut).collect(),
            total: self.totals.iter().map(total).collect(),
        }
    }
}

/// None where nothing is known: such a book is one of before, and its program reads it.
fn epochs_to_text(epochs: &[Epoch]) -> Vec<u32> {
    if epochs.iter().all(|epoch| *epoch == Epoch(0)) {
        return Vec::new();
    }
    epochs.iter().map(|epoch| epoch.0).collect()
}

impl Text {
    fn into_book(self, owner: Owner) -> Option<Book> {
        let shards = u16::try_from(self.next.len()).ok()?;
        let mut book = Book::of_calendar(owner, shards);
        book.next = self.next.into_iter().map(Seq).collect();
        if self.epochs.len() > book.epochs.len() {
            return None;
        }
        book.epochs.iter_mut().zip(self.epochs).for_each(|(epoch, kept)| *epoch = Epoch(kept));
        book.incomplete = self.incomplete.map(Day);
        for cut in self.cut {
            let id = Id(u128::from_str_radix(&cut.id, 16).ok()?);
            book.cuts.push(Cut { day: Day(cut.day), id, after: cut.after.into_iter().map(Seq).collect() });
        }
        for total in self.total {
            let totals = Totals {
                authorizations: total.authorizations,
                authorization_reversals: total.authorization_reversals,
                debits: total.debits,
                debit_reversals: total.debit_reversals,
                debited: total.debited.parse().ok()?,
                debited_back: total.debited_back.parse().ok()?,
            };
            book.totals.insert((Day(total.day), PartitionHandle(total.partition)), totals);
        }
        let is_ordered = book.cuts.windows(2).all(|pair| pair[0].day < pair[1].day);
        is_ordered.then_some(book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::protocol::{Cursor, EngineId, TenantId};

    #[test]
    fn a_book_keeps_the_epochs_of_its_counts_and_one_of_before_has_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("book");
        let owner = Owner { engine: EngineId(1), tenant: TenantId(2), link: "link".into() };
        let shard = ShardId(1);
        let mut book = Book::of_cutovers(owner.clone(), 2, Day(5));
        book.observe(shard, Seq(8), &[], Seq(7));
        book.note_epoch(shard, Cursor { next: Seq(8), epoch: Epoch(3) });
        // What does not end where the count stands tells nothing of it.
        book.note_epoch(shard, Cursor { next: Seq(6), epoch: Epoch(2) });
        book.save(&file).expect("written");
        let read = Book::load(&file, &owner).expect("read").expect("one");
        assert_eq!(read, book);
        assert_eq!(read.cursor(shard), Some(Cursor { next: Seq(8), epoch: Epoch(3) }));
        let text = std::fs::read_to_string(&file).expect("read");
        let older: String =
            text.lines().filter(|line| !line.starts_with("epochs")).map(|line| format!("{line}\n")).collect();
        assert_ne!(text, older);
        std::fs::write(&file, older).expect("written");
        let read = Book::load(&file, &owner).expect("read").expect("one");
        assert_eq!(read.cursor(shard), Some(Cursor { next: Seq(8), epoch: Epoch(0) }));
        // What was lost to retention is not compared either.
        book.forget(shard, Seq(20));
        assert_eq!(book.cursor(shard), Some(Cursor::anew(Seq(20))));
        // And neither is what was there before a book was begun.
        let mut new = Book::of_cutovers(owner.clone(), 2, Day(5));
        let unknown = toml::to_string(&new.to_text()).expect("a text");
        assert!(!unknown.contains("epochs"), "{unknown}");
        new.begin_after(shard, Seq(30));
        assert_eq!(new.cursor(shard), Some(Cursor::anew(Seq(31))));
        new.save(&file).expect("written");
        assert_eq!(Book::load(&file, &owner).expect("read"), Some(new));
        std::fs::write(&file, text.replace("[0, 3]", "[0, 3, 4]")).expect("written");
        assert!(matches!(Book::load(&file, &owner), Err(BookError::Damaged { .. })));
    }
}
