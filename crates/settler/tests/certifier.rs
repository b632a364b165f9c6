//! The certificate service: what the stream states is signed, handed out, taken by the contract, and outlives a restart.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use chain::bindings::Manager;
use chain::{Backend, DigestSigner, Tag};
use settlement::LockId;
use settler::{CertificateFile, Certifier, CertifierConfig, Counter, Place, SettlerError, Standing};
use surety_client::{Client, LockRef, Options};
use surety_protocol::{ActorId, Amount, Caller, Id, Roles, TenantId, Time};
use world::{
    ALICE, MERCHANT_KEY, OWNER, PARTITION, SIGNER, STRANGER, TENANT, TOKENS, World, address, done, key,
};

/// How long the stream may take to tell something.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(world: &World, directory: &std::path::Path) -> CertifierConfig {
    CertifierConfig {
        directory: directory.to_owned(),
        place: world.place,
        claim_span: Time::from_secs(3600),
        checkpoint_every: Duration::ZERO,
    }
}

async fn certifier(world: &World, config: CertifierConfig) -> Result<Certifier, SettlerError> {
    let engine = world.engine.as_ref().unwrap();
    let tokens = Certifier::tokens(&config.directory)?;
    let caller = Caller { tenant: TenantId(0), roles: Roles::READER, actor: ActorId(2) };
    let client = Client::over(Arc::new(engine.connector(caller)), Options::default(), &tokens).await.unwrap();
    Certifier::open(config, client, Box::new(key(SIGNER)))
}

/// Turns until there is a certificate of this version.
async fn certificate(certifier: &mut Certifier, id: Id, version: u16) -> CertificateFile {
    let lock = LockId { tenant: TENANT, partition: PARTITION, id };
    let begun = Instant::now();
    loop {
        certifier.turn().unwrap();
        let found = certifier.shelf().certificate(&lock);
        if let Some(found) = found.filter(|found| found.certificate.lock.version >= version) {
            assert_eq!(found.signer(), Some(key(SIGNER).address()));
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "no certificate");
        certifier.wait(Duration::from_millis(20)).await;
    }
}

async fn supplied() -> World {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_out_the_contract_takes() {
    let mut world = supplied().await;
    let directory = tempfile::tempdir().unwrap();
    let mut certifier = certifier(&world, config(&world, directory.path())).await.unwrap();
    world.lock(TOKENS).await;
    let first = world.certified_lock(5 * TOKENS).await;
    let others = [world.certified_lock(TOKENS).await, world.certified_lock(TOKENS).await];
    let file = certificate(&mut certifier, first, 1).await;
    for other in others {
        certificate(&mut certifier, other, 1).await;
    }
    assert_eq!(certifier.shelf().len(), 3, "only locks that asked for it");
    assert_eq!(file.certificate.lock.amount, 5 * TOKENS);
    assert_eq!(file.certificate.lock.payee, address(MERCHANT_KEY));
    assert_eq!(file.standing(&world.chain).unwrap(), Standing::Enforceable);

    // A raised lock has a new version, which takes the place of the first.
    let raised = LockRef::new(PARTITION, first).increase(Amount(8 * TOKENS), 1);
    done(world.authorizer.send(raised).await.unwrap());
    let second = certificate(&mut certifier, first, 2).await;
    assert_eq!(second.certificate.lock.amount, 8 * TOKENS);
    world.manage(STRANGER, file.call());
    assert_eq!(file.standing(&world.chain).unwrap(), Standing::Called);
    assert_eq!(second.standing(&world.chain).unwrap(), Standing::Enforceable, "the later version");
    world.manage(STRANGER, second.call());
    world.chain.mine_after(200);
    // More than nothing is guaranteed beyond the newest proven root.
    world.manage(
        OWNER,
        Manager::setGuaranteeCapCall {
            partition: B256::from(world.onchain(1)),
            guaranteeCap: (8 * TOKENS).try_into().unwrap(),
        },
    );
    world.manage(STRANGER, Manager::settleGuaranteeCall { lockId: second.lock_id() });
    assert_eq!(world.purse(MERCHANT_KEY), 8 * TOKENS);
    assert_eq!(second.standing(&world.chain).unwrap(), Standing::Paid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_worth_nothing_is_found_out() {
    let mut world = supplied().await;
    let directory = tempfile::tempdir().unwrap();
    let mut certifier = certifier(&world, config(&world, directory.path())).await.unwrap();
    let lock = world.certified_lock(TOKENS).await;
    let file = certificate(&mut certifier, lock, 1).await;
    let refused = |file: &CertificateFile| match file.standing(&world.chain).unwrap() {
        Standing::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    let mut more = file.clone();
    more.certificate.lock.amount += 1;
    assert!(refused(&more).contains("signer"), "{}", refused(&more));
    assert_ne!(more.signer(), file.signer());
    let mut elsewhere = file.clone();
    elsewhere.domain.chain_id = 1;
    assert_eq!(elsewhere.standing(&world.chain).unwrap(), Standing::Elsewhere);
    elsewhere = file.clone();
    elsewhere.domain.contract = surety_protocol::Address(world.at.amp.into_array());
    assert_eq!(elsewhere.standing(&world.chain).unwrap(), Standing::Elsewhere);
    world.chain.mine_after(2 * 24 * 3600);
    let late = file.standing(&world.chain).unwrap();
    assert!(matches!(&late, Standing::Refused(reason) if reason.contains("deadline")), "{late:?}");
    assert!(world.chain.block(Tag::Latest).unwrap().unwrap().time > file.certificate.lock.deadline_secs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_and_forgets_nothing() {
    let world = supplied().await;
    let directory = tempfile::tempdir().unwrap();
    let mut first = certifier(&world, config(&world, directory.path())).await.unwrap();
    let saved = world.certified_lock(TOKENS).await;
    let before = certificate(&mut first, saved, 1).await;
    // Whoever leaves certificates elsewhere does that first.
    let checkpoint = directory.path().join("book");
    assert!(first.is_save_due() && !checkpoint.exists(), "nothing is passed by before `save`");
    first.save().unwrap();
    assert!(checkpoint.exists());
    let unsaved = world.certified_lock(2 * TOKENS).await;
    certificate(&mut first, unsaved, 1).await;
    let other = certifier(&world, config(&world, directory.path())).await;
    assert!(matches!(other, Err(SettlerError::Lock(_))), "one service, one directory");
    // Killed.
    drop(first);
    let mut again = certifier(&world, config(&world, directory.path())).await.unwrap();
    assert_ne!(again.positions().0[0].0, 0, "it does not begin anew");
    let after = again.shelf().certificate(&before.certificate.lock.lock).unwrap();
    assert_eq!(after.certificate.lock, before.certificate.lock);
    assert_eq!(after.standing(&world.chain).unwrap(), Standing::Enforceable);
    certificate(&mut again, unsaved, 1).await;
    // What can no longer be called is forgotten.
    assert_eq!(again.shelf().len(), 2);
    drop(again);
    let place = Place { chain_id: 1, ..world.place };
    let moved = CertifierConfig { place, ..config(&world, directory.path()) };
    assert!(matches!(certifier(&world, moved).await, Err(SettlerError::Foreign)));
}

fn get(counter: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(counter).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_is_given_the_file() {
    let world = supplied().await;
    let directory = tempfile::tempdir().unwrap();
    let mut certifier = certifier(&world, config(&world, directory.path())).await.unwrap();
    let lock = world.certified_lock(TOKENS).await;
    let file = certificate(&mut certifier, lock, 1).await;
    let counter = Counter::open(SocketAddr::from(([127, 0, 0, 1], 0)), &certifier.shelf()).unwrap();
    let address = counter.address();
    let asked = format!("GET /certificate/{} HTTP/1.1\r\nhost: x\r\n\r\n", file.lock_id());
    let (status, body) = get(address, &asked);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(CertificateFile::from_json(body.as_bytes()), Ok(file));
    for wrong in ["GET /certificate/0x12 HTTP/1.1", "GET / HTTP/1.1", "GET /certificate/zz HTTP/1.1"] {
        assert_eq!(get(address, &format!("{wrong}\r\n\r\n")).0, "HTTP/1.1 404 Not Found", "{wrong}");
    }
    let unknown = format!("GET /certificate/{} HTTP/1.1\r\n\r\n", B256::with_last_byte(9));
    assert_eq!(get(address, &unknown).0, "HTTP/1.1 404 Not Found");
    assert_eq!(get(address, "POST / HTTP/1.1\r\n\r\n").0, "HTTP/1.1 405 Method Not Allowed");
    drop(counter);
    assert!(TcpStream::connect(address).is_err(), "it is closed");
}
