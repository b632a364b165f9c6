//! The engine inside the caller's process: the same answers, through memory.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::sync::Arc;

use rig::{PATIENCE, Rig, TENANT, lock};
use server::{Config, Embedded};
use surety_client::transport::{Batch, Closed, Connector, Event, Link, LinkSender, OpenError};
use surety_client::{Client, Options};
use surety_protocol::{
    ActorId, Caller, CloseCode, Code, Kind, Record, Reply, Roles, Seq, ShardId, TailStatus, TenantId, Token,
};

fn caller(tenant: TenantId, roles: Roles) -> Caller {
    Caller { tenant, roles, actor: ActorId(1) }
}

/// A furnished directory, served without a network.
fn embedded(shards: u16) -> (Rig, Embedded) {
    let mut rig = Rig::start(shards);
    rig.shutdown();
    let config: Config = rig.config();
    let embedded = Embedded::start(config).unwrap();
    (rig, embedded)
}

async fn send(link: &mut Link, records: &[Record]) -> Result<(), Closed> {
    let mut batch = Batch::new();
    records.iter().for_each(|record| batch.push(&[record.to_bytes()]));
    std::future::poll_fn(|cx| link.sender.poll_send(cx, &mut batch)).await
}

async fn receive(link: &mut Link, count: usize) -> Result<Vec<Reply>, Event> {
    let mut replies = Vec::new();
    while replies.len() < count {
        let event = std::future::poll_fn(|cx| link.receiver.poll_receive(cx, &mut replies));
        match tokio::time::timeout(PATIENCE, event).await.unwrap() {
            Event::Replies(_) => {}
            other => return Err(other),
        }
    }
    Ok(replies)
}

#[tokio::test]
async fn a_client_works_over_memory_as_over_the_network() {
    let (_rig, embedded) = embedded(2);
    assert!(embedded.running().addresses().is_empty());
    let connector = embedded.connector(caller(TENANT, Roles::AUTHORIZER));
    let client = Client::over(Arc::new(connector), Options::default(), &[]).await.unwrap();
    for shard in [0, 1, 0] {
        let reply = client.submit(lock(shard)).await.unwrap();
        assert_eq!((reply.code(), reply.shard), (Code::Approved, ShardId(shard)));
    }
    let many: Vec<Record> = (0..500).map(|i| lock(i % 2)).collect();
    let replies = client.submit_all(many).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap().code() == Code::Approved));
    embedded.shutdown();
}

#[tokio::test]
async fn links_keep_order_and_rules() {
    let (_rig, embedded) = embedded(1);
    let connector = embedded.connector(caller(TENANT, Roles::AUTHORIZER));
    let mut link = connector.open(ShardId(0), &[]).await.unwrap();
    assert_eq!(link.hello.shards, 1);
    let records: Vec<Record> = (0..1000).map(|_| lock(0)).collect();
    for chunk in records.chunks(100) {
        send(&mut link, chunk).await.unwrap();
    }
    let replies = receive(&mut link, records.len()).await.unwrap();
    assert!(replies.iter().zip(&records).all(|(reply, record)| reply.id == record.id));

    // What would close a connection closes a link.
    let mut wrong = lock(0);
    wrong.kind = Kind::Expire as u8;
    send(&mut link, &[wrong]).await.unwrap();
    assert_eq!(receive(&mut link, 1).await, Err(Event::Closed(Closed::ByServer(CloseCode::UnknownKind))));
    assert!(send(&mut link, &[lock(0)]).await.is_err());

    let token = Token::sign(&[1; 32], link.hello.engine, ShardId(0), link.hello.epoch, Seq(1));
    let refused = connector.open(ShardId(0), &[token]).await.unwrap_err();
    assert_eq!(refused, OpenError::Closed(Closed::ByServer(CloseCode::BadToken)));
    assert_eq!(connector.open(ShardId(1), &[]).await.unwrap_err(), OpenError::NoSuchShard(ShardId(1)));
}

#[tokio::test]
async fn a_writer_that_does_not_read_is_held_back() {
    let (_rig, embedded) = embedded(1);
    let connector = embedded.connector(caller(TENANT, Roles::AUTHORIZER));
    let mut link = connector.open(ShardId(0), &[]).await.unwrap();
    let records: Vec<Record> = (0..1024).map(|_| lock(0)).collect();
    let mut sent = 0;
    let mut sender = std::mem::replace(&mut link.sender, Box::new(Nobody));
    loop {
        let mut batch = Batch::new();
        records.iter().for_each(|record| batch.push(&[record.to_bytes()]));
        let poll =
            sender.poll_send(&mut std::task::Context::from_waker(std::task::Waker::noop()), &mut batch);
        if poll.is_pending() {
            break;
        }
        sent += records.len();
    }
    assert_eq!(sent, surety_protocol::limits::CONNECTION_IN_FLIGHT_MAX);
    assert_eq!(receive(&mut link, sent).await.unwrap().len(), sent);
}

/// Stands where a sender was taken out.
struct Nobody;

impl LinkSender for Nobody {
    fn poll_send(
        &mut self,
        _: &mut std::task::Context<'_>,
        _: &mut Batch,
    ) -> std::task::Poll<Result<(), Closed>> {
        std::task::Poll::Ready(Err(Closed::Local))
    }
}

#[tokio::test]
async fn the_change_stream_and_the_end_come_through_memory_too() {
    let (_rig, embedded) = embedded(1);
    let authorizer = embedded.connector(caller(TENANT, Roles::AUTHORIZER));
    let mut link = authorizer.open(ShardId(0), &[]).await.unwrap();
    send(&mut link, &[lock(0)]).await.unwrap();
    let last = receive(&mut link, 1).await.unwrap()[0].seq;
    let reader = embedded.connector(caller(TenantId(0), Roles::READER));
    let mut tail = reader.subscribe(ShardId(0), Seq(1).into(), &[]).await.unwrap();
    let mut records = Vec::new();
    loop {
        let next = std::future::poll_fn(|cx| tail.poll_next(cx, &mut records));
        let (head, status) = tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
        assert_eq!(status, TailStatus::Records);
        if head.through >= last {
            break;
        }
    }
    assert!(records.len() as u64 >= last.0);
    let stop = tokio::task::spawn_blocking(move || embedded.shutdown());
    assert_eq!(receive(&mut link, 1).await, Err(Event::Goodbye));
    assert!(matches!(receive(&mut link, 1).await, Err(Event::Closed(_))));
    stop.await.unwrap();
}

#[tokio::test]
async fn whoever_comes_after_the_end_hears_of_it() {
    let (_rig, embedded) = embedded(2);
    let connector = embedded.connector(caller(TENANT, Roles::AUTHORIZER));
    embedded.shutdown();
    for shard in [ShardId(0), ShardId(1)] {
        let opened = tokio::time::timeout(PATIENCE, connector.open(shard, &[])).await.unwrap();
        let error = opened.err().unwrap();
        assert!(matches!(error, OpenError::Closed(Closed::ByServer(CloseCode::Draining))), "{error}");
        let mut tail = connector.subscribe(shard, Seq(1).into(), &[]).await.unwrap();
        let mut records = Vec::new();
        let next = std::future::poll_fn(|cx| tail.poll_next(cx, &mut records));
        let ended = tokio::time::timeout(PATIENCE, next).await.unwrap();
        assert_eq!(ended.err(), Some(Closed::ByServer(CloseCode::Draining)));
    }
}
