//! Where certificates are handed out: plain HTTP, `GET /certificate/<lock's name on chain>`, for a loopback or behind a proxy.
//! A certificate is no secret; who has it can do nothing with it but have its payee paid.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use settlement::LockId;

use super::shelf::Shelf;

/// Requests that are answered at a time.
const CLERKS: usize = 4;
/// What a request may take, to read and to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 4096;

/// Hands out certificates until it is dropped.
#[derive(Debug)]
pub struct Counter {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    clerks: Vec<JoinHandle<()>>,
}

impl Counter {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or not ours.
    pub fn open(address: SocketAddr, shelf: &Arc<Shelf>) -> std::io::Result<Self> {
        let listener = Arc::new(TcpListener::bind(address)?);
        let is_over = Arc::new(AtomicBool::new(false));
        let clerk = |_| {
            let (listener, shelf, over) = (listener.clone(), shelf.clone(), is_over.clone());
            std::thread::spawn(move || serve(&listener, &shelf, &over))
        };
        let clerks = (0..CLERKS).map(clerk).collect();
        Ok(Self { address: listener.local_addr()?, is_over, clerks })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Each clerk waits for somebody to come; whoever is busy sees that it is over when it is done.
        for _ in &self.clerks {
            let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        }
        for clerk in self.clerks.drain(..) {
            let _ = clerk.join();
        }
    }
}

fn serve(listener: &TcpListener, shelf: &Shelf, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) if !is_over.load(Ordering::SeqCst) => {
                if let Err(error) = answer(stream, shelf) {
                    tracing::debug!(%error, "a request for a certificate was not answered");
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "nobody can ask for certificates now");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn answer(mut stream: TcpStream, shelf: &Shelf) -> std::io::Result<()> {
    let begun = Instant::now();
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        if left.is_zero() || head.len() > HEAD_BYTES_MAX {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&part[..read]),
        }
    }
    let (status, body) = respond(&head, shelf);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn respond(head: &[u8], shelf: &Shelf) -> (&'static str, String) {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    if words.next() != Some(b"GET") {
        return ("405 Method Not Allowed", String::new());
    }
    let path = words.next().and_then(|path| core::str::from_utf8(path).ok()).unwrap_or_default();
    let name = path.strip_prefix("/certificate/").and_then(|name| name.parse::<B256>().ok());
    let lock = name.and_then(|name| LockId::from_word(&name.0));
    match lock.map_or(Ok(None), |lock| shelf.certificate(&lock)) {
        Ok(Some(file)) => ("200 OK", format!("{:#}\n", file.to_json())),
        Ok(None) => ("404 Not Found", String::new()),
        Err(error) => {
            tracing::error!(%error, "a certificate cannot be read");
            ("500 Internal Server Error", String::new())
        }
    }
}
