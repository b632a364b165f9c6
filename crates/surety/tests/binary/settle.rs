//! `settle watch` and `settle prices`: against a running engine, and nodes that a script plays.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use surety_client::{Client, Identity, LockRef, LockRequest, QuicOptions};
use surety_protocol::{Amount, Code, End, MerchantId, PartitionHandle, QuoteId, ShardId};

use crate::process::{Data, Engine, ctl, surety, surety_with};

const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const PARTITION: PartitionHandle = PartitionHandle::new(ShardId(0), 1);

/// A partition with collateral, open to tenant 1, whose release rule waits for 2 confirmations of asset 3.
fn stake(data: &Data) {
    ctl(data, &["partition", "create", "0:1", "--asset", "1"]);
    let rule = ["release_rule=confirmations", "release_asset=3", "release_confirmations=2"];
    ctl(data, &[&["policy", "set", "0:1"], rule.as_slice()].concat());
    ctl(data, &["tenant", "set", "1", "--locks-max", "100"]);
    ctl(data, &["grant", "0:1", "1", "authorize,read,settle,consume"]);
    let supplier = ["--supplier", "0x00000000000000000000000000000000000000aa", "--nonce", "1"];
    ctl(data, &[&["deposit", "0:1", "1000"], supplier.as_slice()].concat());
}

/// The tenant's own client.
async fn shop(engine: &Engine, data: &Data) -> Client {
    let identity = Identity::from_file(data.file("pki").join("authorizer.pem")).unwrap();
    let address: SocketAddr = engine.listen().parse().unwrap();
    let options = QuicOptions { name: "surety".to_owned(), ..QuicOptions::new(address, identity) };
    Client::connect_with(options, surety_client::Options::default()).await.unwrap()
}

/// Outputs of each block: what was paid, in bitcoin.
type Blocks = Arc<Mutex<Vec<Option<&'static str>>>>;

/// Bitcoin Core as far as a watcher asks it; it ends with the process.
fn bitcoin(blocks: &Blocks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let blocks = blocks.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut is_known) = (0, false);
            for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                let line = line.to_lowercase();
                is_known |= line == "authorization: basic dxnlcjpwyxnz";
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let question: Value = serde_json::from_slice(&body).unwrap();
            let result = if is_known { answer(&question, &blocks.lock().unwrap()) } else { Err("who?") };
            let text = match result {
                Ok(text) => format!("{{\"id\": {}, \"result\": {text}}}", question["id"]),
                Err(error) => {
                    json!({ "id": question["id"], "error": { "code": -8, "message": error } }).to_string()
                }
            };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
            let _ = stream.write_all((head + &text).as_bytes());
        }
    });
    format!("http://{address}")
}

fn answer(question: &Value, blocks: &[Option<&'static str>]) -> Result<String, &'static str> {
    let hash = |number: usize| format!("{number:064x}");
    match question["method"].as_str().unwrap() {
        "getblockchaininfo" => Ok(r#"{"chain": "regtest"}"#.to_owned()),
        "getblockcount" => Ok((blocks.len() - 1).to_string()),
        "validateaddress" => Ok(json!({ "isvalid": true, "address": question["params"][0] }).to_string()),
        "getblockhash" => {
            let number = usize::try_from(question["params"][0].as_u64().unwrap()).unwrap();
            if number < blocks.len() { Ok(format!("\"{}\"", hash(number))) } else { Err("out of range") }
        }
        _ => {
            let number = usize::from_str_radix(question["params"][0].as_str().unwrap(), 16).unwrap();
            let value = blocks[number].unwrap_or("0");
            let parent = hash(number.wrapping_sub(1) & 0xffff);
            Ok(format!(
                r#"{{"hash": "{}", "previousblockhash": "{parent}", "height": {number}, "confirmations": 1,
                    "mediantime": {}, "tx": [{{"vin": [{{"txid": "00"}}], "vout": [{{"value": {value},
                    "scriptPubKey": {{"address": "{ADDRESS}"}}}}]}}]}}"#,
                hash(number),
                1_700_000_000 + number,
            ))
        }
    }
}

#[test]
fn a_payment_is_watched_until_the_engine_has_settled_its_lock() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    stake(&data);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shop = runtime.block_on(shop(&engine, &data));
    let lock = LockRequest { is_sale: true, ..LockRequest::new(PARTITION, Amount(300), MerchantId(4)) };
    let lock = runtime.block_on(shop.send(lock)).unwrap();
    assert_eq!(lock.code(), Code::Approved);

    let beside = tempfile::tempdir().unwrap();
    let file = |name: &str| beside.path().join(name).to_str().unwrap().to_owned();
    let (state, config, id) = (file("state"), file("watch.toml"), lock.id.to_string());
    let add = |lock: &str, to: &str| {
        let own = ["settle", "watch", "add", "--data", data.path(), "--state", &state, "0:1", lock, "--json"];
        let more = ["--tenant", "1", "--to", to, "--amount", "250000", "--within", "1h"];
        surety(&[own.as_slice(), &more].concat())
    };
    let added = add(&id, ADDRESS).exits(0).json();
    assert_eq!((&added["asset"], &added["confirmations"]), (&json!(3), &json!(2)));

    let blocks = Blocks::default();
    blocks.lock().unwrap().extend([None, None]);
    let url = bitcoin(&blocks);
    let asset = |chain: &str| {
        format!(
            "[[asset]]\nid = 3\nkind = \"bitcoin\"\nchain = \"{chain}\"\n\
             node = {{ url_env = \"NODE\", login_env = \"LOGIN\" }}\n"
        )
    };
    let run = |more: &[&str]| {
        let own = [
            "settle",
            "watch",
            "run",
            "--data",
            data.path(),
            "--config",
            &config,
            "--state",
            &state,
            "--once",
        ];
        surety_with(&[own.as_slice(), more].concat(), &[("NODE", &url), ("LOGIN", "user:pass")])
    };
    std::fs::write(&config, asset("main")).unwrap();
    run(&[]).fails(1, "not of main");
    std::fs::write(&config, asset("regtest")).unwrap();
    run(&[]).exits(0);
    blocks.lock().unwrap().extend([Some("0.0025"), None]);
    let show = |id| runtime.block_on(shop.lookup(PARTITION, id, false)).unwrap();
    assert_eq!(run(&[]).exits(0).json()["ready"], true);
    let settled = LockRef::new(PARTITION, lock.id).consume_capture(0);
    assert_eq!(show(lock.id).end(), End::Settled);
    assert_eq!(runtime.block_on(shop.send(settled)).unwrap().code(), Code::AlreadySettled);
    run(&["--from-block", "3:0"]).exits(0);

    // What the partition's rule does not want is refused, and so is what cannot be watched.
    ctl(&data, &["policy", "set", "0:1", "release_rule=manual"]);
    let refused = add(&id, ADDRESS).fails(10, "manual");
    assert_eq!((refused.stdout.lines().count(), &refused.json()["exit"]), (1, &json!(10)));
    assert_eq!((&refused.json()["ok"], refused.json()["error"].is_string()), (&json!(false), true));
    add(&id, "not an address").fails(2, "--to");
    std::fs::write(&config, asset("regtest") + "speed = 9\n").unwrap();
    run(&[]).fails(2, "speed");
    std::fs::write(&config, asset("regtest") + &asset("regtest")).unwrap();
    run(&[]).fails(2, "twice");
    std::fs::write(&config, asset("regtest").replace("bitcoin", "token")).unwrap();
    run(&[]).fails(2, "token");
}

#[test]
fn a_price_that_sources_agree_on_is_what_the_engine_locks_by() {
    let data = Data::init(2);
    let engine = Engine::start(&data, "os");
    stake(&data);
    let beside = tempfile::tempdir().unwrap();
    let file = |name: &str| beside.path().join(name);
    let say =
        |path: &Path, price: &str| std::fs::write(path, format!(r#"{{"amp": {{"usd": {price}}}}}"#)).unwrap();
    let config = file("prices.toml");
    let source = |name: &str| format!("{{ file = {:?}, price = \"amp/usd\" }}", file(name));
    let rules = "[[price]]\nasset = 1\nquote = 840\nplaces = 0\nquorum = 2\ndeviation_bps = 100\njump_bps = 0\n\
                 age_max = \"60s\"\nevery = \"1s\"\n";
    let text = format!("{rules}sources = [{}, {}]\n", source("a"), source("b"));
    std::fs::write(&config, text).unwrap();
    let run = || {
        let own = ["settle", "prices", "--data", data.path(), "--once", "--config"];
        surety(&[own.as_slice(), &[config.to_str().unwrap()]].concat())
    };
    run().fails(1, "0 sources are fresh");
    say(&file("a"), "5e18");
    say(&file("b"), "6e18");
    run().fails(1, "near the median");
    say(&file("b"), "5.01e18");
    let fed = run().exits(0).json();
    assert_eq!((&fed["price"], &fed["shards"]), (&json!("5000000000000000000"), &json!(2)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shop = runtime.block_on(shop(&engine, &data));
    let lock =
        LockRequest { quote: QuoteId(840), ..LockRequest::new(PARTITION, Amount(1_000), MerchantId(4)) };
    assert_eq!(runtime.block_on(shop.send(lock)).unwrap().approved, Amount(200));
    std::fs::write(&config, rules.replace("quorum", "quorom")).unwrap();
    run().fails(2, "quorom");
}
