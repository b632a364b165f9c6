//! What people type and read, the same wherever they do: amounts, spans, moments and handles, a partition's policy, every record under
//! the names of its fields, and statements as CSV.
#![forbid(unsafe_code)]

pub mod policy_text;
pub mod record_text;
pub mod statement;
pub mod values;
