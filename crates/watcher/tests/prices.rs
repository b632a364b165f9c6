//! Prices from files, URLs and an aggregator contract, up to the engine that locks by them.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, Bytes, I256, U256, aliases::U80};
use alloy_sol_types::SolValue;
use chain::{DevChain, DevConfig};
use support::engine::{Engine, rules};
use support::node::Node;
use surety_client::LockRequest;
use surety_protocol::{Amount, AssetId, Code, MerchantId, QuoteId, Time};
use watcher::price::{
    Aggregator, Feed, Feeder, NoPrice, Places, PriceFile, PriceSource, PriceTrouble, PriceUrl, Rules,
};

const USD: QuoteId = QuoteId(840);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn at(price: &str, time: Option<&str>) -> Places {
    let keys = |path: &str| path.split('/').map(str::to_owned).collect();
    Places { price: keys(price), time: time.map(keys) }
}

#[test]
fn a_document_says_its_price_where_it_was_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("price.json");
    let check = |text: &str, places: Places| {
        std::fs::write(&path, text).unwrap();
        PriceFile::new(path.clone(), places, 6).quote().map(|quote| (quote.price, quote.observed.0))
    };
    let nested = r#"{"amp": {"usd": 0.004123456789, "at": 1700000000.5}, "list": [1, "2.5"]}"#;
    assert_eq!(check(nested, at("amp/usd", Some("amp/at"))), Ok((4_123, 1_700_000_000_500_000_000)));
    assert_eq!(check(nested, at("list/1", Some("amp/at"))).unwrap().0, 2_500_000);
    let (_, written) = check(nested, at("list/0", None)).unwrap();
    assert!(Time(written) > Time::from_secs(now_s() - 60), "as old as the file");
    for wrong in ["amp", "amp/eur", "list/2", "list/x", "amp/usd/x"] {
        assert!(matches!(check(nested, at(wrong, None)), Err(PriceTrouble::Nonsense(_))), "{wrong}");
    }
    for text in
        ["", "{", r#"{"p": null}"#, r#"{"p": -1}"#, r#"{"p": "1,5"}"#, r#"{"p": {}}"#, r#"{"p": 1e60}"#]
    {
        assert!(matches!(check(text, at("p", None)), Err(PriceTrouble::Nonsense(_))), "{text}");
    }
    let missing = PriceFile::new(Path::new("/nowhere/at/all").to_owned(), at("p", None), 6).quote();
    assert!(matches!(missing, Err(PriceTrouble::Unreachable(_))));
}

#[test]
fn a_url_is_asked_for_so_long_and_no_longer() {
    let node = Node::serve(|_| Some(r#"{"data": {"price": "12.34"}}"#.to_owned()));
    let url = |node: &Node| {
        PriceUrl::new(
            &format!("{}/?key=secret", node.url),
            "one",
            at("data/price", None),
            2,
            Duration::from_secs(5),
        )
    };
    assert_eq!(url(&node).quote().unwrap().price, 1_234);
    let silent = Node::serve(|_| None);
    let trouble = url(&silent).quote().unwrap_err();
    assert!(matches!(trouble, PriceTrouble::Unreachable(_)));
    assert!(!format!("{trouble}{}", url(&silent).name()).contains("secret"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    let stalled = PriceUrl::new(&address, "two", at("p", None), 2, Duration::from_millis(100));
    assert!(matches!(stalled.quote(), Err(PriceTrouble::Unreachable(_))));
}

/// Code that answers `decimals()` with 8 and everything else with these words.
fn aggregator(words: &[u8]) -> Bytes {
    // calldataload(0) >> 224 == 0x313ce567 ? return 8 : return the data behind the code
    let head = 35_u8;
    let length = u8::try_from(words.len()).unwrap();
    let mut code = vec![
        0x5f, 0x35, 0x60, 0xe0, 0x1c, 0x63, 0x31, 0x3c, 0xe5, 0x67, 0x14, 0x60, 26, 0x57, 0x60, length, 0x60,
        head, 0x5f, 0x39, 0x60, length, 0x5f, 0xf3, 0x00, 0x00, 0x5b, 0x60, 8, 0x5f, 0x52, 0x60, 32, 0x5f,
        0xf3,
    ];
    assert_eq!(code.len(), usize::from(head));
    code.extend_from_slice(words);
    code.into()
}

fn round(round_id: u64, answer: i64, updated: u64, answered_in: u64) -> Vec<u8> {
    let answer = I256::try_from(answer).unwrap();
    (U80::from(round_id), answer, U256::ZERO, U256::from(updated), U80::from(answered_in)).abi_encode()
}

#[test]
fn an_aggregators_round_is_a_price_if_it_is_answered() {
    let contract = Address::repeat_byte(0xfe);
    let check = |words: Vec<u8>, places: u8| {
        let mut chain = DevChain::new(DevConfig::default());
        chain.set_code(contract, aggregator(&words));
        Aggregator::new(chain, contract, places).quote().map(|quote| (quote.price, quote.observed))
    };
    let time = Time::from_secs(1_700_000_000);
    assert_eq!(
        check(round(7, 412_345, 1_700_000_000, 7), 6),
        Ok((4_123, time)),
        "8 places, of which 6 count"
    );
    assert_eq!(check(round(7, 412_345, 1_700_000_000, 7), 10), Ok((41_234_500, time)));
    for wrong in [
        round(7, 0, 1_700_000_000, 7),
        round(7, -1, 1_700_000_000, 7),
        round(7, 412_345, 0, 7),
        round(7, 412_345, 1_700_000_000, 6),
        round(7, 412_345, u64::MAX, 7),
        vec![0; 32],
    ] {
        assert!(matches!(check(wrong, 6), Err(PriceTrouble::Nonsense(_))));
    }
    let nothing = Aggregator::new(DevChain::new(DevConfig::default()), contract, 6).quote();
    assert!(nothing.is_err(), "no contract there");
}

#[tokio::test]
async fn the_engine_locks_by_what_the_sources_agree_on() {
    let engine = Engine::start(rules()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let say = |name: &str, price: &str| {
        let text = format!(r#"{{"price": {price}, "at": {}}}"#, now_s());
        std::fs::write(file(name), text).unwrap();
    };
    let source = |name: &str| -> Arc<dyn PriceSource> {
        Arc::new(PriceFile::new(file(name), at("price", Some("at")), 2))
    };
    let age_max = Time::from_secs(60);
    let rules = Rules { quorum: 2, deviation_bps: 100, jump_bps: 1_000, age_max };
    let feed = Feed { asset: AssetId(1), quote: USD, rules };
    let sources = ["a", "b", "c"].map(source).to_vec();
    let memory = file("last");
    let feeder = || Feeder::new(feed, sources.clone(), engine.settler.clone()).with_memory(memory.clone());
    std::fs::write(&memory, "5e18").unwrap();
    assert!(feeder().is_err(), "no number");
    std::fs::remove_file(&memory).unwrap();
    let mut feeder_now = feeder().unwrap();
    let lock =
        || LockRequest { quote: USD, ..LockRequest::new(engine.partition, Amount(1_000), MerchantId(9)) };

    let fed = feeder_now.turn().await;
    assert_eq!(fed.price, Err(NoPrice::TooFew { fresh: 0, quorum: 2 }));
    assert_eq!((fed.trouble.len(), fed.shards), (3, 0));
    assert_eq!(engine.send(lock()).await.code(), Code::StalePrice);

    // A price of 5 * 10^18 quote units for 10^18 of collateral; one source is mad, one is away.
    say("a", "50000000000000000.00");
    say("b", "50000000000000000.00");
    say("c", "90000000000000000.00");
    let fed = feeder_now.turn().await;
    assert_eq!(fed.price.unwrap().price, 5_000_000_000_000_000_000);
    assert_eq!((fed.shards, fed.trouble.len()), (1, 0));
    let reply = engine.send(lock()).await;
    assert_eq!((reply.code(), reply.approved), (Code::Approved, Amount(200)));

    // All of them jump: nobody knows, so nothing is sent, and the old price grows old.
    for name in ["a", "b", "c"] {
        say(name, "20000000000000000.00");
    }
    let fed = feeder_now.turn().await;
    assert!(matches!(fed.price, Err(NoPrice::Jump { .. })));
    assert_eq!(fed.shards, 0);
    // Nor does a restart make it right; somebody who has looked does.
    drop(feeder_now);
    let mut feeder_now = feeder().unwrap();
    let fed = feeder_now.turn().await;
    assert!(matches!(fed.price, Err(NoPrice::Jump { from: 5_000_000_000_000_000_000, .. })));
    let mut accepting = feeder().unwrap();
    accepting.accept_jump();
    assert!(accepting.turn().await.price.is_ok());
    std::fs::write(&memory, "5000000000000000000").unwrap();
    // One is away: the two others are enough.
    for name in ["a", "b"] {
        say(name, "51000000000000000.00");
    }
    std::fs::remove_file(file("c")).unwrap();
    let fed = feeder_now.turn().await;
    assert_eq!((fed.shards, fed.trouble.len()), (1, 1));
    assert_eq!(engine.send(lock()).await.approved, Amount(197), "rounded up");
}
