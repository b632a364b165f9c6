//! What became of a stake: the engine's records, its look-up and the published batches say the same, and a file that was altered
//! says nothing.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use alloy_primitives::B256;
use chain::DigestSigner;
use chain::bindings::Manager;
use serde_json::{Value, json};
use settlement::Statement;
use settler::{BatchFile, BatchFileError, BatchStake, BatchesError, Config, Report, Settler};
use surety_protocol::{Seq, ShardId, StateKind, StateQuery, SupplierRow};
use world::{ALICE, OWNER, PARTITION, TOKENS, World, address, key};

/// Supply, reward, loss and a part of an exit, all of it in batches.
async fn eventful() -> (World, Settler) {
    let mut world = World::new().await;
    world.fill_purse(OWNER);
    let config = Config { treasury: Some(key(OWNER).address()), ..world.config() };
    let mut settler = world.try_settler(config).await.unwrap();
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    world.settle_all(&mut settler).await;
    world.supply(OWNER, 1, 50 * TOKENS);
    world.settle_until_credited(&mut settler, 1050 * TOKENS).await;
    let lock = world.lock(120 * TOKENS).await;
    world.consume(lock, 120 * TOKENS).await;
    world.settle_all(&mut settler).await;
    let partition = B256::from(world.onchain(1));
    world.manage(ALICE, Manager::requestExitCall { partition });
    let is_answered =
        |_: &World, settler: &Settler, _: &Report| settler.sealer().netting().exit_nonce(PARTITION) == 1;
    world.settle_until(&mut settler, is_answered).await.unwrap();
    world.settle_all(&mut settler).await;
    (world, settler)
}

/// A statement of the engine's own stream up to a seq.
async fn statement(world: &World, until: Seq) -> Statement {
    let mut statement = Statement::new(1, address(ALICE));
    let mut tail = world.admin.tail(ShardId(0), Seq(1));
    while statement.positions().0[0] < until {
        let (seq, record) = tail.next().await.unwrap();
        statement.read(ShardId(0), seq, &record).unwrap();
    }
    statement
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_look_up_and_batches_say_the_same() {
    let (world, settler) = eventful().await;
    let last = settler.progress().0;
    let mut before: Option<BatchFile> = None;
    let mut paid_out = 0;
    for number in 1..=last {
        let published = world.published(Some(number));
        let file = BatchFile::from_json(published.to_json().to_string().as_bytes()).unwrap();
        assert_eq!((file.batch, &file.positions), (published.batch, &published.positions));
        assert!(before.is_none_or(|before| before.is_followed_by(&file)));
        let until = file.positions.0[0];
        let told = file.stakes(key(ALICE).address()).get(&world.onchain(1)).copied().unwrap_or_default();
        let sum = statement(&world, until).await.sums().next().map(|(_, sum)| sum).unwrap_or_default();
        assert!(sum.adds_up());
        assert_eq!(
            told,
            BatchStake { units: sum.stake.units, paid_out: sum.stake.paid_out },
            "batch {number}"
        );
        paid_out = told.paid_out;
        before = Some(file);
    }
    // 50 were gained and 120 lost.
    assert!(paid_out.abs_diff(930 * TOKENS) < 10, "{paid_out}");

    let end = world.admin.lookup(PARTITION, world.admin.new_id(), true).await.unwrap().seq;
    let statement = statement(&world, end).await;
    let (_, sum) = statement.sums().next().unwrap();
    let query = StateQuery { partition: PARTITION, ..StateQuery::new(ShardId(0), StateKind::Suppliers) };
    let rows: Vec<SupplierRow> = world.admin.state(query).await.unwrap().all().await.unwrap();
    let row = rows.iter().find(|row| row.supplier == address(ALICE));
    let known = row.map_or((0, 0, 0), |row| (row.units.0, row.queued.0, row.value.0));
    assert_eq!((sum.stake.units, sum.stake.queued, sum.stake.value), known);
    assert_eq!((sum.supplied, sum.adds_up()), (1000 * TOKENS, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_altered_batch_is_believed() {
    let (world, _settler) = eventful().await;
    let sound = world.published(None).to_json();
    let read = |value: &Value| BatchFile::from_json(value.to_string().as_bytes());
    assert!(read(&sound).is_ok());
    let alter = |change: &dyn Fn(&mut Value), error| {
        let mut altered = sound.clone();
        change(&mut altered);
        assert_eq!(read(&altered), Err(error));
    };
    alter(&|file| file["batch"]["sumLocked"] = json!("1"), BatchFileError::Head);
    alter(&|file| file["head"] = json!(B256::ZERO.to_string()), BatchFileError::Head);
    alter(
        &|file| file["join"]["consumedRoot"] = json!(B256::repeat_byte(1).to_string()),
        BatchFileError::Join,
    );
    alter(&|file| file["positions"][0] = json!("1"), BatchFileError::Join);
    alter(&|file| file["positions"] = Value::Null, BatchFileError::Field("positions"));
    alter(&|file| file["partitions"][0]["locked"] = json!("1"), BatchFileError::Leaves("partitions"));
    alter(&|file| file["partitions"] = json!([]), BatchFileError::Leaves("partitions"));
    alter(&|file| file["suppliers"][0]["units"] = json!("1"), BatchFileError::Leaves("suppliers"));
    alter(&|file| file["suppliers"][0]["paidOut"] = json!("1"), BatchFileError::Leaves("suppliers"));
    alter(&|file| file["suppliers"] = json!([]), BatchFileError::Leaves("suppliers"));
    alter(&|file| file["suppliers"][0]["units"] = json!(1), BatchFileError::Field("units"));
    assert_eq!(BatchFile::from_json(b"{"), Err(BatchFileError::Format));
    assert_eq!(BatchFile::from_json(b"{}"), Err(BatchFileError::Field("seq")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_batches_has_no_gap() {
    let (world, settler) = eventful().await;
    let last = settler.progress().0;
    let directory = tempfile::tempdir().unwrap();
    let file = |number: u64| directory.path().join(format!("batch-{number}.json"));
    assert!(matches!(BatchFile::read_all(directory.path()), Err(BatchesError::None(_))));
    for number in 1..=last {
        std::fs::write(file(number), world.published(Some(number)).to_json().to_string()).unwrap();
    }
    std::fs::write(directory.path().join("batch-.json"), "not one of them").unwrap();
    let read = || BatchFile::read_all(directory.path());
    assert_eq!(read().unwrap().len() as u64, last);
    assert!(last > 3, "there is something between");
    // The first ones may be elsewhere.
    std::fs::remove_file(file(1)).unwrap();
    assert_eq!(read().unwrap().len() as u64, last - 1);
    let third = std::fs::read(file(3)).unwrap();
    std::fs::remove_file(file(3)).unwrap();
    assert!(matches!(read(), Err(BatchesError::Missing(path)) if path == file(3)));
    std::fs::copy(file(2), file(3)).unwrap();
    assert!(matches!(read(), Err(BatchesError::Misnamed { found: 2, .. })));
    std::fs::write(file(3), &third[..third.len() - 9]).unwrap();
    let error = BatchFileError::Format;
    assert!(matches!(read(), Err(BatchesError::File { error: found, .. }) if found == error));
    // Sound by itself, of another history.
    let (other, _settler) = eventful().await;
    std::fs::write(file(3), other.published(Some(3)).to_json().to_string()).unwrap();
    assert!(matches!(read(), Err(BatchesError::OtherChain(path)) if path == file(3)));
}
