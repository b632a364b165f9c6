//! The history asked over the wire and over HTTP: the same answers at every door, to each what it may see, and a plain word where there is none.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use surety_client::{Client, Identity, QueryError};
use surety_protocol::QueryRefusal;

use crate::history::{catch_up, child, gauge, is_gone, keeper, load, start, until};
use crate::process::{Data, Engine, Front, send, spawn, surety};
use crate::rest::{PATIENT, Tenant, settings, stranger};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// A question over the wire, as the operator's reader.
fn query<'a>(data: &'a Data, words: &[&'a str]) -> Vec<&'a str> {
    [&["ctl", "--data", data.path(), "query"][..], words].concat()
}

/// The same as somebody else.
fn query_as<'a>(engine: &'a Engine, identity: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&["ctl", "--connect", engine.listen(), "--identity", identity, "query"][..], words].concat()
}

/// A line without what is another each time that it is asked for.
fn told_of(line: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else { return line.to_owned() };
    fields.remove("complete_before");
    fields.remove("cursor");
    Value::from(fields).to_string()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Makes an identity of the operator's that may lock and nothing else.
fn operators_authorizer(data: &Data, directory: &Path) {
    let out = directory.join("operator.pem");
    let own = ["cert", "client", "--data", data.path(), "--tenant", "0", "--role", "authorizer", "--out"];
    surety(&[&own[..], &[out.to_str().unwrap()]].concat()).exits(0);
}

#[test]
fn the_same_words_are_answered_alike_over_the_wire() {
    let data = Data::init(1);
    let engine = start(&data);
    load(&data);
    catch_up(&data);
    let capture = surety(&query(&data, &["records", "--kind", "capture", "--limit", "1", "--json"])).exits(0);
    let capture = lines(&capture.stdout).swap_remove(0);
    let [lock, partition] = ["lock", "partition"].map(|name| capture[name].as_str().unwrap());
    let merchant = capture["lock_after"]["merchant"].as_str().unwrap();
    // What the engine writes by itself would come between two questions.
    let until = surety(&["history", "statement", "--data", data.path(), partition, "--json"]).exits(0);
    let until = lines(&until.stdout)[0]["until"].as_str().unwrap().to_owned();
    for words in [
        &["records", "--kind", "capture", "--until", &until, "--limit", "7"][..],
        &["records", "--kind", "capture", "--until", &until, "--limit", "7", "--oldest-first", "--json"],
        &["locks", "--code", "APPROVED", "--until", &until, "--limit", "3"],
        &["open", "--by-deadline", "--until", &until],
        &["lock", lock],
        &["balances", partition, "--at", &until, "--json"],
        &["statement", partition, "--until", &until],
        &["statement", partition, "--until", &until, "--json"],
        &["statement", "--merchant", merchant, "--tenant", "1", "--until", &until],
    ] {
        let local = [&["history", words[0], "--data", data.path()][..], &words[1..]].concat();
        let [here, there] = [local, query(&data, words)].map(|args| surety(&args).exits(0).stdout);
        // How far the index is does not stand still, and no two cursors are alike.
        let told = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(told_of).collect();
            lines.retain(|line| !line.starts_with("more: "));
            lines
        };
        assert_eq!(told(&here), told(&there), "{words:?}");
        assert!(!told(&there).is_empty() || words[0] == "open", "{words:?}");
    }
    let status = surety(&query(&data, &["status", "--json"])).exits(0).json();
    assert_eq!((&status["ok"], &status["state"]), (&json!(true), &json!("following")));
    // Without a question it is the change stream, as ever.
    let stream = surety(&query(&data, &["--kind", "capture", "--limit", "2", "--json"])).exits(0).json();
    assert_eq!(stream, json!({"ok": true, "records": 2}));
    surety(&query(&data, &["lock", "0190a1b2-c3d4-7000-8000-000000000001"])).fails(1, "no lock");
    surety(&query(&data, &["--kind", "capture", "records"])).fails(2, "of the change stream");
    surety(&query(&data, &["records", "--limit", "1001"])).fails(2, "1 to 1000");
    surety(&query(&data, &["records", "--cursor", "x"])).fails(2, "cursor");
    let refused = surety(&query(&data, &["records", "--cursor", "x", "--json"])).exits(2).json();
    assert_eq!((&refused["ok"], &refused["exit"]), (&json!(false), &json!(2)));
    let many: Vec<String> = (1_000_000_000_u64..1_000_006_000).map(|merchant| merchant.to_string()).collect();
    let many: Vec<&str> = many.iter().flat_map(|merchant| ["--merchant", merchant]).collect();
    let question = query(&data, &[&["records"][..], &many].concat());
    surety(&question).fails(2, "may be asked");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn nobody_learns_of_another_tenant_over_the_wire() {
    let data = Data::init(1);
    let engine = start(&data);
    load(&data);
    catch_up(&data);
    let directory = tempfile::tempdir().unwrap();
    stranger(&data, directory.path());
    operators_authorizer(&data, directory.path());
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let own = data.file("pki/authorizer.pem").to_str().unwrap().to_owned();
    let (other, operator) = (file("two.pem"), file("operator.pem"));
    let as_own = |words: &[&str]| surety(&query_as(&engine, &own, words));
    let as_other = |words: &[&str]| surety(&query_as(&engine, &other, words));

    let page = as_own(&["records", "--kind", "capture", "--limit", "3", "--json"]).exits(0);
    let mine = lines(&page.stdout);
    assert!(mine.len() == 4 && mine[..3].iter().all(|row| row["tenant"] == 1), "{}", page.stdout);
    assert!(!page.stdout.contains("partition_after"), "a partition's money is no tenant's");
    let lock = mine[0]["lock"].as_str().unwrap();
    let merchant = mine[0]["lock_after"]["merchant"].as_str().unwrap().to_owned();
    let cursor = mine[3]["cursor"].as_str().unwrap();
    as_own(&["lock", lock]).exits(0);
    let statement = as_own(&["statement", "--merchant", &merchant]).exits(0).stdout;
    assert!(statement.lines().last().unwrap().starts_with("closing,"), "{statement}");

    // By id, by merchant, by the tenant's number, behind a cursor of the other's: it is as if nothing were there.
    as_other(&["lock", lock]).fails(1, "no lock");
    for words in [
        &["records", "--limit", "1000"][..],
        &["records", "--lock", lock],
        &["records", "--tenant", "1"],
        &["records", "--merchant", &merchant],
        &["locks", "--merchant", &merchant],
        &["locks", "--lock", lock],
        &["open"],
    ] {
        let found = as_other(&[words, &["--json"]].concat()).exits(0);
        let last = found.json();
        assert_eq!(
            (&last["rows"], found.stdout.lines().count()),
            (&json!(0), 1),
            "{words:?}: {}",
            found.stdout
        );
    }
    let behind = as_other(&["records", "--kind", "capture", "--limit", "3", "--cursor", cursor, "--json"]);
    assert!(behind.exit == 2 || behind.json()["rows"] == 0, "{}", behind.stdout);
    let statement = as_other(&["statement", "--merchant", &merchant, "--json"]).exits(0);
    assert_eq!(statement.json()["lines"], 0, "its own merchant of this number has no lines");
    // What it asks for on behalf of another is refused before anybody looks.
    as_other(&["records", "--of", "1"]).fails(10, "tenant 1");
    as_other(&["records", "--of", "0"]).fails(10, "tenant 0");
    as_other(&["statement", "--merchant", &merchant, "--tenant", "1"]).exits(10);
    for identity in [&own, &other] {
        for words in [&["balances", "0:1"][..], &["statement", "0:1"], &["status"]] {
            surety(&query_as(&engine, identity, words)).exits(10);
        }
    }
    surety(&query_as(&engine, &operator, &["records"])).fails(10, "reader, settler or admin");
    // The operator sees it as whoever it names.
    let seen = surety(&query(&data, &["locks", "--of", "2", "--json"])).exits(0).json();
    assert_eq!(seen["rows"], 0);
    let seen = surety(&query(&data, &["locks", "--of", "1", "--limit", "2", "--json"])).exits(0).json();
    assert_eq!(seen["rows"], 2);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn what_does_not_read_is_told_over_the_wire() {
    let data = Data::init(1);
    let engine = start(&data);
    let file = data.file("pki/authorizer.pem");
    let ask = async |client: &Client, document: &str| match client.query(document.as_bytes()).await {
        Ok(answer) => Ok(serde_json::from_slice::<Value>(&answer).unwrap()),
        Err(QueryError::Refused { why, message }) => Err((why, message)),
        Err(error) => panic!("{document}: {error}"),
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let identity = Identity::from_file(&file).unwrap();
        let client = Client::connect(engine.listen().parse().unwrap(), identity).await.unwrap();
        let begun = Instant::now();
        while let Err((why, message)) = ask(&client, r#"{"ask":{"locks":{}}}"#).await {
            assert!(why == QueryRefusal::Away && begun.elapsed() < PATIENCE, "{why:?}: {message}");
            assert!(
                !message.contains(data.path()),
                "where the engine's files are is not a tenant's to know: {message}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for of in ["", r#""of":null,"#, r#""of":1,"#] {
            let answer = ask(&client, &format!(r#"{{{of}"ask":{{"locks":{{}}}}}}"#)).await.unwrap();
            assert_eq!(answer["ok"]["rows"], json!([]), "{of}");
        }
        for (document, why) in [
            ("garbage", QueryRefusal::Malformed),
            ("", QueryRefusal::Malformed),
            ("{}", QueryRefusal::Malformed),
            (r#"{"ask":{"locks":{"colour":["red"]}}}"#, QueryRefusal::Malformed),
            (r#"{"of":2,"ask":{"locks":{}}}"#, QueryRefusal::Forbidden),
            (r#"{"of":0,"ask":{"locks":{}}}"#, QueryRefusal::Forbidden),
        ] {
            let (found, message) = ask(&client, document).await.unwrap_err();
            assert_eq!(found, why, "{document}: {message}");
        }
        // What the history itself has to say comes as its own document.
        for (document, code) in [
            (r#"{"ask":{"locks":{"lock":["x"]}}}"#, "malformed"),
            (r#"{"ask":{"locks":{"limit":0}}}"#, "malformed"),
            (r#"{"ask":{"status":{}}}"#, "forbidden"),
        ] {
            let answer = ask(&client, document).await.unwrap();
            assert_eq!(answer["error"]["code"], code, "{document}: {answer}");
        }
        client.shutdown().await;
    });
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// A field as it is written in a question.
fn words_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The locks that are meant, out of all.
fn meant<'a>(all: &'a [Value], conditions: &[(&str, String)]) -> Vec<&'a Value> {
    let amount = |text: &str| text.parse::<u128>().unwrap();
    let holds = |lock: &Value, name: &str, wanted: &str| match name {
        "amount_min" => amount(lock["asked"].as_str().unwrap()) >= amount(wanted),
        "amount_max" => amount(lock["asked"].as_str().unwrap()) <= amount(wanted),
        // Moments are written so that their texts are in their order.
        "from" => lock["created"].as_str().unwrap() >= wanted,
        "until" => lock["created"].as_str().unwrap() < wanted,
        name => words_of(&lock[name]) == wanted,
    };
    all.iter().filter(|lock| conditions.iter().all(|(name, wanted)| holds(lock, name, wanted))).collect()
}

#[test]
fn each_condition_means_the_same_at_every_door() {
    let data = Data::init(1);
    let engine = start(&data);
    let load = ["load", "--data", data.path(), "--scenario", "tap", "--duration", "1s", "--rate", "300"];
    surety(&load).exits(0);
    catch_up(&data);
    let directory = tempfile::tempdir().unwrap();
    let reader = data.file("pki/reader.pem").to_str().unwrap().to_owned();
    let tenant = Tenant::new(Some(&reader));
    let front = Front::start(&data, &settings(directory.path(), "", PATIENT, std::slice::from_ref(&tenant)));
    let listed = |args: &[&str]| {
        let listed = surety(&[args, &["--limit", "1000", "--json"]].concat()).exits(0);
        assert_ne!(listed.json()["has_more"], true, "more than a page");
        let mut locks = lines(&listed.stdout);
        locks.pop();
        locks
    };
    let all = listed(&["history", "locks", "--data", data.path()]);
    let sample = |name: &str| words_of(&all[all.len() / 2][name]);
    let mut conditions: Vec<(&str, String)> =
        ["lock", "merchant", "payee", "partition", "tenant", "code", "state"]
            .map(|name| (name, sample(name)))
            .to_vec();
    conditions.extend([("amount_min", sample("asked")), ("amount_max", sample("asked"))]);
    let newest = words_of(&all[0]["created"]);
    conditions.extend([("from", sample("created")), ("until", newest)]);
    // Each alone, each beside the next, and those that are true of the sample together.
    let mut combinations: Vec<&[(&str, String)]> =
        conditions.chunks(1).chain(conditions.windows(2)).collect();
    combinations.push(&conditions[1..]);
    for conditions in combinations {
        let expected = meant(&all, conditions);
        let flags: Vec<String> = conditions
            .iter()
            .flat_map(|(name, value)| [format!("--{}", name.replace('_', "-")), value.clone()])
            .collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let local = listed(&[&["history", "locks", "--data", data.path()][..], &flags].concat());
        assert_eq!(local.iter().collect::<Vec<_>>(), expected, "{conditions:?}");
        let wire = listed(&[&query(&data, &["locks"])[..], &flags].concat());
        assert_eq!(wire.iter().collect::<Vec<_>>(), expected, "{conditions:?} over the wire");
        let asked: Vec<String> = conditions.iter().map(|(name, value)| format!("&{name}={value}")).collect();
        let told = get(&front, &tenant, &format!("/v1/history/locks?limit=1000{}", asked.concat()), "*/*");
        assert_eq!(told.json()["rows"], json!(expected), "{conditions:?} over HTTP: {}", told.body);
    }
    // What is said of a shard itself is in no partition.
    let own = ["records", "--partition", "0:0"];
    assert!(!listed(&query(&data, &own)).is_empty());
    // Kinds and suppliers are of records.
    let records = listed(&["history", "records", "--data", data.path(), "--kind", "deposit"]);
    let supplier = words_of(&records[0]["supplier"]);
    let of = |record: &&Value| record["supplier"] == supplier.as_str();
    let expected: Vec<&Value> = records.iter().filter(of).collect();
    let flags = ["records", "--kind", "deposit", "--supplier", &supplier];
    assert_eq!(listed(&query(&data, &flags)).iter().collect::<Vec<_>>(), expected, "over the wire");
    let path = format!("/v1/history/records?limit=1000&kind=deposit&supplier={supplier}");
    assert_eq!(get(&front, &tenant, &path, "*/*").json()["rows"], json!(expected), "over HTTP");
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_history_that_is_not_there_is_said_not_to_be() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    surety(&query(&data, &["locks"])).fails(10, "nobody keeps the history");
    let refused = surety(&query(&data, &["locks", "--json"])).exits(10).json();
    assert_eq!((&refused["ok"], &refused["exit"]), (&json!(false), &json!(10)));
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&query(&data, &["locks"])).exits(9);
}

#[test]
fn an_engine_answers_by_a_history_that_is_a_service_beside_it() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let mut kept = keeper(&data);
    load(&data);
    catch_up(&data);
    let locks = surety(&query(&data, &["locks", "--limit", "2", "--json"])).exits(0);
    assert_eq!(locks.json()["rows"], 2);
    // It was there, and may be again: that is no engine without a history.
    kept.0.kill().unwrap();
    kept.0.wait().unwrap();
    surety(&query(&data, &["locks"])).fails(9, "not there now");
    let mut kept = keeper(&data);
    until("it is not asked again", || {
        let asked = surety(&query(&data, &["status", "--json"]));
        (asked.exit == 0).then_some(())
    });
    // It was sent away: nobody keeps it, until somebody does again.
    let directory = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(None);
    let front = Front::start(&data, &settings(directory.path(), "", PATIENT, std::slice::from_ref(&tenant)));
    send(&kept.0, Signal::TERM);
    assert!(kept.0.wait().unwrap().success());
    surety(&query(&data, &["locks"])).fails(10, "nobody keeps the history");
    let own = data.file("pki/authorizer.pem").to_str().unwrap().to_owned();
    let refused = surety(&query_as(&engine, &own, &["locks"])).fails(10, "nobody keeps a history");
    assert!(!refused.stderr.contains(data.path()), "{}", refused.stderr);
    let told = get(&front, &tenant, "/v1/history/locks", "*/*");
    assert_eq!(told.json()["retryable"], json!(false), "{}", told.body);
    told.is(404, "NO_HISTORY");
    let mut kept = keeper(&data);
    until("it is not asked again", || {
        let told = get(&front, &tenant, "/v1/history/locks?limit=1", "*/*");
        (told.status == 200).then_some(())
    });
    front.terminate();
    kept.0.kill().unwrap();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_history_that_is_killed_in_mid_question_is_said_to_be_away_and_comes_back() {
    let data = Data::init(1);
    let engine = start(&data);
    load(&data);
    catch_up(&data);
    let keeper = child(&engine);
    // It takes the question, and does not come to answer it.
    kill_process(keeper, Signal::STOP).unwrap();
    let asked = || gauge(&engine, "surety_queries_total{shard=\"0\"}");
    let before = asked();
    let asker = spawn(&query(&data, &["locks", "--json"]));
    until("nobody asks", || (asked() != before).then_some(()));
    kill_process(keeper, Signal::KILL).unwrap();
    let ended = asker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(9), "{}", String::from_utf8_lossy(&ended.stderr));
    // Payments have gone on, and so do questions once it is there again.
    load(&data);
    until("it does not come back", || {
        assert!(is_gone(keeper));
        (surety(&query(&data, &["locks", "--limit", "1"])).exit == 0).then_some(())
    });
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// A reply of a front door, read by hand.
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Where it says that it goes on.
    fn next(&self) -> Option<String> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with("link: "))?;
        let (address, _) = line.split_once('<')?.1.split_once('>')?;
        assert!(line.ends_with("rel=\"next\""), "{line}");
        Some(address.to_owned())
    }

    #[track_caller]
    fn is(self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("application/problem+json"), "{}", self.head);
        assert_eq!(self.json()["code"], code, "{}", self.body);
    }
}

fn get(front: &Front, tenant: &Tenant, path: &str, accept: &str) -> Told {
    let mut stream = TcpStream::connect(front.ready["rest"].as_str().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: door\r\nConnection: close\r\nAccept: {accept}\r\nAuthorization: Bearer {}\r\n\r\n",
        tenant.token
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Told { status, head: head.to_owned(), body: body.to_owned() }
}

#[test]
fn applications_ask_over_http_and_see_their_own() {
    let data = Data::init(1);
    let engine = start(&data);
    load(&data);
    let directory = tempfile::tempdir().unwrap();
    stranger(&data, directory.path());
    catch_up(&data);
    let reader = data.file("pki/reader.pem").to_str().unwrap().to_owned();
    let tenants = [Tenant::new(None), Tenant::new(Some("two.pem")), Tenant::new(Some(&reader))];
    let front = Front::start(&data, &settings(directory.path(), "", PATIENT, &tenants));
    let [own, other, operator] = &tenants;
    let ask = |tenant, path: &str| get(&front, tenant, path, "*/*");
    let found = |tenant, path: &str| {
        let told = ask(tenant, path);
        assert_eq!(told.status, 200, "{path}: {}", told.body);
        told.json()
    };
    let rows = |value: &Value| value["rows"].as_array().unwrap().clone();

    // Page by page, by the addresses that pages give.
    let mut seqs = Vec::new();
    let mut next = Some("/v1/history/records?kind=capture&order=oldest_first&limit=1000".to_owned());
    while let Some(path) = next {
        let told = ask(own, &path);
        assert_eq!(told.status, 200, "{}", told.body);
        next = told.next();
        assert_eq!(next.is_some(), told.json()["has_more"].as_bool().unwrap());
        seqs.extend(rows(&told.json()).iter().map(|row| row["seq"].as_u64().unwrap()));
    }
    assert!(seqs.is_sorted() && !seqs.is_empty());
    let stream = surety(&query(&data, &["--kind", "capture", "--json"])).exits(0).stdout;
    let captures = lines(&stream).into_iter().filter_map(|record| record["seq"].as_u64());
    assert_eq!(captures.collect::<Vec<_>>(), seqs, "every capture of the change stream, once");

    let page = found(own, "/v1/history/locks?code=APPROVED&limit=1");
    let lock = rows(&page)[0].clone();
    let (id, merchant) = (lock["lock"].as_str().unwrap(), lock["merchant"].as_str().unwrap());
    let partition = lock["partition"].as_str().unwrap();
    let shown = found(own, &format!("/v1/history/locks/{id}?partition={partition}"));
    assert_eq!((&shown["locks"][0], rows(&shown).is_empty()), (&lock, false));
    found(own, "/v1/history/open?by=deadline");

    // The lines of a statement are one file, however many pages there are.
    let path = format!("/v1/history/statements/merchants/{merchant}");
    let whole = get(&front, own, &format!("{path}?limit=1000"), "text/csv");
    assert!(whole.status == 200 && whole.head.contains("text/csv"), "{}", whole.body);
    let end = found(own, &path)["until"].as_str().unwrap().to_owned();
    let mut file = String::new();
    let mut next = Some(format!("{path}?format=csv&limit=3&until={end}"));
    while let Some(path) = next {
        let told = ask(own, &path);
        assert_eq!(told.status, 200, "{}", told.body);
        next = told.next();
        file += &told.body;
    }
    let own_identity = data.file("pki/authorizer.pem").to_str().unwrap().to_owned();
    let told =
        surety(&query_as(&engine, &own_identity, &["statement", "--merchant", merchant, "--until", &end]));
    assert_eq!(file, told.exits(0).stdout, "as the command line has it");
    assert!(file.lines().count() > 3 && file.lines().last().unwrap().starts_with("closing,"), "{file}");

    // Another tenant sees nothing of it, whatever it asks for.
    for path in ["records", "locks", "open"].iter().flat_map(|what| {
        let conditions = ["", "?tenant=1", &format!("?merchant={merchant}"), &format!("?lock={id}")];
        conditions.map(|condition| format!("/v1/history/{what}{condition}"))
    }) {
        assert_eq!(rows(&found(other, &path)), Vec::<Value>::new(), "{path}");
    }
    ask(other, &format!("/v1/history/locks/{id}")).is(404, "UNKNOWN_LOCK");
    ask(other, &format!("{path}?tenant=1")).is(403, "FORBIDDEN");
    let cursor = found(own, "/v1/history/records?limit=1")["cursor"].as_str().unwrap().to_owned();
    let told = ask(other, &format!("/v1/history/records?limit=1&cursor={cursor}"));
    assert!(told.status == 400 || rows(&told.json()).is_empty(), "{}", told.body);
    let [balances, statement] =
        ["balances", "statements/partitions"].map(|what| format!("/v1/history/{what}/{partition}"));
    for path in [&balances, &statement, "/v1/history/status"] {
        for tenant in [own, other] {
            ask(tenant, path).is(403, "FORBIDDEN");
        }
        assert_eq!(ask(operator, path).status, 200, "{path}");
    }
    let free = surety(&["history", "balances", "--data", data.path(), partition, "--json"]).exits(0).json();
    assert_eq!(found(operator, &balances)["balances"]["free"], free["free"]);
    ask(operator, &format!("{balances}?at=2020-01-01T00:00:00Z")).is(404, "UNKNOWN_PARTITION");
    for never in ["0:99", "9:1"] {
        ask(operator, &format!("/v1/history/balances/{never}")).is(404, "UNKNOWN_PARTITION");
        ask(operator, &format!("/v1/history/statements/partitions/{never}")).is(404, "UNKNOWN_PARTITION");
        ask(own, &format!("/v1/history/statements/partitions/{never}")).is(403, "FORBIDDEN");
        for what in ["balances", "statement"] {
            for words in [
                ["history", what, "--data", data.path(), never].as_slice(),
                &["ctl", "--data", data.path(), "query", what, never],
            ] {
                surety(words).fails(1, &format!("there is no partition {never}"));
            }
        }
    }

    for (path, param) in [
        ("records?colour=red", "colour"),
        ("records?limit=0", "query"),
        ("records?limit=x", "limit"),
        ("records?limit=1&limit=2", "limit"),
        ("records?of=1", "of"),
        ("records?cursor=x", "query"),
        ("records?state=asleep", "query"),
        ("locks?supplier=x", "supplier"),
        ("locks/x", "id"),
        ("balances/x", "partition"),
        ("statements/merchants/x", "merchant"),
        ("statements/merchants/7?format=xml", "format"),
    ] {
        let told = ask(own, &format!("/v1/history/{path}"));
        assert_eq!((told.status, told.json()["param"].as_str()), (400, Some(param)), "{path}: {}", told.body);
    }
    let early = ask(own, "/v1/history/statements/merchants/7?until=2100-01-01T00:00:00Z");
    assert_eq!(early.json()["retryable"], json!(false), "{}", early.body);
    early.is(409, "NOT_COMPLETE");
    // The first moment there is is one, at each door.
    ask(operator, &format!("{balances}?at=1970-01-01T00:00:00Z")).is(404, "UNKNOWN_PARTITION");
    for words in [
        &["history", "balances", "--data", data.path(), partition][..],
        &["ctl", "--data", data.path(), "query", "balances", partition],
    ] {
        let at = |moment| surety(&[words, &["--at", moment]].concat());
        at("1970-01-01T00:00:00Z").fails(1, "was not there at 1970");
        at("2100-01-01T00:00:00Z").fails(2, "earlier moment");
    }
    let no_token = Tenant::new(None);
    ask(&no_token, "/v1/history/records").is(401, "UNAUTHENTICATED");

    // Without its keeper it is away for a moment; locks are listed as ever.
    let keeper = child(&engine);
    kill_process(keeper, Signal::STOP).unwrap();
    kill_process(keeper, Signal::KILL).unwrap();
    until("it is not missed", || (ask(own, "/v1/history/locks?limit=1").status == 503).then_some(()));
    assert_eq!(ask(own, "/v1/locks?limit=1").status, 200);
    until("it does not come back", || (ask(own, "/v1/history/locks?limit=1").status == 200).then_some(()));
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

#[test]
fn a_front_door_before_an_engine_without_a_history_says_so() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    let directory = tempfile::tempdir().unwrap();
    let tenant = Tenant::new(None);
    let front = Front::start(&data, &settings(directory.path(), "", PATIENT, std::slice::from_ref(&tenant)));
    for path in ["records", "open", "statements/merchants/7"] {
        get(&front, &tenant, &format!("/v1/history/{path}"), "*/*").is(404, "NO_HISTORY");
    }
    front.terminate();
    assert_eq!(engine.terminate(Signal::TERM), 0);
}
