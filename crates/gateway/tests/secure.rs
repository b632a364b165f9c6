//! Links that know who speaks: codes in messages, TLS on sockets.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aes::Aes128;
use cmac::Cmac;
use des::Des;
use gateway::simulate::{Scenario, SimulateError, simulate};
use gateway::{Gateway, HostTlsConfig, Limits, LinkConfig, MacAlgorithm, MacConfig, MacSource, TlsConfig};
use hmac::{Hmac, KeyInit, Mac};
use iso8583::{Cut, Message};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber,
};
use retail_mac::RetailMac;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use front::*;

const OLD: &str = "00112233445566778899aabbccddeeff";
const NEW: &str = "102132435465768798a9bacbdcedfe0f";

fn code(algorithm: MacAlgorithm, key: &str, covered: &[u8]) -> [u8; 8] {
    fn made<M: Mac + KeyInit>(key: &[u8], covered: &[u8]) -> [u8; 8] {
        let code = <M as KeyInit>::new_from_slice(key).unwrap().chain_update(covered).finalize();
        *code.as_bytes().first_chunk().unwrap()
    }
    let key: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap()).collect();
    match algorithm {
        MacAlgorithm::Retail => made::<RetailMac<Des>>(&key, covered),
        MacAlgorithm::HmacSha256 => made::<Hmac<Sha256>>(&key, covered),
        MacAlgorithm::AesCmac => made::<Cmac<Aes128>>(&key, covered),
    }
}

/// A message with its code, behind its length.
fn signed(algorithm: MacAlgorithm, key: &str, (mti, fields): &(&str, Fields)) -> Vec<u8> {
    let mut fields = fields.clone();
    let last = if fields.keys().any(|field| *field > 64) { 128 } else { 64 };
    fields.insert(last, "\0".repeat(8));
    let mut bytes = bytes(mti, &fields);
    let covered = bytes.len() - 8;
    let code = code(algorithm, key, &bytes[2..covered]);
    bytes[covered..].copy_from_slice(&code);
    bytes
}

/// True if the last message carries a code of this key.
fn is_signed(host: &Host, algorithm: MacAlgorithm, key: &str) -> bool {
    let message = Message::parse(CODEC, &host.last).unwrap();
    let last = if message.fields().needs_second() { 128 } else { 64 };
    let Some(found) = message.exactly::<8>(last) else { return false };
    found == code(algorithm, key, &host.last[..host.last.len() - 8])
}

async fn front(algorithm: MacAlgorithm, key_file: &Path) -> Front {
    let mac = MacConfig { algorithm, source: MacSource::File(key_file.to_owned()) };
    let limits = Limits { broken_max: 5, ..Limits::default() };
    Front::with(|config| LinkConfig { mac: Some(mac), limits, ..config }).await
}

#[tokio::test]
async fn messages_without_a_right_code_are_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.mac");
    std::fs::write(&file, OLD).unwrap();
    for algorithm in [MacAlgorithm::Retail, MacAlgorithm::HmacSha256, MacAlgorithm::AesCmac] {
        let front = front(algorithm, &file).await;
        let mut host = front.host().await;
        host.write(&signed(algorithm, OLD, &front.network(1, "001"))).await;
        assert_eq!(host.next().await.unwrap()[&39], "00");
        assert!(is_signed(&host, algorithm, OLD));
        let payment = ("0100", front.payment(2, 100));
        host.write(&signed(algorithm, OLD, &payment)).await;
        assert_eq!(host.next().await.unwrap()[&39], "00");
        assert!(is_signed(&host, algorithm, OLD));
        // Without a code, with another key's, changed on its way, with a code that leaves out later fields.
        let other = ("0100", front.payment(3, 100));
        let mut changed = signed(algorithm, OLD, &other);
        changed[30] ^= 1;
        let mut short = other.1.clone();
        short.extend([(64, "\0".repeat(8)), (100, "7".into())]);
        for wrong in [bytes("0100", &other.1), signed(algorithm, NEW, &other), changed, bytes("0100", &short)]
        {
            host.write(&wrong).await;
            let reply = host.next().await.unwrap();
            assert_eq!((reply[&39].as_str(), reply.get(&64), reply.get(&128)), ("63", None, None));
        }
        assert_eq!(front.free().await, STAKE - 100);
        host.write(&signed(algorithm, OLD, &other)).await;
        assert_eq!(host.next().await.unwrap()[&39], "00");
        for _ in 0..2 {
            host.write(&bytes("0100", &other.1)).await;
        }
        while let Some(reply) = host.next().await {
            assert_eq!(reply[&39], "63");
        }
        front.stop().await;
    }
}

#[tokio::test]
async fn keys_change_by_message() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.mac");
    std::fs::write(&file, OLD).unwrap();
    let algorithm = MacAlgorithm::Retail;
    let front = front(algorithm, &file).await;
    let mut host = front.host().await;
    let mut ask = async |key, message: (&'static str, Fields)| {
        host.write(&signed(algorithm, key, &message)).await;
        let code = host.next().await.unwrap()[&39].clone();
        (code, is_signed(&host, algorithm, key))
    };
    assert_eq!(ask(OLD, front.network(1, "001")).await, ("00".into(), true));
    // A file that cannot be read changes nothing.
    std::fs::write(&file, "no key").unwrap();
    assert_eq!(ask(OLD, front.network(2, "161")).await, ("96".into(), true));
    // The new one signs; what the old one has signed is still taken, for as long as it stands in the file.
    std::fs::write(&file, format!("{NEW}\n{OLD}\n")).unwrap();
    assert_eq!(ask(NEW, front.network(3, "301")).await, ("63".into(), false));
    assert_eq!(ask(OLD, front.network(4, "161")).await, ("00".into(), true));
    let payment = front.payment(5, 100);
    assert_eq!(ask(NEW, ("0100", payment.clone())).await, ("00".into(), true));
    assert_eq!(ask(OLD, ("0101", payment)).await, ("00".into(), true));
    std::fs::write(&file, NEW).unwrap();
    front.gateway.reload(front.config.clone()).unwrap();
    assert_eq!(ask(OLD, front.network(6, "301")).await, ("63".into(), false));
    assert_eq!(ask(NEW, front.network(7, "301")).await, ("00".into(), true));
    assert_eq!(front.free().await, STAKE - 100);
    front.stop().await;
}

#[tokio::test]
async fn a_silent_host_is_asked_under_the_links_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.mac");
    std::fs::write(&file, OLD).unwrap();
    let mac = MacConfig { algorithm: MacAlgorithm::AesCmac, source: MacSource::File(file) };
    let limits = Limits { echo_after: Duration::from_millis(50), ..Limits::default() };
    let front = Front::with(|config| LinkConfig { mac: Some(mac), limits, ..config }).await;
    let mut host = front.host().await;
    assert_eq!(host.next().await.unwrap()[&70], "301");
    assert!(is_signed(&host, MacAlgorithm::AesCmac, OLD));
    front.stop().await;
}

/// An authority and what it has signed, as files.
struct Pki {
    directory: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    serials: RefCell<BTreeMap<String, SerialNumber>>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        let pki = Self { directory, ca, serials: RefCell::default() };
        pki.issue("server");
        pki.issue("client");
        pki
    }

    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let count = u64::try_from(self.serials.borrow().len()).unwrap();
        let serial = SerialNumber::from(count + 1);
        params.serial_number = Some(serial.clone());
        self.serials.borrow_mut().insert(name.to_owned(), serial);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tls(&self, client_ca: Option<&Self>) -> TlsConfig {
        TlsConfig {
            certificate: self.file("server.pem"),
            key: self.file("server.key"),
            client_ca: client_ca.map(|pki| pki.file("ca.pem")),
            client_revoked: None,
        }
    }

    /// Writes which of its certificates are no longer accepted.
    fn revoke(&self, names: &[&str]) -> PathBuf {
        let now = SystemTime::now();
        let revoked = |name: &&str| RevokedCertParams {
            serial_number: self.serials.borrow()[*name].clone(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(86_400)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.file("revoked.pem");
        std::fs::write(&file, list.signed_by(&self.ca).unwrap().pem().unwrap()).unwrap();
        file
    }

    /// A host that believes this authority, with another one's certificate if it has one.
    async fn connect(
        &self,
        gateway: &Gateway,
        client: Option<&Self>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_as(gateway, client, "client").await
    }

    /// The same, with the certificate of this name.
    async fn connect_as(
        &self,
        gateway: &Gateway,
        client: Option<&Self>,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(pki) => {
                let chain = vec![CertificateDer::from_pem_file(pki.file(&format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(pki.file(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(gateway.address()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// The answer to a sign-on; none from a socket that is closed.
async fn sign_on(front: &Front, stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let (mti, fields) = front.network(1, "001");
    stream.write_all(&bytes(mti, &fields)).await.ok()?;
    answer(stream).await
}

/// The code of the next answer; none from a socket that is closed.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if let Cut::Message { bytes, .. } = HEADER.cut(&read, 9999).unwrap() {
            let message = Message::parse(CODEC, bytes).unwrap();
            return Some(String::from_utf8(message.units(39).unwrap().collect()).unwrap());
        }
        match timeout(PATIENCE, stream.read_buf(&mut read)).await.unwrap() {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn hosts_speak_tls_and_show_who_they_are() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let tls = ours.tls(Some(&theirs));
    let limits = Limits { frame_within: PATIENCE, ..Limits::default() };
    let front = Front::with(|config| LinkConfig { tls: Some(tls), limits, ..config }).await;
    let ok = Some("00".to_owned());
    let mut host = ours.connect(&front.gateway, Some(&theirs)).await.unwrap();
    assert_eq!(sign_on(&front, &mut host).await, ok);
    // Without a certificate, with one of somebody else, or without TLS nobody gets an answer.
    for who in [None, Some(&ours)] {
        let answer = match ours.connect(&front.gateway, who).await {
            Ok(mut stream) => sign_on(&front, &mut stream).await,
            Err(_) => None,
        };
        assert_eq!(answer, None);
    }
    let mut plain = front.host().await;
    plain.write(&bytes("0800", &front.network(1, "001").1)).await;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, plain.stream.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(rest.first().is_none_or(|first| *first == 21), "nothing but a TLS alert: {rest:?}");
    // Other files, while hosts are connected.
    let new = Pki::new();
    let config = LinkConfig { tls: Some(new.tls(None)), ..front.config.clone() };
    front.gateway.reload(config.clone()).unwrap();
    assert!(ours.connect(&front.gateway, Some(&theirs)).await.is_err(), "another certificate is shown");
    let mut anybody = new.connect(&front.gateway, None).await.unwrap();
    assert_eq!(sign_on(&front, &mut anybody).await, ok);
    assert_eq!(sign_on(&front, &mut host).await, ok, "who was connected still is");
    // Files that do not fit together change nothing.
    std::fs::copy(ours.file("server.key"), new.file("server.key")).unwrap();
    assert!(front.gateway.reload(config).is_err());
    let plain = LinkConfig { tls: None, ..front.config.clone() };
    assert!(front.gateway.reload(plain).unwrap_err().to_string().contains("`tls`"));
    let mut anybody = new.connect(&front.gateway, None).await.unwrap();
    assert_eq!(sign_on(&front, &mut anybody).await, ok);
    front.stop().await;
}

#[tokio::test]
async fn a_host_that_stops_to_send_without_a_word_is_answered() {
    let ours = Pki::new();
    let tls = ours.tls(None);
    let front = Front::with(|config| LinkConfig { tls: Some(tls), ..config }).await;
    let mut host = ours.connect(&front.gateway, None).await.unwrap();
    assert_eq!(sign_on(&front, &mut host).await, Some("00".to_owned()));
    host.write_all(&bytes("0100", &front.payment(2, 100))).await.unwrap();
    // Not of TLS, which would say that it ends here: of the socket below.
    host.get_mut().0.shutdown().await.unwrap();
    assert_eq!(answer(&mut host).await, Some("00".to_owned()));
    front.stop().await;
}

#[tokio::test]
async fn a_host_whose_certificate_is_revoked_is_refused_after_a_reload() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    theirs.issue("lost");
    let tls = TlsConfig { client_revoked: Some(theirs.revoke(&[])), ..ours.tls(Some(&theirs)) };
    let limits = Limits { frame_within: PATIENCE, ..Limits::default() };
    let front = Front::with(|config| LinkConfig { tls: Some(tls), limits, ..config }).await;
    let served = async || {
        let mut served = Vec::new();
        for name in ["client", "lost"] {
            served.push(match ours.connect_as(&front.gateway, Some(&theirs), name).await {
                Ok(mut stream) => sign_on(&front, &mut stream).await.is_some(),
                Err(_) => false,
            });
        }
        served
    };
    assert_eq!(served().await, [true, true]);
    let list = theirs.revoke(&["lost"]);
    assert_eq!(served().await, [true, true], "until it is told to look");
    front.gateway.reload(front.config.clone()).unwrap();
    assert_eq!(served().await, [true, false]);
    // What is no list changes nothing, and neither does one of another authority, whatever its name.
    std::fs::copy(theirs.file("ca.pem"), &list).unwrap();
    assert!(front.gateway.reload(front.config.clone()).is_err());
    std::fs::copy(Pki::new().revoke(&[]), &list).unwrap();
    let refused = front.gateway.reload(front.config.clone()).unwrap_err().to_string();
    assert!(refused.contains("has not signed"), "{refused}");
    assert_eq!(served().await, [true, false]);
    let other = LinkConfig { book_file: None, ..front.config.clone() };
    let begun = Gateway::start(front.client.clone(), other).await;
    assert!(begun.unwrap_err().to_string().contains("has not signed"));
    front.stop().await;
}

#[tokio::test]
async fn a_simulated_host_speaks_tls_and_believes_one_authority() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let tls = ours.tls(Some(&theirs));
    let limits = Limits { frame_within: PATIENCE, ..Limits::default() };
    let front = Front::with(|config| LinkConfig { tls: Some(tls), limits, ..config }).await;
    let identity = Some((theirs.file("client.pem"), theirs.file("client.key")));
    let right = HostTlsConfig { ca: ours.file("ca.pem"), name: "localhost".into(), identity };
    let run = async |tls: Option<HostTlsConfig>| {
        let mut scenario = Scenario::load("1987").unwrap();
        scenario.tls = tls;
        if scenario.tls.as_ref() != Some(&right) {
            // Sign-on is enough to see that nobody answers.
            scenario.cases.truncate(1);
        }
        simulate(&scenario, front.gateway.address()).await
    };
    let report = run(Some(right.clone())).await.unwrap();
    assert!(report.is_certified(), "{report}");
    let wrong = [
        None,
        Some(HostTlsConfig { ca: theirs.file("ca.pem"), ..right.clone() }),
        Some(HostTlsConfig { name: "elsewhere".into(), ..right.clone() }),
        Some(HostTlsConfig { identity: None, ..right.clone() }),
    ];
    for tls in wrong {
        let ended = run(tls.clone()).await;
        assert!(!ended.is_ok_and(|report| report.is_certified()), "{tls:?}");
    }
    for tls in [
        HostTlsConfig { ca: ours.file("nothing"), ..right.clone() },
        HostTlsConfig { name: "no name".into(), ..right.clone() },
    ] {
        let ended = run(Some(tls)).await;
        assert!(matches!(ended, Err(SimulateError::Tls(_))), "{ended:?}");
    }
    front.stop().await;
}
