//! Questions about the state: what partitions, suppliers, withdrawals and tenants are like now, for those who may see it.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::sync::Arc;
use std::time::Instant;

use rig::{PATIENCE, Raw, Rig, TENANT, id, lock, partition};
use server::Durability;
use surety_client::{Client, Identity, Options};
use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, CloseCode, Code, FrameKind, GrantBody, Kind, PartitionBody,
    PartitionHandle, PartitionRow, Policy, Record, Rights, Roles, Seq, ShardId, StakeBody, StateHead,
    StateKind, StateQuery, StateRow, SupplierRow, TenantId, TenantRow, Time, WithdrawalRow, long,
    read_state_page,
};

fn asking(kind: StateKind) -> StateQuery {
    StateQuery { partition: partition(0), ..StateQuery::new(ShardId(0), kind) }
}

async fn page<R: StateRow>(raw: &mut Raw, query: StateQuery) -> (StateHead, Vec<R>) {
    raw.frame(FrameKind::StateQuery, 1, &query.to_bytes()).await.unwrap();
    let (header, body) = raw.receive().await.unwrap();
    assert_eq!(header.kind, FrameKind::State);
    read_state_page(&body).unwrap()
}

fn stake(kind: Kind, supplier: u8, nonce: u64, amount: u128) -> Record {
    let mut address = Address([0; 20]);
    address.0[19] = supplier;
    let body = StakeBody { supplier: address, nonce, ..StakeBody::default() };
    Record::new(kind, id(), partition(0), Amount(amount), &body)
}

#[tokio::test]
async fn a_partition_is_told_as_the_replies_have_left_it() {
    let rig = Rig::start(1);
    let mut authorizer = rig.authorizer(0).await;
    let mut reader = rig.operator("reader", 0).await;
    let (_, before) = page::<PartitionRow>(&mut reader, asking(StateKind::Partitions)).await;
    let locked = lock(0);
    let (reply, _) = authorizer.ask(locked).await.unwrap();
    assert_eq!(reply.code(), Code::Approved);
    let (head, after) = page::<PartitionRow>(&mut reader, asking(StateKind::Partitions)).await;
    assert!(head.seq >= reply.seq && head.has_more == 0);
    let [before, after] = [before[0], after[0]];
    assert_eq!((before.held, after.held), (Amount(0), reply.approved));
    assert_eq!(after.free, reply.free, "the reply and the state say the same");
    assert_eq!(after.collateral, Amount(1_000_000_000_000));
    assert_eq!(
        PartitionRow { held: before.held, free: before.free, ..after },
        before,
        "nothing else has moved"
    );
    // Behind the last handle there is nothing.
    let behind =
        StateQuery { partition: PartitionHandle(partition(0).0 + 1), ..asking(StateKind::Partitions) };
    assert!(page::<PartitionRow>(&mut reader, behind).await.1.is_empty());
}

#[tokio::test]
async fn long_lists_come_in_pages_without_a_gap() {
    let rig = Rig::start(1);
    let mut settler = rig.operator("settler", 0).await;
    for supplier in 1..=9 {
        settler.order(&[stake(Kind::Deposit, supplier, 100 + u64::from(supplier), 1_000)]).await;
    }
    let mut admin = rig.operator("admin", 0).await;
    let policy =
        surety_protocol::Policy { unbonding: surety_protocol::Time::from_secs(3600), ..Default::default() };
    admin.order(&long::split(Kind::Policy, id(), partition(0), 0, &policy.to_bytes())).await;
    let mut reader = rig.operator("reader", 0).await;
    let mut suppliers: Vec<SupplierRow> = Vec::new();
    let mut next = Some(StateQuery { limit: 4, ..asking(StateKind::Suppliers) });
    let mut pages = 0;
    while let Some(query) = next {
        let (head, rows) = page::<SupplierRow>(&mut reader, query).await;
        assert_eq!(head.has_more == 1, pages < 2, "ten suppliers in pages of four");
        next = rows.last().and_then(|last| last.after(query)).filter(|_| head.has_more == 1);
        suppliers.extend(rows);
        pages += 1;
    }
    let mut addresses: Vec<Address> = suppliers.iter().map(|row| row.supplier).collect();
    assert_eq!((addresses.len(), pages), (10, 3));
    assert!(addresses.is_sorted());
    addresses.dedup();
    assert_eq!(addresses.len(), 10);

    for row in &suppliers[..3] {
        let body = StakeBody { supplier: row.supplier, ..StakeBody::default() };
        let record = Record::new(Kind::Withdraw, id(), partition(0), row.units, &body);
        let (reply, _) = settler.ask(record).await.unwrap();
        assert!(reply.code().is_success(), "{}", reply.code());
    }
    let (_, queue) = page::<WithdrawalRow>(&mut reader, asking(StateKind::Withdrawals)).await;
    assert_eq!(queue.iter().map(|row| row.position - queue[0].position).collect::<Vec<_>>(), [0, 1, 2]);
    let query = StateQuery { position: queue[1].position, ..asking(StateKind::Withdrawals) };
    let (head, rest) = page::<WithdrawalRow>(&mut reader, StateQuery { limit: 1, ..query }).await;
    assert_eq!((rest, head.has_more), (vec![queue[1]], 1));
}

#[tokio::test]
async fn a_tenant_sees_what_it_has_rights_on_and_itself() {
    let rig = Rig::start(1);
    let mut own = rig.authorizer(0).await;
    assert_eq!(page::<PartitionRow>(&mut own, asking(StateKind::Partitions)).await.1.len(), 1);
    assert_eq!(page::<SupplierRow>(&mut own, asking(StateKind::Suppliers)).await.1.len(), 1);
    let (_, tenants) = page::<TenantRow>(&mut own, asking(StateKind::Tenants)).await;
    assert_eq!(tenants.iter().map(|row| row.quotas.tenant).collect::<Vec<_>>(), [TENANT]);

    // Something of every kind is there to be hidden.
    let mut admin = rig.operator("admin", 0).await;
    let policy = Policy { unbonding: Time::from_secs(3600), ..Policy::default() };
    admin.order(&long::split(Kind::Policy, id(), partition(0), 0, &policy.to_bytes())).await;
    let body = StakeBody { supplier: Address([3; 20]), ..StakeBody::default() };
    let withdraw = Record::new(Kind::Withdraw, id(), partition(0), Amount(5), &body);
    rig.operator("settler", 0).await.ask(withdraw).await.unwrap();
    assert_eq!(page::<WithdrawalRow>(&mut own, asking(StateKind::Withdrawals)).await.1.len(), 1);

    let identity = rig::identity(&rig, 99, Roles::READER);
    let mut stranger = Raw::connect(rig.address(0), &identity).await.unwrap();
    stranger.greet(TenantId(99), &[]).await.unwrap();
    assert!(page::<PartitionRow>(&mut stranger, asking(StateKind::Partitions)).await.1.is_empty());
    assert!(page::<SupplierRow>(&mut stranger, asking(StateKind::Suppliers)).await.1.is_empty());
    assert!(page::<WithdrawalRow>(&mut stranger, asking(StateKind::Withdrawals)).await.1.is_empty());
    assert!(page::<TenantRow>(&mut stranger, asking(StateKind::Tenants)).await.1.is_empty());
    // A right that is not that to read shows nothing; with it the partition is there, and gone when it is taken away.
    for (rights, partitions) in [(Rights::AUTHORIZE, 0), (Rights::READ, 1), (Rights(0), 0)] {
        let grant = GrantBody { tenant: TenantId(99), rights: rights.0, ..GrantBody::default() };
        admin.order(&[Record::new(Kind::Grant, id(), partition(0), Amount::ZERO, &grant)]).await;
        let (_, rows) = page::<PartitionRow>(&mut stranger, asking(StateKind::Partitions)).await;
        assert_eq!(rows.len(), partitions, "{rights:?}");
        let (_, rows) = page::<SupplierRow>(&mut stranger, asking(StateKind::Suppliers)).await;
        assert_eq!(rows.len(), partitions, "{rights:?}");
    }
}

/// The client's way, over both transports, with more partitions than a page holds.
#[tokio::test]
async fn the_client_reads_all_pages_over_either_transport() {
    const PARTITIONS: u64 = 500;
    let rig = Rig::start(1);
    let mut admin = rig.operator("admin", 0).await;
    let mut creates = Vec::new();
    for number in 2..=PARTITIONS {
        let mut onchain = [9; 32];
        onchain[..8].copy_from_slice(&number.to_be_bytes());
        let body = PartitionBody { onchain, asset: AssetId(1), ..PartitionBody::default() };
        let place = PartitionHandle::new(ShardId(0), number);
        creates.push(Record::new(Kind::PartitionCreate, id(), place, Amount::ZERO, &body));
    }
    admin.requests(&creates).await.unwrap();
    admin.replies(creates.len()).await.unwrap();
    let pem = rig.identity("reader");
    let identity = Identity::from_pem(pem.as_bytes()).unwrap();
    let caller = Caller { tenant: TenantId(0), roles: Roles::READER, actor: ActorId(1) };
    let connector = Arc::new(rig.running().connector(caller));
    let embedded = Client::over(connector, Options::default(), &[]).await.unwrap();
    for client in [Client::connect(rig.address(0), identity).await.unwrap(), embedded] {
        let query = StateQuery::new(ShardId(0), StateKind::Partitions);
        let mut pages = client.state::<PartitionRow>(query).await.unwrap();
        let mut sizes = Vec::new();
        let mut handles = Vec::new();
        while let Some(rows) = pages.next_page().await.unwrap() {
            sizes.push(rows.len());
            handles.extend(rows.iter().map(|row| row.partition.number()));
        }
        assert_eq!(sizes, [204, 204, 92]);
        assert_eq!(handles, (1..=PARTITIONS).collect::<Vec<_>>());
        let few = client.state::<PartitionRow>(StateQuery { limit: 205, ..query }).await.unwrap();
        assert_eq!(few.all().await.unwrap().len(), 205, "the limit counts over all pages");
        let last = PartitionHandle::new(ShardId(0), PARTITIONS);
        assert_eq!(client.partition(last).await.unwrap().map(|row| row.partition), Some(last));
        let behind = PartitionHandle::new(ShardId(0), PARTITIONS + 1);
        assert_eq!(client.partition(behind).await.unwrap(), None);
    }
}

#[tokio::test]
async fn nothing_is_told_that_a_crash_could_take_back() {
    let durable = |config: &mut server::Config| config.durability = Durability::Fsync;
    // Often enough that one of the questions meets a block that is not yet written, also on a fast machine; from a fresh
    // log again and again, since each restart reads all of it.
    for _ in 0..12 {
        let mut rig = Rig::start_with(1, durable);
        for _ in 0..5 {
            let mut authorizer = rig.authorizer(0).await;
            let mut reader = rig.operator("reader", 0).await;
            // Warm, so that the question arrives while the locks are being written.
            page::<PartitionRow>(&mut reader, asking(StateKind::Partitions)).await;
            for _ in 0..16 {
                let frame: Vec<Record> = (0..1024).map(|_| lock(0)).collect();
                authorizer.requests(&frame).await.unwrap();
            }
            let (head, _) = page::<PartitionRow>(&mut reader, asking(StateKind::Partitions)).await;
            rig.kill();
            rig.restart_with(durable);
            let recovered = rig.running().shards()[0].seq;
            assert!(recovered > head.seq, "seq {} was told, the log came back with {recovered}", head.seq);
            assert!(head.seq > Seq(0));
        }
    }
}

#[tokio::test]
async fn a_question_that_makes_no_sense_ends_its_connection() {
    let rig = Rig::start(2);
    let sound = asking(StateKind::Partitions);
    for (name, query, code) in [
        ("another shard", StateQuery { shard: ShardId(1), ..sound }, CloseCode::BadFrame),
        ("no such kind", StateQuery { kind: 9, ..sound }, CloseCode::BadArchive),
        ("padding", StateQuery { reserved: [1; 17], ..sound }, CloseCode::Padding),
    ] {
        println!("{name}");
        let mut raw = rig.operator("reader", 0).await;
        raw.frame(FrameKind::StateQuery, 1, &query.to_bytes()).await.unwrap();
        raw.expect_close(code).await;
    }
    let mut mixed = rig.authorizer(0).await;
    page::<PartitionRow>(&mut mixed, sound).await;
    mixed.requests(&[lock(0)]).await.unwrap();
    mixed.expect_close(CloseCode::BadFrame).await;
    let mut mixed = rig.authorizer(0).await;
    mixed.ask(lock(0)).await.unwrap();
    mixed.frame(FrameKind::StateQuery, 1, &sound.to_bytes()).await.unwrap();
    mixed.expect_close(CloseCode::BadFrame).await;
}

#[tokio::test]
async fn readers_of_the_state_are_counted() {
    let rig = Rig::start_with(1, |config| config.limits.subscriptions_tenant = 1);
    let mut first = rig.operator("reader", 0).await;
    page::<PartitionRow>(&mut first, asking(StateKind::Partitions)).await;
    let mut second = rig.operator("reader", 0).await;
    second.frame(FrameKind::StateQuery, 1, &asking(StateKind::Partitions).to_bytes()).await.unwrap();
    let mut byte = [0];
    let reset = second.recv.read_exact(&mut byte).await.unwrap_err();
    assert!(format!("{reset:?}").contains(&(CloseCode::TooMany as u32).to_string()), "{reset:?}");
    // When the first has ended there is room again.
    first.send.finish().unwrap();
    let began = Instant::now();
    loop {
        let mut third = second.another_stream().await;
        third.greet(TenantId(0), &[]).await.unwrap();
        third.frame(FrameKind::StateQuery, 1, &asking(StateKind::Partitions).to_bytes()).await.unwrap();
        if third.recv.read_exact(&mut byte).await.is_ok() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the first reader has gone");
    }
}
