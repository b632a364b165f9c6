//! An acquirer's host: authorizations over ISO 8583, written beforehand but for what names them.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use iso8583::payment::sent_at;
use iso8583::{Codec, Dialect, Draft, LengthHeader, Message, Mti, Profile};
use surety_protocol::Time;

use super::wire::Speech;

/// Of the link in [`super::Door`].
const CODEC: Codec = Codec { dialect: Dialect::V1987, profile: Profile::ASCII };
const HEADER: LengthHeader = LengthHeader::Binary2;
/// Trace number and reference in the written message, to be found there.
const TRACE: &str = "817263";
const REFERENCE: &str = "917263540817";
/// Hosts of this process: no two are one terminal.
static HOSTS: AtomicU32 = AtomicU32::new(0);

/// One socket of a host, a terminal of its own.
#[derive(Clone, Debug)]
pub struct Host {
    message: Vec<u8>,
    trace_at: usize,
    reference_at: usize,
    said: u32,
}

impl Host {
    /// A terminal that pays now.
    ///
    /// # Errors
    /// If the message cannot be written.
    pub fn new() -> anyhow::Result<Self> {
        let terminal = format!("B{:07}", HOSTS.fetch_add(1, Ordering::Relaxed));
        let mut message = Vec::new();
        let draft = authorization(&terminal)?;
        HEADER.write(&mut message, |out| {
            draft.encode(CODEC, out)?;
            anyhow::Ok(())
        })?;
        let (trace_at, reference_at) = (only(&message, TRACE)?, only(&message, REFERENCE)?);
        Ok(Self { message, trace_at, reference_at, said: 0 })
    }
}

impl Speech for Host {
    fn say(&mut self, out: &mut Vec<u8>) {
        self.said += 1;
        digits(&mut self.message[self.trace_at..][..TRACE.len()], self.said);
        digits(&mut self.message[self.reference_at..][..REFERENCE.len()], self.said);
        out.extend_from_slice(&self.message);
    }

    fn heard(&self, read: &[u8]) -> anyhow::Result<Option<usize>> {
        let [high, low, ..] = *read else { return Ok(None) };
        let length = 2 + usize::from(u16::from_be_bytes([high, low]));
        Ok((read.len() >= length).then_some(length))
    }
}

/// Writes a number right-aligned, with zeros before it.
fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Where a text stands that is there once.
fn only(message: &[u8], text: &str) -> anyhow::Result<usize> {
    let mut found = message.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
    let at = found.next().context("a field is not in its message")?.0;
    ensure!(found.next().is_none(), "a field is twice in its message");
    Ok(at)
}

fn authorization(terminal: &str) -> anyhow::Result<Draft> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let sent = sent_at(Time(now.as_nanos().try_into()?));
    let sent = core::str::from_utf8(&sent)?;
    let mut draft = Draft::new(CODEC.dialect);
    draft.reset(Mti::from_digits(*b"0100").context("no such type")?);
    let fields: [(u8, &str); 15] = [
        (2, "4111111111111111"),
        (3, "0"),
        (4, "100"),
        (7, sent),
        (11, TRACE),
        (12, "120000"),
        (13, "0101"),
        (18, "5411"),
        (22, "51"),
        (25, "0"),
        (32, "123456"),
        (37, REFERENCE),
        (41, terminal),
        (42, "501"),
        (49, "840"),
    ];
    for (field, units) in fields {
        draft.set(field, units.as_bytes());
    }
    Ok(draft)
}

/// Nanoseconds for parsing an authorization and building its answer.
///
/// # Errors
/// If the message is none.
pub fn parse_and_build_ns(rounds: u32) -> anyhow::Result<f64> {
    let mut bytes = Vec::new();
    authorization("B0000000")?.encode(CODEC, &mut bytes)?;
    let mut answer = Draft::new(CODEC.dialect);
    let mut out = Vec::new();
    let start = Instant::now();
    for _ in 0..rounds {
        let message = Message::parse(CODEC, black_box(&bytes))?;
        answer.reset(message.mti().reply().context("it has an answer")?);
        for field in [2, 3, 4, 7, 11, 12, 13, 25, 32, 37, 41, 42, 49] {
            answer.copy(&message, field);
        }
        answer.set(38, b"A1B2C3");
        answer.set(39, b"00");
        out.clear();
        answer.encode(CODEC, &mut out)?;
        black_box(&out);
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds))
}
