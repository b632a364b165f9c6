//! What safe Rust cannot ask of memory: to be on its way before it is needed, to come in large pages, to tell how often it is asked for.
//!
//! A leaf that knows no other crate, so that pure crates may use it; nothing here can change what a program computes.
#![no_std]

mod allocator;
mod counted;
mod prefetch;

pub use allocator::LargePages;
pub use counted::{Counted, requests};
pub use prefetch::prefetch;
