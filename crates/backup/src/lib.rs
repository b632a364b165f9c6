//! Copies of a data directory: taken from a closed one or beside a running engine, and put back; and archives of a log as it grows.
//!
//! A backup is a set of files and a manifest that names them, which is written last: without one there is no backup. `MANIFEST.md`
//! is the binding description. Nothing here decides whether an engine may serve from what was put back; the commands do.
#![forbid(unsafe_code)]

mod archive;
mod copy;
mod cut;
mod depot;
mod fetch;
mod manifest;
mod object;
mod pinned;

pub use archive::{ArchiveError, Compared, archive_segment, claim_archive, compare_archive};
pub use copy::{Copied, CopyError, Extent, Mark, Wanted, copy_file, copy_shard};
pub use cut::{Cut, CutError, Moment, Reach, cut};
pub use depot::{Depot, DepotError, DirectoryDepot};
pub use fetch::{FetchError, check, contents, extend, fetch, read_manifest};
pub use manifest::{FilePart, MANIFEST_FILE, MANIFEST_VERSION, Manifest, ManifestError, ShardPart};
pub use object::{CaError, ObjectDepot, OpenObjectError, Patience};
