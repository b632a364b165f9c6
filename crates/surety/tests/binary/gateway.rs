//! `gateway run`: an acquirer's host, the process in front of the engine, and an engine that is killed in between.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iso8583::payment::sent_at;
use iso8583::{Codec, Cut, Dialect, Draft, FrameError, LengthHeader, Message, Mti, Profile};
use rustix::process::Signal;

use crate::process::{Data, Engine, Front, ctl, surety};
use crate::watch::get;

const CODEC: Codec = Codec { dialect: Dialect::V1987, profile: Profile::ASCII };
const HEADER: LengthHeader = LengthHeader::Ascii4;
/// A card that must not turn up in anything that the process writes.
pub(crate) const CANARY: &str = "4929123456789012";
pub(crate) const SUPPLIER: &str = "0x00000000000000000000000000000000000000aa";

pub(crate) const LINK: &str = r#"
name = "acme"
listen = "127.0.0.1:0"
header = "ascii4"
edition = "1987"
profile = "ascii"
id_key_file = "acme.key"
book_file = "acme.book"
currency = [{ number = 840, asset_decimals = 18, edge_decimals = 2 }]
route = [{ prefix = "4", partitions = ["0:1"] }]
# However long an engine takes to come back here.
limits = { answer_ms = 100000, echo_ms = 200000 }
"#;

/// A file of settings beside its key.
pub(crate) fn settings(directory: &Path, text: &str) -> PathBuf {
    let file = directory.join("link.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(directory.join("acme.key"), "5a".repeat(32)).unwrap();
    file
}

/// A new socket of an acquirer's host.
pub(crate) fn connect(front: &Front) -> Host {
    connect_to(front.ready["listen"].as_str().unwrap()).unwrap()
}

/// The same at an address. None if nobody is there.
pub(crate) fn connect_to(address: &str) -> Option<Host> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    Some(Host::over(stream))
}

/// An acquirer's host.
pub(crate) struct Host<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
}

impl<S: Read + Write> Host<S> {
    /// One that is connected like this.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// How it is connected.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Says a message. That its link is gone is found by who waits for the answer.
    fn send(&mut self, mti: &[u8; 4], fields: &[(u8, &str)]) {
        let mut draft = Draft::new(CODEC.dialect);
        draft.reset(Mti::from_digits(*mti).unwrap());
        fields.iter().for_each(|(field, units)| draft.set(*field, units.as_bytes()));
        let mut bytes = Vec::new();
        let write = |out: &mut Vec<u8>| {
            draft.encode(CODEC, out).unwrap();
            Ok::<(), FrameError>(())
        };
        HEADER.write(&mut bytes, write).unwrap();
        let _ = self.stream.write_all(&bytes);
    }

    /// Type and field 39 of the next message.
    pub(crate) fn answer(&mut self) -> (String, String) {
        self.try_answer().expect("the socket is open")
    }

    /// The same. None where the socket has ended.
    pub(crate) fn try_answer(&mut self) -> Option<(String, String)> {
        let [code] = self.try_fields([39])?;
        Some(code)
    }

    fn fields<const N: usize>(&mut self, fields: [u8; N]) -> [(String, String); N] {
        self.try_fields(fields).expect("the socket is open")
    }

    /// The type of the next message with each of these fields. None where the socket has ended.
    fn try_fields<const N: usize>(&mut self, fields: [u8; N]) -> Option<[(String, String); N]> {
        loop {
            if let Cut::Message { bytes, used } = HEADER.cut(&self.read, 9999).unwrap() {
                let message = Message::parse(CODEC, bytes).unwrap();
                let text = |field| String::from_utf8(message.units(field).unwrap().collect()).unwrap();
                let answer = fields.map(|field| (message.mti().to_string(), text(field)));
                self.read.drain(..used);
                return Some(answer);
            }
            let mut bytes = [0; 4096];
            let count = match self.stream.read(&mut bytes) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no answer: {error}")
                }
                Ok(0) | Err(_) => return None,
                Ok(count) => count,
            };
            self.read.extend_from_slice(&bytes[..count]);
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, mti: &str, code: &str) {
        assert_eq!(self.answer(), (mti.to_owned(), code.to_owned()));
    }

    pub(crate) fn sign_on(&mut self) {
        assert!(self.try_sign_on());
    }

    /// True if it has signed on.
    pub(crate) fn try_sign_on(&mut self) -> bool {
        self.send(b"0800", &[(7, &sent()), (11, "1"), (70, "001")]);
        self.try_answer().is_some_and(|(mti, code)| (mti.as_str(), code.as_str()) == ("0810", "00"))
    }

    /// Asks whether the link is there, and is answered.
    pub(crate) fn echo(&mut self) {
        self.send(b"0800", &[(7, &sent()), (11, "9"), (70, "301")]);
        self.expect("0810", "00");
    }

    fn pay(&mut self, mti: &[u8; 4], sent: &str, trace: &str) {
        self.pay_with(mti, CANARY, sent, trace);
    }

    /// Takes a payment back.
    fn reverse(&mut self, mti: &[u8; 4], sent: &str, trace: u32, of: u32) {
        self.reverse_of(mti, CANARY, sent, trace, of);
    }

    /// Takes a payment of a card back.
    pub(crate) fn reverse_of(&mut self, mti: &[u8; 4], card: &str, sent: &str, trace: u32, of: u32) {
        let (trace, reference) = (trace.to_string(), of.to_string());
        let original = format!("0100{of:06}{sent}{:011}{:011}", 123_456, 0);
        let fields = [
            (2, card),
            (4, "2500"),
            (7, sent),
            (11, &trace),
            (32, "123456"),
            (37, &reference),
            (39, "68"),
            (41, "TERM0001"),
            (49, "840"),
            (90, &original),
        ];
        self.send(mti, &fields);
    }

    /// Asks for the totals of the day, with figures that are all zero: counts of debits and authorizations, amounts of debits and of what
    /// went back.
    pub(crate) fn totals(&mut self) -> [u64; 4] {
        let sent = sent();
        let counts = [74, 75, 76, 77, 81, 82, 83, 84, 86, 87, 88, 89].map(|field| (field, "0"));
        let mut fields = vec![(7, sent.as_str()), (11, "999"), (97, "D0000000000000000")];
        fields.extend(counts);
        self.send(b"0500", &fields);
        self.fields([76, 81, 88, 89]).map(|(_, text)| text.parse().unwrap())
    }

    fn pay_with(&mut self, mti: &[u8; 4], card: &str, sent: &str, trace: &str) {
        self.pay_to(mti, card, sent, trace, "501");
    }

    /// Pays with a card to a merchant.
    pub(crate) fn pay_to(&mut self, mti: &[u8; 4], card: &str, sent: &str, trace: &str, merchant: &str) {
        let fields = [
            (2, card),
            (3, "0"),
            (4, "2500"),
            (7, sent),
            (11, trace),
            (12, "120000"),
            (13, "0101"),
            (18, "5411"),
            (22, "51"),
            (25, "0"),
            (32, "123456"),
            (37, trace),
            (41, "TERM0001"),
            (42, merchant),
            (49, "840"),
        ];
        self.send(mti, &fields);
    }
}

pub(crate) fn sent() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    String::from_utf8(sent_at(surety_protocol::Time(now.try_into().unwrap())).to_vec()).unwrap()
}

#[test]
fn an_acquirer_is_served_through_a_kill_of_the_engine() {
    let data = Data::init(1);
    let engine = engine(&data);
    let listen = engine.listen().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let front = Front::start(&data, &settings(directory.path(), LINK));
    assert_eq!((&front.ready["link"], &front.ready["tenant"]), (&"acme".into(), &1.into()));
    let mut host = connect(&front);
    host.sign_on();
    let first = sent();
    host.pay(b"0100", &first, "2");
    host.expect("0110", "00");
    engine.kill();
    let second = sent();
    host.pay(b"0100", &second, "3");
    let engine = Engine::start_at(&data, "fsync", &listen, &[]);
    host.expect("0110", "00");
    // Each again, by another socket: what was approved is approved, and nothing is locked twice.
    let mut other = connect(&front);
    other.sign_on();
    for (sent, trace) in [(&first, "2"), (&second, "3")] {
        other.pay(b"0101", sent, trace);
        other.expect("0110", "00");
    }
    // A day that there is not: the log tells where and of what form, and no more.
    host.pay(b"0100", "1399250000", "9");
    host.expect("0110", "30");
    front.says("field 7 makes no sense\",\"found\":\"10 digits, where 10 digits may be");
    // A message without its end.
    other.stream.write_all(b"00200100F23844810").unwrap();
    other.stream.write_all(b"8E08").unwrap();
    other.stream.shutdown(std::net::Shutdown::Write).unwrap();
    // Another prefix, while the link is served.
    let fields = |host: &mut Host, trace: &str| host.pay_with(b"0100", "5105105105105100", &sent(), trace);
    fields(&mut host, "10");
    host.expect("0110", "15");
    settings(directory.path(), &LINK.replace("\"4\"", "\"5\""));
    front.signal(Signal::HUP);
    let until = std::time::Instant::now() + Duration::from_secs(60);
    for trace in 11.. {
        fields(&mut host, &trace.to_string());
        match host.answer() {
            (_, code) if code == "00" => break,
            (_, code) => assert!(code == "15" && std::time::Instant::now() < until, "{code}"),
        }
    }
    let shown = ctl(&data, &["partition", "show", "0:1"]);
    let logs = front.terminate();
    assert!(
        logs.contains("acme") && !logs.contains(&CANARY[4..]) && !logs.contains("5105105105105100"),
        "no card is written: {logs}"
    );
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let text = shown.to_string();
    assert!(text.contains("\"75000000000000000000\""), "three locks of 25: {text}");
    surety(&["verify", "--data", data.path()]).exits(0);
}

/// An engine with a partition that the tenant may use.
pub(crate) fn engine(data: &Data) -> Engine {
    let engine = Engine::start(data, "fsync");
    ctl(data, &["partition", "create", "0:1"]);
    ctl(data, &["policy", "set", "0:1", "life_default=1h"]);
    ctl(data, &["tenant", "set", "1"]);
    ctl(data, &["grant", "0:1", "1", "authorize,advise,read"]);
    ctl(data, &["deposit", "0:1", "1e21", "--supplier", SUPPLIER, "--nonce", "1"]);
    engine
}

#[test]
fn a_front_door_that_is_killed_under_load_loses_and_doubles_nothing() {
    const PAYMENTS: u32 = 30;
    const REVERSED: u32 = 10;
    const SALES: u32 = 5;
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    let config = settings(directory.path(), LINK);
    let sent = sent();
    let pay_all = |host: &mut Host, mti| (1..=PAYMENTS).for_each(|n| host.pay(mti, &sent, &n.to_string()));
    let reverse_all =
        |host: &mut Host, mti| (1..=REVERSED).for_each(|n| host.reverse(mti, &sent, 100 + n, n));
    let sell_all =
        |host: &mut Host, mti| (201..=200 + SALES).for_each(|n| host.pay(mti, &sent, &n.to_string()));
    let open = || {
        let front = Front::start(&data, &config);
        let mut host = connect(&front);
        host.sign_on();
        (front, host)
    };
    // Killed with the first answer, the rest being under way; then again, among reversals.
    let (front, mut host) = open();
    pay_all(&mut host, b"0100");
    host.expect("0110", "00");
    front.kill();
    let (front, mut host) = open();
    pay_all(&mut host, b"0101");
    sell_all(&mut host, b"0200");
    reverse_all(&mut host, b"0420");
    assert_eq!(host.answer().1, "00");
    front.kill();
    // The host repeats what was not answered, and all else too.
    let (front, mut host) = open();
    pay_all(&mut host, b"0101");
    sell_all(&mut host, b"0201");
    reverse_all(&mut host, b"0421");
    for _ in 0..PAYMENTS + SALES + REVERSED {
        assert_eq!(host.answer().1, "00");
    }
    assert_eq!(host.totals(), [SALES.into(), PAYMENTS.into(), 2500 * u64::from(SALES), 0]);
    let shown = ctl(&data, &["partition", "show", "0:1"]).to_string();
    assert!(shown.contains("\"500000000000000000000\""), "twenty locks of 25: {shown}");
    assert!(shown.contains("\"125000000000000000000\""), "five sales of 25: {shown}");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn a_simulated_acquirer_certifies_the_link_and_nobody_else() {
    let data = Data::init(1);
    let engine = engine(&data);
    let directory = tempfile::tempdir().unwrap();
    let link = LINK.replace("\"ascii4\"", "\"binary2\"").replace("\"ascii\"", "\"binary\"");
    let front = Front::start(&data, &settings(directory.path(), &link));
    let listen = front.ready["listen"].as_str().unwrap().to_owned();
    let simulate = |more: &[&str]| {
        let own = ["gateway", "simulate", "--host", &listen, "--set", &format!("2={CANARY}")];
        surety(&own.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let report = simulate(&["--json"]).exits(0).json();
    assert_eq!((&report["ok"], &report["failed"]), (&true.into(), &0.into()));
    assert_eq!(report["passed"], report["cases"].as_array().unwrap().len());
    let text = simulate(&[]).exits(0).stdout;
    assert!(text.contains("passed  authorization") && text.ends_with(" 0 failed\n"), "{text}");
    assert!(
        !text.contains(&CANARY[4..]) && !report.to_string().contains(&CANARY[4..]),
        "no card in a report"
    );
    // A card that leads nowhere: most cases fail, and the report says so.
    let wrong = simulate(&["--set", "2=5105105105105100", "--json"]).fails(1, "cases failed").json();
    assert_eq!((&wrong["ok"], wrong["failed"].as_u64() > Some(10)), (&false.into(), true));
    simulate(&["--scenario", "nowhere.toml"]).fails(2, "no scenario nowhere.toml");
    let printed = surety(&["gateway", "simulate", "--print", "--scenario", "1993"]).exits(0).stdout;
    let file = directory.path().join("mine.toml");
    std::fs::write(
        &file,
        printed.replace("answer_ms", "#").replace("name = \"1993", "answer_ms = 300\nname = \"mine, 1993"),
    )
    .unwrap();
    let mine = simulate(&["--scenario", file.to_str().unwrap(), "--json"]).fails(1, "cases failed").json();
    // Another encoding: nothing but the end of the socket is as expected.
    assert_eq!((&mine["scenario"], mine["passed"].as_u64() < Some(3)), (&"mine, 1993 edition".into(), true));
    let logs = front.terminate();
    assert!(!logs.contains(&CANARY[4..]), "no card is written");
    surety(&["gateway", "simulate", "--host", &listen]).exits(9);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_link_inside_the_engine_serves_alike() {
    let data = Data::init(2);
    let before = engine(&data);
    assert_eq!(before.terminate(Signal::TERM), 0);
    let directory = tempfile::tempdir().unwrap();
    let link = LINK.replace("\"ascii4\"", "\"binary2\"").replace("\"ascii\"", "\"binary\"");
    let file = settings(directory.path(), &link);
    let iso = format!("1={}", file.to_str().unwrap());
    let args = ["--iso", &iso, "--admin", "127.0.0.1:0"];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &args);
    let door = engine.ready["iso"][0]["listen"].as_str().unwrap().to_owned();
    let simulate = |card: &str| {
        surety(&["gateway", "simulate", "--host", &door, "--set", &format!("2={card}"), "--json"])
    };
    let report = simulate(CANARY).exits(0).json();
    assert_eq!(report["failed"], 0, "{report}");
    let told = get(engine.ready["admin"].as_str().unwrap(), "/metrics");
    let labels = format!("{{link=\"acme\",listen=\"{door}\",class=\"authorization\",code=\"00\"}} ");
    assert!(told.contains(&format!("surety_iso_messages_total{labels}")), "{told}");
    assert!(!told.contains(&CANARY[4..]), "no card is told");
    let shown = ctl(&data, &["partition", "show", "0:1"]);
    assert_eq!(
        shown["captured"], "15000000000000000000",
        "the stand-in's payment and the forced sale: {shown}"
    );
    // Settings that are read again; the old prefix leads nowhere then.
    settings(directory.path(), &link.replace("\"4\"", "\"5\""));
    engine.signal(Signal::HUP);
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while simulate("5105105105105100").exit != 0 {
        assert!(std::time::Instant::now() < until, "the new route is taken");
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
    // A link that cannot be served lets no engine begin, and leaves none behind.
    settings(directory.path(), &link.replace("1987", "1986"));
    surety(&["serve", "--data", data.path(), "--listen", "127.0.0.1:0", "--iso", &iso])
        .fails(2, "unknown variant");
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn links_close_together_also_where_a_host_does_not_read() {
    let data = Data::init(1);
    let before = engine(&data);
    assert_eq!(before.terminate(Signal::TERM), 0);
    let directory = tempfile::tempdir().unwrap();
    // A reply that nobody takes holds its link up for as long as this.
    let link = LINK.replace("echo_ms = 200000", "echo_ms = 200000, write_ms = 100000");
    assert_ne!(link, LINK);
    let one = settings(directory.path(), &link);
    let other = directory.path().join("other.toml");
    std::fs::write(&other, LINK.replace("acme.book", "other.book")).unwrap();
    let flags = [&one, &other].map(|file| format!("1={}", file.to_str().unwrap()));
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--iso", &flags[0], "--iso", &flags[1]]);
    let connect = |link: usize| {
        let stream = TcpStream::connect(engine.ready["iso"][link]["listen"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut host = Host { stream, read: Vec::new() };
        host.sign_on();
        host
    };
    let (mut deaf, mut quiet) = (connect(0), connect(1));
    // Echoes until the link takes no more of them: its replies wait for a host that does not read.
    deaf.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut echoes = Vec::new();
    for _ in 0..1000 {
        let mut draft = Draft::new(CODEC.dialect);
        draft.reset(Mti::from_digits(*b"0800").unwrap());
        [(7, sent().as_str()), (11, "5"), (70, "301")]
            .iter()
            .for_each(|(field, units)| draft.set(*field, units.as_bytes()));
        let write = |out: &mut Vec<u8>| {
            draft.encode(CODEC, out).unwrap();
            Ok::<(), FrameError>(())
        };
        HEADER.write(&mut echoes, write).unwrap();
    }
    while deaf.stream.write_all(&echoes).is_ok() {}
    engine.signal(Signal::TERM);
    let ended = quiet.stream.read(&mut [0; 64]).unwrap();
    assert_eq!(ended, 0, "the other link has closed its sockets, while the first waits");
    drop(deaf);
    assert_eq!(engine.wait(), 0);
}

#[test]
fn a_link_that_cannot_be_served_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let config = settings(directory.path(), LINK);
    let run = |config: &Path, more: &[&str]| {
        let own = ["gateway", "run", "--config", config.to_str().unwrap()];
        surety(&own.iter().chain(more).copied().collect::<Vec<_>>())
    };
    run(&config, &[]).fails(2, "which engine?");
    run(Path::new("nowhere.toml"), &[]).fails(2, "nowhere.toml");
    let wrong = settings(directory.path(), &LINK.replace("1987", "1986"));
    run(&wrong, &[]).fails(2, "unknown variant");
    let config = settings(directory.path(), LINK);
    let data = Data::init(1);
    run(&config, &["--data", data.path()]).exits(9);
    let engine = Engine::start(&data, "os");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = LINK.replace("127.0.0.1:0", &holder.local_addr().unwrap().to_string());
    run(&settings(directory.path(), &taken), &["--data", data.path()]).fails(7, "cannot listen");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}
