//! A settler behind the console: who may see its batches, and what is said when it cannot be asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use surety_protocol::Roles;

use crate::browser::Browser;
use crate::past::until;
use crate::{OPERATOR, TENANT, World, config, refused};
use console::ConsoleConfig;

const PATH: &str = "/console/api/settlement";

/// Stands in for a settler's metrics listener, for as long as the process lives.
struct StandIn {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
}

impl StandIn {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_well = Arc::new(AtomicBool::new(true));
        let well = Arc::clone(&is_well);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = [0; 1024];
                let length = stream.read(&mut asked).unwrap_or(0);
                assert!(asked[..length].starts_with(b"GET /batches HTTP/1.0\r\n"));
                let answer = match well.load(Ordering::SeqCst) {
                    true => format!("HTTP/1.0 200 OK\r\n\r\n{}\n", batches()),
                    false => "HTTP/1.0 503 Service Unavailable\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, is_well }
    }

    fn asked(&self) -> ConsoleConfig {
        ConsoleConfig { settler: Some(self.address), ..config() }
    }
}

fn batches() -> Value {
    let batch = |number: u64, stage: &str| {
        json!({
            "batch": number, "stage": stage, "held": null, "records": 3, "partitions": 1, "credited": "5",
            "locked": "0", "read": ["12"], "transaction": "0x01", "block": 7, "sealed_ms": 1, "posted_ms": 2,
            "mined_ms": 3, "final_ms": null, "booked_ms": null,
        })
    };
    json!({
        "turn_age_ms": 1, "interval_ms": 2_000, "sealed": 2, "final": 1, "booked": 1, "waiting_records": 4, "waiting_age_ms": 2_000,
        "unsettled_age_ms": 60_000, "pending_transactions": 1,
        "chain": { "block": 9, "final_block": 6, "block_time_s": 1 },
        "batches": [batch(2, "mined"), batch(1, "booked")],
    })
}

fn shown(browser: &mut Browser) -> Value {
    let answer = browser.get(PATH);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_shown_to_the_operators_readers_and_nobody_else() {
    let settler = StandIn::start();
    let world = World::with(|_| settler.asked()).await;
    let mut operator = world.signed_in(OPERATOR, Roles::READER);
    until("the settler was not asked", || shown(&mut operator)["told"].is_object());
    let seen = shown(&mut operator);
    assert_eq!((&seen["named"], &seen["trouble"]), (&json!(true), &json!(null)));
    assert_eq!(seen["told"]["batches"], batches()["batches"]);
    assert!(seen["ages"]["batch_age_ms"].as_u64().unwrap() > 60_000, "{seen}");
    let is_plotted = |browser: &mut Browser| {
        let overview = browser.get("/console/api/overview").json();
        let ages = overview["seconds"]["waiting_age_ms"].as_array();
        ages.is_some_and(|ages| ages.iter().any(|age| age.as_u64().is_some_and(|age| age > 2_000)))
    };
    until("no second tells how old batches are", || is_plotted(&mut operator));
    let mut clerk = world.signed_in(OPERATOR, Roles::AUTHORIZER);
    refused(&clerk.get(PATH), 403, "NO_ROLE");
    for roles in [Roles::READER, Roles::ADMIN | Roles::SETTLER] {
        refused(&world.signed_in(TENANT, roles).get(PATH), 403, "NO_ROLE");
    }
    refused(&world.browser().get(PATH), 401, "SIGNED_OUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settler_that_is_away_is_said_to_be_and_the_rest_goes_on() {
    let settler = StandIn::start();
    let world = World::with(|_| settler.asked()).await;
    let mut operator = world.signed_in(OPERATOR, Roles::READER);
    until("the settler was not asked", || shown(&mut operator)["told"].is_object());
    settler.is_well.store(false, Ordering::SeqCst);
    until("nobody notices", || shown(&mut operator)["trouble"].is_string());
    let seen = shown(&mut operator);
    assert_eq!(seen["told"]["sealed"], 2, "what was known last, with its age: {seen}");
    assert_eq!(operator.get("/console/api/partitions").status, 200);
    settler.is_well.store(true, Ordering::SeqCst);
    until("it is not asked again", || shown(&mut operator)["trouble"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_without_a_settler_says_so() {
    let world = World::new().await;
    let seen = shown(&mut world.signed_in(OPERATOR, Roles::READER));
    assert_eq!((&seen["named"], &seen["told"]), (&json!(false), &json!(null)));
}
