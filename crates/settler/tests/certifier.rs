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
use server::Embedded;
use settlement::{Book, LockId, Unstated};
use settler::{
    CertificateFile, Certifier, CertifierConfig, CertifierTurn, Counter, Gap, Missed, Place, SettlerError,
    Standing,
};
use surety_client::{Client, Draft, LockRef, LockRequest, NotExecuted, Options, SubmitError, request};
use surety_protocol::{
    ActorId, Amount, AssetId, Caller, Code, Id, Kind, MerchantBody, PartitionHandle, Rights, Roles, Seq,
    ShardId, StakeBody, TenantBody, TenantId, Time,
};
use world::{
    ALICE, MERCHANT, MERCHANT_KEY, OWNER, PARTITION, SIGNER, STRANGER, TENANT, TOKENS, World, address, done,
    key,
};

/// How long the stream may take to tell something.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(world: &World, directory: &std::path::Path) -> CertifierConfig {
    CertifierConfig {
        directory: directory.to_owned(),
        place: world.place,
        claim_span: Time::from_secs(3600),
        checkpoint_every: Duration::ZERO,
        locks_in_memory: 2,
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
        let found = certifier.shelf().certificate(&lock).unwrap();
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
    let checkpoint = directory.path().join("book");
    let begun = std::fs::read(&checkpoint).unwrap();
    let saved = world.certified_lock(TOKENS).await;
    let before = certificate(&mut first, saved, 1).await;
    // Whoever leaves certificates elsewhere does that first.
    assert!(first.is_save_due());
    assert_eq!(std::fs::read(&checkpoint).unwrap(), begun, "nothing is passed by before `save`");
    first.save().unwrap();
    assert_ne!(std::fs::read(&checkpoint).unwrap(), begun);
    let unsaved = world.certified_lock(2 * TOKENS).await;
    certificate(&mut first, unsaved, 1).await;
    let other = certifier(&world, config(&world, directory.path())).await;
    assert!(matches!(other, Err(SettlerError::Lock(_))), "one service, one directory");
    // Killed.
    drop(first);
    let mut again = certifier(&world, config(&world, directory.path())).await.unwrap();
    assert_ne!(again.positions().0[0].0, 0, "it does not begin anew");
    let after = again.shelf().certificate(&before.certificate.lock.lock).unwrap().unwrap();
    assert_eq!(after, before, "not even the signature is another one");
    assert_eq!(after.standing(&world.chain).unwrap(), Standing::Enforceable);
    certificate(&mut again, unsaved, 1).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_begins_only_if_the_contract_takes_what_it_signs() {
    let mut world = supplied().await;
    let directory = tempfile::tempdir().unwrap();
    let open = async |world: &World, place, seed: u8| {
        let caller = Caller { tenant: TenantId(0), roles: Roles::READER, actor: ActorId(2) };
        let connector = Arc::new(world.engine.as_ref().unwrap().connector(caller));
        let client = Client::over(connector, Options::default(), &[]).await.unwrap();
        let config = CertifierConfig { place, ..config(world, &directory.path().join(seed.to_string())) };
        Certifier::open(config, client, Box::new(key(seed))).unwrap().check(&world.chain)
    };
    let place = world.place;
    open(&world, place, SIGNER).await.unwrap();
    let elsewhere = Place { manager: key(STRANGER).address(), ..place };
    assert!(matches!(open(&world, elsewhere, 11).await, Err(SettlerError::NoContract)));
    let other = Place { code_hash: B256::ZERO, ..place };
    assert!(matches!(open(&world, other, 12).await, Err(SettlerError::WrongChain)));
    let other = Place { chain_id: 1, ..place };
    assert!(matches!(open(&world, other, 13).await, Err(SettlerError::WrongChain)));
    let other = open(&world, place, MERCHANT_KEY).await.unwrap_err();
    assert!(matches!(other, SettlerError::NotSigner { is_known: false, .. }), "{other}");
    // The owner voids all that the key has signed.
    let signer = key(SIGNER).address();
    world.manage(OWNER, Manager::setSignerCall { signer, shard: u16::MAX, from: 1, to: 1 });
    let void = open(&world, place, SIGNER).await.unwrap_err();
    assert!(matches!(void, SettlerError::NotSigner { is_known: true, .. }), "{void}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_directory_of_the_last_version_held_is_signed_again() {
    let world = supplied().await;
    let lock = world.certified_lock(TOKENS).await;
    let name = LockId { tenant: TENANT, partition: PARTITION, id: lock };
    let (mut book, mut position) = (Book::default(), Seq(0));
    let mut tail = world.admin.tail(ShardId(0), Seq(1));
    while !book.is_certified(&name) {
        let (seq, record) = tail.next().await.unwrap();
        book.read(ShardId(0), seq, &record);
        position = seq;
    }
    let directory = tempfile::tempdir().unwrap();
    let contract = surety_protocol::Address(world.place.manager.into_array());
    let domain = settlement::Domain { chain_id: 31337, contract, engine: world.admin.hello().engine };
    let (one, none) = (1_u64.to_be_bytes(), 0_u64.to_be_bytes());
    // As that version has written it: it knew of nothing that was lost.
    let mut book = book.snapshot();
    book[0] = 2;
    book.truncate(book.len() - 4);
    let parts = [
        &b"SURETYSB"[..],
        &2_u32.to_be_bytes(),
        &domain.separator(),
        &one,
        &position.0.to_be_bytes(),
        &(book.len() as u64).to_be_bytes(),
        &book,
        &none,
    ];
    let bytes = parts.concat();
    let sum = crc32c::crc32c(&bytes).to_be_bytes();
    std::fs::write(directory.path().join("book"), [&bytes[..], &sum].concat()).unwrap();
    let mut certifier = certifier(&world, config(&world, directory.path())).await.unwrap();
    assert_eq!(certifier.positions().0[0], position);
    assert!(certifier.shelf().is_empty(), "nothing is signed before somebody may have looked at the chain");
    certifier.turn().unwrap();
    let file = certifier.shelf().certificate(&name).unwrap().unwrap();
    assert_eq!(file.standing(&world.chain).unwrap(), Standing::Enforceable);
    certifier.save().unwrap();
}

/// An engine that keeps as little of its log as it may, with one partition, and the client of its shop.
struct Forgetful {
    engine: Embedded,
    shop: Client,
    data: tempfile::TempDir,
}

impl Forgetful {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        server::init(data.path(), 1, 1 << 19).unwrap();
        let engine = Embedded::start(server::Config {
            durability: server::Durability::Os,
            segment_bytes: 1 << 19,
            snapshot_records: 1024,
            // What a test does after the flood stays, however late the last snapshot of the flood is made.
            retain_records: Some(500),
            cursor_records: 0,
            pin_threads: false,
            free_bytes_min: 0,
            ..server::Config::new(data.path())
        });
        let engine = engine.unwrap();
        let shop = world::client(&engine, TENANT, Roles::AUTHORIZER).await;
        let forgetful = Self { engine, shop, data };
        forgetful.set_merchant().await;
        let admin = forgetful.admin().await;
        let create = request::create_partition(PARTITION, [0xcc; 32], AssetId(1), false);
        done(admin.send(create).await.unwrap());
        done(admin.send(request::grant(PARTITION, TENANT, Rights::KNOWN)).await.unwrap());
        let supply = StakeBody { supplier: address(ALICE), nonce: 1, ..StakeBody::default() };
        let settler = world::client(&forgetful.engine, TenantId(0), Roles::SETTLER).await;
        done(settler.send(Draft::new(Kind::Deposit, PARTITION, Amount(1_000), &supply)).await.unwrap());
        forgetful
    }

    async fn admin(&self) -> Client {
        world::client(&self.engine, TenantId(0), Roles::ADMIN).await
    }

    async fn set_merchant(&self) {
        let quotas = TenantBody {
            tenant: TENANT,
            locks_max: 1_000_000,
            ids_max: 10_000_000,
            tombstones_max: 1000,
            advices_max: 1000,
            enabled: 1,
            ..TenantBody::default()
        };
        let merchant = MerchantBody {
            merchant: MERCHANT,
            payee: address(MERCHANT_KEY),
            release_key: address(MERCHANT_KEY),
            enabled: 1,
            ..MerchantBody::default()
        };
        let (admin, shard) = (self.admin().await, PartitionHandle(0));
        done(admin.send(request::set_tenant(shard, &quotas)).await.unwrap());
        done(admin.send(request::set_merchant(shard, TENANT, &merchant)).await.unwrap());
    }

    async fn certified_lock(&self) -> LockId {
        let begun = Instant::now();
        loop {
            let lock =
                LockRequest { is_certified: true, ..LockRequest::new(PARTITION, Amount(10), MERCHANT) };
            match self.shop.send(lock).await {
                Ok(reply) => return LockId { tenant: TENANT, partition: PARTITION, id: done(reply).id },
                Err(SubmitError::NotExecuted {
                    why: NotExecuted::Refused { code: Code::Overloaded, .. },
                    ..
                }) => assert!(begun.elapsed() < PATIENCE, "it stays overloaded"),
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Until the log no longer begins at its beginning.
    async fn forget(&self) {
        let begun = Instant::now();
        let has_all = || {
            let names = std::fs::read_dir(self.data.path().join("shard-0")).unwrap();
            let first = names.filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_suffix(".wal").and_then(|first| first.parse::<u64>().ok())
            });
            first.min() == Some(1)
        };
        while has_all() {
            assert!(begun.elapsed() < 2 * PATIENCE, "it keeps all of its log");
            // More than anybody has: declined, and recorded. Never so fast that the engine remembers many of them: its snapshots would
            // take longer and longer, and the tenant's quotas would be used up before one is made.
            let mut asked = tokio::task::JoinSet::new();
            for _ in 0..64 {
                let shop = self.shop.clone();
                asked.spawn(async move {
                    for _ in 0..16 {
                        let lock = LockRequest::new(PARTITION, Amount(1 << 60), MERCHANT);
                        // Whatever it comes to: a busy engine may refuse it.
                        let _ = shop.send(lock).await;
                    }
                });
            }
            while asked.join_next().await.is_some() {}
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What a service says that has not read what the engine no longer has.
async fn gap(certifier: &mut Certifier) -> Gap {
    let begun = Instant::now();
    loop {
        match certifier.turn() {
            Err(SettlerError::Gap(gap)) => return gap,
            turn => assert_eq!(turn.unwrap(), CertifierTurn::default()),
        }
        assert!(begun.elapsed() < PATIENCE, "no gap");
        certifier.wait(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_retention_it_goes_on_only_if_told_to_and_tells_what_it_cannot_certify() {
    let engine = Forgetful::start().await;
    let (killed, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place =
        Place { chain_id: 1, manager: key(STRANGER).address(), code_hash: B256::ZERO, since_block: 0 };
    let config = |directory: &tempfile::TempDir| CertifierConfig {
        directory: directory.path().to_owned(),
        place,
        claim_span: Time::from_secs(3600),
        checkpoint_every: Duration::ZERO,
        locks_in_memory: 16,
    };
    let open = async |directory| {
        let reader = world::client(&engine.engine, TenantId(0), Roles::READER).await;
        Certifier::open(config(directory), reader, Box::new(key(SIGNER))).unwrap()
    };
    // One service hands a certificate out, and is killed before it has saved anything.
    let before = engine.certified_lock().await;
    let mut certifier = open(&killed).await;
    let handed = certificate(&mut certifier, before.id, 1).await;
    drop(certifier);
    engine.forget().await;
    let mut certifier = open(&killed).await;
    assert!(certifier.shelf().is_empty());
    let gap = gap(&mut certifier).await;
    let turn = certifier.accept(gap).await.unwrap();
    assert_eq!(turn, CertifierTurn { made: vec![before], missed: vec![] });
    certifier.save().unwrap();
    drop(certifier);
    let certifier = open(&killed).await;
    assert_eq!(certifier.shelf().certificate(&before).unwrap(), Some(handed));
    drop(certifier);
    // Another has never read anything.
    let mut certifier = open(&directory).await;
    let begun = Instant::now();
    let gap = self::gap(&mut certifier).await;
    assert!(gap.from == Seq(1) && gap.oldest > Seq(1), "{gap:?}");
    certifier.accept(gap).await.unwrap();
    assert_eq!(certifier.positions().0[0].next(), gap.oldest);
    // Its merchant was set before: nobody knows whom it pays. Then it is set again.
    let unknown = engine.certified_lock().await;
    engine.set_merchant().await;
    let known = engine.certified_lock().await;
    let mut missed = Vec::new();
    while certifier.shelf().certificate(&known).unwrap().is_none() {
        match certifier.turn() {
            // The last snapshot of the flood was late.
            Err(SettlerError::Gap(gap)) => _ = certifier.accept(gap).await.unwrap(),
            turn => missed.extend(turn.unwrap().missed),
        }
        assert!(begun.elapsed() < PATIENCE, "no certificate");
        certifier.wait(Duration::from_millis(20)).await;
    }
    assert_eq!(missed, [Missed { lock: unknown, why: Unstated::Payee(MERCHANT) }]);
    for lock in [before, unknown] {
        assert!(certifier.shelf().certificate(&lock).unwrap().is_none());
    }
}
