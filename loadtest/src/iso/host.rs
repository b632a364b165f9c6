//! An acquirer's host: a few sockets of a link, many messages at once on each, opened again when they end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iso8583::Dialect;
use iso8583::payment::{Currency, Rules, sent_at};
use rustls_pki_types::ServerName;
use surety_protocol::{Amount, PartitionHandle, Time};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::answer::{Told, read};
use super::message::{Heard, Numbers, Say, sign_on};
use super::socket::{Socket, Voice};
use super::{Seal, Speech};
use crate::door_faults::{DoorFaults, Exchange, Failed};
use crate::inject::Injection;
use crate::random::Random;
use crate::rest::{DoorError, DoorTls, connector};

/// Sockets of a host.
const SOCKETS: usize = 8;
/// How long an answer may take, the connecting and the signing on included, before the message is said again. Longer
/// than the link's own limit on it (20 s by its own settings).
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Trace numbers before they begin again.
const TRACES: u32 = 1_000_000;

/// Where a link is, how it speaks, and how to be let in.
#[derive(Clone)]
pub struct HostOptions {
    /// Its address.
    pub address: SocketAddr,
    /// How it speaks.
    pub speech: Speech,
    /// What proves who has written a message, if the link asks for that.
    pub seal: Option<Arc<dyn Seal>>,
    /// TLS, if it speaks that.
    pub tls: Option<DoorTls>,
    /// Faults on the way.
    pub injection: Option<Injection>,
    /// Decides when they come.
    pub seed: u64,
}

/// Why a link cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Nobody answers, or TLS cannot be spoken.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// It takes no currency.
    #[error("the link's settings have no currency")]
    NoCurrency,
    /// Its messages tell less than a base unit.
    #[error(
        "currency {0:03} has more decimals in messages than its asset has: amounts cannot be held against the log"
    )]
    Scale(u16),
    /// It answers the sign-on otherwise than it should, or not at all.
    #[error("{address} answers a sign-on with {answer}: check address and settings")]
    SignOn {
        /// Where.
        address: SocketAddr,
        /// What came.
        answer: String,
    },
}

/// An acquirer's host in front of a link.
pub struct Host {
    options: HostOptions,
    voice: Arc<Voice>,
    currency: Currency,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    sockets: [tokio::sync::Mutex<Option<Arc<Socket>>>; SOCKETS],
    next: AtomicUsize,
    traces: AtomicU32,
    payments: AtomicU64,
    faults: Arc<DoorFaults>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("address", &self.options.address).finish_non_exhaustive()
    }
}

impl Host {
    /// Signs on once, to see that the link lets this host in.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn open(options: HostOptions) -> Result<Self, HostError> {
        let currency = *options.speech.rules.currencies.first().ok_or(HostError::NoCurrency)?;
        if currency.scale.asset_decimals < currency.scale.edge_decimals {
            return Err(HostError::Scale(currency.number));
        }
        let (speech, seal) = (options.speech.clone(), options.seal.clone());
        let host = Self {
            voice: Arc::new(Voice { speech, seal, terminal: terminal(options.seed) }),
            currency,
            tls: options.tls.as_ref().map(connector).transpose()?,
            sockets: Default::default(),
            next: AtomicUsize::new(0),
            traces: AtomicU32::new(0),
            payments: AtomicU64::new(0),
            faults: Arc::new(DoorFaults::new(options.injection, options.seed)),
            options,
        };
        let address = host.options.address;
        let until = Instant::now() + ANSWER_WITHIN;
        let stream =
            host.connect_until(until).await.map_err(|error| DoorError::Connect { address, error })?;
        *host.sockets[0].lock().await = Some(host.sign_on_until(stream, until).await?);
        Ok(host)
    }

    /// Base units of so many minor units.
    pub(super) const fn base_of(&self, minor: Amount) -> Amount {
        let scale = self.currency.scale;
        Amount(minor.0 * 10_u128.pow(scale.asset_decimals as u32 - scale.edge_decimals as u32))
    }

    /// The faults on the way.
    pub(crate) fn faults(&self) -> &DoorFaults {
        &self.faults
    }

    /// The edition that it speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        self.options.speech.rules.dialect
    }

    /// The first partition that is not held in the currency of this host's payments.
    pub(crate) fn foreign(&self, partitions: &[PartitionHandle]) -> Option<PartitionHandle> {
        let is_foreign = |of: &PartitionHandle| self.rules().held_in(*of) != Some(self.currency.number);
        partitions.iter().copied().find(is_foreign)
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.voice.speech.rules
    }

    pub(super) fn voice(&self) -> &Voice {
        &self.voice
    }

    /// Field 49.
    pub(super) const fn currency(&self) -> u16 {
        self.currency.number
    }

    /// Names a message that is said first now.
    pub(super) fn numbers(&self, say: Say, now: Time) -> Numbers {
        Numbers { mti: say.mti(self.dialect()), trace: self.trace(), sent: sent_at(now) }
    }

    fn trace(&self) -> u32 {
        self.traces.fetch_add(1, Ordering::Relaxed) % TRACES
    }

    /// Field 37 of a new payment.
    pub(super) fn reference(&self) -> [u8; 12] {
        characters(u128::from(self.payments.fetch_add(1, Ordering::Relaxed)))
    }

    /// Says a message, and hears the reply to it. If it goes out twice, the other reply is for `on_double`.
    pub(super) async fn ask(
        self: &Arc<Self>,
        numbers: &Numbers,
        message: &[u8],
        on_double: impl FnOnce(&Heard) + Send + 'static,
    ) -> Exchange<Heard> {
        let say = || {
            let (host, key, message) = (self.clone(), numbers.key(), message.to_vec());
            async move {
                let until = Instant::now() + ANSWER_WITHIN;
                let socket = host.socket_until(until).await.map_err(Failed::NotSent)?;
                socket.ask_until(key, message, until).await
            }
        };
        self.faults.exchange(say, on_double).await
    }

    /// The next socket in turn, opened if it is not open.
    async fn socket_until(&self, until: Instant) -> io::Result<Arc<Socket>> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % SOCKETS;
        let mut place = timeout_at(until, self.sockets[place].lock()).await?;
        if let Some(socket) = place.as_ref().filter(|socket| socket.is_open()) {
            return Ok(socket.clone());
        }
        let stream = self.connect_until(until).await?;
        let socket = self.sign_on_until(stream, until).await.map_err(io::Error::other)?;
        *place = Some(socket.clone());
        Ok(socket)
    }

    async fn connect_until(&self, until: Instant) -> io::Result<TcpStream> {
        let stream = timeout_at(until, TcpStream::connect(self.options.address)).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn sign_on_until(&self, stream: TcpStream, until: Instant) -> Result<Arc<Socket>, HostError> {
        let address = self.options.address;
        let connect = |error| DoorError::Connect { address, error };
        let (voice, dies) = (self.voice.clone(), self.faults.death());
        let faults = self.faults.clone();
        let on_death = move || faults.count_killed();
        let socket = match &self.tls {
            None => Socket::open(stream, voice, dies, on_death),
            Some((connector, name)) => {
                let stream = timeout_at(until, connector.connect(name.clone(), stream)).await;
                let stream = stream.map_err(io::Error::from).and_then(|stream| stream).map_err(connect)?;
                Socket::open(stream, voice, dies, on_death)
            }
        };
        let answer = |answer: String| HostError::SignOn { address, answer };
        let (numbers, mut draft) = sign_on(self.dialect(), self.trace(), now());
        let message = self.voice.frame(&mut draft).map_err(|error| answer(error.to_string()))?;
        match socket.ask_until(numbers.key(), message, until).await {
            // The 1993 edition has a code of its own for network messages.
            Ok(heard) if heard.code != b"800" && read(&heard.code, self.dialect()) != Told::Approved => {
                Err(answer(format!("code {}", String::from_utf8_lossy(&heard.code))))
            }
            Ok(heard) if !heard.is_proved => Err(answer("a code of authentication that is not right".into())),
            Ok(_) => Ok(Arc::new(socket)),
            Err(Failed::Lost | Failed::NotSent(_)) => Err(answer("nothing".into())),
        }
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A terminal that no other run has: what names messages and payments is unique within it.
fn terminal(seed: u64) -> [u8; 8] {
    let mut random = Random::new(now().0 ^ u64::from(std::process::id()).rotate_left(40) ^ seed);
    let mut terminal = characters(u128::from(random.next()));
    terminal[0] = b'L';
    terminal
}

/// A number in letters and digits, cut to as many as fit.
fn characters<const N: usize>(number: u128) -> [u8; N] {
    const LETTERS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (mut rest, mut characters) = (number, [b'0'; N]);
    for character in characters.iter_mut().rev() {
        *character = LETTERS[usize::try_from(rest % 36).unwrap_or(0)];
        rest /= 36;
    }
    characters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_letters_and_digits() {
        assert_eq!(&characters::<4>(0), b"0000");
        assert_eq!(&characters::<4>(36 * 36 + 35), b"010Z");
        assert_ne!(terminal(1), terminal(2));
    }
}
