//! TLS of front doors: whom their files vouch for, and a word to every open connection when the files were read again.
//!
//! [`Terms`] are what the files come to, all of them or nothing. A [`Tls`] shakes hands under the terms of now, and each peer that it has let
//! in comes with its [`Standing`], which tells when other terms would not have let it in. A [`Crowd`] has so many places for each address.
#![forbid(unsafe_code)]

mod crowd;
mod lists;
mod pem;
mod standing;
mod terms;

pub use crowd::{Crowd, Place};
pub use lists::{ListError, check_lists};
pub use pem::{certificates, key, roots};
pub use standing::{Standing, Tls, lost};
pub use terms::{Files, Terms, TlsError};
