//! TLS, and clients that show a certificate instead of a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rest::{Rest, RestConfig, Tenant, TenantConfig, TlsFiles, new_token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use server::Embedded;
use server::pki::DevelopmentPki;
use surety_client::protocol::{Roles, TenantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::house::{Told, config, connect, tokens, told};
use crate::stage;

/// Asks over TLS, with a certificate if there is one. None if there is no connection.
async fn ask(door: &Rest, authority: &[u8], identity: Option<&str>, token: Option<&str>) -> Option<Told> {
    send(door, authority, identity, token, "GET /v1/partitions").await
}

async fn send(
    door: &Rest,
    authority: &[u8],
    identity: Option<&str>,
    token: Option<&str>,
    what: &str,
) -> Option<Told> {
    exchange(door, &client(authority, identity), token, what).await.map(|(told, _)| told)
}

/// What a client believes, and who it says it is.
fn client(authority: &[u8], identity: Option<&str>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap()
        }
    })
}

/// Asks over a new connection. None if there is none.
async fn exchange(
    door: &Rest,
    client: &Arc<ClientConfig>,
    token: Option<&str>,
    what: &str,
) -> Option<(Told, HandshakeKind)> {
    let stream = TcpStream::connect(door.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(client.clone()).connect(name, stream).await.ok()?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{what} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n{token}\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.ok()?;
    let handshake = stream.get_ref().1.handshake_kind()?;
    Some((told(&reply), handshake)).filter(|(told, _)| told.status > 0)
}

/// Over TLS, with the files of an engine.
fn protected(files: &Path, needs_client_certificate: bool, client_revoked: Option<PathBuf>) -> RestConfig {
    let tls = TlsFiles {
        certificate: files.join("server.pem"),
        key: files.join("server.key"),
        client_authority: Some(files.join("ca.pem")),
        client_revoked,
        needs_client_certificate,
    };
    RestConfig { tls: Some(tls), ..config() }
}

#[tokio::test]
async fn a_certificate_names_its_tenant() {
    let directory = stage::directory().unwrap();
    let engine = Embedded::start(stage::config(directory.path())).unwrap();
    let operator = connect(&engine, TenantId(0), Roles::ADMIN).await;
    stage::stake(&operator, &[1000]).await.unwrap();
    let files = server::pki_path(directory.path());
    let pki = DevelopmentPki::open(&files).unwrap();
    let authority = std::fs::read(files.join("ca.pem")).unwrap();
    let identity = |tenant| pki.client(tenant, Roles::AUTHORIZER, "app").unwrap();
    let (own, stranger) = (identity(stage::TENANT), identity(TenantId(77)));
    let token = new_token([1; 32]);
    let open = async |needs_client_certificate| {
        let config = protected(&files, needs_client_certificate, None);
        let client = connect(&engine, stage::TENANT, Roles::AUTHORIZER).await;
        let other = connect(&engine, TenantId(2), Roles::AUTHORIZER).await;
        let tenants = vec![
            Tenant { client, config: tokens(&token) },
            Tenant { client: other, config: TenantConfig::default() },
        ];
        Rest::start(config, tenants).await.unwrap()
    };
    let door = open(false).await;
    let partitions = |told: Told| told.expect(200)["partitions"].as_array().unwrap().len();
    assert_eq!(partitions(ask(&door, &authority, Some(&own), None).await.unwrap()), 1);
    assert_eq!(partitions(ask(&door, &authority, None, Some(&token)).await.unwrap()), 1);
    assert_eq!(partitions(ask(&door, &authority, Some(&own), Some(&token)).await.unwrap()), 1);
    // Of another tenant, it leads nowhere; with the token of another, neither does.
    ask(&door, &authority, Some(&stranger), None).await.unwrap().problem(401, "UNAUTHENTICATED");
    let two = identity(TenantId(2));
    assert_eq!(partitions(ask(&door, &authority, Some(&two), None).await.unwrap()), 0);
    ask(&door, &authority, Some(&two), Some(&token)).await.unwrap().problem(401, "UNAUTHENTICATED");
    ask(&door, &authority, None, None).await.unwrap().problem(401, "UNAUTHENTICATED");
    // Who may only read changes nothing, with a token neither; who may lock is asked for a key.
    let post = async |identity: &str, token| {
        send(&door, &authority, Some(identity), token, "POST /v1/locks").await.unwrap()
    };
    let reader = pki.client(stage::TENANT, Roles::READER, "books").unwrap();
    assert_eq!(partitions(ask(&door, &authority, Some(&reader), None).await.unwrap()), 1);
    post(&reader, None).await.problem(403, "NO_RIGHT");
    post(&reader, Some(token.as_str())).await.problem(403, "NO_RIGHT");
    post(&own, None).await.problem(400, "PARAMETER");
    // Signed by somebody else.
    let elsewhere = tempfile::tempdir().unwrap();
    server::init(&elsewhere.path().join("data"), 1, 4 << 20).unwrap();
    let forger = DevelopmentPki::open(&server::pki_path(&elsewhere.path().join("data"))).unwrap();
    let forged = forger.client(stage::TENANT, Roles::AUTHORIZER, "app").unwrap();
    assert!(ask(&door, &authority, Some(&forged), None).await.is_none());
    door.stop().await;
    let strict = open(true).await;
    assert!(ask(&strict, &authority, None, Some(&token)).await.is_none());
    assert_eq!(partitions(ask(&strict, &authority, Some(&own), None).await.unwrap()), 1);
    strict.stop().await;
    engine.shutdown();
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_nobody_comes_back_on_an_old_session() {
    let directory = stage::directory().unwrap();
    let engine = Embedded::start(stage::config(directory.path())).unwrap();
    let files = server::pki_path(directory.path());
    let pki = DevelopmentPki::open(&files).unwrap();
    let authority = std::fs::read(files.join("ca.pem")).unwrap();
    let identity = |name| pki.client(stage::TENANT, Roles::AUTHORIZER, name).unwrap();
    let pems = [identity("till"), identity("lost"), identity("office")];
    let clients = pems.each_ref().map(|pem| client(&authority, Some(pem)));
    let list = files.join("revoked-here.pem");
    let revoke = |lost: &[String]| std::fs::write(&list, pki.revocations(lost).unwrap()).unwrap();
    revoke(&[]);
    let config = protected(&files, true, Some(list.clone()));
    let tenants = vec![Tenant {
        client: connect(&engine, stage::TENANT, Roles::AUTHORIZER).await,
        config: TenantConfig::default(),
    }];
    let door = Rest::start(config.clone(), tenants).await.unwrap();
    let reload = || door.reload(&config, vec![(stage::TENANT, TenantConfig::default())]);
    let served = async || {
        let mut served = Vec::new();
        for client in &clients {
            let answer = exchange(&door, client, None, "GET /v1/partitions").await;
            served.push(answer.map(|(told, handshake)| (told.status, handshake)));
        }
        served
    };
    let whole = Some((200, HandshakeKind::Full));
    // The same client again: its certificate is looked at again.
    assert_eq!(served().await, [whole; 3]);
    assert_eq!(served().await, [whole; 3]);
    revoke(&pems[1..2]);
    reload().unwrap();
    assert_eq!(served().await, [whole, None, whole]);
    // What is no list changes nothing, and neither does one that is not there.
    std::fs::write(&list, &pems[0]).unwrap();
    assert!(reload().is_err());
    std::fs::remove_file(&list).unwrap();
    assert!(reload().is_err());
    assert_eq!(served().await, [whole, None, whole]);
    // One of another authority, whatever its name, changes nothing either; and nobody begins with it.
    let foreign = DevelopmentPki::generate().unwrap();
    std::fs::write(&list, foreign.revocations(&[]).unwrap()).unwrap();
    assert!(reload().unwrap_err().to_string().contains("has not signed"));
    assert_eq!(served().await, [whole, None, whole]);
    let begun = Rest::start(config.clone(), Vec::new()).await;
    assert!(begun.unwrap_err().to_string().contains("has not signed"));
    door.stop().await;
    engine.shutdown();
}

#[tokio::test]
async fn a_handshake_that_stands_still_does_not_hold_up_the_end() {
    let directory = stage::directory().unwrap();
    let engine = Embedded::start(stage::config(directory.path())).unwrap();
    let files = server::pki_path(directory.path());
    let mut config = protected(&files, false, None);
    config.limits.head_within = Duration::from_secs(600);
    let door = Rest::start(config, Vec::new()).await.unwrap();
    let silent = TcpStream::connect(door.address()).await.unwrap();
    // Whoever came after it is served: it was taken.
    let authority = std::fs::read(files.join("ca.pem")).unwrap();
    ask(&door, &authority, None, None).await.unwrap().problem(401, "UNAUTHENTICATED");
    tokio::time::timeout(Duration::from_secs(60), door.stop()).await.expect("it ends at once");
    drop(silent);
    engine.shutdown();
}
