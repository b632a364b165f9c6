//! Clients that are shut out while they are connected: their connections end, those of others do not, and what was being served for them is
//! neither lost nor done twice.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use server::pki::{DevelopmentPki, Validity};
use surety_protocol::{Roles, TenantId};

use crate::gateway::{CANARY, Host, LINK, connect, engine, sent};
use crate::process::{Data, Engine, Front, ctl, surety};
use crate::rest::{PATIENT, Tenant, key, settings, stranger};

const PATIENCE: Duration = Duration::from_secs(100);

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The files of the doors: what they show, whom they believe, and whom no more.
struct Files {
    pki: PathBuf,
    authority: DevelopmentPki,
    directory: tempfile::TempDir,
}

impl Files {
    fn new(data: &Data) -> Self {
        let pki = data.file("pki");
        let authority = DevelopmentPki::open(&pki).unwrap();
        let files = Self { pki, authority, directory: tempfile::tempdir().unwrap() };
        for name in ["ca.pem", "server.pem", "server.key"] {
            std::fs::copy(files.pki.join(name), files.path().join(name)).unwrap();
        }
        std::fs::write(files.path().join("acme.key"), "5a".repeat(32)).unwrap();
        files.revoke(&[]);
        files
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A certificate of the tenant for one of its machines.
    fn client(&self, name: &str) -> String {
        self.authority.client(TenantId(1), Roles::AUTHORIZER, name).unwrap()
    }

    /// The same, for so long.
    fn client_until(&self, name: &str, until: SystemTime) -> String {
        let validity = Validity { from: SystemTime::now() - Duration::from_secs(60), until };
        self.authority.client_valid(TenantId(1), Roles::AUTHORIZER, name, validity).unwrap()
    }

    /// The same, with a certificate sent along that ended before: it leads nowhere, and nobody was let in by it.
    fn client_beside_ended(&self, name: &str, until: SystemTime) -> String {
        let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        let validity = Validity { from: ago(7200), until: ago(3600) };
        let old = self.authority.client_valid(TenantId(1), Roles::AUTHORIZER, "old", validity).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        let begin = old.find("-----BEGIN CERTIFICATE-----").unwrap();
        let old = &old[begin..old.find(end).unwrap() + end.len()];
        self.client_until(name, until).replacen(end, &format!("{end}{old}"), 1)
    }

    fn revoke(&self, lost: &[String]) {
        self.list(&self.authority.revocations(lost).unwrap());
    }

    fn list(&self, text: &str) {
        std::fs::write(self.path().join("revoked.pem"), text).unwrap();
    }

    /// Both doors with these tenants, over TLS.
    fn settings(&self, tenants: &[Tenant]) -> PathBuf {
        let own = "certificate = \"server.pem\", key = \"server.key\", client_revoked = \"revoked.pem\"";
        let link = format!("{LINK}tls = {{ {own}, client_ca = \"ca.pem\" }}\n");
        let inside = format!("{PATIENT}\ntls = {{ {own}, client_authority = \"ca.pem\" }}");
        settings(self.path(), &link, &inside, tenants)
    }

    /// A connection, with a certificate if there is one.
    fn connect(&self, address: &serde_json::Value, identity: Option<&str>) -> Stream {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path().join("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let chain =
                    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|found| found.unwrap()).collect();
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(address.as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }
}

/// An application that keeps its connection.
struct App {
    stream: Stream,
    head: String,
    read: String,
}

impl App {
    fn new(stream: Stream, tenant: Option<&Tenant>) -> Self {
        let token = tenant.map(|tenant| format!("Authorization: Bearer {}\r\n", tenant.token));
        Self { stream, head: format!("Host: door\r\n{}", token.unwrap_or_default()), read: String::new() }
    }

    fn send(&mut self, what: &str, more: &str, body: &str) {
        let length = body.len();
        let text = format!("{what} HTTP/1.1\r\n{}{more}Content-Length: {length}\r\n\r\n{body}", self.head);
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Locks ten under a key, and does not wait.
    fn lock(&mut self, key: &str) {
        let body = json!({"partition": "0:1", "amount": "10", "asset": "AMP", "merchant": 5}).to_string();
        let more = format!("Idempotency-Key: {key}\r\nContent-Type: application/json\r\n");
        self.send("POST /v1/locks", &more, &body);
    }

    /// Asks for something, and is answered.
    fn ask(&mut self) {
        self.send("GET /v1/partitions", "", "");
        self.until("HTTP/1.1 200 OK");
    }

    /// Has events told as they come.
    fn listen(mut self) -> Self {
        self.send("GET /v1/events", "Accept: text/event-stream\r\n", "");
        self.until("text/event-stream");
        self
    }

    /// Reads up to this, behind what was waited for before.
    #[track_caller]
    fn until(&mut self, what: &str) {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.read.find(what) {
                self.read.drain(..at + what.len());
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no `{what}`: {}", self.read);
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the connection has ended without `{what}`: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

/// Reads to the end of a connection.
#[track_caller]
fn is_cut_off(stream: &mut impl Read) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match stream.read(&mut [0; 4096]) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Ok(0) | Err(_) => return,
        }
    }
    panic!("it is still connected");
}

#[test]
fn clients_that_are_shut_out_are_cut_off_and_nobody_else() {
    let data = Data::init(1);
    let engine = engine(&data);
    let files = Files::new(&data);
    stranger(&data, files.path());
    let (till, lost) = (files.client("till"), files.client("lost"));
    let tenants = [Tenant::new(None), Tenant::new(Some("two.pem"))];
    let front = Front::start(&data, &files.settings(&tenants));
    // On each link a host, with a payment to begin with.
    let mut hosts = [&till, &lost].map(|pem| Host::over(files.connect(&front.ready["listen"], Some(pem))));
    for (host, trace) in hosts.iter_mut().zip(["1", "2"]) {
        host.sign_on();
        host.pay_to(b"0100", CANARY, &sent(), trace, "501");
        host.expect("0110", "00");
    }
    // By certificate and by token: one that asks, and one that listens.
    let rest = &front.ready["rest"];
    let certified = |pem: &String| App::new(files.connect(rest, Some(pem)), None);
    let known = |tenant: &Tenant| App::new(files.connect(rest, None), Some(tenant));
    let mut kept = [certified(&till), known(&tenants[0])];
    let mut gone = [certified(&lost), known(&tenants[1])];
    let mut told = [certified(&till).listen(), known(&tenants[0]).listen()];
    let mut told_no_more = [certified(&lost).listen(), known(&tenants[1]).listen()];
    // Behind a proxy two tenants share a connection: it goes on for the one that is left.
    let mut shared = known(&tenants[1]);
    shared.ask();
    shared.head = known(&tenants[0]).head;
    kept.iter_mut().chain(&mut gone).chain([&mut shared]).for_each(App::ask);
    // What is being served stays so while the engine stands still: each host's payment was taken when what came behind it is answered.
    engine.signal(Signal::STOP);
    let day = sent();
    for (host, trace) in hosts.iter_mut().zip(["11", "12"]) {
        host.pay_to(b"0100", CANARY, &day, trace, "501");
        host.echo();
    }
    let keys = [key(), key()];
    kept[0].lock(&keys[0]);
    gone[0].lock(&keys[1]);
    files.revoke(std::slice::from_ref(&lost));
    files.settings(&[tenants[0].clone(), tenants[1].renewed()]);
    front.signal(Signal::HUP);
    let [host, cut] = &mut hosts;
    is_cut_off(cut.stream());
    gone.iter_mut().chain(&mut told_no_more).for_each(|app| is_cut_off(&mut app.stream));
    engine.signal(Signal::CONT);
    host.expect("0110", "00");
    kept[0].until("\"status\":\"approved\"");
    told.iter_mut().for_each(|app| app.until(&keys[0]));
    kept.iter_mut().chain([&mut shared]).for_each(App::ask);
    // Repeats of what was cut off find what became of it.
    host.pay_to(b"0101", CANARY, &day, "12", "501");
    host.expect("0110", "00");
    kept[0].lock(&keys[1]);
    kept[0].until("\"status\":\"approved\"");
    let shown = ctl(&data, &["partition", "show", "0:1"]);
    assert_eq!(shown["held"], "120000000000000000000", "four of 25, two of 10: {shown}");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn a_certificate_that_ends_ends_its_open_connections_and_nobody_elses() {
    let data = Data::init(1);
    let engine = engine(&data);
    let files = Files::new(&data);
    let front = Front::start(&data, &files.settings(&[Tenant::new(None)]));
    let (link, rest) = (&front.ready["listen"], &front.ready["rest"]);
    // Long enough to come in by, also on a machine that stalls.
    let until = SystemTime::now() + Duration::from_secs(20);
    let (till, brief) = (files.client("till"), files.client_beside_ended("brief", until));
    let mut hosts = [&till, &brief].map(|pem| Host::over(files.connect(link, Some(pem))));
    let mut apps = [&till, &brief].map(|pem| App::new(files.connect(rest, Some(pem)), None));
    let mut told = [&till, &brief].map(|pem| App::new(files.connect(rest, Some(pem)), None).listen());
    hosts.iter_mut().for_each(Host::sign_on);
    apps.iter_mut().for_each(App::ask);
    // Nobody reads a file again, and nothing is sent.
    let [host, ended] = &mut hosts;
    let [app, ended_app] = &mut apps;
    let [_, ended_told] = &mut told;
    for stream in [ended.stream(), &mut ended_app.stream, &mut ended_told.stream] {
        is_cut_off(stream);
        assert!(SystemTime::now() >= until, "it was cut off while its certificate was good");
    }
    for address in [link, rest] {
        let mut stream = files.connect(address, Some(&brief));
        let _ = stream.write_all(b"0000");
        is_cut_off(&mut stream);
    }
    // To those whose certificates go on nothing has happened.
    host.echo();
    app.ask();
    let key = key();
    app.lock(&key);
    app.until("\"status\":\"approved\"");
    told[0].until(&key);
    // It is the end of their certificate, and no bound on whoever is idle or stays long.
    let said = front.terminate();
    for (why, connections) in [
        ("its host's certificate is accepted no more", 1),
        ("its client's certificate is accepted no more", 2),
    ] {
        assert_eq!(said.matches(why).count(), connections, "{why}: {said}");
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn identities_that_were_renewed_are_shown_to_the_engine() {
    let data = Data::init(1);
    let engine = engine(&data);
    let listen = engine.listen().to_owned();
    let files = Files::new(&data);
    stranger(&data, files.path());
    let tenants = [Tenant::new(None), Tenant::new(Some("two.pem"))];
    let config = settings(files.path(), LINK, PATIENT, &tenants);
    let front = Front::start(&data, &config);
    // The file of each identity, and its tenant: that of the command line, and one of the settings.
    let identities = [(data.file("pki").join("authorizer.pem"), 1), (files.path().join("two.pem"), 2)];
    let old = identities.each_ref().map(|(file, _)| std::fs::read_to_string(file).unwrap());
    for (file, tenant) in &identities {
        let renewed = files.authority.client(TenantId(*tenant), Roles::AUTHORIZER, "renewed").unwrap();
        std::fs::write(file, renewed).unwrap();
    }
    front.signal(Signal::HUP);
    for _ in 0..2 {
        front.says("the engine is shown the renewed identity");
    }
    // One that is none changes nothing, and neither does another tenant's, or one that the engine does not take.
    let renewed = std::fs::read_to_string(&identities[0].0).unwrap();
    let forged = DevelopmentPki::generate().unwrap().client(TenantId(2), Roles::AUTHORIZER, "two").unwrap();
    for (wrong, why) in
        [("nothing", "is no identity"), (renewed.as_str(), "another tenant"), (forged.as_str(), "two.pem")]
    {
        std::fs::write(&identities[1].0, wrong).unwrap();
        front.signal(Signal::HUP);
        front.says("the engine is still shown the identity that was there before");
        front.says(why);
    }
    // From now on the engine knows the new ones alone, and every connection to it is a new one.
    std::fs::write(files.pki.join("revoked.pem"), files.authority.revocations(&old).unwrap()).unwrap();
    engine.kill();
    let engine = Engine::start_at(&data, "fsync", &listen, &[]);
    let mut host = connect(&front);
    host.sign_on();
    host.pay_to(b"0100", CANARY, &sent(), "1", "501");
    host.expect("0110", "00");
    for (tenant, partitions) in tenants.iter().zip([1, 0]) {
        let app = crate::rest::App::new(&front, tenant);
        // It may not have noticed yet that the old connection is gone.
        let begun = Instant::now();
        let found = loop {
            match app.get("/v1/partitions") {
                (200, found) => break found,
                (status, problem) => {
                    assert!(begun.elapsed() < PATIENCE, "{status} {problem}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        assert_eq!(found["partitions"].as_array().map(Vec::len), Some(partitions), "{found}");
    }
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_revocation_list_of_somebody_else_is_refused_and_the_old_one_counts() {
    let data = Data::init(1);
    let engine = engine(&data);
    let files = Files::new(&data);
    let (till, lost) = (files.client("till"), files.client("lost"));
    let tenants = [Tenant::new(None)];
    files.revoke(std::slice::from_ref(&lost));
    let config = files.settings(&tenants);
    let front = Front::start(&data, &config);
    let mut host = Host::over(files.connect(&front.ready["listen"], Some(&till)));
    host.sign_on();
    let mut app = App::new(files.connect(&front.ready["rest"], Some(&till)), None);
    app.ask();
    // Under the same name, with another key.
    files.list(&DevelopmentPki::generate().unwrap().revocations(&[]).unwrap());
    front.signal(Signal::HUP);
    for _ in 0..2 {
        front.says("settings stay as they were");
        front.says(
            "revoked.pem: holds a revocation list that the authority of its issuer's name has not signed",
        );
    }
    host.echo();
    app.ask();
    let refused = |address| {
        let mut stream = files.connect(address, Some(&lost));
        let _ = stream.write_all(b"0000");
        is_cut_off(&mut stream);
    };
    refused(&front.ready["listen"]);
    refused(&front.ready["rest"]);
    front.terminate();
    surety(&["gateway", "run", "--data", data.path(), "--config", config.to_str().unwrap()])
        .fails(2, "has not signed");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}
