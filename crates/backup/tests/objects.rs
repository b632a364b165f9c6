//! An object store as the place of backups: moto's server, and in front of it whatever goes wrong between the two.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod store;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use backup::{ArchiveError, Depot, DepotError, FetchError, ObjectDepot, Patience, claim_archive, copy_file};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use store::{Fault, Store, What};

/// More than is sent at a time: three pieces.
const LARGE: usize = (32 << 20) + 17;

/// What a store knows its caller by.
const SECRET: &str = "CANARYsecret";

/// Short, but for an answer that does come, however busy the machine is.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(20),
    answer: Duration::from_secs(60),
    repeats: 3,
    pause: Duration::from_millis(1),
    pause_max: Duration::from_millis(100),
};

fn depot_with(store: &Store, place: &str, patience: Patience) -> ObjectDepot {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "CANARYid"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", &format!("http://{}", store.address())),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    ObjectDepot::open(place, variables, patience).unwrap()
}

/// TLS in front of a store.
struct Tls {
    address: SocketAddr,
    /// What vouches for it.
    certificate: String,
    /// How many of the next connections end before anything is said.
    cuts: Arc<AtomicUsize>,
}

impl Tls {
    fn start(to: SocketAddr) -> Self {
        let drawn = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(drawn.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![drawn.cert.der().clone()], key).unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&cuts);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let is_cut =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                if is_cut.is_err() {
                    let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                    // Whoever does not trust it hangs up.
                    thread::spawn(move || drop(carry_tls(connection, stream, to)));
                }
            }
        });
        Self { address, certificate: drawn.cert.pem(), cuts }
    }
}

/// Carries one request.
fn carry_tls(mut connection: ServerConnection, mut stream: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    let (head, mut body) = store::head(&mut tls)?;
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let begun = body.len();
    body.resize(begun.max(length.unwrap_or_default()), 0);
    tls.read_exact(&mut body[begun..])?;
    let mut to = TcpStream::connect(to)?;
    to.write_all(&[head, body].concat())?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer)?;
    tls.write_all(&answer)?;
    connection.send_close_notify();
    connection.complete_io(&mut stream).map(drop)
}

#[test]
fn a_store_behind_tls_is_trusted_by_its_authority_alone() {
    let Some(store) = Store::start() else { return };
    let tls = Tls::start(store.address());
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("authority.pem");
    fs::write(&bundle, &tls.certificate).unwrap();
    let open = |host: &str, bundle: Option<&str>| {
        let endpoint = format!("https://{host}:{}", tls.address.port());
        let variables = [
            ("AWS_ACCESS_KEY_ID", "CANARYid"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_CA_BUNDLE", bundle.unwrap_or_default()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ObjectDepot::open("s3://bucket/p", variables, PATIENCE).unwrap()
    };
    let bundle = bundle.to_str().unwrap();
    let depot = open("localhost", Some(bundle));
    let large = pattern(LARGE);
    depot.put("x", &mut &large[..]).unwrap();
    assert!(read(&depot, "x") == large);
    // Connections that end before they have begun are tried again.
    tls.cuts.store(2, Ordering::Relaxed);
    assert_eq!(depot.names().unwrap(), ["x"]);
    tls.cuts.store(2, Ordering::Relaxed);
    depot.put("y", &mut &b"y"[..]).unwrap();
    assert_eq!(tls.cuts.load(Ordering::Relaxed), 0);
    // The web does not vouch for it, nor does its authority for another name.
    for stranger in [open("localhost", None), open("127.0.0.1", Some(bundle))] {
        for error in [stranger.names().unwrap_err(), stranger.put("z", &mut &b"z"[..]).unwrap_err()] {
            let text = error.to_string();
            let is_of_tls = matches!(&error, DepotError::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData);
            assert!(is_of_tls && text.contains("certificate"), "{text}");
            assert!(!text.contains("CANARY"), "{text}");
        }
    }
    assert_eq!(depot.names().unwrap().len(), 2);
}

/// What tells a machine who it is, and a store that lets nobody in; both at one address.
struct Machine {
    address: SocketAddr,
    /// The heads of what it was asked, in lower case.
    heads: Arc<Mutex<Vec<String>>>,
}

/// What it says.
#[derive(Clone, Copy)]
struct Told {
    token: &'static str,
    role: &'static str,
    /// Between quotes in JSON.
    key: &'static str,
    session: &'static str,
}

const TOLD: Told = Told { token: "word", role: "role", key: "CANARYkey", session: "CANARYsession" };

impl Machine {
    fn start(told: Told) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever hangs up early has had enough.
                drop(Self::answer(stream.unwrap(), told, &asked));
            }
        });
        Self { address, heads }
    }

    fn answer(mut stream: TcpStream, told: Told, asked: &Mutex<Vec<String>>) -> io::Result<()> {
        let (head, _) = store::head(&mut stream)?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        asked.lock().unwrap().push(head);
        let (status, body) = match path.as_str() {
            "/latest/api/token" => (200, told.token.to_owned()),
            "/latest/meta-data/iam/security-credentials/" => (200, told.role.to_owned()),
            "/latest/meta-data/iam/security-credentials/role" | "/container" if told.key == ENDLESS => {
                (200, ENDLESS.to_owned())
            }
            "/latest/meta-data/iam/security-credentials/role" | "/container" => {
                let Told { key, session, .. } = told;
                let body = format!(
                    "{{\"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"CANARYsecret\",\"Token\":\"{session}\",\
                     \"Expiration\":\"2099-01-01T00:00:00Z\"}}"
                );
                (200, body)
            }
            _ => (403, "<Error><Code>Reached</Code></Error>".to_owned()),
        };
        let is_endless = body == ENDLESS;
        let length = if is_endless { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        write!(stream, "HTTP/1.1 {status} For the test\r\n{length}Connection: close\r\n\r\n{body}")?;
        if is_endless {
            loop {
                stream.write_all(&[b'x'; 1 << 16])?;
            }
        }
        Ok(())
    }

    /// What comes of a question to the store.
    fn asked_with(&self, variables: &[(&str, &str)]) -> DepotError {
        let address = format!("http://{}", self.address);
        let both = [("AWS_ENDPOINT_URL", address.as_str()), ("AWS_METADATA_ENDPOINT", address.as_str())];
        let variables = both.iter().chain(variables);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let depot = ObjectDepot::open("s3://bucket/p", variables, PATIENCE).unwrap();
        depot.names().unwrap_err()
    }
}

/// Says that the answer never ends.
const ENDLESS: &str = "endless";

#[test]
fn what_a_machine_is_told_of_itself_is_an_error_where_it_makes_no_sense() {
    // Line ends are what such answers end with.
    for told in [TOLD, Told { token: "word\n", role: "role\r\n", ..TOLD }] {
        let machine = Machine::start(told);
        let refused = machine.asked_with(&[]);
        assert!(
            matches!(&refused, DepotError::Denied { reason, .. } if reason.contains("Reached")),
            "{refused}"
        );
        let heads = machine.heads.lock().unwrap();
        assert!(heads.last().unwrap().contains("x-amz-security-token: canarysession\r\n"));
    }
    for (told, expected) in [
        (Told { token: "CANARY\nb", ..TOLD }, "make no sense"),
        (Told { token: "", ..TOLD }, "make no sense"),
        (Told { token: "CANARY\u{fc}", ..TOLD }, "make no sense"),
        (Told { role: "CANARY b", ..TOLD }, "make no sense"),
        (Told { role: "CANARY\nb", ..TOLD }, "make no sense"),
        (Told { role: ENDLESS, ..TOLD }, "an answer of more than"),
        (Told { key: ENDLESS, ..TOLD }, "an answer of more than"),
        (Told { key: "CANARY\\nkey", ..TOLD }, "no header takes"),
        (Told { key: "CANARY\u{fc}", ..TOLD }, "no header takes"),
        (Told { session: "CANARY\\u0001", ..TOLD }, "no header takes"),
        (Told { session: "CANARY\\r\\nx: y", ..TOLD }, "no header takes"),
    ] {
        let error = Machine::start(told).asked_with(&[]);
        let text = error.to_string();
        assert!(matches!(error, DepotError::Io { .. }) && text.contains(expected), "{text}");
        assert!(!text.contains("CANARY"), "{text}");
    }
}

#[test]
fn what_a_container_shows_is_one_line_and_is_read_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let machine = Machine::start(TOLD);
    let address = format!("http://{}/container", machine.address);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()),
    ];
    for (text, expected) in [
        // One that is mounted a moment later keeps nobody from starting.
        (None, "token: No such file"),
        (Some("CANARY\nCANARY"), "holds what no header takes"),
        (Some("CANARY\u{1}"), "holds what no header takes"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let error = machine.asked_with(&variables);
        let text = error.to_string();
        assert!(matches!(error, DepotError::Io { .. }) && text.contains(expected), "{text}");
        assert!(
            text.contains("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") && !text.contains("CANARY"),
            "{text}"
        );
        assert!(machine.heads.lock().unwrap().is_empty(), "nobody was asked");
    }
    // `echo` ends a line.
    for text in ["one", "two\n"] {
        fs::write(&file, text).unwrap();
        let refused = machine.asked_with(&variables);
        assert!(matches!(refused, DepotError::Denied { .. }), "{refused}");
        let heads = std::mem::take(&mut *machine.heads.lock().unwrap());
        let shown = format!("authorization: {}\r\n", text.trim_end());
        assert!(heads[0].contains("/container") && heads[0].contains(&shown), "{heads:?}");
    }
}

fn depot(store: &Store) -> ObjectDepot {
    depot_with(store, "s3://bucket/some/where", PATIENCE)
}

fn read(depot: &dyn Depot, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    depot.get(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes of which no two pieces are the same.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_is_put_is_there_whole_and_is_never_written_twice() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    assert!(depot.names().unwrap().is_empty());
    assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
    for (name, length) in [("empty", 0), ("d/small", 3), ("d/piece", 16 << 20), ("large", LARGE)] {
        let bytes = pattern(length);
        depot.put(name, &mut &bytes[..]).unwrap();
        assert!(read(&depot, name) == bytes, "{name}");
        let other = vec![1; length + 1];
        let again = depot.put(name, &mut &other[..]);
        assert!(matches!(again, Err(DepotError::Exists { .. })), "{name}: {again:?}");
        assert!(read(&depot, name) == bytes, "{name} stays as it is");
    }
    let mut names = depot.names().unwrap();
    names.sort();
    assert_eq!(names, ["d/piece", "d/small", "empty", "large"]);
    let mut below = depot.names_in("d").unwrap();
    below.sort();
    assert_eq!(below, ["d/piece", "d/small"]);
    assert!(depot.names_in("larg").unwrap().is_empty());
    // A neighbour whose name begins in the same way, and what stands above.
    for beside in ["s3://bucket/some/where-else", "s3://bucket/some"] {
        depot_with(&store, beside, PATIENCE).put("y", &mut &b"y"[..]).unwrap();
    }
    assert_eq!(depot.names().unwrap().len(), 4);
}

#[test]
fn what_fails_is_asked_again_and_then_told() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    let wrong = |times| Fault::Answers { times, status: 503, code: "SlowDown" };
    for name in ["small", "large"] {
        let bytes = if name == "small" { &large[..9] } else { &large[..] };
        for what in [What::Any, What::Posts] {
            store.fails(what, wrong(2));
            match depot.put(name, &mut &bytes[..]) {
                Ok(()) => assert!(what == What::Any && read(&depot, name) == bytes),
                // The second time it is there already.
                Err(error) => {
                    assert!(what == What::Posts && matches!(error, DepotError::Exists { .. }), "{error}")
                }
            }
        }
        store.fails(What::Any, wrong(2));
        assert!(read(&depot, name) == bytes, "{name}");
    }
    store.fails(What::Any, wrong(2));
    assert_eq!(depot.names().unwrap().len(), 2);
    store.fails(What::Any, wrong(usize::MAX));
    for error in [depot.put("z", &mut &b"z"[..]).unwrap_err(), depot.names().unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, DepotError::Io { .. }) && text.contains("SlowDown"), "{text}");
    }
    store.holds();
    assert!(matches!(depot.get("z"), Err(DepotError::Missing { .. })));
}

#[test]
fn a_store_that_goes_away_is_waited_for_and_one_that_was_never_there_is_not() {
    let Some(store) = Store::start() else { return };
    let short = Patience { pause: PATIENCE.pause, pause_max: PATIENCE.pause_max, ..Patience::of_a_copy() };
    let depot = depot_with(&store, "s3://bucket/p", short);
    let away = |times| Fault::Answers { times, status: 503, code: "SlowDown" };
    store.fails(What::Any, away(usize::MAX));
    let fails = [depot.names().map(drop), depot.get("x").map(drop), depot.put("x", &mut &b"x"[..])];
    assert!(fails.iter().all(|fail| matches!(fail, Err(DepotError::Io { .. }))), "{fails:?}");
    assert_eq!(store.faults(), 3 * (Patience::default().repeats + 1));
    store.holds();
    assert!(depot.names().unwrap().is_empty());
    // Each question alone, and what reads back.
    let large = pattern(LARGE);
    for what in [What::Any, What::Posts, What::Completions] {
        for (name, bytes) in [("small", &large[..9]), ("large", &large[..])] {
            let name = format!("{what:?}/{name}");
            store.fails(what, away(short.repeats));
            depot.put(&name, &mut &bytes[..]).unwrap();
            assert_eq!(
                store.faults(),
                if what == What::Posts && bytes.len() < LARGE { 0 } else { short.repeats }
            );
            store.fails(What::Any, away(short.repeats));
            assert!(read(&depot, &name) == bytes, "{name}");
        }
    }
}

#[test]
fn an_answer_that_is_lost_neither_doubles_nor_refuses_what_was_kept() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    for (name, bytes) in [("small", &large[..9]), ("large", &large[..])] {
        // The store has done it, and says that it has failed: whether it has, only its contents tell.
        store.fails(What::Completions, Fault::Forgets { times: 1 });
        depot.put(name, &mut &bytes[..]).unwrap();
        assert!(store.faults() > 0, "{name}");
        assert!(read(&depot, name) == bytes, "{name}");
        // What another has put there meanwhile is not taken for ours.
        store.fails(What::Completions, Fault::Answers { times: 1, status: 500, code: "InternalError" });
        let mut other = bytes.to_vec();
        other[3] ^= 1;
        let again = depot.put(name, &mut &other[..]);
        assert!(matches!(again, Err(DepotError::Exists { .. })), "{name}: {again:?}");
        store.holds();
        assert!(read(&depot, name) == bytes, "{name}");
    }
}

#[test]
fn a_store_that_writes_over_what_it_has_is_refused() {
    let Some(store) = Store::start() else { return };
    let keeps = depot(&store);
    claim_archive(&keeps, "one").unwrap();
    // By one request, and by the end of an upload in pieces.
    for what in [What::Any, What::Posts] {
        store.fails(what, Fault::Overwrites);
        let depot = depot(&store);
        let refused = depot.check_keeps("directory.toml", b"one");
        assert!(matches!(refused, Err(DepotError::Overwrites { .. })), "{what:?}: {refused:?}");
        let refused = claim_archive(&depot, "one");
        assert!(matches!(refused, Err(ArchiveError::Depot(DepotError::Overwrites { .. }))), "{refused:?}");
        assert_eq!(read(&depot, "directory.toml"), b"one");
        // It was found out once of the other.
        claim_archive(&keeps, "one").unwrap();
        store.holds();
        claim_archive(&depot, "one").unwrap();
        assert!(matches!(claim_archive(&depot, "two"), Err(ArchiveError::Foreign(_))));
    }
    assert_eq!(keeps.names().unwrap(), ["directory.toml"]);
}

#[test]
fn another_request_under_way_is_no_proof_that_a_store_keeps_what_it_has() {
    let Some(store) = Store::start() else { return };
    let first = depot(&store);
    first.put("x", &mut &b"x"[..]).unwrap();
    let conflict = |times| Fault::Answers { times, status: 409, code: "ConditionalRequestConflict" };
    let ends = What::Completions;
    store.fails(ends, conflict(usize::MAX));
    let unknown = depot(&store);
    let error = unknown.check_keeps("x", b"x").unwrap_err();
    assert!(matches!(error, DepotError::Io { .. }) && error.to_string().contains("Conflict"), "{error}");
    store.fails(ends, Fault::Overwrites);
    assert!(matches!(unknown.check_keeps("x", b"x"), Err(DepotError::Overwrites { .. })));
    store.fails(ends, conflict(2));
    unknown.check_keeps("x", b"x").unwrap();
    assert_eq!(store.faults(), 2);
    assert_eq!(read(&first, "x"), b"x");
}

#[test]
fn what_is_kept_otherwise_than_it_was_sent_is_noticed() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    for (name, bytes) in [("small", &large[..9]), ("large", &large[..])] {
        store.fails(What::Puts, Fault::Alters { times: 1 });
        let put = depot.put(name, &mut &bytes[..]);
        assert!(matches!(put, Err(DepotError::Differs { .. })), "{name}: {put:?}");
        assert_eq!(store.faults(), 1);
    }
}

#[test]
fn the_same_bytes_of_somebody_else_are_not_taken_for_ones_own() {
    let Some(store) = Store::start() else { return };
    // Two backups of one engine begin with the same file.
    let (ours, theirs) = (depot(&store), depot(&store));
    let large = pattern(LARGE);
    for (name, bytes) in [("small", &large[..9]), ("large", &large[..])] {
        theirs.put(name, &mut &bytes[..]).unwrap();
        store.fails(What::Completions, Fault::Answers { times: 1, status: 500, code: "InternalError" });
        let put = ours.put(name, &mut &bytes[..]);
        assert!(matches!(put, Err(DepotError::Exists { .. })), "{name}: {put:?}");
        assert_eq!(store.faults(), 1);
        store.holds();
    }
}

#[test]
fn another_request_under_way_is_no_object_and_is_waited_for() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    let conflict = |times| Fault::Answers { times, status: 409, code: "ConditionalRequestConflict" };
    for (name, bytes) in [("small", &large[..9]), ("large", &large[..])] {
        store.fails(What::Completions, conflict(2));
        depot.put(name, &mut &bytes[..]).unwrap();
        assert_eq!(store.faults(), 2, "{name}");
        assert!(read(&depot, name) == bytes, "{name}");
        store.fails(What::Completions, conflict(usize::MAX));
        let refused = depot.put("other", &mut &bytes[..]).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, DepotError::Io { .. }) && text.contains("Conflict"), "{text}");
        store.holds();
    }
}

#[test]
fn an_object_that_is_put_together_for_long_is_waited_for_as_long_as_something_comes() {
    let Some(store) = Store::start() else { return };
    // Of this time for an answer a busy machine needs the least part, and the blanks take more than all of it.
    let patience = Patience { answer: Duration::from_secs(10), ..PATIENCE };
    let depot = depot_with(&store, "s3://bucket/p", patience);
    let large = pattern(LARGE);
    store.fails(What::Completions, Fault::Dribbles(110));
    depot.put("x", &mut &large[..]).unwrap();
    store.holds();
    assert!(read(&depot, "x") == large);
}

#[test]
fn what_a_store_says_has_an_end() {
    let Some(store) = Store::start() else { return };
    let hasty = Patience { repeats: 0, ..PATIENCE };
    let depot = depot_with(&store, "s3://bucket/p", hasty);
    store.fails(What::Any, Fault::Endless);
    let endless = [
        depot.put("y", &mut &b"y"[..]).unwrap_err(),
        depot.names().unwrap_err(),
        depot.get("x").map(|_| ()).unwrap_err(),
    ];
    for error in endless {
        let text = error.to_string();
        assert!(matches!(error, DepotError::Io { .. }) && text.contains("an answer of more than"), "{text}");
    }
}

#[test]
fn a_list_that_does_not_end_is_given_up_and_is_not_needed_for_a_stranger() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    store.fails(What::Lists, Fault::Pages(""));
    let error = depot.names().unwrap_err();
    assert!(matches!(error, DepotError::Io { .. }) && error.to_string().contains("have no name"), "{error}");
    store.fails(What::Lists, Fault::Pages("some/where/holiday.jpg"));
    assert!(matches!(claim_archive(&depot, "one"), Err(ArchiveError::Foreign(_))));
    assert_eq!(store.faults(), 1, "one strange name is enough");
    // Not all was looked through, so nobody knows.
    store.fails(What::Lists, Fault::Pages(""));
    assert!(matches!(claim_archive(&depot, "one"), Err(ArchiveError::Depot(DepotError::Io { .. }))));
    store.holds();
    claim_archive(&depot, "one").unwrap();
    assert_eq!(depot.names().unwrap(), ["directory.toml"]);
}

#[test]
fn a_store_that_is_down_is_not_taken_for_somebody_elses() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    store.fails(What::Any, Fault::Answers { times: usize::MAX, status: 503, code: "SlowDown" });
    let refused = claim_archive(&depot, "one");
    assert!(matches!(refused, Err(ArchiveError::Depot(DepotError::Io { .. }))), "{refused:?}");
}

#[test]
fn a_store_that_is_silent_costs_its_time_and_no_more() {
    let Some(store) = Store::start() else { return };
    let depot = depot_with(&store, "s3://bucket/p", PATIENCE);
    depot.put("x", &mut &b"x"[..]).unwrap();
    let hasty = Patience { answer: Duration::from_millis(100), repeats: 1, ..PATIENCE };
    let hasty = depot_with(&store, "s3://bucket/p", hasty);
    store.fails(What::Any, Fault::Silent);
    let late = [
        hasty.put("y", &mut &b"y"[..]).unwrap_err(),
        hasty.names().unwrap_err(),
        hasty.get("x").map(|_| ()).unwrap_err(),
    ];
    for error in late {
        let is_late =
            matches!(&error, DepotError::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut);
        assert!(is_late, "{error}");
    }
}

#[test]
fn who_may_not_and_what_is_not_there_are_told_without_a_secret() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    for (status, code) in [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (401, "ExpiredToken")] {
        store.fails(What::Any, Fault::Answers { times: usize::MAX, status, code });
        let refused = [
            depot.put("y", &mut &b"y"[..]).unwrap_err(),
            depot.put("z", &mut &pattern(LARGE)[..]).unwrap_err(),
            depot.names().unwrap_err(),
            depot.get("x").map(|_| ()).unwrap_err(),
        ];
        for error in refused {
            let text = format!("{error} {error:?} {depot:?}");
            assert!(matches!(error, DepotError::Denied { .. }) && text.contains(code), "{text}");
            assert!(!text.contains("CANARY"), "{text}");
        }
    }
    store.holds();
    let nowhere = depot_with(&store, "s3://no-such-bucket/p", PATIENCE);
    for error in [
        nowhere.put("y", &mut &b"y"[..]).unwrap_err(),
        nowhere.put("z", &mut &pattern(LARGE)[..]).unwrap_err(),
        nowhere.names().unwrap_err(),
        nowhere.get("x").map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, DepotError::NoBucket { .. }), "{error}");
    }
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing_under_its_name() {
    /// Ends the store, or cuts its line, when so much of the file has been read.
    struct Until<'a, F: FnMut()>(&'a [u8], usize, F);
    impl<F: FnMut()> Read for Until<'_, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.len() < self.1 {
                self.1 = 0;
                (self.2)();
            }
            self.0.read(buffer)
        }
    }
    let Some(mut store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    for left in [LARGE - 5, 20 << 20, 10] {
        let mut from = Until(&large, left, || store.fails(What::Any, Fault::Cut));
        let put = depot.put("x", &mut from);
        assert!(matches!(put, Err(DepotError::Io { .. })), "{put:?}");
        store.holds();
        assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
        assert!(depot.names().unwrap().is_empty());
    }
    depot.put("x", &mut &large[..]).unwrap();
    // The store itself is killed.
    let mut from = Until(&large, 20 << 20, || store.kill());
    let put = depot.put("y", &mut from);
    assert!(matches!(put, Err(DepotError::Io { .. })), "{put:?}");
    assert!(matches!(depot.get("x"), Err(DepotError::Io { .. })), "it is not missing: it is not known");
    // Nobody is there at all.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = ("AWS_ENDPOINT_URL".to_owned(), format!("http://{nobody}"));
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.to_owned(), "x".to_owned()));
    let nobody = ObjectDepot::open("s3://bucket/p", keys.into_iter().chain([endpoint]), PATIENCE).unwrap();
    let refused = nobody.names();
    let is_refused = matches!(&refused, Err(DepotError::Io { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused);
    assert!(is_refused, "{refused:?}");
}

#[test]
fn an_object_that_is_cut_short_or_changed_is_never_taken_for_the_whole() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let bytes = pattern(1 << 20);
    let part = copy_file("x", &bytes, &depot).unwrap();
    backup::check(&depot, &part).unwrap();
    // Cut once, the rest is asked for; cut again and again, it is an error.
    store.fails(What::Any, Fault::Shortens { times: 1 });
    assert!(read(&depot, "x") == bytes);
    assert_eq!(store.faults(), 1);
    store.fails(What::Any, Fault::Shortens { times: usize::MAX });
    assert!(matches!(backup::check(&depot, &part), Err(FetchError::Depot(_))));
    store.holds();
    // Another object by the time the rest is asked for: nothing is put together out of both.
    let mut from = depot.get("x").unwrap();
    let mut begun = vec![0; 10];
    from.read_exact(&mut begun).unwrap();
    store.fails(What::Any, Fault::Shortens { times: 1 });
    let mut from = depot.get("x").unwrap();
    store.replace("/bucket/some/where/x", &vec![9; 1 << 20]);
    let mut whole = Vec::new();
    let end = from.read_to_end(&mut whole);
    assert!(end.is_err() && bytes.starts_with(&whole), "{end:?}");
    // At rest, the manifest tells.
    assert!(matches!(backup::check(&depot, &part), Err(FetchError::Damaged { .. })));
    store.replace("/bucket/some/where/x", &bytes[..bytes.len() - 1]);
    assert!(matches!(backup::check(&depot, &part), Err(FetchError::Damaged { .. })));
    store.replace("/bucket/some/where/x", &bytes);
    backup::check(&depot, &part).unwrap();
}
