//! Events carried to an endpoint that fails, stalls, redirects and answers late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use rest::{
    EndpointError, ReloadError, Rest, RestConfig, Secret, StartError, Tenant, TenantConfig, WebhookConfig,
    WebhookRules,
};
use serde_json::{Value, json};
use sha2::Sha256;
use surety_client::protocol::{Roles, TenantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::house::{App, House, OTHER, config, connect, key, tokens};
use crate::stage;

const SECRETS: [[u8; 32]; 2] = [[0x5a; 32], [0x5b; 32]];
const PATIENCE: Duration = Duration::from_secs(60);

/// What the endpoint does with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Take,
    /// Takes it, and says that it ends the connection, as it was asked to.
    TakeAndClose,
    Fail(u16),
    Stall,
    Redirect,
    /// Takes it, and says so when nobody waits any more.
    Late,
    Break,
}

/// A delivery that came whole.
#[derive(Clone, Debug)]
struct Delivery {
    path: String,
    head: String,
    body: String,
    manner: Manner,
}

impl Delivery {
    fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["events"].as_array().unwrap().clone()
    }

    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.head)).split_once(": ").unwrap().1
    }
}

/// An endpoint; what it has got, and what it does with what comes next. Then it takes everything.
#[derive(Clone)]
struct Shop {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Delivery>>>,
    manners: Arc<Mutex<VecDeque<Manner>>>,
}

impl Shop {
    async fn open(manners: &[Manner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shop = Self {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
            manners: Arc::new(Mutex::new(manners.iter().copied().collect())),
        };
        let clerk = shop.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(clerk.clone().serve(stream));
            }
        });
        shop
    }

    async fn serve(self, mut stream: tokio::net::TcpStream) {
        let mut text = Vec::new();
        let (head, body) = loop {
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => return,
                Ok(read) => text.extend_from_slice(&part[..read]),
            }
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let manner = self.manners.lock().pop_front().unwrap_or(Manner::Take);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.got.lock().push(Delivery { path, head, body, manner });
        let reply = match manner {
            Manner::Take => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Manner::TakeAndClose => {
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".to_owned()
            }
            Manner::Fail(status) => format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
            Manner::Redirect => {
                format!(
                    "HTTP/1.1 307 There\r\nlocation: http://{}/elsewhere\r\ncontent-length: 0\r\n\r\n",
                    self.address
                )
            }
            Manner::Stall => {
                // Until the other end has had enough.
                let _ = stream.read(&mut [0; 16]).await;
                return;
            }
            Manner::Late => {
                let _ = stream.read(&mut [0; 16]).await;
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            Manner::Break => return,
        };
        let _ = stream.write_all(reply.as_bytes()).await;
    }

    /// The events that it has taken, in the order in which it got them.
    fn taken(&self) -> Vec<Value> {
        let got = self.got.lock();
        let is_taken = |manner| matches!(manner, Manner::Take | Manner::TakeAndClose);
        got.iter().filter(|delivery| is_taken(delivery.manner)).flat_map(Delivery::events).collect()
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }
}

fn secrets(which: &[usize]) -> Vec<Secret> {
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    which.iter().map(|at| Secret::from_hex(&hex(&SECRETS[*at])).unwrap()).collect()
}

fn with_hooks(state: &Path) -> RestConfig {
    let mut rules = WebhookRules::new(state.join("webhooks"));
    rules.allow_private = true;
    rules.answer_within = Duration::from_secs(1);
    (rules.pause_min, rules.pause_max) = (Duration::from_millis(10), Duration::from_millis(100));
    RestConfig { webhooks: Some(rules), ..config() }
}

async fn open(
    house: &House,
    config: RestConfig,
    url: &str,
    which: &[usize],
) -> Result<(Rest, App), StartError> {
    let client = connect(&house.engine, stage::TENANT, Roles::AUTHORIZER).await;
    let mut tenant = tokens(house.app.token.as_deref().unwrap());
    tenant.webhooks =
        vec![WebhookConfig { name: "shop".to_owned(), url: url.to_owned(), secrets: secrets(which) }];
    let door = Rest::start(config, vec![Tenant { client, config: tenant }]).await?;
    let app = App { address: door.address(), ..house.app.clone() };
    Ok((door, app))
}

/// Locks and releases, so that each lock has two events in an order.
async fn pay(house: &House, app: &App, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for at in 0..count {
        let used = key(&house.operator);
        app.lock(house.partitions[at % 2], &used, "1").await.expect(200);
        app.post(&format!("/v1/locks/{used}/release"), &key(&house.operator), json!({})).await.expect(200);
        keys.push(used);
    }
    keys
}

/// Waits until the shop has taken both events of every lock.
async fn until_taken(shop: &Shop, keys: &[String]) {
    let begun = Instant::now();
    loop {
        let taken = shop.taken();
        let of = |used: &String| taken.iter().filter(|event| event["lock"] == used.as_str()).count();
        if keys.iter().all(|used| of(used) >= 2) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{} events were taken", taken.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_signed(delivery: &Delivery, secret: &[u8; 32]) -> bool {
    let value = delivery.header("surety-signature").to_owned();
    let mut parts = value.split(',');
    let sent = parts.next().unwrap().strip_prefix("t=").unwrap().to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{sent}.{}", delivery.body).as_bytes());
    let expect: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    parts.any(|part| part.strip_prefix("v1=") == Some(&expect))
}

#[tokio::test]
async fn every_event_arrives_in_order_whatever_the_endpoint_does() {
    use Manner::{Break, Fail, Late, Redirect, Stall, Take};
    let shop = Shop::open(&[Fail(500), Take, Redirect, Stall, Break, Take, Late, Fail(404)]).await;
    let house = House::new().await;
    let state = tempfile::tempdir().unwrap();
    let (door, app) = open(&house, with_hooks(state.path()), &shop.url(), &[0]).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.extend(pay(&house, &app, 5).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until_taken(&shop, &keys).await;
    let got = shop.got.lock().clone();
    assert!(got.iter().all(|delivery| delivery.path == "/events"), "no redirect is followed");
    assert!(got.iter().all(|delivery| is_signed(delivery, &SECRETS[0]) && !is_signed(delivery, &SECRETS[1])));
    assert!(got.iter().all(|delivery| delivery.header("surety-webhook") == "shop"));
    let mut orders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in shop.taken() {
        if !seen.insert(event["id"].to_string()) {
            // Taken, but the answer came too late for this machine.
            continue;
        }
        let lock = event["lock"].as_str().unwrap_or_default().to_owned();
        orders.entry(lock).or_default().push(event["kind"].as_str().unwrap().to_owned());
    }
    assert!(keys.iter().all(|used| orders[used] == ["lock", "release"]));
    app.until("/v1/webhooks", |shown| shown["webhooks"][0]["state"] == "active").await;
    door.stop().await;
    house.close().await;
}

#[tokio::test]
async fn an_endpoint_that_ends_the_connection_with_its_answer_has_taken_it() {
    let shop = Shop::open(&[Manner::TakeAndClose; 1000]).await;
    let house = House::new().await;
    let state = tempfile::tempdir().unwrap();
    let mut config = with_hooks(state.path());
    // Only an answer counts here, however slow the machine is.
    config.webhooks.as_mut().unwrap().answer_within = PATIENCE;
    let (door, app) = open(&house, config, &shop.url(), &[0]).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.extend(pay(&house, &app, 1).await);
        until_taken(&shop, &keys).await;
    }
    let shown = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(
        (&shown["webhooks"][0]["failures"], &shown["webhooks"][0]["last_error"]),
        (&json!(0), &Value::Null)
    );
    let taken = shop.taken();
    let ids: BTreeSet<String> = taken.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), taken.len(), "nothing came twice");
    door.stop().await;
    house.close().await;
}

#[tokio::test]
async fn a_front_door_that_is_killed_goes_on_where_it_was() {
    let house = House::new().await;
    let (shop, state) = (Shop::open(&[]).await, tempfile::tempdir().unwrap());
    let (door, app) = open(&house, with_hooks(state.path()), &shop.url(), &[0]).await.unwrap();
    let mut keys = pay(&house, &app, 3).await;
    until_taken(&shop, &keys).await;
    // Nothing is said to the endpoint, and nothing is written: as if it had been killed.
    *shop.manners.lock() = [Manner::Stall; 50].into();
    keys.extend(pay(&house, &app, 3).await);
    drop(door);
    // What happens while nobody carries anything.
    keys.extend(pay(&house, &house.app, 3).await);
    shop.manners.lock().clear();
    let (door, app) = open(&house, with_hooks(state.path()), &shop.url(), &[0]).await.unwrap();
    until_taken(&shop, &keys).await;
    let before = shop.taken().len();
    // From any point, also what was taken before.
    let replay = app.send("POST", "/v1/webhooks/shop/replay", &[], Some(&json!({"after": "0"}))).await;
    replay.expect(200);
    let begun = Instant::now();
    let twice =
        |used: &String| shop.taken().iter().filter(|event| event["lock"] == used.as_str()).count() >= 4;
    while !keys.iter().all(twice) {
        assert!(begun.elapsed() < PATIENCE, "{} after {before}", shop.taken().len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ahead = json!({"after": "999999999"});
    app.send("POST", "/v1/webhooks/shop/replay", &[], Some(&ahead)).await.problem(422, "CURSOR_AHEAD");
    door.stop().await;
    house.close().await;
}

#[tokio::test]
async fn an_endpoint_is_paused_by_hand_by_its_own_word_and_for_good() {
    let house = House::new().await;
    let (shop, state) = (Shop::open(&[]).await, tempfile::tempdir().unwrap());
    let mut config = with_hooks(state.path());
    let (door, app) = open(&house, config.clone(), &shop.url(), &[0]).await.unwrap();
    let shown = app.send("POST", "/v1/webhooks/shop/pause", &[], None).await.expect(200);
    assert_eq!(shown["state"], "paused");
    let mut keys = pay(&house, &app, 2).await;
    // It stays paused over a new start.
    door.stop().await;
    let (door, app) = open(&house, config.clone(), &shop.url(), &[0]).await.unwrap();
    assert_eq!(app.get("/v1/webhooks").await.expect(200)["webhooks"][0]["state"], "paused");
    assert!(shop.got.lock().is_empty());
    // The endpoint itself says that it is gone.
    shop.manners.lock().push_back(Manner::Fail(410));
    app.send("POST", "/v1/webhooks/shop/resume", &[], None).await.expect(200);
    let is_paused = |shown: &Value| shown["webhooks"][0]["state"] == "paused";
    let shown = app.until("/v1/webhooks", is_paused).await;
    assert!(shown["webhooks"][0]["reason"].as_str().unwrap().contains("410"), "{shown}");
    app.send("POST", "/v1/webhooks/shop/resume", &[], None).await.expect(200);
    keys.extend(pay(&house, &app, 1).await);
    until_taken(&shop, &keys).await;
    app.send("POST", "/v1/webhooks/none/pause", &[], None).await.problem(404, "WEBHOOK");
    door.stop().await;
    // One that fails for as long as is borne.
    config.webhooks.as_mut().unwrap().give_up_after = Duration::from_millis(300);
    let (door, app) = open(&house, config, &shop.url(), &[0]).await.unwrap();
    *shop.manners.lock() = [Manner::Fail(503); 1000].into();
    pay(&house, &app, 1).await;
    let shown = app.until("/v1/webhooks", is_paused).await;
    assert!(shown["webhooks"][0]["failures"].as_u64().unwrap() > 1, "{shown}");
    assert_eq!(shown["webhooks"][0]["last_error"], "answered 503");
    door.stop().await;
    house.close().await;
}

#[tokio::test]
async fn secrets_change_with_an_overlap_and_private_endpoints_are_refused() {
    let house = House::new().await;
    let (shop, state) = (Shop::open(&[]).await, tempfile::tempdir().unwrap());
    let config = with_hooks(state.path());
    let (door, app) = open(&house, config.clone(), &shop.url(), &[0]).await.unwrap();
    let keys = pay(&house, &app, 1).await;
    until_taken(&shop, &keys).await;
    let mut tenant = tokens(house.app.token.as_deref().unwrap());
    tenant.webhooks =
        vec![WebhookConfig { name: "shop".to_owned(), url: shop.url(), secrets: secrets(&[1, 0]) }];
    door.reload(&config, vec![(stage::TENANT, tenant)]).unwrap();
    let keys = pay(&house, &app, 1).await;
    until_taken(&shop, &keys).await;
    let got = shop.got.lock().clone();
    let mut new = got.iter().filter(|delivery| delivery.body.contains(&keys[0])).peekable();
    assert!(new.peek().is_some());
    assert!(new.all(|delivery| SECRETS.iter().all(|secret| is_signed(delivery, secret))));
    door.stop().await;
    let mut public = config;
    public.webhooks.as_mut().unwrap().allow_private = false;
    let refused = open(&house, public.clone(), &shop.url(), &[0]).await.err().unwrap();
    assert!(matches!(refused, StartError::Webhook { error: EndpointError::Plain, .. }), "{refused}");
    // With TLS, but on this host: it is never connected to.
    let url = shop.url().replace("http:", "https:");
    let (door, app) = open(&house, public, &url, &[0]).await.unwrap();
    let count = shop.got.lock().len();
    pay(&house, &app, 1).await;
    let inside = "its name leads to no public address";
    app.until("/v1/webhooks", |shown| shown["webhooks"][0]["last_error"] == inside).await;
    assert_eq!(shop.got.lock().len(), count);
    door.stop().await;
    house.close().await;
}

#[tokio::test]
async fn a_webhook_does_not_become_another_tenants_by_a_reload() {
    let house = House::new().await;
    let (shop, state) = (Shop::open(&[]).await, tempfile::tempdir().unwrap());
    let config = with_hooks(state.path());
    let tenant = |name: Option<&str>| {
        let of =
            |name: &str| WebhookConfig { name: name.to_owned(), url: shop.url(), secrets: secrets(&[0]) };
        TenantConfig { webhooks: name.map(of).into_iter().collect(), ..TenantConfig::default() }
    };
    let mut tenants = Vec::new();
    for (id, name) in [(stage::TENANT, Some("shop")), (OTHER, None)] {
        let client = connect(&house.engine, id, Roles::AUTHORIZER).await;
        tenants.push(Tenant { client, config: tenant(name) });
    }
    let door = Rest::start(config.clone(), tenants).await.unwrap();
    let reload = |names: [Option<&str>; 2], ids: [TenantId; 2]| {
        door.reload(&config, ids.into_iter().zip(names.map(tenant)).collect())
    };
    let own = [stage::TENANT, OTHER];
    let fixed = |key| move |taken| matches!(taken, Err(ReloadError::Fixed(found)) if found == key);
    // The list of all webhooks is the same, only whose events they get is not.
    assert!(fixed("tenant.webhook")(reload([None, Some("shop")], own)));
    assert!(fixed("tenant.webhook")(reload([Some("till"), None], own)));
    assert!(fixed("tenant")(reload([Some("shop"), None], [OTHER, stage::TENANT])));
    reload([Some("shop"), None], own).unwrap();
    door.stop().await;
    house.close().await;
}
