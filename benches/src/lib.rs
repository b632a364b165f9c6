//! Floor comparison.
