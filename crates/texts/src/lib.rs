//! What people type and read, the same wherever they do: amounts, spans, moments and handles, a partition's policy, and every record under
//! the names of its fields.
#![forbid(unsafe_code)]

pub mod policy_text;
pub mod record_text;
pub mod values;
