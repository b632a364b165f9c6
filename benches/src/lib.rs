//! What the benchmarks share: the machine, the floors that it sets, and figures from repeated runs.
//!
//! Every figure of speed is a ratio against a floor that was measured in the same run. Nothing here asserts a time.

#![allow(clippy::cast_possible_truncation, reason = "figures and bounded random numbers on 64-bit machines")]

pub mod breakdown;
pub mod capacity;
pub mod copies;
pub mod cost;
pub mod doors;
pub mod echo;
pub mod figures;
pub mod floor;
pub mod gas;
pub mod ledger_rate;
pub mod locks;
pub mod machine;
pub mod mix;
pub mod operating;
pub mod peers;
pub mod scale;
pub mod viewers;
