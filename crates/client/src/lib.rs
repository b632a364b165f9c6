//! Async SDK.
