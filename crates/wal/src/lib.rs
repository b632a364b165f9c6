//! Durability rules.
