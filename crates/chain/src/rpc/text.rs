//! Values as JSON-RPC writes them.

use std::str::FromStr;

use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::Value;

use crate::backend::BackendError;

pub(super) fn text(value: &Value) -> Result<&str, BackendError> {
    value.as_str().ok_or_else(|| BackendError::Nonsense(format!("{value} instead of text")))
}

/// A number: `0x` and hexadecimal digits.
pub(super) fn quantity(value: &Value) -> Result<U256, BackendError> {
    let written = text(value)?;
    let digits = written.strip_prefix("0x").filter(|digits| !digits.is_empty());
    let number = digits.and_then(|digits| U256::from_str_radix(digits, 16).ok());
    number.ok_or_else(|| BackendError::Nonsense(format!("{written} instead of a number")))
}

pub(super) fn quantity_u64(value: &Value) -> Result<u64, BackendError> {
    fit(quantity(value)?)
}

pub(super) fn quantity_u128(value: &Value) -> Result<u128, BackendError> {
    fit(quantity(value)?)
}

pub(super) fn hash(value: &Value) -> Result<B256, BackendError> {
    parse(value)
}

pub(super) fn address(value: &Value) -> Result<Address, BackendError> {
    parse(value)
}

pub(super) fn bytes(value: &Value) -> Result<Bytes, BackendError> {
    parse(value)
}

/// The decimal number that follows some words in a message.
pub(super) fn number_after(message: &str, words: &str) -> Option<u64> {
    let rest = &message[message.find(words)? + words.len()..];
    let digits: String =
        rest.chars().skip_while(|letter| !letter.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn fit<T: TryFrom<U256>>(number: U256) -> Result<T, BackendError> {
    T::try_from(number).map_err(|_| BackendError::Nonsense(format!("{number} is too large")))
}

fn parse<T: FromStr>(value: &Value) -> Result<T, BackendError> {
    let written = text(value)?;
    written.parse().map_err(|_| BackendError::Nonsense(format!("{written} is not what was asked for")))
}
