//! What the change stream tells: lists, pages of events, and events as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use surety_client::protocol::{Flags, Id, Roles};
use surety_client::{LockRef, LockRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::{AMP, House, OTHER, config, connect, key, tokens};
use crate::stage;

/// Draws numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::test]
async fn the_list_agrees_with_the_engine() {
    let house = House::new().await;
    let client = connect(&house.engine, stage::TENANT, Roles::AUTHORIZER).await;
    let mut numbers = Numbers(7);
    let mut locks: Vec<LockRef> = Vec::new();
    for turn in 0..600 {
        if turn % 4 == 0 || locks.is_empty() {
            let partition = house.partitions[turn % 2];
            let amount = surety_client::protocol::Amount(u128::from(1 + numbers.below(40)) * AMP);
            let mut request =
                LockRequest::new(partition, amount, surety_client::protocol::MerchantId(numbers.below(3)));
            request.is_sale = numbers.below(5) == 0;
            // Some end by themselves.
            request.life = Duration::from_millis(if numbers.below(4) == 0 { 50 } else { 60_000 });
            let id = client.new_id();
            request.id = Some(id);
            client.send(request).await.unwrap();
            locks.push(LockRef::new(partition, id));
            continue;
        }
        let lock = locks[usize::try_from(numbers.below(locks.len() as u64)).unwrap()];
        let amount = surety_client::protocol::Amount(u128::from(1 + numbers.below(30)) * AMP);
        let version = client.lookup(lock.partition, lock.id, false).await.unwrap().version;
        let capture = u16::try_from(numbers.below(2)).unwrap();
        let draft = match numbers.below(11) {
            0 => lock.increase(amount, version),
            1 => lock.decrease(amount, version),
            2 | 3 => lock.capture(amount),
            4 => lock.capture_last(amount),
            5 => lock.release(),
            6 => lock.reverse(capture),
            7 => lock.refund(capture, amount),
            8 => lock.settle(),
            9 => lock.consume_held(amount),
            _ => lock.advise(amount).flags(if numbers.below(2) == 0 { Flags::FINAL } else { Flags(0) }),
        };
        // Whatever the engine says of it.
        let _ = client.send(draft).await;
    }
    // Until those that end by themselves have, and all of it has been told.
    let mut listed: BTreeMap<String, Value> = BTreeMap::new();
    let begun = std::time::Instant::now();
    loop {
        listed.clear();
        let mut path = "/v1/locks?limit=37".to_owned();
        loop {
            let page = house.app.get(&path).await.expect(200);
            assert_eq!(page["complete"], true);
            for lock in page["locks"].as_array().unwrap() {
                listed.insert(lock["id"].as_str().unwrap().to_owned(), lock.clone());
            }
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/locks?limit=37&after={next}");
        }
        let mut differs = None;
        for lock in &locks {
            let shown = client.lookup(lock.partition, lock.id, false).await.unwrap();
            let listed = &listed.get(&lock.id.to_string()).cloned().unwrap_or_default();
            let amount = format!("{}.00", shown.approved.0 / AMP);
            if listed["state"] != shown.end().name() || listed["amount"] != amount.as_str() {
                differs = Some(format!("{listed} is {} of {amount}", shown.end()));
                break;
            }
        }
        let Some(difference) = differs else { break };
        assert!(begun.elapsed() < Duration::from_secs(30), "{difference}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(listed.len(), locks.len());
    let states: BTreeSet<&str> = listed.values().map(|lock| lock["state"].as_str().unwrap()).collect();
    assert!(states.len() >= 5, "all of it was met: {states:?}");
    house.app.get("/v1/locks?merchant=9007199254740992").await.problem(400, "PARAMETER");
    let only = |query: String| async move {
        let page = house.app.get(&query).await.expect(200);
        page["locks"].as_array().unwrap().clone()
    };
    let house = only("/v1/locks?merchant=1&state=settled&limit=100".to_owned()).await;
    let expect = listed.values().filter(|lock| lock["merchant"] == 1 && lock["state"] == "settled").count();
    assert_eq!(house.len(), expect.min(100));
}

#[tokio::test]
async fn every_event_is_told_once_whatever_the_pages() {
    // Few are kept at hand, so that most come out of the engine's log.
    let mut config = config();
    config.limits.events_max = 10;
    let house = House::with(config).await;
    let mut keys = Vec::new();
    for at in 0..40 {
        let used = key(&house.operator);
        house.app.lock(house.partitions[at % 2], &used, "1").await.expect(200);
        let release = format!("/v1/locks/{used}/release");
        house.app.post(&release, &key(&house.operator), json!({})).await.expect(200);
        keys.push(used);
    }
    for limit in [1, 7, 1000] {
        let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
        let begun = std::time::Instant::now();
        while seen.len() < 80 || limit == 1000 && seen.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} events", seen.len());
            let page = house.app.get(&format!("/v1/events?after={cursor}&limit={limit}")).await.expect(200);
            let events = page["events"].as_array().unwrap();
            assert!(events.len() <= limit);
            seen.extend(events.iter().filter(|event| event["lock"].is_string()).cloned());
            cursor = page["cursor"].as_str().unwrap().to_owned();
        }
        let ids: BTreeSet<&str> = seen.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), seen.len()), (80, 80));
        for used in &keys {
            let kinds: Vec<&str> = seen
                .iter()
                .filter(|event| event["lock"] == used.as_str())
                .map(|event| event["kind"].as_str().unwrap())
                .collect();
            assert_eq!(kinds, ["lock", "release"]);
        }
        assert_eq!(seen[0]["result"], "1.00");
        let rest = house.app.get(&format!("/v1/events?after={cursor}")).await.expect(200);
        assert_eq!(rest["events"], json!([]));
    }
    house.app.get("/v1/events?after=x").await.problem(400, "PARAMETER");
    house.app.get("/v1/events?after=999999999").await.problem(422, "CURSOR_AHEAD");
    house.close().await;
}

#[tokio::test]
async fn events_come_as_they_happen_and_go_on_where_they_broke() {
    let house = House::new().await;
    let first = key(&house.operator);
    house.app.lock(house.partitions[0], &first, "1").await.expect(200);
    let mut live = Live::open(&house, None).await;
    let told = live.of(&first).await;
    assert_eq!(told["kind"], "lock");
    let second = key(&house.operator);
    house.app.lock(house.partitions[1], &second, "2").await.expect(200);
    assert_eq!(live.of(&second).await["result"], "2.00");
    let last = live.last.clone();
    drop(live);
    let third = key(&house.operator);
    house.app.lock(house.partitions[0], &third, "3").await.expect(200);
    let mut resumed = Live::open(&house, Some(&last)).await;
    // The next event of a lock is the third's: nothing comes twice, and nothing is left out.
    assert_eq!(resumed.next().await["lock"], third.as_str());
    house.door.stop().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), resumed.stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the stream ends with the front door");
}

#[tokio::test]
async fn the_stream_of_a_withdrawn_token_ends() {
    let house = House::new().await;
    let reload = |token: &str| {
        let other = tokens(house.other.token.as_deref().unwrap());
        house.door.reload(&config(), vec![(stage::TENANT, tokens(token)), (OTHER, other)]).unwrap();
    };
    let mut live = Live::open(&house, None).await;
    let mut follow = async || {
        let used = key(&house.operator);
        house.app.lock(house.partitions[0], &used, "1").await.expect(200);
        live.of(&used).await;
    };
    follow().await;
    // It stays open over a reload that leaves its token.
    reload(house.app.token.as_deref().unwrap());
    follow().await;
    reload("another token");
    live.ends().await;
    house.close().await;
}

/// A client of server-sent events.
struct Live {
    stream: TcpStream,
    text: String,
    last: String,
}

impl Live {
    async fn open(house: &House, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(house.app.address).await.unwrap();
        let token = house.app.token.as_deref().unwrap();
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /v1/events HTTP/1.1\r\nHost: door\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n{last}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream, text: String::new(), last: String::new() }
    }

    /// Waits for the last chunk.
    async fn ends(&mut self) {
        while !self.text.ends_with("\r\n0\r\n\r\n") {
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(30), self.stream.read(&mut bytes));
            let read = read.await.unwrap().unwrap();
            assert!(read > 0, "{}", self.text);
            self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }

    async fn of(&mut self, lock: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["lock"] == lock {
                return event;
            }
        }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.split_once(name)).map(|(_, value)| value.to_owned())
                };
                let (data, id) = (field("data: "), field("id: "));
                self.text = rest.to_owned();
                self.last = id.unwrap_or_default();
                if let Some(data) = data {
                    return serde_json::from_str(&data).unwrap();
                }
                continue;
            }
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(30), self.stream.read(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            assert!(read > 0, "the stream is open");
            self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }
}

/// Ids are those of locks.
#[tokio::test]
async fn locks_are_listed_from_a_moment_on() {
    let house = House::new().await;
    let mut keys: Vec<String> = Vec::new();
    for _ in 0..5 {
        keys.push(key(&house.operator));
        house.app.lock(house.partitions[0], keys.last().unwrap(), "1").await.expect(200);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let from = Id::parse(&keys[2]).unwrap().time().0 / 1_000_000;
    let page = house.app.get(&format!("/v1/locks?from={from}")).await.expect(200);
    let listed: Vec<&str> =
        page["locks"].as_array().unwrap().iter().map(|lock| lock["id"].as_str().unwrap()).collect();
    assert_eq!(listed, keys[2..]);
    house.close().await;
}
