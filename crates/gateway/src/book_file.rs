//! The file of a link's book: replaced whole, so that it is always one or the other.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iso8583::payment::{Day, Totals};
use serde::{Deserialize, Serialize};
use surety_client::protocol::{Id, PartitionHandle, Seq};

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
            incomplete: self.incomplete.map(|day| day.0),
            cut: self.cuts.iter().map(cut).collect(),
            total: self.totals.iter().map(total).collect(),
        }
    }
}

impl Text {
    fn into_book(self, owner: Owner) -> Option<Book> {
        let shards = u16::try_from(self.next.len()).ok()?;
        let mut book = Book::of_calendar(owner, shards);
        book.next = self.next.into_iter().map(Seq).collect();
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
