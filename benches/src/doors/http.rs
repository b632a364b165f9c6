//! An application: locks over HTTP/1.1, written beforehand but for their keys.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use surety_protocol::Time;

use super::wire::Speech;
use crate::mix::Numbers;

/// In the written request, to be replaced.
const KEY: &str = "00000000-0000-7000-8000-000000000000";

/// One connection of an application.
#[derive(Clone, Debug)]
pub struct Application {
    request: Vec<u8>,
    key_at: usize,
    numbers: Numbers,
}

impl Application {
    /// One that shows a token and asks for this.
    #[must_use]
    pub fn new(token: &str, body: &str, seed: u64) -> Self {
        let head = format!(
            "POST /v1/locks HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nIdempotency-Key: ",
            body.len()
        );
        let key_at = head.len();
        let request = format!("{head}{KEY}\r\n\r\n{body}").into_bytes();
        Self { request, key_at, numbers: Numbers::new(seed ^ now().0) }
    }
}

impl Speech for Application {
    fn say(&mut self, out: &mut Vec<u8>) {
        let key = self.numbers.id(now()).to_string();
        self.request[self.key_at..][..KEY.len()].copy_from_slice(key.as_bytes());
        out.extend_from_slice(&self.request);
    }

    fn heard(&self, read: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some(body_at) = read.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(None);
        };
        let head = core::str::from_utf8(&read[..body_at]).context("a head that is no text")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{}", String::from_utf8_lossy(read));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no length")?.trim().parse()?;
        Ok((read.len() >= body_at + length).then_some(body_at + length))
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
