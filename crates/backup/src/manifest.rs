//! The manifest: which files a backup is made of, and how far the log of each shard goes in it. `MANIFEST.md` is the format.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use storage::COPIED_METADATA_FILE;
use wal::FileName;

/// Name of the manifest; it is written last.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The format that this program writes, and the highest that it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this manifest.
    pub format: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The engine's id: 32 hexadecimal digits.
    pub engine: String,
    /// Highest format version of a block of the log, as of the program that wrote it.
    pub log_format: u16,
    /// When the backup was begun, nanoseconds since the Unix epoch.
    pub created: u64,
    /// The shards, by number, all of them.
    pub shards: Vec<ShardPart>,
    /// Every file but the manifest, by name.
    pub files: Vec<FilePart>,
}

/// How far one shard goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardPart {
    /// Which.
    pub shard: u16,
    /// Epoch of the last block.
    pub epoch: u32,
    /// The first seq that the copied log still holds.
    pub first_seq: u64,
    /// The last seq; 0 if nothing was ever logged.
    pub last_seq: u64,
    /// Time of the last block, nanoseconds since the Unix epoch.
    pub time: u64,
    /// Whatever was decided up to this time is in the copy, nanoseconds since the Unix epoch. What was decided later may be missing.
    pub complete_until: u64,
    /// The last record of the snapshot in it, if there is one.
    pub snapshot: Option<u64>,
    /// The state hash after `last_seq`, 32 hexadecimal digits; none if the copy was not replayed.
    pub state_hash: Option<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Its name in the backup, parts separated by `/`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its contents, 64 hexadecimal digits.
    pub blake3: String,
}

/// Why a manifest is none that this program can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or not of this shape.
    #[error("{MANIFEST_FILE} makes no sense: {0}; take another backup")]
    Shape(String),
    /// A newer program wrote it.
    #[error("the backup has format {0}, this program reads up to {MANIFEST_VERSION}; run the newer program")]
    Newer(u32),
    /// A name is not one of those that a backup holds, or comes twice.
    #[error(
        "{MANIFEST_FILE} names the file `{0}`, which no backup holds or which comes twice; take another backup"
    )]
    Name(String),
    /// The shards are not 0, 1, 2 and so on.
    #[error("{MANIFEST_FILE} does not list the shards in order from 0; take another backup")]
    Shards,
}

/// The part that every format states.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let shape = |error: serde_json::Error| ManifestError::Shape(error.to_string());
        let Version { format } = serde_json::from_slice(bytes).map_err(shape)?;
        if format > MANIFEST_VERSION {
            return Err(ManifestError::Newer(format));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(shape)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes it, a line for each field.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers: nothing of it can fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    fn check(&self) -> Result<(), ManifestError> {
        let in_order = (0..).zip(&self.shards).all(|(number, part)| part.shard == number);
        if !in_order || self.shards.is_empty() {
            return Err(ManifestError::Shards);
        }
        let mut names = BTreeSet::new();
        match self.files.iter().find(|file| !self.may_hold(&file.name) || !names.insert(&file.name)) {
            Some(file) => Err(ManifestError::Name(file.name.clone())),
            None => Ok(()),
        }
    }

    /// True for the names in the table of `MANIFEST.md`, and no others. Whoever can write a manifest could otherwise put certificates, or
    /// leave to jump the clock, into the directory that is served next.
    fn may_hold(&self, name: &str) -> bool {
        let is_of_a_shard = |number: &str| self.shards.iter().any(|part| part.shard.to_string() == number);
        match name.split_once('/') {
            None => name == COPIED_METADATA_FILE,
            Some(("keys", file)) => file == "token.key",
            Some(("epochs", shard)) => is_of_a_shard(shard),
            Some((directory, file)) => {
                let kind = FileName::parse(file);
                let is_log = matches!(kind, Some(FileName::Segment { .. } | FileName::Snapshot { .. }));
                is_log && directory.strip_prefix("shard-").is_some_and(is_of_a_shard)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let shard = |shard| ShardPart {
            shard,
            epoch: 3,
            first_seq: 1,
            last_seq: 9,
            time: 5,
            complete_until: 4,
            snapshot: Some(4),
            state_hash: None,
        };
        let file = |name: &str| FilePart { name: name.to_owned(), bytes: 1, blake3: "00".repeat(32) };
        Manifest {
            format: MANIFEST_VERSION,
            program: "0.1.0".to_owned(),
            engine: "00".repeat(16),
            log_format: 1,
            created: 7,
            shards: vec![shard(0), shard(1)],
            files: vec![file("directory.toml"), file("shard-0/00000000000000000001.wal")],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Manifest::parse(manifest().to_json().as_bytes()), Ok(manifest()));
    }

    /// Backups that are kept for years are read by the programs of then: a change that fails here is another format.
    #[test]
    fn format_1_is_what_it_was() {
        let golden = include_str!("../tests/golden/manifest-1.json");
        let read = Manifest::parse(golden.as_bytes()).unwrap();
        assert_eq!(read.to_json(), golden);
        assert_eq!((read.format, read.log_format, read.files.len()), (1, 1, 7));
        let states: Vec<_> =
            read.shards.iter().map(|part| (part.snapshot, part.state_hash.as_deref())).collect();
        assert_eq!(states, [(Some(114), Some("29ebda305beb27d148f192be5f8b67d3")), (None, None)]);
    }

    #[test]
    fn a_newer_format_is_told_whatever_else_it_says() {
        let text = r#"{"format": 2, "unheard": ["of"]}"#;
        assert_eq!(Manifest::parse(text.as_bytes()), Err(ManifestError::Newer(2)));
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |change: fn(&mut Manifest)| {
            let mut changed = manifest();
            change(&mut changed);
            Manifest::parse(changed.to_json().as_bytes()).unwrap_err()
        };
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "shard-0/../../x",
            "shard-0//00000000000000000001.wal",
            "shard-0/x/00000000000000000001.wal",
            "shard-0/1.wal",
            "shard-0/reserve-00000000000000000001.wal",
            "shard-0/00000000000000000001.snapshot.tmp",
            "shard-0/guard.ring",
            "shard-2/00000000000000000001.wal",
            "shard-00/00000000000000000001.wal",
            "keys/reset.key",
            "keys/../token.key",
            "epochs/2",
            "epochs/+1",
            "pki/ca.pem",
            "pki/server.key",
            "clock.accept",
            "engine.toml",
            MANIFEST_FILE,
        ] {
            let mut changed = manifest();
            changed.files[0].name = name.to_owned();
            let refused = Manifest::parse(changed.to_json().as_bytes());
            assert_eq!(refused, Err(ManifestError::Name(name.to_owned())));
        }
        assert!(matches!(check(|m| m.files[1] = m.files[0].clone()), ManifestError::Name(_)));
        assert_eq!(check(|m| m.shards.clear()), ManifestError::Shards);
        assert_eq!(check(|m| m.shards[1].shard = 2), ManifestError::Shards);
        for bad in ["", "{}", "[]", r#"{"format": 1}"#, r#"{"format": -1}"#] {
            assert!(matches!(Manifest::parse(bad.as_bytes()), Err(ManifestError::Shape(_))), "{bad}");
        }
    }
}
