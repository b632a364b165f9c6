//! The repo's own rules.
