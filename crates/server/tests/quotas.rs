//! What one tenant may use, and what happens past it: others notice nothing.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::time::Duration;

use rig::{Ended, Raw, Rig, TENANT, client_config, id, identity, lock};
use surety_protocol::{
    Amount, ChangeBody, CloseCode, Code, FrameKind, Hello, Kind, Record, Roles, STATE_HEAD_BYTES, ShardId,
    StateKind, StateQuery, StateRow, TenantId, TenantRow,
};

#[tokio::test]
async fn requests_past_the_rate_are_refused_and_repeats_are_not() {
    let rig = Rig::start(1);
    rig.set_tenant(0, |tenant| tenant.rate_per_s = 1).await;
    let mut raw = rig.authorizer(0).await;
    let locks: Vec<Record> = (0..20).map(|_| lock(0)).collect();
    raw.requests(&locks).await.unwrap();
    let (replies, _) = raw.replies(locks.len()).await.unwrap();
    let of_code = |code| replies.iter().filter(|reply| reply.code() == code).count();
    // One frame is one moment.
    assert_eq!((of_code(Code::Approved), of_code(Code::QuotaRate)), (1, 19));
    let executed = locks
        .iter()
        .find(|lock| replies.iter().any(|reply| reply.id == lock.id && reply.code() == Code::Approved));
    let (again, _) = raw.ask(*executed.unwrap()).await.unwrap();
    assert_eq!((again.code(), again.is_replayed()), (Code::Approved, true));
    rig.set_tenant(0, |_| {}).await;
    let refused: Vec<Record> = locks.iter().filter(|lock| lock.id != again.id).copied().collect();
    raw.requests(&refused).await.unwrap();
    let (replies, _) = raw.replies(refused.len()).await.unwrap();
    assert!(replies.iter().all(|reply| reply.code() == Code::Approved), "no id was burned");
}

#[tokio::test]
async fn requests_past_the_number_that_may_be_unanswered_are_refused() {
    let rig = Rig::start_with(1, |config| config.durability = server::Durability::Fsync);
    rig.set_tenant(0, |tenant| tenant.in_flight_max = 7).await;
    let mut raw = rig.authorizer(0).await;
    let locks: Vec<Record> = (0..20).map(|_| lock(0)).collect();
    raw.requests(&locks).await.unwrap();
    let (replies, _) = raw.replies(locks.len()).await.unwrap();
    let of_code = |code| replies.iter().filter(|reply| reply.code() == code).count();
    assert_eq!((of_code(Code::Approved), of_code(Code::QuotaInFlight)), (7, 13));
    // All are answered: there is room again.
    assert_eq!(raw.ask(lock(0)).await.unwrap().0.code(), Code::Approved);
}

/// Who speaks version 1 of the wire knows one code for all quotas, and of no quota of open locks.
#[tokio::test]
async fn a_full_quota_is_told_by_its_name_to_whoever_knows_the_name() {
    let rig = Rig::start_with(2, |config| config.durability = server::Durability::Fsync);
    for (version, told, open_locks) in [(2, Code::QuotaOpenLocks, (1, 1)), (1, Code::Quota, (0, 0))] {
        let hello = Hello { version_min: 1, version_max: version, ..Hello::new(TENANT, "") }.to_body(&[]);
        let greet = async |shard| {
            let mut raw = Raw::connect(rig.address(shard), &rig.identity("authorizer")).await.unwrap();
            raw.frame(FrameKind::Hello, 0, &hello).await.unwrap();
            assert_eq!(raw.receive().await.unwrap().0.kind, FrameKind::HelloReply);
            raw
        };
        rig.set_tenant(0, |tenant| tenant.open_locks_max = 1).await;
        let mut raw = greet(0).await;
        let first = lock(0);
        assert_eq!(raw.ask(first).await.unwrap().0.code(), Code::Approved);
        assert_eq!(raw.ask(lock(0)).await.unwrap().0.code(), told);
        // By the shard that was asked, of another.
        assert_eq!(greet(1).await.ask(lock(0)).await.unwrap().0.code(), told);
        let mut asking = greet(0).await;
        let query = StateQuery::new(ShardId(0), StateKind::Tenants);
        asking.frame(FrameKind::StateQuery, 1, &query.to_bytes()).await.unwrap();
        let (_, page) = asking.receive().await.unwrap();
        let row = TenantRow::read(&page[STATE_HEAD_BYTES..]).unwrap();
        assert_eq!((row.open_locks, row.quotas.open_locks_max), open_locks, "version {version}");
        let body = ChangeBody { lock: first.id, ..ChangeBody::default() };
        let release = Record::new(Kind::Release, id(), first.partition, Amount::ZERO, &body);
        assert_eq!(raw.ask(release).await.unwrap().0.code(), Code::Approved, "there is room again");
        // What the engine refuses before the ledger looks at it.
        rig.set_tenant(0, |tenant| tenant.in_flight_max = 1).await;
        raw.requests(&[lock(0), lock(0)]).await.unwrap();
        let (replies, _) = raw.replies(2).await.unwrap();
        let told = Code::QuotaInFlight.in_version(version);
        assert_eq!(replies.iter().filter(|reply| reply.code() == told).count(), 1, "version {version}");
        let left = replies.iter().find(|reply| reply.code() == Code::Approved).unwrap();
        rig.set_tenant(0, |_| {}).await;
        let body = ChangeBody { lock: left.id, ..ChangeBody::default() };
        let release = Record::new(Kind::Release, id(), first.partition, Amount::ZERO, &body);
        assert_eq!(raw.ask(release).await.unwrap().0.code(), Code::Approved);
    }
}

#[tokio::test]
async fn a_tenant_has_so_many_connections() {
    let rig = Rig::start_with(1, |config| config.limits.connections_tenant = 2);
    let mut first = rig.authorizer(0).await;
    let second = rig.authorizer(0).await;
    let mut third = Raw::connect(rig.address(0), &rig.identity("authorizer")).await.unwrap();
    assert!(third.greet(TENANT, &[]).await.is_err());
    third.expect_close(CloseCode::TooMany).await;
    // Another tenant has its own.
    let other = identity(&rig, 7, Roles::READER);
    let mut other = Raw::connect_with(rig.address(0), client_config(&other)).await.unwrap();
    other.greet(TenantId(7), &[]).await.unwrap();
    first.ask(lock(0)).await.unwrap();
    second.connection.close(0_u32.into(), b"");
    // Its place is free once the server has heard of it.
    loop {
        let mut next = Raw::connect(rig.address(0), &rig.identity("authorizer")).await.unwrap();
        match next.greet(TENANT, &[]).await {
            Ok(_) => break,
            Err(Ended::Code(code)) => assert_eq!(code, CloseCode::TooMany),
            Err(Ended::Other(other)) => panic!("{other}"),
        }
    }
}

/// A stream of its own for the change stream; true if it was let in.
async fn reads(raw: &mut Raw, tenant: TenantId) -> bool {
    raw.greet(tenant, &[]).await.unwrap();
    raw.subscribe(0, 1).await.unwrap();
    let mut first = [0; 1];
    match raw.recv.read_exact(&mut first).await {
        Ok(()) => true,
        Err(quinn::ReadExactError::ReadError(quinn::ReadError::Reset(code))) => {
            assert_eq!(CloseCode::from_code(code.into_inner()), Some(CloseCode::TooMany));
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn there_are_so_many_readers_of_the_change_stream() {
    let rig = Rig::start_with(1, |config| {
        config.limits.subscriptions_tenant = 2;
        config.limits.subscriptions = 3;
    });
    let mut first = Raw::connect(rig.address(0), &rig.identity("authorizer")).await.unwrap();
    let (mut second, mut third) = (first.another_stream().await, first.another_stream().await);
    assert!(reads(&mut first, TENANT).await && reads(&mut second, TENANT).await);
    assert!(!reads(&mut third, TENANT).await, "two of a tenant");
    let mut requests = first.another_stream().await;
    requests.greet(TENANT, &[]).await.unwrap();
    requests.ask(lock(0)).await.expect("the connection goes on");
    let mut fourth = Raw::connect(rig.address(0), &rig.identity("reader")).await.unwrap();
    let mut fifth = fourth.another_stream().await;
    assert!(reads(&mut fourth, TenantId(0)).await);
    assert!(!reads(&mut fifth, TenantId(0)).await, "three of all");
    // A reader that has gone gives its place back.
    first.recv.stop(0_u32.into()).unwrap();
    loop {
        let mut next = fourth.another_stream().await;
        if reads(&mut next, TenantId(0)).await {
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_though_it_is_awake() {
    let mut rig = Rig::start(1);
    rig.restart_with(|config| config.limits.frame = Duration::from_millis(200));
    let mut config = client_config(&rig.identity("authorizer"));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(50)));
    config.transport_config(std::sync::Arc::new(transport));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = endpoint.connect_with(config, rig.address(0), "localhost").unwrap().await.unwrap();
    let ended = tokio::time::timeout(rig::PATIENCE, connection.closed()).await.unwrap();
    match Ended::from(ended) {
        Ended::Code(code) => assert_eq!(code, CloseCode::FrameDeadline),
        Ended::Other(other) => panic!("{other}"),
    }
}
