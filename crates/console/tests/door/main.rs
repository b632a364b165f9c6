//! A console in front of a real engine, asked as a browser would: who gets in, who does not, what is seen and what is done.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod browser;
mod past;
mod settled;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use server::pki::DevelopmentPki;
use server::{Authority, Config, Embedded};
use surety_client::{Client, Draft, Identity, LockRef, LockRequest, Options, Outcome, request};
use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, Code, Id, MerchantBody, MerchantId, PartitionHandle, Policy,
    Reply, Rights, Roles, ShardId, StateKind, TenantBody, TenantId, Time,
};

use browser::{Answer, Browser};
use console::link::Link;
use console::{Asset, Console, ConsoleConfig, PolicyWords, StartError, TlsFiles};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITION: PartitionHandle = PartitionHandle(1);
const OTHER: PartitionHandle = PartitionHandle(2);
const TENANT: TenantId = TenantId(7);

/// Two rules will do to see that rules are read, written and compared.
const WORDS: PolicyWords = PolicyWords { write: write_policy, read: read_policy };

fn write_policy(policy: &Policy) -> Value {
    json!({ "lock_max": policy.lock_max.0.to_string(), "late_capture": policy.late_capture == 1 })
}

fn read_policy(value: &Value) -> Result<Policy, String> {
    let lock_max =
        value["lock_max"].as_str().and_then(|text| text.parse().ok()).ok_or("lock_max is no amount")?;
    let late_capture = value["late_capture"].as_bool().ok_or("late_capture is yes or no")?;
    Ok(Policy { lock_max: Amount(lock_max), late_capture: u8::from(late_capture), ..Policy::default() })
}

/// An engine with a console, and everybody who may want something of it.
struct World {
    console: Console,
    authority: Arc<Authority>,
    pki: DevelopmentPki,
    operator: Client,
    tenant: Client,
    embedded: Embedded,
    /// Before the console was started.
    begun: Time,
    data: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| config()).await
    }

    /// With a console as it is set up for this data directory.
    async fn with(set_up: impl FnOnce(&Path) -> ConsoleConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        server::init(&data, 1, 1 << 20).unwrap();
        let embedded = Embedded::start(Config { pin_threads: false, ..Config::new(&data) }).unwrap();
        let authority = Arc::new(Authority::open(&data).unwrap());
        let begun = server::readings().wall;
        let console =
            Console::start(embedded.running().inside(), Arc::clone(&authority), set_up(&data)).unwrap();
        let client = async |tenant, roles| {
            let caller = Caller { tenant, roles, actor: ActorId(1) };
            Client::over(Arc::new(embedded.connector(caller)), Options::default(), &[]).await.unwrap()
        };
        let operator = client(TenantId(0), Roles::ADMIN | Roles::SETTLER).await;
        let tenant = client(TENANT, Roles::AUTHORIZER).await;
        let pki = DevelopmentPki::open(&server::pki_path(&data)).unwrap();
        let world = Self { console, authority, pki, operator, tenant, embedded, begun, data: directory };
        world.furnish().await;
        world
    }

    async fn furnish(&self) {
        let quotas = TenantBody {
            tenant: TENANT,
            locks_max: 1000,
            ids_max: 1000,
            tombstones_max: 1000,
            advices_max: 1000,
            enabled: 1,
            ..TenantBody::default()
        };
        let merchant = MerchantBody {
            merchant: MerchantId(1),
            payee: Address([1; 20]),
            enabled: 1,
            ..MerchantBody::default()
        };
        let shard = PartitionHandle(0);
        for draft in [
            request::set_tenant(shard, &quotas),
            request::set_merchant(shard, TENANT, &merchant),
            request::create_partition(PARTITION, [1; 32], AssetId(1), false),
            request::create_partition(OTHER, [2; 32], AssetId(1), false),
            request::grant(PARTITION, TENANT, Rights::KNOWN),
            request::deposit(PARTITION, Address([9; 20]), Amount(1_000_000), 1),
        ] {
            done(&self.operator, draft).await;
        }
    }

    fn identity(&self, tenant: TenantId, roles: Roles) -> (Identity, String) {
        self.identity_of(tenant, roles, "x")
    }

    fn identity_of(&self, tenant: TenantId, roles: Roles, name: &str) -> (Identity, String) {
        let pem = self.pki.client(tenant, roles, name).unwrap();
        (Identity::from_pem(pem.as_bytes()).unwrap(), pem)
    }

    fn link(&self, identity: &Identity) -> String {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).unwrap();
        let engine = self.embedded.running().engine();
        Link::sign(identity, engine, server::readings().wall, u128::from_le_bytes(nonce)).unwrap().to_text()
    }

    fn browser(&self) -> Browser {
        Browser::new(self.console.address())
    }

    fn signed_in(&self, tenant: TenantId, roles: Roles) -> Browser {
        self.signed_in_as(tenant, roles, "x")
    }

    fn signed_in_as(&self, tenant: TenantId, roles: Roles, name: &str) -> Browser {
        self.signed_in_by(&self.identity_of(tenant, roles, name).0)
    }

    fn signed_in_by(&self, identity: &Identity) -> Browser {
        let mut browser = self.browser();
        let answer = browser.sign_in(&self.link(identity));
        assert_eq!(answer.status, 200, "{}", answer.body);
        browser
    }

    async fn lock(&self, amount: u128) -> Id {
        let lock = LockRequest {
            life: std::time::Duration::from_secs(600),
            ..LockRequest::new(PARTITION, Amount(amount), MerchantId(1))
        };
        done(&self.tenant, lock).await.id
    }
}

/// Has a request done. An engine on a busy machine may not take it in at once: then it is asked again.
async fn done(client: &Client, draft: impl Into<Draft>) -> Reply {
    let (draft, begun) = (draft.into(), Instant::now());
    loop {
        match client.send(draft).await {
            Err(error) if error.refusal() == Some(Code::Overloaded) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answered => {
                let reply = answered.unwrap();
                assert!(reply.code().is_success(), "{:?}", reply.code());
                return reply;
            }
        }
    }
}

fn config() -> ConsoleConfig {
    ConsoleConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        assets: vec![Asset::amp()],
        history: None,
        policy: WORDS,
        settler: None,
    }
}

fn new_id(browser: &mut Browser) -> String {
    browser.get("/console/api/id").json()["id"].as_str().unwrap().to_owned()
}

fn refused(answer: &Answer, status: u16, name: &str) {
    assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(name)), "{}", answer.body);
    assert!(answer.json()["words"].as_str().is_some_and(|words| words.len() > 10), "{}", answer.body);
}

const OPERATOR: TenantId = TenantId(0);

/// Nothing from elsewhere, nothing written into a page, nothing within another's.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_the_console_once_and_nothing_else_does() {
    let world = World::new().await;
    let (identity, _) = world.identity(OPERATOR, Roles::ADMIN);
    let link = world.link(&identity);
    let mut browser = world.browser();
    refused(&browser.get("/console/api/session"), 401, "SIGNED_OUT");
    let answer = browser.sign_in(&link);
    let me = answer.json();
    assert_eq!((&me["tenant"], &me["operator"], &me["roles"]), (&json!(0), &json!(true), &json!(["admin"])));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly")
            && cookie.contains("SameSite=Strict")
            && cookie.contains("Path=/console/")
            && !cookie.contains("Max-Age"),
        "{cookie}"
    );
    assert_eq!(me["token"].as_str().map(str::len), Some(64));
    assert!(!browser.get("/console/api/session").body.contains("token"), "it is told once");

    refused(&world.browser().sign_in(&link), 401, "LINK_USED");
    refused(&world.browser().sign_in("v1.x"), 401, "LINK");
    let engine = surety_protocol::EngineId(1);
    let elsewhere = Link::sign(&identity, engine, server::readings().wall, 1).unwrap();
    refused(&world.browser().sign_in(&elsewhere.to_text()), 401, "LINK");
    let old = server::readings().wall.minus(Time::from_secs(62));
    let old = Link::sign(&identity, world.embedded.running().engine(), old, 1).unwrap();
    refused(&world.browser().sign_in(&old.to_text()), 401, "LINK");
    let stranger = DevelopmentPki::generate().unwrap().client(OPERATOR, Roles::ADMIN, "x").unwrap();
    let stranger = Identity::from_pem(stranger.as_bytes()).unwrap();
    refused(&world.browser().sign_in(&world.link(&stranger)), 401, "NOT_VOUCHED");

    let mut guess = world.browser();
    guess.cookie = Some("0".repeat(64));
    refused(&guess.get("/console/api/session"), 401, "SIGNED_OUT");
    let before = Link::sign(&identity, world.embedded.running().engine(), world.begun, 1).unwrap();
    refused(&world.browser().sign_in(&before.to_text()), 401, "LINK");
    assert_eq!(browser.post("/console/api/session/end", &json!({})).status, 200);
    refused(&browser.get("/console/api/session"), 401, "SIGNED_OUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_or_done_without_a_session_or_for_another_site() {
    let world = World::new().await;
    let lock = "00000000-0000-7000-8000-000000000001";
    let questions = [
        "overview",
        "live",
        "id",
        "partitions",
        "partitions/0:1",
        "partitions/0:1/suppliers",
        "proposals",
        "tenants",
    ];
    for question in questions {
        refused(&world.browser().get(&format!("/console/api/{question}")), 401, "SIGNED_OUT");
    }
    refused(&world.browser().get(&format!("/console/api/partitions/0:1/locks/{lock}")), 401, "SIGNED_OUT");
    let release = format!("partitions/0:1/locks/{lock}/release");
    let acts = [
        "session/end",
        "history",
        "partitions/0:1/freeze",
        "partitions/0:1/unfreeze",
        "partitions/0:1/policy/preview",
        "partitions/0:1/policy/propose",
        "proposals/1/approve",
        "proposals/1/withdraw",
        &release,
    ];
    for act in acts {
        refused(&world.browser().post(&format!("/console/api/{act}"), &json!({})), 401, "SIGNED_OUT");
    }

    let mut browser = world.signed_in(OPERATOR, Roles::ADMIN);
    for act in acts {
        let path = format!("/console/api/{act}");
        let with = |headers: &[(&str, &str)]| browser.clone().ask("POST", &path, headers, Some("{}"));
        let origin = browser.origin();
        let token = browser.token.clone();
        refused(&with(&[("origin", &origin)]), 401, "SIGNED_OUT");
        refused(&with(&[("origin", &origin), ("x-surety-token", "0000")]), 401, "SIGNED_OUT");
        refused(&with(&[("x-surety-token", &token)]), 403, "FOREIGN");
        refused(&with(&[("origin", "http://evil.example"), ("x-surety-token", &token)]), 403, "FOREIGN");
        refused(&with(&[("origin", "null"), ("x-surety-token", &token)]), 403, "FOREIGN");
        let site = ("sec-fetch-site", "cross-site");
        refused(&with(&[("origin", &origin), site, ("x-surety-token", &token)]), 403, "FOREIGN");
    }
    // Whoever listens at another port of this host is sent the cookie by the browser, and has nothing by it.
    for question in questions.iter().chain(&["session"]) {
        let path = format!("/console/api/{question}");
        let with = |headers: &[(&str, &str)]| browser.clone().ask("GET", &path, headers, None);
        refused(&with(&[]), 401, "SIGNED_OUT");
        refused(&with(&[("x-surety-token", "0000")]), 401, "SIGNED_OUT");
        let token = ("x-surety-token", browser.token.as_str());
        refused(&with(&[token, ("sec-fetch-site", "same-site")]), 403, "FOREIGN");
        refused(&with(&[token, ("sec-fetch-site", "cross-site")]), 403, "FOREIGN");
    }
    let token = browser.token.clone();
    browser.cookie = None;
    browser.token = token;
    refused(&browser.get("/console/api/session"), 401, "SIGNED_OUT");
    browser.host = "evil.example".to_owned();
    refused(&browser.get("/console/api/session"), 421, "HOST");
    refused(&browser.get("/console/"), 421, "HOST");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_load_nothing_from_elsewhere_and_stay_in_no_cache() {
    let world = World::new().await;
    let mut browser = world.browser();
    for path in [
        "/console/",
        "/console/app.js",
        "/console/app.css",
        "/console/icon.svg",
        "/console/api/session",
        "/console/nothing",
    ] {
        let answer = browser.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert_eq!(policy, POLICY, "{path}");
        assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        assert!(answer.header("cache-control").is_some_and(|value| value.starts_with("no-")), "{path}");
    }
    assert_eq!(browser.get("/").header("location").as_deref(), Some("/console/"));
    refused(&browser.get("/console/nothing"), 404, "NOT_FOUND");
    refused(&browser.post("/console/api/overview", &json!({})), 405, "HTTP");
    let mut signed_in = world.signed_in(OPERATOR, Roles::ADMIN);
    let long = json!({ "id": "x".repeat(20_000) });
    refused(&signed_in.post("/console/api/partitions/0:1/freeze", &long), 413, "TOO_LARGE");
    refused(&signed_in.post("/console/api/partitions/0:1/freeze", &json!({ "id": 7 })), 400, "WRONG");
    refused(&signed_in.post("/console/api/partitions/0:1/freeze", &json!({ "id": "x" })), 400, "WRONG");
    refused(&signed_in.get("/console/api/partitions/x"), 400, "WRONG");
    refused(&signed_in.get("/console/api/partitions/0:9"), 404, "NOT_FOUND");
    refused(&signed_in.get("/console/api/partitions/9:9"), 404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_its_session_and_its_live_pages() {
    let world = World::new().await;
    let (identity, pem) = world.identity(OPERATOR, Roles::READER);
    let mut browser = world.browser();
    browser.sign_in(&world.link(&identity));
    let mut other = world.signed_in(OPERATOR, Roles::READER);
    let mut live = browser.live();
    assert!(live.next().starts_with("data: {\"reasons\""), "the first frame");

    world.revoke(pem);
    refused(&browser.get("/console/api/partitions"), 401, "SIGNED_OUT");
    let mut lines = std::iter::repeat_with(|| live.next()).take(100);
    assert!(lines.any(|line| line == "event: end"), "the live page is told");
    refused(&world.browser().sign_in(&world.link(&identity)), 401, "NOT_VOUCHED");
    assert_eq!(other.get("/console/api/partitions").status, 200, "whoever is not on the list goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_sent_twice_is_one_request_of_the_one_who_is_signed_in() {
    let world = World::new().await;
    let mut admin = world.signed_in(OPERATOR, Roles::ADMIN);
    let actor = admin.get("/console/api/session").json()["actor"].as_str().unwrap().to_owned();
    let freeze = json!({ "id": new_id(&mut admin), "reason": 7 });
    let first = admin.post("/console/api/partitions/0:1/freeze", &freeze).json();
    assert_eq!(
        (&first["done"], &first["code"], &first["replayed"]),
        (&json!(true), &json!("APPROVED"), &json!(false))
    );
    let second = admin.post("/console/api/partitions/0:1/freeze", &freeze).json();
    assert_eq!((&second["seq"], &second["replayed"]), (&first["seq"], &json!(true)));
    assert_eq!(admin.get("/console/api/partitions/0:1").json()["frozen"], json!(true));
    let conflict = admin.post("/console/api/partitions/0:1/unfreeze", &freeze).json();
    assert_eq!((&conflict["done"], &conflict["code"]), (&json!(false), &json!("ID_CONFLICT")));

    // The engine's log names the certificate, and the reason.
    let seq = surety_protocol::Seq(first["seq"].as_str().unwrap().parse().unwrap());
    let mut tail = world.operator.tail(ShardId(0), seq);
    let batch = tail.next_batch().await.unwrap();
    let body = batch.records[0].body::<surety_protocol::ControlBody>();
    assert_eq!((body.actor.to_string(), body.user), (actor, 7));

    let mut reader = world.signed_in(OPERATOR, Roles::READER);
    let unfreeze = json!({ "id": new_id(&mut reader) });
    let answer = reader.post("/console/api/partitions/0:1/unfreeze", &unfreeze).json();
    assert_eq!((&answer["done"], &answer["code"]), (&json!(false), &json!("NO_RIGHT")));
    assert_eq!(reader.get("/console/api/partitions/0:1").json()["frozen"], json!(true));
    let unfreeze = json!({ "id": new_id(&mut admin) });
    assert_eq!(admin.post("/console/api/partitions/0:1/unfreeze", &unfreeze).json()["done"], json!(true));
    assert_eq!(admin.get("/console/api/partitions/0:1").json()["frozen"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_released_by_whom_the_engine_allows_it() {
    let world = World::new().await;
    let lock = world.lock(1000).await;
    let path = format!("/console/api/partitions/0:1/locks/{lock}");
    let mut admin = world.signed_in(OPERATOR, Roles::ADMIN);
    let found = admin.get(&format!("{path}?tenant=7")).json();
    assert_eq!((&found["lock"]["end"], &found["lock"]["remaining"]), (&json!("live"), &json!("1000")));
    assert_eq!(admin.get(&format!("{path}?tenant=8")).json()["code"], json!("NOT_FOUND"));
    let release = |id: String| json!({ "id": id, "tenant": 7, "reason": 3 });
    let body = release(new_id(&mut admin));
    assert_eq!(admin.post(&format!("{path}/release"), &body).json()["code"], json!("NO_RIGHT"));

    let mut both = world.signed_in(OPERATOR, Roles::ADMIN | Roles::AUTHORIZER);
    let body = release(new_id(&mut both));
    let first = both.post(&format!("{path}/release"), &body).json();
    assert_eq!((&first["done"], &first["code"]), (&json!(true), &json!("APPROVED")), "{first}");
    assert_eq!(both.post(&format!("{path}/release"), &body).json()["replayed"], json!(true));
    assert_eq!(admin.get(&format!("{path}?tenant=7")).json()["lock"]["end"], json!("released"));
    let held = world.tenant.send(LockRef::new(PARTITION, lock).capture(Amount(1))).await.unwrap();
    assert!(!held.code().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_takes_two_people_and_the_policy_that_they_looked_at() {
    let world = World::new().await;
    let mut one = world.signed_in(OPERATOR, Roles::ADMIN);
    let mut two = world.signed_in_as(OPERATOR, Roles::ADMIN, "y");
    let propose = "/console/api/partitions/0:1/policy/propose";
    let change = json!({ "rules": { "lock_max": "500" }, "reason": "a test" });
    let preview = one.post("/console/api/partitions/0:1/policy/preview", &change).json();
    assert_eq!(preview["changes"][0]["rule"], json!("lock_max"));
    assert_eq!(preview["changes"][0]["new"], json!("500"));

    let wrong = |rules: Value, reason: &str| json!({ "rules": rules, "reason": reason });
    refused(&one.post(propose, &wrong(json!({ "lock_maxx": "5" }), "x")), 400, "WRONG");
    refused(&one.post(propose, &wrong(json!({ "lock_max": "much" }), "x")), 400, "WRONG");
    refused(&one.post(propose, &wrong(json!({}), "x")), 400, "WRONG");
    refused(&one.post(propose, &wrong(json!({ "lock_max": "5" }), " ")), 400, "WRONG");
    let mut reader = world.signed_in(OPERATOR, Roles::READER);
    refused(&reader.post(propose, &change), 403, "NO_ROLE");
    refused(&reader.post("/console/api/proposals/1/approve", &json!({ "digest": "" })), 403, "NO_ROLE");
    refused(&one.post(propose, &wrong(json!({ "lock_max": "5" }), "a\u{202e}b")), 400, "WRONG");

    let number = one.post(propose, &change).json()["number"].as_u64().unwrap();
    let approve = format!("/console/api/proposals/{number}/approve");
    let looked_at = looked_at(&mut two, number);
    refused(&one.post(&approve, &looked_at), 409, "CONFLICT");
    refused(&two.post(&approve, &json!({})), 400, "WRONG");
    refused(&two.post(&approve, &json!({ "digest": "0".repeat(64) })), 409, "CONFLICT");
    assert_eq!(world.policy().await.lock_max, Policy::default().lock_max, "nothing is done before");
    let first = two.post(&approve, &looked_at).json();
    assert_eq!((&first["done"], &first["code"]), (&json!(true), &json!("APPROVED")), "{first}");
    assert_eq!(two.post(&approve, &looked_at).json(), first, "a second click is the same request");
    assert_eq!(world.policy().await.lock_max, Amount(500));
    let listed = reader.get("/console/api/proposals").json();
    assert_eq!(listed["proposals"][0]["state"], json!("approved"));

    // Whatever happened to the policy since it was looked at, the change was not made for it.
    let stale = one.post(propose, &json!({ "rules": { "late_capture": true }, "reason": "x" }));
    let stale = stale.json()["number"].as_u64().unwrap();
    let records = request::set_policy(
        world.operator.new_id(),
        PARTITION,
        &Policy { lock_max: Amount(9), ..Policy::default() },
    );
    assert!(world.operator.submit_long(&records).await.unwrap().code().is_success());
    let looked_at = self::looked_at(&mut two, stale);
    refused(&two.post(&format!("/console/api/proposals/{stale}/approve"), &looked_at), 409, "CONFLICT");
    assert_eq!(two.post(&format!("/console/api/proposals/{stale}/withdraw"), &json!({})).status, 200);
    let looked_at = self::looked_at(&mut two, stale);
    refused(&two.post(&format!("/console/api/proposals/{stale}/approve"), &looked_at), 409, "CONFLICT");
    refused(&two.post("/console/api/proposals/99/approve", &looked_at), 404, "NOT_FOUND");
    assert_eq!(world.policy().await.lock_max, Amount(9));
}

/// What a page posts with an approval.
fn looked_at(browser: &mut Browser, number: u64) -> Value {
    let listed = browser.get("/console/api/proposals").json();
    let mut all = listed["proposals"].as_array().unwrap().iter();
    let proposal = all.find(|proposal| proposal["number"] == json!(number)).unwrap();
    json!({ "digest": proposal["digest"] })
}

/// Proposes something; the number.
fn proposed(browser: &mut Browser, lock_max: &str) -> u64 {
    let change = json!({ "rules": { "lock_max": lock_max }, "reason": "a test" });
    let answer = browser.post("/console/api/partitions/0:1/policy/propose", &change);
    answer.json()["number"].as_u64().unwrap_or_else(|| panic!("{}", answer.body))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_is_not_two_by_another_certificate_or_session() {
    let world = World::new().await;
    let (laptop, _) = world.identity_of(OPERATOR, Roles::ADMIN, "alice");
    let mut one = world.signed_in_by(&laptop);
    let number = proposed(&mut one, "500");
    let approve = format!("/console/api/proposals/{number}/approve");
    let looked_at = looked_at(&mut one, number);
    let seconds = [
        ("the same certificate in another session", world.signed_in_by(&laptop)),
        ("another certificate of the same name", world.signed_in_as(OPERATOR, Roles::ADMIN, "alice")),
        ("the name written otherwise", world.signed_in_as(OPERATOR, Roles::ADMIN | Roles::READER, " Alice")),
    ];
    for (why, mut second) in seconds {
        let answer = second.post(&approve, &looked_at);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (409, Some("CONFLICT")), "{why}");
        let own = second.get("/console/api/proposals").json()["proposals"][0]["own"].clone();
        assert_eq!(own, json!(true), "{why}");
    }
    assert_eq!(world.policy().await.lock_max, Policy::default().lock_max);
    let mut bob = world.signed_in_as(OPERATOR, Roles::ADMIN, "bob");
    assert_eq!(bob.post(&approve, &looked_at).json()["done"], json!(true));
    assert_eq!(world.policy().await.lock_max, Amount(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_ends_with_the_certificate_of_its_author() {
    let world = World::new().await;
    let (identity, pem) = world.identity_of(OPERATOR, Roles::ADMIN, "alice");
    let mut alice = world.signed_in_by(&identity);
    let mut bob = world.signed_in_as(OPERATOR, Roles::ADMIN, "bob");
    let number = proposed(&mut alice, "500");
    let looked_at = looked_at(&mut bob, number);
    world.revoke(pem);
    let approve = format!("/console/api/proposals/{number}/approve");
    refused(&bob.post(&approve, &looked_at), 409, "CONFLICT");
    assert_eq!(bob.get("/console/api/proposals").json()["proposals"][0]["state"], json!("withdrawn"));
    assert_eq!(world.policy().await.lock_max, Policy::default().lock_max);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_whose_page_is_closed_is_told_as_it_went() {
    let world = World::new().await;
    let mut alice = world.signed_in_as(OPERATOR, Roles::ADMIN, "alice");
    let mut bob = world.signed_in_as(OPERATOR, Roles::ADMIN, "bob");
    for round in 1..=10_u32 {
        let number = proposed(&mut alice, &round.to_string());
        let looked_at = looked_at(&mut bob, number);
        bob.post_and_leave(&format!("/console/api/proposals/{number}/approve"), &looked_at);
        // Whether it was heard or not: asked again it is done once, and whoever looks sees what is in force.
        let approve = format!("/console/api/proposals/{number}/approve");
        let begun = Instant::now();
        loop {
            let answer = bob.post(&approve, &looked_at).json();
            if answer["done"] == json!(true) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "round {round}: {answer}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.policy().await.lock_max, Amount(round.into()));
        let shown = &bob.get("/console/api/proposals").json()["proposals"][0];
        assert_eq!((&shown["number"], &shown["state"]), (&json!(number), &json!("approved")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_tells_what_became_of_a_policy_and_spends_an_id_that_did_nothing() {
    let world = World::new().await;
    let policy = Policy { lock_max: Amount(9), ..Policy::default() };
    let done = world.operator.new_id();
    let reply = world.operator.submit_long(&request::set_policy(done, PARTITION, &policy)).await.unwrap();
    assert!(reply.code().is_success());
    let admin = Caller { tenant: OPERATOR, roles: Roles::ADMIN, actor: ActorId(2) };
    let admin =
        Client::over(Arc::new(world.embedded.connector(admin)), Options::default(), &[]).await.unwrap();
    assert!(matches!(admin.resolve(PARTITION, done).await, Ok(Outcome::Executed(_))), "another admin asks");
    let lost = world.operator.new_id();
    assert!(matches!(admin.resolve(PARTITION, lost).await, Ok(Outcome::Burned(_))));
    let other = Policy { lock_max: Amount(10), ..Policy::default() };
    let late = world.operator.submit_long(&request::set_policy(lost, PARTITION, &other)).await;
    assert!(!late.is_ok_and(|reply| reply.code().is_success()), "it comes too late");
    assert_eq!(world.policy().await.lock_max, Amount(9));
}

impl World {
    fn revoke(&self, pem: String) {
        let list = self.pki.revocations(&[pem]).unwrap();
        std::fs::write(server::pki_path(&self.data.path().join("data")).join("revoked.pem"), list).unwrap();
        self.authority.reload().unwrap();
    }

    async fn policy(&self) -> Policy {
        self.operator.partition(PARTITION).await.unwrap().unwrap().policy
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_what_is_its_own() {
    let world = World::new().await;
    let mut tenant = world.signed_in(TENANT, Roles::READER);
    let me = tenant.get("/console/api/session").json();
    assert_eq!((&me["tenant"], &me["operator"]), (&json!(7), &json!(false)));
    let partitions = tenant.get("/console/api/partitions").json();
    let names: Vec<&Value> =
        partitions["partitions"].as_array().unwrap().iter().map(|row| &row["partition"]).collect();
    assert_eq!(names, [&json!("0:1")]);
    refused(&tenant.get("/console/api/partitions/0:2"), 404, "NOT_FOUND");
    refused(&tenant.get("/console/api/partitions/0:2/suppliers"), 404, "NOT_FOUND");
    refused(&tenant.get("/console/api/overview"), 403, "NO_ROLE");
    refused(&tenant.get("/console/api/proposals"), 403, "NO_ROLE");
    assert_eq!(tenant.live().next(), "data: {}", "what is of all tenants is not told");
    let tenants = tenant.get("/console/api/tenants").json();
    let tenants = tenants["tenants"].as_array().unwrap();
    assert!(!tenants.is_empty() && tenants.iter().all(|row| row["tenant"] == json!(7)), "{tenants:?}");
    assert_eq!(tenants[0]["open_locks"]["max"], json!(null), "0 is no limit");

    let mut operator = world.signed_in(OPERATOR, Roles::READER);
    let all = operator.get("/console/api/partitions").json();
    assert_eq!(all["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(all["partitions"][0]["free"], json!("1000000"));
    let whole = operator.get("/console/api/partitions/0:1").json();
    assert_eq!(whole["suppliers"][0]["value"], json!("1000000"));
    let rows = world.operator.state::<surety_protocol::TenantRow>(surety_protocol::StateQuery::new(
        ShardId(0),
        StateKind::Tenants,
    ));
    let rows = rows.await.unwrap().all().await.unwrap();
    let shown = operator.get("/console/api/tenants").json()["tenants"].as_array().unwrap().len();
    assert_eq!(shown, rows.iter().filter(|row| row.quotas.tenant != OPERATOR).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_come_page_by_page_and_each_once() {
    let world = World::new().await;
    for number in 3..=230_u64 {
        // No two may have one id on chain.
        let mut onchain = [3; 32];
        onchain[..8].copy_from_slice(&number.to_le_bytes());
        let draft = request::create_partition(PartitionHandle(number), onchain, AssetId(1), false);
        done(&world.operator, draft).await;
    }
    let mut browser = world.signed_in(OPERATOR, Roles::READER);
    let (mut seen, mut next, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let from = next.as_ref().map_or(String::new(), |next| format!("?from={next}"));
        let page = browser.get(&format!("/console/api/partitions{from}")).json();
        seen.extend(page["partitions"].as_array().unwrap().iter().map(|row| row["partition"].clone()));
        pages += 1;
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    let expected: Vec<Value> = (1..=230).map(|number| json!(format!("0:{number}"))).collect();
    assert_eq!((seen, pages), (expected, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_pages_are_few_and_show_what_happens() {
    let world = World::new().await;
    let mut browser = world.signed_in(OPERATOR, Roles::READER);
    let mut first = browser.live();
    let done = (0..60).any(|_| {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(world.lock(1)));
        let frame: Value =
            serde_json::from_str(first.next().strip_prefix("data: ").unwrap_or("{}")).unwrap_or_default();
        frame["second"]["done"].as_u64().is_some_and(|done| done > 0)
    });
    assert!(done, "a second with locks in it");
    let _more: Vec<_> = (0..3).map(|_| browser.live()).collect();
    refused(&browser.get("/console/api/live"), 429, "STREAMS_FULL");
    let past = browser.get("/console/api/overview").json();
    assert!(!past["seconds"]["at_ms"].as_array().unwrap().is_empty());
    assert_eq!(past["standing"]["ready"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_so_many_sessions_and_no_more() {
    let world = World::new().await;
    let (identity, _) = world.identity(OPERATOR, Roles::READER);
    let mut first = world.signed_in_by(&identity);
    let mut others: Vec<_> = (0..7).map(|_| world.signed_in_by(&identity)).collect();
    assert_eq!(first.get("/console/api/session").status, 200);
    others.push(world.signed_in_by(&identity));
    refused(&first.get("/console/api/session"), 401, "SIGNED_OUT");
    for other in &mut others {
        assert_eq!(other.get("/console/api/session").status, 200, "the oldest alone makes room");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_in_over_somebody_else_unasked() {
    let world = World::new().await;
    let (operator, _) = world.identity_of(OPERATOR, Roles::ADMIN, "olga");
    let (stranger, _) = world.identity_of(TENANT, Roles::READER, "stranger");
    let mut browser = world.signed_in_by(&operator);
    let link = world.link(&stranger);
    let asked = browser.post("/console/api/session/look", &json!({ "link": link })).json();
    assert_eq!(
        (&asked["tenant"], &asked["name"], &asked["roles"], &asked["over"]),
        (&json!(7), &json!("stranger"), &json!(["reader"]), &json!(true))
    );
    refused(&browser.sign_in(&link), 409, "SIGNED_IN");
    assert_eq!(browser.get("/console/api/session").json()["name"], json!("olga"), "nothing has changed");
    refused(&browser.post("/console/api/session/look", &json!({ "link": "v1.x" })), 401, "LINK");

    // The same person comes back: the session that this browser cannot reach any more has ended.
    let mut left = browser.clone();
    let asked = browser.post("/console/api/session/look", &json!({ "link": world.link(&operator) })).json();
    assert_eq!((&asked["name"], &asked["over"]), (&json!("olga"), &json!(false)));
    assert_eq!(browser.sign_in(&world.link(&operator)).status, 200);
    refused(&left.get("/console/api/session"), 401, "SIGNED_OUT");

    let mut before = browser.clone();
    assert_eq!(
        browser.sign_in_with(&json!({ "link": link, "over": true })).status,
        200,
        "looking spends nothing"
    );
    assert_eq!(browser.get("/console/api/session").json()["name"], json!("stranger"));
    refused(&before.get("/console/api/session"), 401, "SIGNED_OUT");

    // A cookie that somebody else has put before the own one takes nothing over.
    let mut operator = world.signed_in_by(&operator);
    operator.tossed = browser.cookie.clone();
    assert_eq!(operator.get("/console/api/session").json()["name"], json!("olga"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_on_the_loopback_alone_and_ends_with_its_owner() {
    let world = World::new().await;
    let start = |listen: &str| {
        let config = ConsoleConfig { listen: listen.parse().unwrap(), ..config() };
        Console::start(world.embedded.running().inside(), Arc::clone(&world.authority), config)
    };
    assert!(matches!(start("0.0.0.0:0"), Err(StartError::NotLoopback(_))));
    assert!(matches!(start("[::]:0"), Err(StartError::NotLoopback(_))));
    let taken = world.console.address().to_string();
    assert!(matches!(start(&taken), Err(StartError::Listen { .. })));
    let mut browser = world.signed_in(OPERATOR, Roles::READER);
    let _live = browser.live();
    let address = world.console.address();
    drop(world.console);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(!world.embedded.shutdown().is_empty(), "the engine goes on to its own end");
}

/// TLS by the engine's own certificate, which is for localhost.
fn own_tls(data: &Path) -> ConsoleConfig {
    let at = |name: &str| server::pki_path(data).join(name);
    let tls = TlsFiles { certificate: at("server.pem"), key: at("server.key"), authorities: at("ca.pem") };
    ConsoleConfig { tls: Some(tls), ..config() }
}

impl World {
    fn pki_path(&self) -> PathBuf {
        server::pki_path(&self.data.path().join("data"))
    }

    /// A browser that goes by the engine's authority, and has this certificate to show.
    fn secured(&self, identity: Option<&str>) -> Browser {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.pki_path().join("ca.pem")).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let mut browser = self.browser();
        browser.host = format!("localhost:{}", self.console.address().port());
        browser.tls = Some(Arc::new(config));
        browser
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_certificate_signs_in_once_it_was_asked() {
    let world = World::with(own_tls).await;
    assert!(world.console.url().starts_with("https://"));
    let pem = world.pki.client(OPERATOR, Roles::ADMIN, "olga").unwrap();
    let mut browser = world.secured(Some(&pem));
    refused(&browser.get("/console/api/session"), 401, "SIGNED_OUT");
    let who = browser.post("/console/api/session/look", &json!({}));
    assert_eq!(
        (&who.json()["name"], &who.json()["operator"]),
        (&json!("olga"), &json!(true)),
        "{}",
        who.body
    );
    refused(&browser.get("/console/api/session"), 401, "SIGNED_OUT");
    let looked_at = json!({ "certificate": who.json()["certificate"] });
    refused(&browser.sign_in_with(&json!({})), 409, "OTHER_CERTIFICATE");
    let answer = browser.sign_in_with(&looked_at);
    assert_eq!((answer.status, &answer.json()["roles"]), (200, &json!(["admin"])), "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-") && cookie.contains("Path=/; Secure; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    assert_eq!(browser.get("/console/api/session").json()["name"], json!("olga"));
    assert_eq!(browser.get("/console/api/overview").status, 200);
    // Somebody else at the same browser is asked, as with a link.
    let mut other = world.secured(Some(&world.pki.client(OPERATOR, Roles::READER, "otto").unwrap()));
    (other.cookie, other.token) = (browser.cookie.clone(), browser.token.clone());
    refused(&other.post("/console/api/session", &looked_at), 409, "OTHER_CERTIFICATE");
    let own = other.post("/console/api/session/look", &json!({})).json()["certificate"].clone();
    refused(&other.post("/console/api/session", &json!({ "certificate": own })), 409, "SIGNED_IN");
    // Cookie and token are worth nothing over a connection that has not shown its certificate.
    refused(&other.get("/console/api/session"), 401, "SIGNED_OUT");
    refused(&other.get("/console/api/overview"), 401, "SIGNED_OUT");
    let mut taken = world.secured(None);
    (taken.cookie, taken.token) = (browser.cookie.clone(), browser.token.clone());
    refused(&taken.get("/console/api/session"), 401, "SIGNED_OUT");
    assert_eq!(browser.get("/console/api/session").status, 200);

    // Without a certificate a link does as it does elsewhere, and nothing else does.
    let mut bare = world.secured(None);
    refused(&bare.post("/console/api/session", &json!({})), 401, "NO_CERTIFICATE");
    refused(&bare.post("/console/api/session/look", &json!({})), 401, "NO_CERTIFICATE");
    let (identity, _) = world.identity(TENANT, Roles::READER);
    assert_eq!(bare.sign_in(&world.link(&identity)).status, 200);
    assert_eq!(bare.get("/console/api/session").json()["tenant"], json!(7));

    // Nobody is let in whom the authority does not vouch for, and nobody over plain HTTP.
    let stranger = DevelopmentPki::generate().unwrap().client(OPERATOR, Roles::ADMIN, "x").unwrap();
    assert_eq!(world.secured(Some(&stranger)).get("/console/").status, 0);
    let mut plain = world.browser();
    assert_eq!(plain.get("/console/").status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_revoked_certificate_is_signed_out_and_strange_names_are_refused() {
    let world = World::with(own_tls).await;
    let pem = world.pki.client(OPERATOR, Roles::ADMIN, "olga").unwrap();
    let mut browser = world.secured(Some(&pem));
    let own = browser.post("/console/api/session/look", &json!({})).json()["certificate"].clone();
    let looked_at = json!({ "certificate": own });
    assert_eq!(browser.sign_in_with(&looked_at).status, 200);
    let host = std::mem::replace(&mut browser.host, "evil.example:1".to_owned());
    refused(&browser.get("/console/api/session"), 421, "HOST");
    browser.host = host;
    let (origin, foreign) = (browser.origin(), browser.origin().replace("https", "http"));
    let mut ask = |origin: &str| {
        let headers = [("origin", origin), ("content-type", "application/json")];
        browser.ask("POST", "/console/api/session/look", &headers, Some("{}"))
    };
    refused(&ask(&foreign), 403, "FOREIGN");
    assert_eq!(ask(&origin).status, 200);

    world.revoke(pem);
    world.console.reload().unwrap();
    refused(&browser.get("/console/api/session"), 401, "SIGNED_OUT");
    refused(&browser.post("/console/api/session", &looked_at), 401, "NOT_VOUCHED");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_open_no_console() {
    let world = World::new().await;
    let start = |certificate: &str, key: &str| {
        let at = |name: &str| world.pki_path().join(name);
        let tls = TlsFiles { certificate: at(certificate), key: at(key), authorities: at("ca.pem") };
        // With TLS any address will do.
        let config = ConsoleConfig { listen: "0.0.0.0:0".parse().unwrap(), tls: Some(tls), ..config() };
        Console::start(world.embedded.running().inside(), Arc::clone(&world.authority), config)
    };
    assert!(start("server.pem", "server.key").is_ok());
    let missing = start("nothing.pem", "server.key").unwrap_err();
    assert!(missing.to_string().contains("nothing.pem"), "{missing}");
    assert!(matches!(start("ca.pem", "server.key"), Err(StartError::Tls(_))), "a key of another certificate");
}
