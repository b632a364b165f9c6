//! What a link is, and its limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use iso8583::payment::Rules;
use iso8583::{Codec, LengthHeader, Profile};

use crate::mac::MacConfig;
use crate::tls::TlsConfig;

/// One acquirer's link: where its hosts connect, and how they speak.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// For logs.
    pub name: String,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How messages are cut off the stream.
    pub header: LengthHeader,
    /// How fields are encoded.
    pub profile: Profile,
    /// Which edition, where cards lead, what currencies are worth.
    pub rules: Rules,
    /// A host has to sign on before its payments are served.
    pub needs_sign_on: bool,
    /// Where totals are kept. With it, business days end with cutovers (0800, 201); without it they are those of the calendar in UTC, and
    /// totals reach back as far as the engine's records do.
    pub book_file: Option<PathBuf>,
    /// How messages prove who has written them, if they have to.
    pub mac: Option<MacConfig>,
    /// TLS on its sockets, if they speak it.
    pub tls: Option<TlsConfig>,
    /// Bounds.
    pub limits: Limits,
}

/// The bounds of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sockets at a time; more are closed at once.
    pub connections_max: usize,
    /// Messages of a socket that are being served; past it the socket is not read.
    pub in_flight_max: usize,
    /// The longest message that is taken.
    pub message_bytes_max: usize,
    /// Broken messages of a socket; past it the socket is closed.
    pub broken_max: u32,
    /// Payments whose locks are remembered by the acquirer's reference. Past it, messages that nothing but an unknown reference names
    /// are refused (25): it may be one that was forgotten.
    pub originals_max: usize,
    /// Reversals of what nobody knows that are taken in seven days. Each leaves marks that count against the tenant's quota of advices;
    /// past it they are answered "not now" (91).
    pub unknown_max: u64,
    /// How long the requests for a message may take. After that it is not answered.
    pub answer_within: Duration,
    /// How long a message may take from its first byte to its last; after that its socket is closed.
    pub frame_within: Duration,
    /// How long a host may take to sign on, where it has to; after that its socket is closed.
    pub sign_on_within: Duration,
    /// A silent socket is asked for an echo after this, and closed after as long again.
    pub echo_after: Duration,
    /// How long a host may take to read replies; after that its socket is closed.
    pub write_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            in_flight_max: 256,
            message_bytes_max: 8 * 1024,
            broken_max: 100,
            originals_max: 1_000_000,
            unknown_max: 100_000,
            answer_within: Duration::from_secs(20),
            frame_within: Duration::from_secs(10),
            sign_on_within: Duration::from_secs(30),
            echo_after: Duration::from_secs(60),
            write_within: Duration::from_secs(10),
        }
    }
}

impl LinkConfig {
    /// How its messages are read and written.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        Codec { dialect: self.rules.dialect, profile: self.profile }
    }
}
