//! Payments over QUIC, ISO 8583 and REST at once, against the same collateral, more than there is, while the engine is killed and then the
//! front door: then the partitions, the log and what each door was told have to agree to the last unit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use surety_client::{Client, Draft, Identity, LockRef, LockRequest};
use surety_protocol::{Amount, Code, MerchantId, PartitionHandle, Record, Reply, ShardId};

use crate::gateway::{CANARY, Host, LINK, SUPPLIER, connect_to, sent};
use crate::process::{Data, Engine, Front, ctl, surety};
use crate::rest::{App, PATIENT, Tenant, key, settings};

/// A minor unit of the doors, in base units.
const UNIT: u128 = 10_u128.pow(16);
const LOCK: u128 = 2500 * UNIT;
const PART: u128 = 1000 * UNIT;
/// Each door's; three of four keep their 25.00, and the three doors together ask for more than the partitions have.
const PAYMENTS: usize = 60;
const COLLATERAL: u128 = 1500 * 100 * UNIT;
const PARTITIONS: [&str; 2] = ["0:1", "1:1"];
/// One for each door: by its merchant the log tells whose a payment was.
const MERCHANTS: [u64; 3] = [501, 502, 503];
const PATIENCE: Duration = Duration::from_secs(100);

/// What a door was told, or what the log says of it: locks that were approved and declined, how many of them are sales, captures beside
/// these, and what is held and captured in each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Books {
    approved: u64,
    declined: u64,
    sales: u64,
    captures: u64,
    held: [u128; 2],
    captured: [u128; 2],
}

/// What is done with a payment, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Lock,
    Sale,
    LockAndRelease,
    LockAndCapture,
}

/// Where payment `n` is held, and what is done with it. Every way is gone in both partitions.
fn plan(n: usize) -> (usize, Way) {
    (n / 4 % 2, [Way::Lock, Way::Sale, Way::LockAndRelease, Way::LockAndCapture][n % 4])
}

impl Books {
    /// Notes the outcome of payment `n`.
    fn note(&mut self, n: usize, is_approved: bool) {
        let (at, way) = plan(n);
        if !is_approved {
            self.declined += 1;
            return;
        }
        self.approved += 1;
        match way {
            Way::Lock => self.held[at] += LOCK,
            Way::Sale => {
                self.sales += 1;
                self.captured[at] += LOCK;
            }
            Way::LockAndRelease => {}
            Way::LockAndCapture => {
                self.captures += 1;
                self.held[at] += LOCK - PART;
                self.captured[at] += PART;
            }
        }
    }
}

/// Where the front door is now: one that was killed comes back elsewhere.
struct Street {
    link: Mutex<String>,
    rest: Mutex<String>,
    token: String,
    /// Payments that all doors have done with.
    done: AtomicUsize,
}

impl Street {
    fn new(front: &Front, tenant: &Tenant) -> Self {
        let street = Self {
            link: Mutex::default(),
            rest: Mutex::default(),
            token: tenant.token.clone(),
            done: AtomicUsize::new(0),
        };
        street.leads_to(front);
        street
    }

    fn leads_to(&self, front: &Front) {
        let address = |name: &str| front.ready[name].as_str().unwrap().to_owned();
        *self.link.lock().unwrap() = address("listen");
        *self.rest.lock().unwrap() = address("rest");
    }

    /// An acquirer's host that has signed on.
    fn host(&self) -> Host {
        patiently(|| {
            let mut host = connect_to(&self.link.lock().unwrap().clone())?;
            host.try_sign_on().then_some(host)
        })
    }

    fn app(&self) -> App {
        App { address: self.rest.lock().unwrap().clone(), token: self.token.clone() }
    }

    fn has_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until so many payments are done.
    fn wait_for(&self, payments: usize) {
        patiently(|| (self.done.load(Ordering::Relaxed) >= payments).then_some(()));
    }
}

/// Tries until something comes of it.
#[track_caller]
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing has come of it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a request until it is answered, whatever is killed meanwhile.
async fn definite(client: &Client, request: Record) -> Reply {
    let begun = Instant::now();
    loop {
        let answer = client.submit(request).await;
        match answer {
            Ok(reply) if matches!(reply.code(), Code::Approved | Code::Insufficient) => return reply,
            _ => assert!(begun.elapsed() < PATIENCE, "{answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A router, over QUIC.
fn route(data: &Data, listen: &str, street: &Street) -> Books {
    let identity = Identity::from_file(data.file("pki").join("authorizer.pem")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(listen.parse().unwrap(), identity).await.unwrap();
        let mut books = Books::default();
        for n in 0..PAYMENTS {
            let (at, way) = plan(n);
            let partition = PartitionHandle::new(ShardId(u16::try_from(at).unwrap()), 1);
            let lock = LockRequest::new(partition, Amount(LOCK), MerchantId(MERCHANTS[0]));
            let lock = LockRequest { is_sale: way == Way::Sale, ..lock };
            let lock = Draft::from(lock).into_record(|| client.new_id());
            let reply = definite(&client, lock).await;
            let is_approved = reply.code() == Code::Approved;
            books.note(n, is_approved);
            let lock = LockRef::new(partition, reply.id);
            let change = match way {
                Way::LockAndRelease => Some(lock.release()),
                Way::LockAndCapture => Some(lock.capture(Amount(PART))),
                Way::Lock | Way::Sale => None,
            };
            if let Some(change) = change.filter(|_| is_approved) {
                let change = change.into_record(|| client.new_id());
                assert_eq!(definite(&client, change).await.code(), Code::Approved);
            }
            street.has_done();
        }
        client.shutdown().await;
        books
    })
}

/// Says a message until it is answered, as a repeat from the second time on, and by another socket where one has ended. Its code.
fn say(host: &mut Host, street: &Street, message: impl Fn(&mut Host, bool)) -> String {
    let mut is_repeat = false;
    patiently(|| {
        message(host, is_repeat);
        is_repeat = true;
        match host.try_answer() {
            // Not now, and nothing was done.
            Some((_, code)) if code == "91" => None,
            Some((_, code)) => Some(code),
            None => {
                *host = street.host();
                None
            }
        }
    })
}

/// An acquirer's host. It has no captures in part: those payments stay locked.
fn acquire(street: &Street) -> Books {
    let mut host = street.host();
    let mut books = Books::default();
    for n in 0..PAYMENTS {
        let (at, way) = plan(n);
        let day = sent();
        let (card, trace) = ([CANARY, "5105105105105100"][at], n + 1);
        let types = if way == Way::Sale { [b"0200", b"0201"] } else { [b"0100", b"0101"] };
        let code = say(&mut host, street, |host, is_repeat| {
            let (trace, merchant) = (trace.to_string(), MERCHANTS[1].to_string());
            host.pay_to(types[usize::from(is_repeat)], card, &day, &trace, &merchant);
        });
        assert!(code == "00" || code == "51", "{code}");
        let is_approved = code == "00";
        // The numbers of those that stay locked have the effect of the first.
        books.note(if way == Way::LockAndCapture { n - 3 } else { n }, is_approved);
        if is_approved && way == Way::LockAndRelease {
            let trace = u32::try_from(trace).unwrap();
            let code = say(&mut host, street, |host, is_repeat| {
                host.reverse_of([b"0400", b"0401"][usize::from(is_repeat)], card, &day, 1000 + trace, trace);
            });
            assert_eq!(code, "00");
        }
        street.has_done();
    }
    books
}

/// Posts under a key until there is an answer.
fn post(street: &Street, path: &str, body: &Value) -> (String, Value) {
    let key = key();
    let told = patiently(|| match street.app().try_ask("POST", path, &key, body) {
        Some((200, told, _)) => Some(told),
        // Only what says that it may be sent again.
        Some((status, problem, _)) => {
            assert_eq!(problem["retryable"], true, "{status} {problem}");
            None
        }
        None => None,
    });
    (key, told)
}

/// An application, over REST.
fn apply(street: &Street) -> Books {
    let mut books = Books::default();
    for n in 0..PAYMENTS {
        let (at, way) = plan(n);
        let body = json!({"partition": PARTITIONS[at], "amount": "25.00", "asset": "AMP", "merchant": MERCHANTS[2],
                          "sale": way == Way::Sale});
        let (lock_id, lock) = post(street, "/v1/locks", &body);
        let is_approved = lock["status"] == "approved";
        assert!(is_approved || lock["decline_code"] == "INSUFFICIENT", "{lock}");
        books.note(n, is_approved);
        let change = match way {
            Way::LockAndRelease => Some(("release", json!({}))),
            Way::LockAndCapture => Some(("capture", json!({"amount": "10.00", "asset": "AMP"}))),
            Way::Lock | Way::Sale => None,
        };
        if let Some((what, body)) = change.filter(|_| is_approved) {
            let (_, told) = post(street, &format!("/v1/locks/{lock_id}/{what}"), &body);
            assert_eq!(told["status"], "approved", "{told}");
        }
        street.has_done();
    }
    books
}

/// What the log says of each merchant, by rules of a few lines that share nothing with the ledger.
fn logged(data: &Data) -> BTreeMap<u64, Books> {
    let mut all: BTreeMap<u64, Books> = BTreeMap::new();
    for shard in 0..PARTITIONS.len() {
        let dumped =
            surety(&["dump", "--data", data.path(), "--shard", &shard.to_string(), "--json"]).exits(0);
        let mut open: BTreeMap<String, (u64, u128, u128)> = BTreeMap::new();
        for line in dumped.stdout.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let amount = || record["amount"].as_str().map_or(0, |amount| amount.parse::<u128>().unwrap());
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let is_approved = record["code"] == "APPROVED";
            match (text("kind").as_str(), is_approved) {
                ("lock", true) => {
                    let is_sale = text("flags").contains("sale");
                    let (held, captured) = if is_sale { (0, amount()) } else { (amount(), 0) };
                    let merchant = record["merchant"].as_u64().unwrap();
                    assert!(open.insert(text("id"), (merchant, held, captured)).is_none(), "{record}");
                    let books = all.entry(merchant).or_default();
                    books.approved += 1;
                    books.sales += u64::from(is_sale);
                }
                ("lock", false) => {
                    all.entry(record["merchant"].as_u64().unwrap()).or_default().declined += 1;
                }
                ("capture", true) => {
                    let (merchant, held, captured) = open.get_mut(&text("lock")).unwrap();
                    all.entry(*merchant).or_default().captures += 1;
                    *held -= amount();
                    *captured += amount();
                }
                ("release", true) => open.get_mut(&text("lock")).unwrap().1 = 0,
                _ => {}
            }
        }
        for (merchant, held, captured) in open.into_values() {
            let books = all.entry(merchant).or_default();
            books.held[shard] += held;
            books.captured[shard] += captured;
        }
    }
    all
}

/// What the front door itself lists of its merchant, once it has read as far: its locks, and what was captured of them.
fn listed(app: &App, expect: &Books) {
    let begun = Instant::now();
    loop {
        let (mut count, mut captured, mut after) = (0, 0, String::new());
        loop {
            let (status, page) = app.get(&format!("/v1/locks?merchant={}&limit=20{after}", MERCHANTS[2]));
            assert_eq!(status, 200, "{page}");
            for lock in page["locks"].as_array().unwrap() {
                count += u64::from(lock["state"] != "declined");
                captured +=
                    lock["captured"].as_str().unwrap().replace('.', "").parse::<u128>().unwrap() * UNIT;
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        if (count, captured) == (expect.approved, expect.captured.iter().sum()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{count} locks, {captured} captured: {expect:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn furnish(data: &Data) {
    ctl(data, &["tenant", "set", "1"]);
    for partition in PARTITIONS {
        ctl(data, &["partition", "create", partition]);
        ctl(data, &["policy", "set", partition, "life_default=1h"]);
        ctl(data, &["grant", partition, "1", "authorize,advise,read"]);
        let collateral = COLLATERAL.to_string();
        ctl(data, &["deposit", partition, &collateral, "--supplier", SUPPLIER, "--nonce", "1"]);
    }
}

/// The file of a front door with a link and one tenant's applications.
fn file(directory: &Path, tenant: &Tenant) -> PathBuf {
    std::fs::write(directory.join("acme.key"), "5a".repeat(32)).unwrap();
    let routes =
        "route = [{ prefix = \"4\", partitions = [\"0:1\"] }, { prefix = \"5\", partitions = [\"1:1\"] }]";
    let link = LINK.replace("route = [{ prefix = \"4\", partitions = [\"0:1\"] }]", routes);
    assert!(link.contains(routes));
    settings(directory, &link, PATIENT, std::slice::from_ref(tenant))
}

#[test]
fn three_doors_to_one_collateral_agree_to_the_last_unit_through_kills() {
    let data = Data::init(2);
    let engine = Engine::start(&data, "fsync");
    furnish(&data);
    let directory = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(None);
    let config = file(directory.path(), &tenant);
    let front = Front::start(&data, &config);
    let street = Street::new(&front, &tenant);
    let listen = engine.listen().to_owned();
    let (doors, engine, front) = std::thread::scope(|scope| {
        let doors = [
            scope.spawn(|| route(&data, &listen, &street)),
            scope.spawn(|| acquire(&street)),
            scope.spawn(|| apply(&street)),
        ];
        // In the middle of all of it.
        street.wait_for(PAYMENTS);
        engine.kill();
        let engine = Engine::start_at(&data, "fsync", &listen, &[]);
        street.wait_for(2 * PAYMENTS);
        front.kill();
        let front = Front::start(&data, &config);
        street.leads_to(&front);
        (doors.map(|door| door.join().unwrap()), engine, front)
    });
    let declined: u64 = doors.iter().map(|books| books.declined).sum();
    assert!(declined > 0, "more was asked for than there is: {doors:?}");
    // Each door's own sums. The link's totals are those of its tenant, whichever door a payment came through: debits, authorizations, what
    // was captured in minor units, what went back.
    let sum = |of: fn(&Books) -> u64| doors.iter().map(of).sum::<u64>();
    let minor = sum(|books| u64::try_from(books.captured.iter().sum::<u128>() / UNIT).unwrap());
    let (sales, approved) = (sum(|books| books.sales), sum(|books| books.approved));
    assert_eq!(street.host().totals(), [sales + sum(|books| books.captures), approved - sales, minor, 0]);
    listed(&street.app(), &doors[2]);
    // The partitions, as the engine has them now.
    let money = |shown: &Value, field: &str| shown[field].as_str().unwrap().parse::<u128>().unwrap();
    let agree = |at: usize, shown: &Value| {
        let held = doors.iter().map(|books| books.held[at]).sum::<u128>();
        let captured = doors.iter().map(|books| books.captured[at]).sum::<u128>();
        let sums = ["held", "captured", "free", "collateral"].map(|field| money(shown, field));
        assert_eq!(sums, [held, captured, COLLATERAL - held - captured, COLLATERAL], "{shown}");
        for field in ["pending", "owed", "deficit", "exposure"] {
            assert_eq!(money(shown, field), 0, "{shown}");
        }
    };
    for (at, partition) in PARTITIONS.iter().enumerate() {
        agree(at, &ctl(&data, &["partition", "show", partition]));
    }
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
    // The log, replayed, and read line by line.
    let verified = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
    for at in 0..PARTITIONS.len() {
        agree(at, &verified["shards"][at]["partitions"][0]);
    }
    let told: BTreeMap<u64, Books> = MERCHANTS.into_iter().zip(doors).collect();
    assert_eq!(logged(&data), told);
}
