//! The repository's own rules, as tests.
//!
//! Each rule is a pure function from text to [`Finding`]s, with examples of what it lets pass and what it catches beside
//! it. `tests/repo.rs` holds the repository against all of them. A rule that stands in the way is changed here, in
//! the open, with its reason; there is no way to switch one off from elsewhere.

#![forbid(unsafe_code)]

pub mod documents;
mod finding;
pub mod layers;
pub mod manifests;
pub mod order;
mod repository;
pub mod source;

pub use finding::Finding;
pub use repository::{File, Repository};
