//! The history behind the console: who may ask it, on whose behalf, and what is said when it cannot be asked.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use history::{Answerer, Asker, Dial, History, Scope, Settings, Store};
use serde_json::{Value, json};
use surety_client::{Client, LockRequest, Options, request};
use surety_protocol::{
    ActorId, Address, Amount, Caller, Id, MerchantBody, MerchantId, PartitionHandle, Rights, Roles,
    TenantBody, TenantId,
};
use tokio::sync::watch;

use crate::browser::{Answer, Browser};
use crate::{OPERATOR, PARTITION, PATIENCE, TENANT, World, config, done, refused};
use console::ConsoleConfig;

/// Who has locks of their own in the same partition.
const STRANGER: TenantId = TenantId(8);

/// A console that asks the history of its engine, whether or not anybody keeps one.
fn asking(data: &Path) -> ConsoleConfig {
    ConsoleConfig { history: Some(Asker::expecting(data)), ..config() }
}

fn ask(browser: &mut Browser, ask: &Value) -> Answer {
    browser.post("/console/api/history", &json!({ "ask": ask }))
}

#[track_caller]
fn told(browser: &mut Browser, question: &Value) -> Value {
    let answer = ask(browser, question);
    assert_eq!(answer.status, 200, "{question}: {}", answer.body);
    answer.json()
}

/// A history of this world's engine that answers at its socket, until it is dropped.
struct Kept {
    history: Arc<History>,
    _stop: watch::Sender<bool>,
}

impl Kept {
    fn start(world: &World) -> Self {
        let data = world.data.path().join("data");
        let metadata = storage::DataDirectory::inspect(&data).unwrap();
        let settings = Settings {
            data: data.clone(),
            engine: metadata.engine,
            shards: metadata.shards,
            id_window: metadata.id_window,
        };
        let reader = Caller { tenant: OPERATOR, roles: Roles::READER, actor: ActorId(1) };
        let connector = Arc::new(world.embedded.connector(reader));
        let dial: Dial = Arc::new(move || {
            let connector = Arc::clone(&connector);
            Box::pin(async move {
                Client::over(connector, Options::default(), &[]).await.map_err(|error| error.to_string())
            })
        });
        let store = Store::open(&history::place(&data), settings.engine).unwrap();
        let history = Arc::new(History::start(&settings, store, &dial).unwrap());
        let asked = Arc::clone(&history);
        let answerer: Answerer = Arc::new(move |question| {
            history::answer(&asked.reader(Scope::Operator), || Ok(asked.status()), question)
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(history::serve(history::bind(&data).unwrap(), answerer, stopped));
        Self { history, _stop: stop }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.history.stop(PATIENCE);
    }
}

/// Polls until the history has what it must come to have.
#[track_caller]
pub(crate) fn until(what: &str, mut found: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !found() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl World {
    /// A lock of the stranger's, in the same partition.
    async fn lock_of_a_stranger(&self) -> Id {
        let quotas = TenantBody {
            tenant: STRANGER,
            locks_max: 10,
            ids_max: 10,
            tombstones_max: 10,
            advices_max: 10,
            enabled: 1,
            ..TenantBody::default()
        };
        let merchant = MerchantBody {
            merchant: MerchantId(1),
            payee: Address([2; 20]),
            enabled: 1,
            ..MerchantBody::default()
        };
        let shard = PartitionHandle(0);
        for draft in [
            request::set_tenant(shard, &quotas),
            request::set_merchant(shard, STRANGER, &merchant),
            request::grant(PARTITION, STRANGER, Rights::KNOWN),
        ] {
            done(&self.operator, draft).await;
        }
        let caller = Caller { tenant: STRANGER, roles: Roles::AUTHORIZER, actor: ActorId(1) };
        let connector = Arc::new(self.embedded.connector(caller));
        let client = Client::over(connector, Options::default(), &[]).await.unwrap();
        done(&client, LockRequest::new(PARTITION, Amount(5), MerchantId(1))).await.id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_without_a_history_says_so_and_offers_none() {
    let world = World::new().await;
    for tenant in [OPERATOR, TENANT] {
        let mut browser = world.signed_in(tenant, Roles::READER);
        assert_eq!(browser.get("/console/api/session").json()["history"], json!(false));
        refused(&ask(&mut browser, &json!({ "locks": {} })), 404, "NO_HISTORY");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_nobody_keeps_any_more_is_told_from_one_that_is_away() {
    let beside = |data: &Path| ConsoleConfig { history: Some(Asker::new(data)), ..config() };
    let world = World::with(beside).await;
    let data = world.data.path().to_str().unwrap().to_owned();
    let mut operator = world.signed_in(OPERATOR, Roles::READER);
    assert_eq!(operator.get("/console/api/session").json()["history"], json!(false), "there never was one");
    refused(&ask(&mut operator, &json!({ "locks": {} })), 404, "NO_HISTORY");
    let place = world.data.path().join("data");
    let engine = storage::DataDirectory::inspect(&place).unwrap().engine;
    let held = Store::open(&history::place(&place), engine).unwrap();
    refused(&ask(&mut operator, &json!({ "locks": {} })), 503, "HISTORY_AWAY");
    drop(held);
    for (tenant, is_told_where) in [(OPERATOR, true), (TENANT, false)] {
        let mut browser = world.signed_in(tenant, Roles::READER);
        assert_eq!(browser.get("/console/api/session").json()["history"], json!(true), "its pages say why");
        let answer = ask(&mut browser, &json!({ "locks": {} }));
        refused(&answer, 404, "NO_HISTORY");
        assert!(answer.body.contains("nobody keeps"), "{}", answer.body);
        assert_eq!(answer.body.contains(&data), is_told_where, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_away_is_said_to_be_and_the_rest_goes_on() {
    let world = World::with(asking).await;
    let data = world.data.path().to_str().unwrap().to_owned();
    for (tenant, is_told_where) in [(OPERATOR, true), (TENANT, false)] {
        let mut browser = world.signed_in(tenant, Roles::READER);
        assert_eq!(browser.get("/console/api/session").json()["history"], json!(true));
        let answer = ask(&mut browser, &json!({ "locks": {} }));
        refused(&answer, 503, "HISTORY_AWAY");
        assert_eq!(answer.body.contains(&data), is_told_where, "{}", answer.body);
        assert_eq!(browser.get("/console/api/partitions").status, 200);
    }
    let kept = Kept::start(&world);
    let mut browser = world.signed_in(OPERATOR, Roles::READER);
    assert_eq!(
        ask(&mut browser, &json!({ "status": {} })).status,
        200,
        "whoever keeps it is found when asked"
    );
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_asks_for_itself_whatever_it_sends() {
    let world = World::with(asking).await;
    let _kept = Kept::start(&world);
    let own = world.lock(3).await.to_string();
    let strange = world.lock_of_a_stranger().await.to_string();
    let mut operator = world.signed_in(OPERATOR, Roles::READER);
    let rows =
        |browser: &mut Browser, question: &Value| told(browser, question)["rows"].as_array().unwrap().clone();
    let by_id = |id: &str| json!({ "lock": { "id": id } });
    until("the locks are not indexed", || {
        [&own, &strange].iter().all(|id| rows(&mut operator, &by_id(id)).len() == 1)
    });

    let mut tenant = world.signed_in(TENANT, Roles::READER);
    assert_eq!(rows(&mut tenant, &by_id(&own)).len(), 1);
    for question in [
        by_id(&strange),
        json!({ "records": { "tenant": [8] } }),
        json!({ "locks": { "tenant": [8] } }),
        json!({ "open_locks": { "tenant": [8] } }),
    ] {
        assert!(rows(&mut tenant, &question).is_empty(), "{question}");
    }
    assert_eq!(told(&mut tenant, &by_id(&strange))["locks"], json!([]), "as if it were not there");
    for question in [json!({ "records": {} }), json!({ "locks": {} }), json!({ "open_locks": {} })] {
        let seen = rows(&mut tenant, &question);
        assert!(!seen.is_empty() && seen.iter().all(|row| row["tenant"] == json!(7)), "{question}: {seen:?}");
        assert!(seen.iter().all(|row| row.get("partition_after").is_none()), "{question}: {seen:?}");
    }
    assert!(rows(&mut operator, &by_id(&own))[0]["partition_after"].is_object());
    for question in [
        json!({ "balances": { "partition": "0:1" } }),
        json!({ "statement": { "partition": "0:1" } }),
        json!({ "status": {} }),
    ] {
        refused(&ask(&mut tenant, &question), 403, "HISTORY");
        assert_eq!(ask(&mut operator, &question).status, 200, "{question}");
    }
    // Who somebody is stands in their session, and nowhere else.
    for of in [json!(null), json!(0), json!(8)] {
        let body = json!({ "of": of, "ask": { "records": {} } });
        refused(&tenant.post("/console/api/history", &body), 400, "WRONG");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operators_readers_ask_for_all() {
    let world = World::with(asking).await;
    let _kept = Kept::start(&world);
    for (roles, may) in [
        (Roles::READER, true),
        (Roles::SETTLER, true),
        (Roles::ADMIN, true),
        (Roles::AUTHORIZER | Roles::READER, true),
        (Roles::AUTHORIZER, false),
    ] {
        let mut browser = world.signed_in(OPERATOR, roles);
        assert_eq!(browser.get("/console/api/session").json()["history"], json!(may), "{roles:?}");
        let answer = ask(&mut browser, &json!({ "locks": {} }));
        if may {
            assert_eq!(answer.status, 200, "{roles:?}: {}", answer.body);
        } else {
            refused(&answer, 403, "NO_ROLE");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_none_is_refused_and_says_what_is_wrong() {
    let world = World::with(asking).await;
    let _kept = Kept::start(&world);
    let mut browser = world.signed_in(OPERATOR, Roles::READER);
    for (body, word) in [
        (json!({}), "ask"),
        (json!({ "ask": "records" }), "variant"),
        (json!({ "ask": { "everything": {} } }), "everything"),
        (json!({ "ask": { "records": { "colour": ["red"] } } }), "colour"),
        (json!({ "ask": { "records": { "merchant": "7" } } }), "sequence"),
    ] {
        let answer = browser.post("/console/api/history", &body);
        refused(&answer, 400, "WRONG");
        assert!(answer.body.contains(word), "{body}: {}", answer.body);
    }
    for (question, word) in [
        (json!({ "records": { "lock": ["x"] } }), "lock"),
        (json!({ "records": { "partition": ["1"] } }), "partition"),
        (json!({ "records": { "limit": 0 } }), "rows"),
        (json!({ "records": { "cursor": "x" } }), "cursor"),
        (json!({ "locks": { "kind": ["lock"] } }), "kind"),
        (json!({ "statement": {} }), "whose"),
    ] {
        let answer = ask(&mut browser, &question);
        refused(&answer, 400, "HISTORY");
        assert!(answer.body.contains(word), "{question}: {}", answer.body);
    }
    let long = json!({ "records": { "lock": vec!["x"; 10_000] } });
    refused(&ask(&mut browser, &long), 413, "TOO_LARGE");
}
