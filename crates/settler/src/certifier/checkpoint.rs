//! Where a restart of the certificate service goes on. `FORMAT.md` has the bytes.

use std::path::Path;

use settlement::{Book, Hash, Positions};
use surety_protocol::limits::TOKEN_BYTES;
use surety_protocol::{Epoch, Seq, Token};

use super::shelf::{Extent, Mark};
use crate::codec::{Damaged, Put, Take};
use crate::durable;

const MAGIC: &[u8; 8] = b"SURETYSB";
const VERSION: u32 = 4;
/// It knows no epochs.
const VERSION_WITHOUT_EPOCHS: u32 = 3;
/// Of a directory without a shelf: its locks are all in the book.
const VERSION_WITHOUT_SHELF: u32 = 2;
const FILE: &str = "book";

/// How far the stream was read, and what it has come to.
pub(super) struct Checkpoint {
    pub(super) separator: Hash,
    pub(super) positions: Positions,
    pub(super) book: Book,
    /// How much of the shelf goes with it; none of a directory without one.
    pub(super) mark: Option<Mark>,
    pub(super) tokens: Vec<Token>,
    /// The epoch of the record at each position; 0 where it is not known, and none in an older book.
    pub(super) epochs: Vec<Epoch>,
}

impl Checkpoint {
    /// Replaces the one before, at once or not at all.
    pub(super) fn write(&self, directory: &Path) -> std::io::Result<()> {
        durable::replace(&directory.join(FILE), &directory.join("book.tmp"), &self.to_bytes())
    }

    /// `None` if there is none.
    pub(super) fn read(directory: &Path) -> std::io::Result<Option<Self>> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Self::from_bytes(&bytes).map(Some).map_err(|Damaged| {
                std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    format!(
                        "{} is damaged, or of a version after {VERSION}: put the directory away, and the stream is read anew",
                        path.display()
                    ),
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let book = self.book.snapshot();
        let mut to = Put::default();
        to.raw(MAGIC).u32(VERSION).raw(&self.separator);
        to.list(self.positions.0.iter(), |to, seq| _ = to.u64(seq.0));
        to.u64(book.len() as u64).raw(&book);
        let segments = self.mark.iter().flat_map(|mark| mark.sealed.iter().chain([&mark.open]));
        let segments: Vec<&Extent> = segments.collect();
        to.list(segments.into_iter(), |to, extent| _ = to.u64(extent.segment).u64(extent.bytes));
        to.list(self.tokens.iter(), |to, token| _ = to.raw(&token.to_bytes()));
        to.list(self.epochs.iter(), |to, epoch| _ = to.u32(epoch.0));
        let checksum = crc32c::crc32c(&to.0);
        to.u32(checksum);
        to.0
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
        if crc32c::crc32c(body).to_be_bytes() != *checksum {
            return Err(Damaged);
        }
        let mut from = Take(body);
        let (magic, version) = (from.array::<8>()?, from.u32()?);
        if magic != *MAGIC || !(VERSION_WITHOUT_SHELF..=VERSION).contains(&version) {
            return Err(Damaged);
        }
        let separator = from.array()?;
        let positions = Positions(from.list(|from| from.u64().map(Seq))?);
        let len = usize::try_from(from.u64()?).map_err(|_| Damaged)?;
        let book = Book::restore(from.slice(len)?).ok_or(Damaged)?;
        let mark = match version {
            VERSION_WITHOUT_SHELF => None,
            _ => {
                let extent = |from: &mut Take<'_>| Ok(Extent { segment: from.u64()?, bytes: from.u64()? });
                let mut sealed: Vec<Extent> = from.list(extent)?;
                let open = sealed.pop().ok_or(Damaged)?;
                Some(Mark { sealed, open })
            }
        };
        let tokens = from.list(|from| Token::from_slice(&from.array::<TOKEN_BYTES>()?).ok_or(Damaged))?;
        let epochs = match version {
            VERSION_WITHOUT_SHELF | VERSION_WITHOUT_EPOCHS => Vec::new(),
            _ => from.list(|from| from.u32().map(Epoch))?,
        };
        from.end()?;
        Ok(Self { separator, positions, book, mark, tokens, epochs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_back_and_damage_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Checkpoint::read(directory.path()).expect("read").is_none());
        let saved = Checkpoint {
            separator: [4; 32],
            positions: Positions(vec![Seq(7), Seq(9)]),
            book: Book::default(),
            mark: Some(Mark {
                sealed: vec![Extent { segment: 2, bytes: 1000 }],
                open: Extent { segment: 3, bytes: 99 },
            }),
            tokens: Vec::new(),
            epochs: vec![Epoch(3), Epoch(1)],
        };
        saved.write(directory.path()).expect("written");
        let read = Checkpoint::read(directory.path()).expect("read").expect("one");
        assert_eq!(
            (read.separator, read.positions, read.book),
            ([4; 32], saved.positions.clone(), saved.book)
        );
        assert_eq!((read.mark, read.epochs), (saved.mark, saved.epochs));
        // One of the version before knows no epochs: their number, and two of them, end the body.
        let bytes = std::fs::read(directory.path().join(FILE)).expect("read");
        let mut older = Put(bytes[..bytes.len() - 4 - 16].to_vec());
        older.0[11] = 3;
        let checksum = crc32c::crc32c(&older.0);
        older.u32(checksum);
        let older = Checkpoint::from_bytes(&older.0).expect("it is read");
        assert_eq!((older.positions.0, older.epochs), (vec![Seq(7), Seq(9)], Vec::new()));
        let file = directory.path().join(FILE);
        let sound = std::fs::read(&file).expect("read");
        for place in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[place] ^= 1;
            std::fs::write(&file, bytes).expect("written");
            assert!(Checkpoint::read(directory.path()).is_err(), "byte {place}");
        }
    }
}
