//! Who may come in, and how much of everything.

use std::time::Duration;

use rest::{ReloadError, RestConfig, new_token};
use serde_json::json as value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::house::{App, House, config, exchange, key, tokens, told};
use crate::stage;

#[tokio::test]
async fn nobody_comes_in_without_a_token_and_tokens_change_while_it_is_open() {
    let house = House::new().await;
    let with = |token: Option<String>| App { token, ..house.app.clone() };
    let [stranger, renewed] = [[9; 32], [8; 32]].map(new_token);
    for token in [None, Some("x".to_owned()), Some(stranger)] {
        let told = with(token).get("/v1/locks").await;
        assert_eq!(told.header("www-authenticate"), Some("Bearer"));
        told.problem(401, "UNAUTHENTICATED");
    }
    house.app.get("/v1/locks").await.expect(200);
    let tenants = |token: &str| vec![(stage::TENANT, tokens(token)), (crate::house::OTHER, tokens("none"))];
    house.door.reload(&config(), tenants(&renewed)).unwrap();
    house.app.get("/v1/locks").await.problem(401, "UNAUTHENTICATED");
    with(Some(renewed.clone())).get("/v1/locks").await.expect(200);
    let mut other = config();
    other.limits.depth_max += 1;
    assert!(house.door.reload(&other, tenants("x")).unwrap_err().to_string().contains("rest.limits"));
    with(Some(renewed)).get("/v1/locks").await.expect(200);
    with(None).get("/openapi.json").await.expect(200);
    house.close().await;
}

#[tokio::test]
async fn a_token_has_its_rate() {
    let mut config = config();
    (config.limits.rate_per_s, config.limits.burst) = (1, 3);
    let house = House::with(config).await;
    // At one a second, so many would have to take minutes.
    for at in 0.. {
        assert!(at < 200, "none was refused");
        let told = house.app.get("/v1/locks").await;
        let number = |name: &str| told.header(name).unwrap().parse::<u64>().unwrap();
        assert_eq!(number("ratelimit-limit"), 3);
        if told.status == 429 {
            assert!(at >= 3, "a burst of three is taken");
            assert_eq!(
                (number("ratelimit-remaining"), number("retry-after")),
                (0, number("ratelimit-reset"))
            );
            assert_eq!(told.problem(429, "RATE_LIMITED")["retryable"], true);
            break;
        }
    }
    // Each token has a rate of its own.
    house.other.get("/v1/locks").await.expect(200);
    house.close().await;
}

#[tokio::test]
async fn bodies_and_heads_have_bounds() {
    let house = House::new().await;
    let app = &house.app;
    let head = |more: &str| head(&house, more);
    let send = async |head: String, body: &str| exchange(app.address, (head + body).as_bytes()).await;
    let bomb = "[".repeat(10_000);
    send(head(&json(bomb.len())), &bomb).await.problem(400, "JSON");
    let deep = format!("{{\"amount\":{}{}}}", "[".repeat(20), "]".repeat(20));
    send(head(&json(deep.len())), &deep).await.problem(400, "JSON");
    let long = " ".repeat(20_000);
    send(head(&json(long.len())), &long).await.problem(413, "BODY_TOO_LARGE");
    send(head("Content-Type: text/plain\r\nContent-Length: 2\r\n"), "{}").await.problem(415, "CONTENT_TYPE");
    let huge = format!("X-Long: {}\r\n", "x".repeat(40_000));
    assert_eq!(send(head(&huge), "").await.status, 431);
    let many: String = (0..200).map(|at| format!("X-{at}: 1\r\n")).collect();
    assert_eq!(send(head(&many), "").await.status, 431);
    app.get("/v1/locks").await.expect(200);
    house.close().await;
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    // A body that does not come to its end.
    let mut slow_body = config();
    slow_body.limits.body_within = Duration::from_millis(300);
    let house = House::with(slow_body).await;
    let slow = head(&house, &json(100)) + "{\"amount\"";
    exchange(house.app.address, slow.as_bytes()).await.problem(408, "SLOW_BODY");
    house.close().await;
    // One that says nothing, half a head, or over HTTP/2 not who it is, is closed.
    let mut slow_head = config();
    slow_head.limits.head_within = Duration::from_millis(300);
    let house = House::with(slow_head).await;
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for begun in [&b""[..], b"PRI", b"GET /v1/locks HTTP/1.1\r\nHost:", greeting] {
        let mut stream = TcpStream::connect(house.app.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", begun.escape_ascii());
    }
    house.close().await;
}

/// The head of a request with a token and a key.
fn head(house: &House, more: &str) -> String {
    let (token, key) = (house.app.token.as_deref().unwrap(), key(&house.operator));
    format!(
        "POST /v1/locks HTTP/1.1\r\nHost: door\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n{more}\r\n"
    )
}

fn json(length: usize) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
}

#[tokio::test]
async fn a_token_is_of_one_tenant() {
    let house = House::new().await;
    let twice = vec![(stage::TENANT, tokens("one")), (crate::house::OTHER, tokens("one"))];
    assert!(matches!(house.door.reload(&config(), twice), Err(ReloadError::Token(_))));
    house.app.get("/v1/locks").await.expect(200);
    // Tenants that have changed places are not taken for each other.
    let swapped = vec![(crate::house::OTHER, tokens("one")), (stage::TENANT, tokens("two"))];
    assert!(matches!(house.door.reload(&config(), swapped), Err(ReloadError::Fixed("tenant"))));
    house.app.get("/v1/locks").await.expect(200);
    house.close().await;
}

#[tokio::test]
async fn keys_have_their_room() {
    let mut config = config();
    config.limits.keys_max = 30;
    let house = House::with(config).await;
    let (app, partition) = (&house.app, house.partitions[0]);
    let used = key(&house.operator);
    app.lock(partition, &used, "1").await.expect(200);
    let mut refused = None;
    for _ in 0..30 {
        let next = key(&house.operator);
        let told = app.lock(partition, &next, "1").await;
        if told.status != 200 {
            told.problem(429, "KEYS_FULL");
            refused = Some(next);
            break;
        }
    }
    let refused = refused.expect("with the first there would be 31");
    // What is here stays known: its repeat is answered, and nothing else is done under it.
    assert!(app.lock(partition, &used, "1").await.is_replayed());
    app.lock(house.partitions[1], &used, "1").await.problem(409, "ID_CONFLICT");
    app.get(&format!("/v1/locks/{refused}?partition={partition}")).await.problem(404, "UNKNOWN_LOCK");
    house.close().await;
}

#[tokio::test]
async fn connections_are_counted() {
    let mut together = config();
    together.limits.connections_max = 2;
    two_and_no_more(together).await;
    let mut of_one_address = config();
    of_one_address.limits.connections_per_address_max = 2;
    two_and_no_more(of_one_address).await;
}

async fn two_and_no_more(config: RestConfig) {
    let house = House::with(config).await;
    let idle = [
        TcpStream::connect(house.app.address).await.unwrap(),
        TcpStream::connect(house.app.address).await.unwrap(),
    ];
    // The front door takes them in their order, so the third is one too many.
    let mut third = TcpStream::connect(house.app.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(30), third.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    drop(idle);
    let begun = std::time::Instant::now();
    loop {
        let asked = b"GET /openapi.json HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n";
        if exchange(house.app.address, asked).await.status == 200 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    house.close().await;
}

#[tokio::test]
async fn what_is_being_served_is_answered_when_the_door_closes() {
    let house = House::new().await;
    let body =
        value!({"partition": house.partitions[0].to_string(), "amount": "1", "asset": "AMP", "merchant": 1})
            .to_string();
    let token = house.app.token.clone().unwrap();
    let head = format!(
        "POST /v1/locks HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        key(&house.operator),
        body.len()
    );
    let mut stream = TcpStream::connect(house.app.address).await.unwrap();
    // The head and half of the body, so that it is being served.
    let (half, rest) = body.split_at(body.len() / 2);
    stream.write_all((head + half).as_bytes()).await.unwrap();
    // One that is answered says that the one before was taken.
    house.app.get("/v1/locks").await.expect(200);
    let House { door, engine, .. } = house;
    let stop = tokio::spawn(door.stop());
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut reply)).await.unwrap();
    assert_eq!(told(&reply).expect(200)["status"], "approved");
    timeout(Duration::from_secs(30), stop).await.unwrap().unwrap();
    engine.shutdown();
}
