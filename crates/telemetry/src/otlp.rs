//! Spans to a collector: OTLP over HTTP, in protobuf, from a thread of its own. Nobody who makes spans waits for it, and what a collector does not
//! take is dropped and counted.
//!
//! The few messages of the protocol that are needed are written by hand: a span has a dozen fields, and their numbers never change.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ureq::Agent;

use crate::numbers::Gauge;

/// How often spans are taken to the collector.
const EVERY: Duration = Duration::from_millis(500);
/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a process waits for what is left to be taken.
const END: Duration = Duration::from_secs(5);
/// Spans of one request.
const SPANS_MAX: usize = 2048;
/// The path of the protocol, where the address has none.
const PATH: &str = "/v1/traces";

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// Whose side a span tells of: the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Something within.
    Internal = 1,
    /// Of whoever serves.
    Server = 2,
    /// Of whoever asks.
    Client = 3,
}

/// A piece of the way of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of which trace.
    pub trace: u128,
    /// Its number in it.
    pub span: u64,
    /// The span around it; 0 for none.
    pub parent: u64,
    /// What it is called.
    pub name: &'static str,
    /// Whose side it tells of.
    pub side: Side,
    /// When it began, in nanoseconds since 1970.
    pub begun_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// What else is known. Never a secret.
    pub attributes: Vec<(&'static str, Value)>,
    /// True if it came to an accident; a payment that was declined is none.
    pub has_failed: bool,
}

/// Where spans come from: asked by the exporter's thread now and then.
pub trait SpanSource: Send + 'static {
    /// Moves what there is, or at most so many spans, and a few more, behind those that are there.
    fn drain(&mut self, spans: &mut Vec<Span>, at_most: usize);
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Exported {
    /// The collector has them.
    pub sent: Gauge,
    /// It has not taken them: they are gone.
    pub lost: Gauge,
}

/// Why an address is none of a collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a collector: write http://HOST:PORT, or https:// and a path")]
pub struct NoCollector(String);

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(String);

impl Collector {
    /// Reads an address; one without a path gets the protocol's.
    ///
    /// # Errors
    /// It is no HTTP address, or names somebody: secrets do not belong on a command line.
    pub fn read(text: &str) -> Result<Self, NoCollector> {
        let wrong = || NoCollector(text.to_owned());
        let rest =
            text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-.:[]".contains(letter);
        if host.is_empty() || !host.chars().all(is_plain) || path.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let base = text.trim_end_matches('/');
        Ok(Self(if path.is_empty() { format!("{base}{PATH}") } else { base.to_owned() }))
    }
}

impl std::fmt::Display for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes spans to a collector until it is dropped, and then what is left, for as long as 5 s.
#[derive(Debug)]
pub struct Exporter {
    stop: Option<Sender<()>>,
    /// Closed when the thread has ended. Only the end asks it; whoever holds this may share it.
    ended: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Begins. `service` is what the process is called in traces.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        collector: Collector,
        service: &'static str,
        source: impl SpanSource,
        exported: Arc<Exported>,
    ) -> io::Result<Self> {
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(true)
            .max_redirects(0)
            .build()
            .new_agent();
        let (stop, stopped) = channel();
        let mut carrier = Carrier { collector, service, source, exported, agent, is_down: false };
        let (ends, ended): (Sender<()>, _) = channel();
        let run = move || {
            let _ends = ends;
            carrier.run(&stopped);
        };
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), ended: Mutex::new(ended), thread: Some(thread) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the collector does not answer and is left behind: the last spans are lost");
            return;
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was told, and nothing is left to be done about it.
            let _ = thread.join();
        }
    }
}

struct Carrier<S> {
    collector: Collector,
    service: &'static str,
    source: S,
    exported: Arc<Exported>,
    agent: Agent,
    /// It is told when the collector goes away and when it is back, and not for each request.
    is_down: bool,
}

impl<S: SpanSource> Carrier<S> {
    fn run(&mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            while self.carry() && stopped.try_recv() == Err(TryRecvError::Empty) {}
        }
        let until = Instant::now() + END;
        while self.carry() && Instant::now() < until {}
    }

    /// Takes some of what there is; true if there may be more that the collector takes. Where it does not answer, a later turn goes on.
    fn carry(&mut self) -> bool {
        let mut spans = Vec::new();
        self.source.drain(&mut spans, SPANS_MAX);
        if spans.is_empty() {
            return false;
        }
        let is_taken = self.post(&encode(self.service, &spans));
        let number = if is_taken { &self.exported.sent } else { &self.exported.lost };
        spans.iter().for_each(|_| number.raise());
        is_taken
    }

    fn post(&mut self, body: &[u8]) -> bool {
        let request = self.agent.post(&self.collector.0).content_type("application/x-protobuf");
        match request.send(body) {
            Ok(_) => {
                if std::mem::take(&mut self.is_down) {
                    tracing::info!(collector = %self.collector, "the collector takes spans again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_down, true) {
                    tracing::warn!(collector = %self.collector, %error, "the collector does not take spans: they are dropped");
                }
                false
            }
        }
    }
}

/// An `ExportTraceServiceRequest` of one service.
fn encode(service: &str, spans: &[Span]) -> Vec<u8> {
    let resource =
        message(|resource| attribute(resource, 1, "service.name", &Value::Text(service.to_owned())));
    let scope = message(|scope| {
        bytes(scope, 1, b"surety");
        bytes(scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
    });
    let scoped = message(|scoped| {
        bytes(scoped, 1, &scope);
        spans.iter().for_each(|span| bytes(scoped, 2, &span_message(span)));
    });
    let of_resource = message(|of_resource| {
        bytes(of_resource, 1, &resource);
        bytes(of_resource, 2, &scoped);
    });
    message(|request| bytes(request, 1, &of_resource))
}

fn span_message(span: &Span) -> Vec<u8> {
    message(|out| {
        bytes(out, 1, &span.trace.to_be_bytes());
        bytes(out, 2, &span.span.to_be_bytes());
        if span.parent != 0 {
            bytes(out, 4, &span.parent.to_be_bytes());
        }
        bytes(out, 5, span.name.as_bytes());
        number(out, 6, span.side as u64);
        fixed(out, 7, span.begun_ns);
        fixed(out, 8, span.ended_ns.max(span.begun_ns));
        span.attributes.iter().for_each(|(key, value)| attribute(out, 9, key, value));
        if span.has_failed {
            // Status: its code 2 is an error.
            bytes(out, 15, &message(|status| number(status, 3, 2)));
        }
    })
}

/// A `KeyValue`.
fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &Value) {
    let value = message(|any| match value {
        Value::Text(text) => bytes(any, 1, text.as_bytes()),
        // Two's complement, as protobuf has `int64`.
        Value::Number(value) => number(any, 3, value.cast_unsigned()),
    });
    let pair = message(|pair| {
        bytes(pair, 1, key.as_bytes());
        bytes(pair, 2, &value);
    });
    bytes(out, field, &pair);
}

fn message(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Wire type 2: a length, and so many bytes.
fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Wire type 0: a number of as many bytes as it needs.
fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

/// Wire type 1: eight bytes.
fn fixed(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn spans() -> Vec<Span> {
        let first = Span {
            trace: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            span: 0x1112_1314_1516_1718,
            parent: 0x2122_2324_2526_2728,
            name: "lock",
            side: Side::Server,
            begun_ns: 1_700_000_000_000_000_001,
            ended_ns: 1_700_000_000_000_000_300,
            attributes: vec![
                ("surety.shard", Value::Number(3)),
                ("surety.code", Value::Text("APPROVED".to_owned())),
            ],
            has_failed: false,
        };
        let second = Span {
            trace: 1,
            span: 2,
            parent: 0,
            name: "release",
            side: Side::Client,
            begun_ns: 5,
            // A clock that was set back: no span ends before it begins.
            ended_ns: 4,
            attributes: vec![("n", Value::Number(-1))],
            has_failed: true,
        };
        vec![first, second]
    }

    /// What `opentelemetry-proto` for Python writes for the same request.
    const BY_OTHERS: &str = "0af2010a1a0a180a0c736572766963652e6e616d6512080a0673757265747912d3010a0f0a067375726574791205302e312e\
        30126f0a100102030405060708090a0b0c0d0e0f1012081112131415161718220821222324252627282a046c6f636b30023901002a36fe9c\
        9717412c012a36fe9c97174a120a0c7375726574792e7368617264120218034a190a0b7375726574792e636f6465120a0a08415050524f56\
        4544124f0a1000000000000000000000000000000001120800000000000000022a0772656c6561736530033905000000000000004105000000\
        000000004a100a016e120b18ffffffffffffffffff017a021802";

    #[test]
    fn a_request_is_the_one_that_another_library_writes() {
        let hex: String = encode("surety", &spans()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, BY_OTHERS);
    }

    #[test]
    fn addresses_of_collectors_are_read() {
        for (text, url) in [
            ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
            ("http://collector:4318/", Some("http://collector:4318/v1/traces")),
            ("https://[::1]:4318/otlp/traces", Some("https://[::1]:4318/otlp/traces")),
            ("collector:4318", None),
            ("http://", None),
            ("http:///v1/traces", None),
            ("grpc://collector:4317", None),
            ("https://user:secret@collector", None),
            ("http://collector/a b", None),
        ] {
            assert_eq!(Collector::read(text).ok().map(|read| read.to_string()).as_deref(), url, "{text}");
        }
    }

    /// Spans that are handed out once.
    struct Once(Arc<Mutex<Vec<Span>>>);

    impl SpanSource for Once {
        fn drain(&mut self, spans: &mut Vec<Span>, _: usize) {
            spans.append(&mut self.0.lock().unwrap());
        }
    }

    /// Takes one request, answers it with a status, and gives its head and body.
    fn take(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut read = Vec::new();
        let head_end = loop {
            let mut part = [0; 1024];
            let count = stream.read(&mut part).unwrap();
            read.extend_from_slice(&part[..count]);
            if let Some(at) = read.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8(read[..head_end].to_vec()).unwrap().to_lowercase();
        let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap();
        let mut body = read.split_off(head_end);
        let missing = length.parse::<usize>().unwrap() - body.len();
        let mut rest = vec![0; missing];
        stream.read_exact(&mut rest).unwrap();
        body.append(&mut rest);
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        (head, body)
    }

    #[test]
    fn spans_are_carried_and_what_is_not_taken_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Collector::read(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let (waiting, exported) = (Arc::new(Mutex::new(spans())), Arc::new(Exported::default()));
        let source = Once(waiting.clone());
        let exporter = Exporter::start(collector, "surety", source, exported.clone()).unwrap();
        let (head, body) = take(&listener, "503 Service Unavailable");
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        assert_eq!(body, encode("surety", &spans()));
        // What is left at the end is carried, too.
        *waiting.lock().unwrap() = spans();
        let ending = std::thread::spawn(move || drop(exporter));
        take(&listener, "200 OK");
        ending.join().unwrap();
        assert_eq!((exported.sent.get(), exported.lost.get()), (2, 2));
    }

    #[test]
    fn the_end_does_not_wait_for_a_collector_that_is_never_done() {
        /// Spans of which there are always more.
        struct Endless;
        impl SpanSource for Endless {
            fn drain(&mut self, into: &mut Vec<Span>, _: usize) {
                into.append(&mut spans());
            }
        }
        for is_answered in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let collector = Collector::read(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
            let exporter = Exporter::start(collector, "surety", Endless, Arc::default()).unwrap();
            let (over, is_over) = channel::<()>();
            let answering = std::thread::spawn(move || {
                if is_answered {
                    while is_over.try_recv() == Err(TryRecvError::Empty) {
                        take(&listener, "200 OK");
                    }
                } else {
                    let _held = listener.accept().unwrap();
                    // Never answered while the exporter ends.
                    let _ = is_over.recv();
                }
            });
            drop(exporter);
            // It ends with its listener, or waits for one more that never comes: the process does not wait for it.
            drop((over, answering));
        }
    }
}
