//! A simulated acquirer's socket: messages out, messages in, echoes answered.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use iso8583::{Class, Cut, Draft, EncodeError, FrameError, Message};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::scenario::{Fields, Scenario};
use crate::mac::Macs;

/// Why a case cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("the host has closed the socket")]
    Closed,
    #[error("no reply in time")]
    Silent,
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("the host's stream cannot be read: {0}")]
    Frame(#[from] FrameError),
    #[error("a message that cannot be written: {0}")]
    Encode(#[from] EncodeError),
}

/// A message that came: its type as four digits, its fields as text, and how it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) mti: String,
    pub(super) fields: Fields,
    /// False where the scenario has keys and none of them has signed it.
    pub(super) is_proved: bool,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// An open socket.
pub(super) struct Line<'a> {
    scenario: &'a Scenario,
    macs: Option<&'a Macs>,
    socket: Box<dyn Socket>,
    read: Vec<u8>,
}

/// How messages are kept: their codes, and who the other end is.
pub(super) struct Secrets {
    pub(super) macs: Option<Macs>,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl<'a> Line<'a> {
    pub(super) async fn open(
        scenario: &'a Scenario,
        secrets: &'a Secrets,
        host: SocketAddr,
    ) -> Result<Self, LineError> {
        let patience = Duration::from_millis(scenario.answer_ms);
        let connecting = timeout(patience, connect(secrets, host));
        let socket = connecting.await.map_err(|_| LineError::Silent)??;
        Ok(Self { scenario, macs: secrets.macs.as_ref(), socket, read: Vec::new() })
    }

    /// Sends a message, signed if the scenario has keys.
    pub(super) async fn send(&mut self, draft: &mut Draft) -> Result<(), LineError> {
        let codec = self.scenario.codec;
        let mut bytes = Vec::new();
        if let Some(macs) = self.macs {
            macs.sign(draft, codec)?;
        }
        draft.encode(codec, &mut bytes)?;
        self.send_raw(&bytes).await
    }

    /// Sends bytes behind their length.
    pub(super) async fn send_raw(&mut self, message: &[u8]) -> Result<(), LineError> {
        let mut bytes = Vec::new();
        self.scenario.header.write(&mut bytes, |out| {
            out.extend_from_slice(message);
            Ok::<(), FrameError>(())
        })?;
        self.socket.write_all(&bytes).await?;
        Ok(self.socket.flush().await?)
    }

    /// The next message for which this is true. Others are left: they are late replies, or echoes, which are answered.
    pub(super) async fn next(&mut self, is_meant: impl Fn(&Received) -> bool) -> Result<Received, LineError> {
        let until = Instant::now() + Duration::from_millis(self.scenario.answer_ms);
        loop {
            let (received, echo) = match self.cut()? {
                Some(received) => received,
                None => {
                    let reading = timeout_at(until, self.socket.read_buf(&mut self.read));
                    match reading.await.map_err(|_| LineError::Silent)? {
                        Ok(0) => return Err(LineError::Closed),
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                            return Err(LineError::Closed);
                        }
                        read => read?,
                    };
                    continue;
                }
            };
            if let Some(mut echo) = echo {
                timeout_at(until, self.send(&mut echo)).await.map_err(|_| LineError::Silent)??;
            } else if is_meant(&received) {
                return Ok(received);
            }
            // However much else it says.
            if Instant::now() >= until {
                return Err(LineError::Silent);
            }
        }
    }

    /// The first message of what was read, with the answer to it if it is a request of the host's.
    fn cut(&mut self) -> Result<Option<(Received, Option<Draft>)>, LineError> {
        let max = iso8583::MESSAGE_BYTES_MAX;
        let Cut::Message { bytes, used } = self.scenario.header.cut(&self.read, max)? else {
            return Ok(None);
        };
        let (message, result) = Message::read(self.scenario.codec, bytes);
        let mut fields: Fields =
            message.fields().fields().map(|field| (field, text(&message, field))).collect();
        fields.remove(&64);
        fields.remove(&128);
        let is_signed = |macs: &Macs| result.is_ok() && macs.is_right(&message, bytes);
        // What cannot be read has no type that anybody waits for.
        let mti = if result.is_ok() { message.mti().to_string() } else { String::new() };
        let received = Received { mti, fields, is_proved: self.macs.is_none_or(is_signed) };
        let reply = message.mti().reply().filter(|reply| result.is_ok() && reply.class == Class::Network);
        let echo = reply.map(|reply| {
            let mut draft = Draft::new(self.scenario.codec.dialect);
            draft.reset(reply);
            [7, 11, 24, 70].into_iter().for_each(|field| draft.copy(&message, field));
            let is_old = self.scenario.codec.dialect == iso8583::Dialect::V1987;
            draft.set(39, if is_old { b"00" } else { b"800" });
            draft
        });
        self.read.drain(..used);
        Ok(Some((received, echo)))
    }
}

async fn connect(secrets: &Secrets, host: SocketAddr) -> io::Result<Box<dyn Socket>> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(match &secrets.tls {
        None => Box::new(stream),
        Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
    })
}

/// A field as text: bytes in hexadecimal.
fn text(message: &Message<'_>, field: u8) -> String {
    let units: Vec<u8> = message.units(field).into_iter().flatten().collect();
    let spec = message.codec().dialect.field(field);
    if spec.is_some_and(|spec| spec.content == iso8583::Content::Bytes) {
        units.iter().map(|byte| format!("{byte:02x}")).collect()
    } else {
        String::from_utf8_lossy(&units).into_owned()
    }
}
