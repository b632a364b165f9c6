//! What people type and read, the same wherever they do: amounts, spans, moments and handles, a partition's policy, every record under
//! the names of its fields, statements as CSV, and how a settler's batches stand.
#![forbid(unsafe_code)]

pub mod batches;
pub mod policy_text;
pub mod record_text;
pub mod statement;
pub mod values;
