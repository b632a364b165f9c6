//! Locks and what happens to them: amounts, repeats, declines, and who may see them.

use serde_json::{Value, json};
use surety_client::protocol::{Amount, Code, Id, LockBody, Record, Roles, Time};

use crate::house::{AMP, House, connect, key};
use crate::stage;

#[tokio::test]
async fn a_payment_from_lock_to_settlement() {
    let house = House::new().await;
    let (app, partition) = (&house.app, house.partitions[0]);
    let lock_key = key(&house.operator);
    let lock = app.lock(partition, &lock_key, "25.001").await.expect(200);
    // Locks round up.
    let shown = json!({"status": "approved", "state": "live", "amount": "25.01", "remaining": "25.01"});
    for (name, value) in shown.as_object().unwrap() {
        assert_eq!(&lock[name], value, "{lock}");
    }
    assert_eq!(lock["id"], lock_key.as_str());
    let path = format!("/v1/locks/{lock_key}");
    let amount = |amount: &str| json!({"amount": amount, "asset": "AMP"});
    let increase = json!({"total": "30", "asset": "AMP", "version": lock["version"]});
    let raised = app.post(&format!("{path}/increase"), &key(&house.operator), increase).await.expect(200);
    assert_eq!((&raised["amount"], &raised["remaining"]), (&json!("4.99"), &json!("30.00")));
    // Captures round down.
    let capture_key = key(&house.operator);
    let capture = app.post(&format!("{path}/capture"), &capture_key, amount("20.009")).await;
    assert!(!capture.is_replayed());
    let capture = capture.expect(200);
    assert_eq!((&capture["amount"], &capture["remaining"]), (&json!("20.00"), &json!("10.00")));
    let again = app.post(&format!("{path}/capture"), &capture_key, amount("20.009")).await;
    assert!(again.is_replayed());
    assert_eq!(again.expect(200), capture);
    let refund = json!({"capture": capture["capture"], "amount": "5.5", "asset": "AMP"});
    let refund = app.post(&format!("{path}/refund"), &key(&house.operator), refund).await.expect(200);
    assert_eq!((&refund["amount"], &refund["status"]), (&json!("5.50"), &json!("approved")));
    let (release_path, release_key) = (format!("{path}/release"), key(&house.operator));
    let release =
        app.send("POST", &release_path, &[("Idempotency-Key", &release_key)], None).await.expect(200);
    assert_eq!((&release["amount"], &release["state"]), (&json!("10.00"), &json!("final")));
    let settle = app.post(&format!("{path}/settle"), &key(&house.operator), json!({})).await.expect(200);
    assert_eq!((&settle["amount"], &settle["state"]), (&json!("14.50"), &json!("settled")));
    let shown = app.get(&path).await.expect(200);
    assert_eq!((&shown["state"], &shown["merchant"]), (&json!("settled"), &json!(501)));
    let money = app.get(&format!("/v1/partitions/{partition}")).await.expect(200);
    assert_eq!(
        (&money["free"], &money["held"], &money["captured"]),
        (&json!("1000.00"), &json!("0.00"), &json!("0.00"))
    );
    // Of another payment the payer's asset fails.
    let failing = key(&house.operator);
    let sale = json!({"partition": partition.to_string(), "amount": "7", "asset": "AMP", "merchant": 9, "sale": true});
    assert_eq!(app.post("/v1/locks", &failing, sale).await.expect(200)["state"], "final");
    let consume =
        app.post(&format!("/v1/locks/{failing}/consume"), &key(&house.operator), json!({"capture": 0})).await;
    assert_eq!(consume.expect(200)["amount"], "7.00");
    assert_eq!(app.get(&format!("/v1/partitions/{partition}")).await.expect(200)["owed"], "7.00");
    house.close().await;
}

#[tokio::test]
async fn a_key_means_one_request_for_ever() {
    let house = House::new().await;
    let (app, [one, two]) = (&house.app, [house.partitions[0], house.partitions[1]]);
    let used = key(&house.operator);
    let first = app.lock(one, &used, "10").await.expect(200);
    let again = app.lock(one, &used, "10.00").await;
    assert!(again.is_replayed(), "10 and 10.00 are the same");
    assert_eq!(again.expect(200)["amount"], first["amount"]);
    app.lock(one, &used, "11").await.problem(409, "ID_CONFLICT");
    app.lock(two, &used, "10").await.problem(409, "ID_CONFLICT");
    let capture = json!({"amount": "1", "asset": "AMP"});
    app.post(&format!("/v1/locks/{used}/capture"), &used, capture.clone()).await.problem(409, "ID_CONFLICT");
    let held = async |partition: String| app.get(&format!("/v1/partitions/{partition}")).await.expect(200);
    assert_eq!(held(one.to_string()).await["held"], "10.00");
    assert_eq!(held(two.to_string()).await["held"], "0.00");
    // Also what another front door did, and what was done before this one was opened.
    let client = connect(&house.engine, stage::TENANT, Roles::AUTHORIZER).await;
    let elsewhere = client.new_id();
    let record =
        Record::new(surety_client::protocol::Kind::Lock, elsewhere, one, Amount(AMP), &LockBody::default());
    assert_eq!(client.submit(record).await.unwrap().code(), Code::Approved);
    app.until(&format!("/v1/locks/{elsewhere}"), |lock| lock["state"] == "live").await;
    app.lock(two, &elsewhere.to_string(), "1").await.problem(409, "ID_CONFLICT");
    let (door, [reopened, _]) = crate::house::open(&house.engine, crate::house::config()).await;
    reopened.lock(two, &used, "10").await.problem(409, "ID_CONFLICT");
    assert!(reopened.lock(one, &used, "10").await.is_replayed());
    door.stop().await;
    // Nothing was done under a key that was refused: it may be used with what was meant.
    let corrected = key(&house.operator);
    let body = |life_ms: u64| json!({"partition": one.to_string(), "amount": "1", "asset": "AMP", "merchant": 1, "life_ms": life_ms, "at_least": "0.5"});
    app.post(
        "/v1/locks",
        &corrected,
        json!({"partition": "0:99", "amount": "1", "asset": "AMP", "merchant": 1}),
    )
    .await
    .problem(404, "UNKNOWN_PARTITION");
    app.post("/v1/locks", &corrected, body(60_000)).await.expect(200);
    house.close().await;
}

#[tokio::test]
async fn a_decline_is_an_answer_and_stays_one() {
    let house = House::new().await;
    let (app, partition) = (&house.app, house.partitions[0]);
    let used = key(&house.operator);
    let declined = app.lock(partition, &used, "1000.01").await.expect(200);
    let shown = (&declined["status"], &declined["decline_code"], &declined["state"]);
    assert_eq!(shown, (&json!("declined"), &json!("INSUFFICIENT"), &json!("declined")));
    // More collateral does not turn it into an approval.
    let deposit =
        surety_client::request::deposit(partition, surety_client::protocol::Address([7; 20]), Amount(AMP), 2);
    stage::approved(house.operator.send(deposit).await.unwrap()).unwrap();
    let again = app.lock(partition, &used, "1000.01").await;
    assert!(again.is_replayed());
    assert_eq!(again.expect(200)["status"], "declined");
    let body = json!({"partition": partition.to_string(), "amount": "2000", "at_least": "5", "asset": "AMP", "merchant": 1});
    let part = app.post("/v1/locks", &key(&house.operator), body).await.expect(200);
    assert_eq!((&part["status"], &part["amount"]), (&json!("partial"), &json!("1001.00")));
    let shown = app.get(&format!("/v1/locks/{used}")).await.expect(200);
    assert_eq!((&shown["status"], &shown["state"]), (&json!("declined"), &json!("declined")));
    // A lock that is released before it comes never will be made.
    let early = key(&house.operator);
    let release = format!("/v1/locks/{early}/release?partition={partition}");
    assert_eq!(app.post(&release, &key(&house.operator), json!({})).await.expect(200)["state"], "tombstone");
    assert_eq!(app.lock(partition, &early, "1").await.expect(200)["decline_code"], "ALREADY_RELEASED");
    house.close().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_told_by_name() {
    let house = House::new().await;
    let (app, partition) = (&house.app, house.partitions[0].to_string());
    let sound = json!({"partition": partition, "amount": "1", "asset": "AMP", "merchant": 1});
    let changes: [(&str, Value, u16, &str, &str); 13] = [
        ("amount", json!("1e3"), 400, "AMOUNT", "amount"),
        ("amount", json!(1), 400, "JSON", ""),
        ("amount", json!("0"), 422, "AMOUNT", "amount"),
        ("amount", json!("-1"), 400, "AMOUNT", "amount"),
        ("amount", json!("99999999999999999"), 422, "AMOUNT", "amount"),
        ("at_least", json!("2"), 422, "AMOUNT", "at_least"),
        ("asset", json!("USD"), 422, "ASSET", "asset"),
        ("partition", json!("0:0"), 400, "PARAMETER", "partition"),
        ("partition", json!("9:1"), 404, "UNKNOWN_PARTITION", ""),
        ("merchant", json!(9_007_199_254_740_992_u64), 400, "PARAMETER", "merchant"),
        ("merchant", json!(-1), 400, "JSON", ""),
        ("payee", json!("somebody"), 400, "JSON", ""),
        ("category", json!(70_000), 400, "JSON", ""),
    ];
    for (field, value, status, code, param) in changes {
        let mut body = sound.clone();
        body[field] = value;
        let problem = app.post("/v1/locks", &key(&house.operator), body).await.problem(status, code);
        assert!(param.is_empty() || problem["param"] == param, "{problem}");
    }
    app.send("POST", "/v1/locks", &[], Some(&sound)).await.problem(400, "PARAMETER");
    app.post("/v1/locks", "not-a-key", sound.clone()).await.problem(400, "PARAMETER");
    let old = Id::from_parts(Time::from_secs(1_000_000_000), 1).to_string();
    app.post("/v1/locks", &old, sound.clone()).await.problem(422, "STALE_ID");
    let ahead = Id::from_parts(house.operator.now().plus(Time::from_secs(3600)), 1).to_string();
    app.post("/v1/locks", &ahead, sound.clone()).await.problem(422, "ID_FROM_FUTURE");
    let nobody = key(&house.operator);
    app.get(&format!("/v1/locks/{nobody}")).await.problem(404, "UNKNOWN_LOCK");
    app.get(&format!("/v1/locks/{nobody}?partition={partition}")).await.problem(404, "UNKNOWN_LOCK");
    app.get("/v1/locks/5").await.problem(400, "PARAMETER");
    app.get("/v1/locks?limit=0").await.problem(400, "PARAMETER");
    app.get("/v1/locks?state=odd").await.problem(400, "PARAMETER");
    app.get("/v1/locks?unknown=1").await.problem(400, "PARAMETER");
    app.get("/v1/nowhere").await.problem(404, "PATH");
    let wrong = app.send("DELETE", "/v1/locks", &[], None).await;
    assert!(wrong.header("allow").is_some_and(|methods| methods.contains("POST")), "{wrong:?}");
    wrong.problem(405, "METHOD");
    // Nothing of all that has taken anything.
    assert_eq!(app.get(&format!("/v1/partitions/{partition}")).await.expect(200)["free"], "1000.00");
    let consume = format!("/v1/locks/{nobody}/consume?partition={partition}");
    app.post(&consume, &key(&house.operator), json!({})).await.problem(400, "PARAMETER");
    house.close().await;
}

#[tokio::test]
async fn another_tenant_sees_nothing() {
    let house = House::new().await;
    let (app, other, partition) = (&house.app, &house.other, house.partitions[0]);
    let used = key(&house.operator);
    app.lock(partition, &used, "10").await.expect(200);
    app.until("/v1/events", |page| !page["events"].as_array().unwrap().is_empty()).await;
    other.get(&format!("/v1/locks/{used}")).await.problem(404, "UNKNOWN_LOCK");
    other.get(&format!("/v1/locks/{used}?partition={partition}")).await.problem(404, "UNKNOWN_PARTITION");
    other.get(&format!("/v1/locks/{used}/certificate")).await.problem(404, "UNKNOWN_LOCK");
    other.get(&format!("/v1/partitions/{partition}")).await.problem(404, "UNKNOWN_PARTITION");
    other.lock(partition, &key(&house.operator), "1").await.problem(404, "UNKNOWN_PARTITION");
    let release = format!("/v1/locks/{used}/release?partition={partition}");
    other.post(&release, &key(&house.operator), json!({})).await.problem(404, "UNKNOWN_PARTITION");
    assert_eq!(other.get("/v1/partitions").await.expect(200)["partitions"], json!([]));
    assert_eq!(other.get("/v1/locks").await.expect(200)["locks"], json!([]));
    assert_eq!(other.get("/v1/events").await.expect(200)["events"], json!([]));
    // Their key is theirs: the same one is no conflict that would tell of it.
    let theirs = other.lock(partition, &used, "10").await.problem(404, "UNKNOWN_PARTITION");
    assert_eq!(theirs["param"], "partition");
    assert_eq!(app.get("/v1/partitions").await.expect(200)["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(app.get(&format!("/v1/locks/{used}")).await.expect(200)["state"], "live");
    app.get(&format!("/v1/locks/{used}/certificate")).await.problem(503, "NO_CERTIFICATES");
    house.close().await;
}
