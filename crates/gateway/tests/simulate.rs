//! A simulated acquirer against the real link, which it certifies, and against hosts that are wrong, which it does not.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod front;

use std::net::SocketAddr;

use gateway::LinkConfig;
use gateway::simulate::{Scenario, simulate};
use iso8583::{Cut, Dialect, Draft, FrameError, LengthHeader, Message, Profile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use front::*;

#[tokio::test]
async fn the_real_link_is_certified() {
    let old = |config| config;
    let front = Front::with(old).await;
    check(&front, "1987").await;
    // A second run has numbers of its own.
    check(&front, "1987").await;
    front.stop().await;
    let new = |config: LinkConfig| {
        let mut rules = config.rules.clone();
        rules.dialect = Dialect::V1993;
        LinkConfig { rules, header: LengthHeader::Ascii4, profile: Profile::ASCII, ..config }
    };
    let front = Front::with(new).await;
    check(&front, "1993").await;
    front.stop().await;
}

async fn check(front: &Front, scenario: &str) {
    let before = front.free().await;
    let report = simulate(&Scenario::load(scenario).unwrap(), front.gateway.address()).await.unwrap();
    assert!(report.is_certified(), "{report}");
    assert_eq!(report.failed, 0);
    // What is captured at the end: the stand-in's payment and the forced sale.
    assert_eq!(before - front.free().await, 1500);
    let text = report.to_string();
    assert!(!text.contains("411111"), "no card in a report: {text}");
}

/// A host that approves whatever it is asked, and forgets what it has said.
async fn yes_man() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut count) = (Vec::new(), 0);
                while stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                    while let Cut::Message { bytes, used } = HEADER.cut(&read, 9999).unwrap() {
                        let (message, _) = Message::read(CODEC, bytes);
                        let mut draft = Draft::new(CODEC.dialect);
                        draft.reset(message.mti().reply().unwrap());
                        for field in [2, 3, 4, 7, 11, 37, 41, 49, 70] {
                            draft.copy(&message, field);
                        }
                        draft.set(39, b"00");
                        count += 1;
                        draft.set_number(38, count);
                        let mut out = Vec::new();
                        let write = |out: &mut Vec<u8>| {
                            draft.encode(CODEC, out).unwrap();
                            Ok::<(), FrameError>(())
                        };
                        HEADER.write(&mut out, write).unwrap();
                        stream.write_all(&out).await.unwrap();
                        read.drain(..used);
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_host_that_is_wrong_is_not_certified() {
    let mut scenario = Scenario::load("1987").unwrap();
    // It answers everything or closes the socket: there is nothing to wait for.
    scenario.answer_ms = 30_000;
    let report = simulate(&scenario, yes_man().await).await.unwrap();
    assert!(!report.is_certified());
    let failed: Vec<&str> =
        report.cases.iter().filter(|case| !case.has_passed()).map(|case| case.name.as_str()).collect();
    let wrong = [
        "authorization, repeated",
        "the same numbers, another amount",
        "sale, repeated",
        "the request behind its reversal",
        "more than there is",
        "a part of what is asked",
        "a card that leads nowhere",
        "a currency that is not taken",
        "no amount",
        "a field that is missing",
        "a type that is not served",
        "totals",
        "a payment after sign-off",
        "a digit that is none",
        "no message",
    ];
    for case in wrong {
        assert!(failed.contains(&case), "{case}: {report}");
    }
    for right in ["sign-on", "authorization", "completion", "sign-off"] {
        assert!(!failed.contains(&right), "{right}: {report}");
    }
    assert_eq!((report.passed + report.failed, report.failed), (report.cases.len(), failed.len()));
}

#[tokio::test]
async fn a_host_that_says_nothing_fails_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut scenario = Scenario::load("1987").unwrap();
    scenario.answer_ms = 20;
    let report = simulate(&scenario, address).await.unwrap();
    assert_eq!(report.passed, 0, "{report}");
    drop(listener);
    let nobody = simulate(&scenario, address).await;
    assert!(nobody.is_err());
}
