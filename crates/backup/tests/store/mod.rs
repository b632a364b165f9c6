//! moto's server, which answers as S3 does, and a line to it that can go wrong.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What goes wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is not asked; this is answered.
    Answers { times: usize, status: u16, code: &'static str },
    /// It does what it is asked, and answers that it has failed.
    Forgets { times: usize },
    /// Its answer ends in the middle.
    Shortens { times: usize },
    /// The line is cut while a request is sent.
    Cut,
    /// Nobody answers.
    Silent,
    /// It does not hear that nothing is to be written over.
    Overwrites,
    /// A byte of what it is given changes on the way.
    Alters { times: usize },
    /// Its answer says that it failed and never ends.
    Endless,
    /// It says at once that all is well, and then for so many tenths of a second nothing but blanks, as S3 does while it puts an object
    /// together.
    Dribbles(u32),
    /// Its list has always another page, with an object of this name or with none.
    Pages(&'static str),
}

/// Which requests meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Any,
    /// Beginnings and ends of uploads in pieces.
    Posts,
    /// What makes an object be there.
    Completions,
    /// What brings bytes.
    Puts,
    /// What asks for names.
    Lists,
}

struct State {
    what: What,
    fault: Fault,
    faults: usize,
}

/// The server with a line to it.
pub(crate) struct Store {
    server: Child,
    at: SocketAddr,
    line: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Store {
    /// Starts one with a bucket `bucket`. None, with a loud line, if moto cannot be had here.
    pub(crate) fn start() -> Option<Self> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backup/tests/moto/install.sh");
        // One at a time: several tests start here at once.
        static INSTALLING: Mutex<()> = Mutex::new(());
        let installing = INSTALLING.lock().unwrap();
        let is_installed = Command::new(script).arg(&directory).status().is_ok_and(|status| status.success());
        drop(installing);
        if !is_installed {
            eprintln!("SKIPPED: moto cannot be installed here, so no object store was tried");
            return None;
        }
        let mut command = Command::new(directory.join("bin/python"));
        // Ends by itself when whoever started it has.
        let program = "import os, signal, sys, threading\n\
            threading.Thread(target=lambda: (sys.stdin.read(), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()\n\
            from moto.server import main\nmain(['-H', '127.0.0.1', '-p', '0'])";
        command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let at = said(&mut server);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { what: What::Any, fault: Fault::None, faults: 0 }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                // Whoever hangs up early has what it wanted.
                thread::spawn(move || drop(carry(stream, at, &state)));
            }
        });
        let store = Self { server, at, line, state };
        let made = store.ask("PUT", "/bucket", b"");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some(store)
    }

    /// Where the line to it begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.line
    }

    /// From now on this goes wrong.
    pub(crate) fn fails(&self, what: What, fault: Fault) {
        *self.state.lock().unwrap() = State { what, fault, faults: 0 };
    }

    /// Nothing goes wrong any more.
    pub(crate) fn holds(&self) {
        self.fails(What::Any, Fault::None);
    }

    /// How often it went wrong.
    pub(crate) fn faults(&self) -> usize {
        self.state.lock().unwrap().faults
    }

    /// Puts other bytes in the place of an object.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) {
        let put = self.ask("PUT", path, bytes);
        assert!(put.starts_with("HTTP/1.1 200"), "{put}");
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.server.kill();
        self.server.wait().unwrap();
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.at).unwrap();
        let length = body.len();
        // Who asks is not checked; that somebody does, is.
        let caller = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {caller}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            self.at
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads where the server listens, and goes on reading so that it never waits for room.
fn said(server: &mut Child) -> SocketAddr {
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("Running on http://"));
    let line = line.expect("moto's server says where it listens");
    thread::spawn(move || lines.for_each(drop));
    let mut out = server.stdout.take().unwrap();
    thread::spawn(move || io::copy(&mut out, &mut io::sink()));
    line.split("http://").nth(1).unwrap().trim().parse().unwrap()
}

/// Carries one request, and what comes of it.
fn carry(mut from: TcpStream, at: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let (head, mut body) = head(&mut from)?;
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let first = text.lines().next().unwrap_or_default().to_owned();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.unwrap_or_default();
    let fault = met(&first, state);
    if fault == Fault::Silent {
        // Until the other side has had enough.
        io::copy(&mut from, &mut io::sink())?;
        return Ok(());
    }
    if fault == Fault::Cut {
        return from.shutdown(Shutdown::Both);
    }
    let begun = body.len();
    body.resize(length.max(begun), 0);
    from.read_exact(&mut body[begun..])?;
    if let Fault::Answers { status, code, .. } = fault {
        return answer(&mut from, status, code);
    }
    if let Fault::Pages(name) = fault {
        return page(&mut from, name);
    }
    if fault == Fault::Endless {
        from.write_all(b"HTTP/1.1 500 For the test\r\nConnection: close\r\n\r\n")?;
        loop {
            from.write_all(&[b'x'; 1 << 16])?;
        }
    }
    if let (Fault::Alters { .. }, Some(byte)) = (fault, body.last_mut()) {
        *byte ^= 1;
    }
    let mut to = TcpStream::connect(at)?;
    to.write_all(&if fault == Fault::Overwrites { unconditional(&head) } else { head })?;
    to.write_all(&body)?;
    let mut got = Vec::new();
    to.read_to_end(&mut got)?;
    match fault {
        Fault::Forgets { .. } => answer(&mut from, 500, "InternalError"),
        Fault::Dribbles(tenths) => dribble(&mut from, &got, tenths),
        Fault::Shortens { .. } => from.write_all(&got[..got.len() - got.len().min(500_000)]),
        _ => from.write_all(&got),
    }
}

/// What happens to a request that begins with this line.
fn met(first: &str, state: &Mutex<State>) -> Fault {
    let mut state = state.lock().unwrap();
    let is_piece = first.contains("partnumber=");
    let is_meant = match state.what {
        What::Any => true,
        What::Posts => first.starts_with("post "),
        What::Lists => first.contains("list-type="),
        What::Puts => first.starts_with("put "),
        What::Completions => {
            first.starts_with("put ") && !is_piece
                || first.starts_with("post ") && first.contains("uploadid=")
        }
    };
    let left = match &mut state.fault {
        Fault::Answers { times, .. }
        | Fault::Forgets { times }
        | Fault::Shortens { times }
        | Fault::Alters { times } => times,
        Fault::None
        | Fault::Cut
        | Fault::Silent
        | Fault::Overwrites
        | Fault::Endless
        | Fault::Dribbles(_)
        | Fault::Pages(_) => {
            state.faults += usize::from(is_meant && state.fault != Fault::None);
            return if is_meant { state.fault } else { Fault::None };
        }
    };
    if !is_meant || *left == 0 {
        return Fault::None;
    }
    *left -= 1;
    state.faults += 1;
    state.fault
}

/// A head without its condition.
fn unconditional(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let is_kept = |line: &&str| !line.to_ascii_lowercase().starts_with("if-none-match:");
    text.split_inclusive("\r\n").filter(is_kept).collect::<String>().into_bytes()
}

/// The head of a request, and what came of its body with it.
pub(crate) fn head(from: &mut impl Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((bytes, body));
        }
    }
}

/// Gives the body of an answer after blanks, and the head before them.
fn dribble(to: &mut TcpStream, got: &[u8], tenths: u32) -> io::Result<()> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n").map_or(got.len(), |at| at + 4);
    to.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    for _ in 0..tenths {
        to.write_all(b" ")?;
        thread::sleep(Duration::from_millis(100));
    }
    to.write_all(&got[end..])
}

/// A page of a list, with another behind it.
fn page(to: &mut TcpStream, name: &str) -> io::Result<()> {
    let object = format!(
        "<Contents><Key>{name}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    );
    let object = if name.is_empty() { "" } else { &object };
    let token = "<NextContinuationToken>another</NextContinuationToken>";
    let body = format!("<ListBucketResult>{object}{token}</ListBucketResult>");
    write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// As S3 says that something is wrong, with what it repeats of the request.
fn answer(to: &mut TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>for the test</Message>\
         <StringToSign>CANARY</StringToSign></Error>"
    );
    let length = body.len();
    write!(
        to,
        "HTTP/1.1 {status} For the test\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
