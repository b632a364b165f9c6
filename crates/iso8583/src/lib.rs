//! ISO 8583 messages, as acquirers speak them: parsed without a copy, built from a table of fields, never shown with a card's
//! number.
//!
//! Below, messages are bytes and fields; in [`payment`] they are what they mean to an engine.
//!
//! [`Codec`] is a dialect (which fields there are: [`Dialect`]) and a profile (how they are put into bytes: [`Profile`]).
//! [`Message`] reads bytes that stay where they are; [`Draft`] collects fields and writes them; [`LengthHeader`] cuts a byte
//! stream into messages. Both print themselves masked, and there is no other way to print them.
//!
//! This crate is pure: no clock, no file, no socket, no randomness. `FIELDS.md` has the conventions and the golden vectors,
//! `MAPPING.md` what messages ask for and how they are answered.
#![doc = include_str!("../FIELDS.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bitmap;
mod charset;
mod codec;
mod dialect;
mod draft;
mod error;
mod field;
mod frame;
mod mask;
mod message;
mod mti;
pub mod payment;
mod wire;

pub use bitmap::Bitmap;
pub use codec::{Binaries, Bitmaps, Charset, Codec, Lengths, Numerics, Profile};
pub use dialect::Dialect;
pub use draft::Draft;
pub use error::{EncodeError, EncodeReason, ParseError, ParseReason};
pub use field::{Content, FIELDS_MAX, FieldSpec, Shown, Size};
pub use frame::{Cut, FrameError, LengthHeader, MESSAGE_BYTES_MAX};
pub use message::Message;
pub use mti::{Class, Function, Mti, Version};
pub use wire::Units;
