//! Questions to the history over the wire: who may ask, what is out at a time, and what becomes of a question whose asker or answerer goes.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::sync::{Arc, Mutex};

use rig::{Ended, PATIENCE, Raw, Rig, TENANT, identity, lock};
use server::{Asked, Config, Historian, Unanswered};
use surety_client::{Client, Identity, Options, QueryError, QuicConnector, QuicOptions};
use surety_protocol::limits::{ANSWER_BYTES_MAX, CONNECTION_QUERIES_MAX, QUERY_BYTES_MAX, RECORD_BYTES};
use surety_protocol::{
    ActorId, Caller, CloseCode, Code, FrameKind, Hello, HelloReply, QUERY_HEAD_BYTES, QueryRefusal, Roles,
    Sight, TenantId, read_answer, write_query,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Hands what it is asked to the test.
#[derive(Debug)]
struct Desk(UnboundedSender<Asked>);

impl Historian for Desk {
    fn ask(&self, asked: Asked) {
        // A test that has ended wants no more.
        let _ = self.0.send(asked);
    }
}

fn keeping(change: impl FnOnce(&mut Config)) -> (Rig, UnboundedReceiver<Asked>) {
    let (desk, asked) = unbounded_channel();
    let rig = Rig::start_with(1, |config| {
        config.history = Some(Arc::new(Desk(desk)));
        change(config);
    });
    (rig, asked)
}

async fn next(asked: &mut UnboundedReceiver<Asked>) -> Asked {
    tokio::time::timeout(PATIENCE, asked.recv()).await.expect("a question").unwrap()
}

async fn ask(raw: &mut Raw, document: &[u8]) {
    let body = write_query(document);
    let count = u16::try_from((body.len() - QUERY_HEAD_BYTES) / RECORD_BYTES).unwrap();
    raw.frame(FrameKind::Query, count, &body).await.unwrap();
}

/// The whole answer, and in how many frames it came.
async fn answer(raw: &mut Raw) -> Result<(Option<QueryRefusal>, Vec<u8>, usize), Ended> {
    let (mut document, mut frames) = (Vec::new(), 0);
    loop {
        let (header, body) = raw.receive().await?;
        assert_eq!(header.kind, FrameKind::Answer);
        let (head, refusal, part) = read_answer(&body).unwrap();
        document.extend_from_slice(part);
        frames += 1;
        if head.has_more == 0 {
            assert_eq!(document.len(), head.total as usize);
            return Ok((refusal, document, frames));
        }
    }
}

async fn refusal(raw: &mut Raw) -> Option<QueryRefusal> {
    answer(raw).await.unwrap().0
}

/// A stream of a connection of somebody's own.
async fn stream(rig: &Rig, tenant: u32, roles: Roles) -> Raw {
    let mut raw = Raw::connect(rig.address(0), &identity(rig, tenant, roles)).await.unwrap();
    raw.greet(TenantId(tenant), &[]).await.unwrap();
    raw
}

async fn another(raw: &Raw, tenant: TenantId) -> Raw {
    let mut other = raw.another_stream().await;
    other.greet(tenant, &[]).await.unwrap();
    other
}

#[tokio::test]
async fn a_question_is_asked_on_behalf_of_the_certificate() {
    let (rig, mut asked) = keeping(|_| {});
    for (tenant, roles, sight) in [
        (1, Roles::AUTHORIZER, Sight::Tenant(TENANT)),
        (1, Roles::ADMIN, Sight::Tenant(TENANT)),
        (0, Roles::READER, Sight::All),
        (0, Roles::AUTHORIZER | Roles::SETTLER, Sight::All),
    ] {
        let mut raw = stream(&rig, tenant, roles).await;
        // One after the other on one stream.
        for document in [&b"{\"of\": 2}"[..], b"second", b""] {
            ask(&mut raw, document).await;
            let question = next(&mut asked).await;
            assert_eq!((question.sight(), question.document()), (sight, document));
            question.answer(Ok([b"to ", document].concat()));
            assert_eq!(answer(&mut raw).await.unwrap(), (None, [b"to ", document].concat(), 1));
        }
    }
    let mut raw = stream(&rig, 0, Roles::AUTHORIZER).await;
    ask(&mut raw, b"{}").await;
    assert_eq!(refusal(&mut raw).await, Some(QueryRefusal::Forbidden), "it sees nothing of all tenants'");
    assert!(asked.try_recv().is_err(), "nobody was asked");
    assert_eq!(rig.metric("surety_queries_total", 0).await, 13);
    assert_eq!(rig.metric("surety_queries_refused_total", 0).await, 1);
}

#[tokio::test]
async fn an_engine_without_a_history_says_so() {
    let rig = Rig::start(1);
    let mut raw = stream(&rig, 1, Roles::READER).await;
    for _ in 0..2 {
        ask(&mut raw, b"{}").await;
        assert_eq!(refusal(&mut raw).await, Some(QueryRefusal::NoHistory));
    }
    let client = client(&rig, "reader").await;
    let Err(QueryError::Refused { why, message }) = client.query(b"{}").await else { panic!("no refusal") };
    assert!(why == QueryRefusal::NoHistory && message.contains("--history"), "{message}");
    let caller = Caller { tenant: TENANT, roles: Roles::READER, actor: ActorId(1) };
    let within = Client::over(Arc::new(rig.running().connector(caller)), Options::default(), &[]);
    let refused = within.await.unwrap().query(b"{}").await;
    assert!(matches!(refused, Err(QueryError::Refused { why: QueryRefusal::NoHistory, .. })), "{refused:?}");
}

#[tokio::test]
async fn the_longest_answer_comes_whole_and_locks_do_not_wait_for_it() {
    let (rig, mut asked) = keeping(|_| {});
    let mut locks = rig.authorizer(0).await;
    let mut raw = another(&locks, TENANT).await;
    ask(&mut raw, b"all").await;
    let document: Vec<u8> = (0..ANSWER_BYTES_MAX).map(|at| u8::try_from(at % 251).unwrap()).collect();
    next(&mut asked).await.answer(Ok(document.clone()));
    // Nobody reads the answer yet: it takes what a stream may take, and the connection goes on.
    for _ in 0..20 {
        let (reply, _) = locks.ask(lock(0)).await.unwrap();
        assert_eq!(reply.code(), Code::Approved);
    }
    let (refusal, found, frames) = answer(&mut raw).await.unwrap();
    assert!(refusal.is_none() && found == document && frames == ANSWER_BYTES_MAX / (128 << 10));
    // What would not fit is no answer.
    ask(&mut raw, b"more").await;
    next(&mut asked).await.answer(Ok(vec![0; ANSWER_BYTES_MAX + 1]));
    assert_eq!(self::refusal(&mut raw).await, Some(QueryRefusal::Away));
}

#[tokio::test]
async fn what_is_no_question_is_told_or_closes_its_connection() {
    let (rig, mut asked) = keeping(|_| {});
    let mut raw = rig.authorizer(0).await;
    ask(&mut raw, &[b' '; QUERY_BYTES_MAX + 1]).await;
    assert_eq!(refusal(&mut raw).await, Some(QueryRefusal::TooLong), "and the stream goes on");
    ask(&mut raw, &[b' '; QUERY_BYTES_MAX]).await;
    next(&mut asked).await.answer(Err(Unanswered::new(QueryRefusal::Malformed, "no question")));
    let (why, message, _) = answer(&mut raw).await.unwrap();
    assert_eq!((why, &message[..]), (Some(QueryRefusal::Malformed), &b"no question"[..]));

    let good = write_query(b"{}");
    let changed = |at: usize| {
        let mut body = good.clone();
        body[at] ^= 0x81;
        body
    };
    for (name, body, code) in [
        ("another length", changed(0), CloseCode::BadArchive),
        ("a reserved byte", changed(QUERY_HEAD_BYTES - 1), CloseCode::Padding),
        ("behind the document", changed(QUERY_HEAD_BYTES + 2), CloseCode::Padding),
    ] {
        let mut raw = rig.authorizer(0).await;
        raw.frame(FrameKind::Query, 1, &body).await.unwrap();
        raw.expect_close(code).await;
        assert!(asked.try_recv().is_err(), "{name}");
    }
    // Not two sorts of frames on a stream.
    let mut raw = rig.authorizer(0).await;
    raw.ask(lock(0)).await.unwrap();
    raw.frame(FrameKind::Query, 1, &good).await.unwrap();
    raw.expect_close(CloseCode::BadFrame).await;
}

#[tokio::test]
async fn a_client_of_version_1_is_spoken_to_in_it() {
    let (rig, _asked) = keeping(|_| {});
    let greet = async |version_min, version_max| {
        let mut raw = Raw::connect(rig.address(0), &rig.identity("authorizer")).await.unwrap();
        let hello = Hello { version_min, version_max, ..Hello::new(TENANT, "old") };
        raw.frame(FrameKind::Hello, 0, &hello.to_body(&[])).await.unwrap();
        let (_, body) = raw.receive().await.unwrap();
        (raw, HelloReply::from_body(&body).unwrap().version)
    };
    let (mut old, version) = greet(1, 1).await;
    assert_eq!(version, 1);
    assert_eq!(old.ask(lock(0)).await.unwrap().0.code(), Code::Approved);
    let (mut old, _) = greet(1, 1).await;
    old.frame(FrameKind::Query, 1, &write_query(b"{}")).await.unwrap();
    old.expect_close(CloseCode::BadFrame).await;
    assert_eq!(greet(1, 7).await.1, 2);
    assert_eq!(greet(2, 2).await.1, 2);
}

#[tokio::test]
async fn so_many_questions_are_out_and_no_more() {
    let (rig, mut asked) = keeping(|config| (config.limits.queries, config.limits.queries_tenant) = (8, 6));
    let first = rig.authorizer(0).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTION_QUERIES_MAX {
        let mut raw = another(&first, TENANT).await;
        ask(&mut raw, b"{}").await;
        open.push((raw, next(&mut asked).await));
    }
    let mut raw = another(&first, TENANT).await;
    ask(&mut raw, b"{}").await;
    assert_eq!(refusal(&mut raw).await, Some(QueryRefusal::Busy), "of the connection");
    let second = rig.authorizer(0).await;
    for _ in CONNECTION_QUERIES_MAX..6 {
        let mut raw = another(&second, TENANT).await;
        ask(&mut raw, b"{}").await;
        open.push((raw, next(&mut asked).await));
    }
    let mut raw = another(&second, TENANT).await;
    ask(&mut raw, b"{}").await;
    assert_eq!(refusal(&mut raw).await, Some(QueryRefusal::Busy), "of the tenant");
    let mut other = stream(&rig, 0, Roles::READER).await;
    ask(&mut other, b"{}").await;
    let of_other = next(&mut asked).await;
    let mut last = stream(&rig, 2, Roles::READER).await;
    ask(&mut last, b"{}").await;
    assert_eq!(refusal(&mut last).await, Some(QueryRefusal::Busy), "of all tenants");
    let mut operator = stream(&rig, 0, Roles::READER).await;
    ask(&mut operator, b"{}").await;
    next(&mut asked).await.answer(Ok(Vec::new()));
    assert_eq!(answer(&mut operator).await.unwrap(), (None, Vec::new(), 1), "one place is the operator's");
    // Whoever gives up is noticed, and its place comes free with the work.
    let (mut gone, mut question) = open.remove(0);
    gone.send.reset(0_u32.into()).unwrap();
    gone.recv.stop(0_u32.into()).unwrap();
    tokio::time::timeout(PATIENCE, question.given_up()).await.expect("it is given up");
    drop(question);
    ask(&mut last, b"{}").await;
    next(&mut asked).await.answer(Ok(Vec::new()));
    assert_eq!(answer(&mut last).await.unwrap(), (None, Vec::new(), 1));
    // One that is dropped is answered all the same.
    drop(of_other);
    assert_eq!(refusal(&mut other).await, Some(QueryRefusal::Away));
    for (mut raw, question) in open {
        question.answer(Ok(b"late".to_vec()));
        assert_eq!(answer(&mut raw).await.unwrap().1, b"late");
    }
}

#[tokio::test]
async fn a_tenant_asks_only_so_often() {
    let (rig, mut asked) = keeping(|config| config.limits.queries_per_s_tenant = 1);
    let answering = tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            question.answer(Ok(Vec::new()));
        }
    });
    let mut raw = rig.authorizer(0).await;
    let mut refused = 0;
    for _ in 0..1000 {
        ask(&mut raw, b"{}").await;
        refused += usize::from(refusal(&mut raw).await == Some(QueryRefusal::Busy));
        if refused > 0 {
            break;
        }
    }
    assert_eq!(refused, 1, "a burst ends");
    let mut other = stream(&rig, 2, Roles::READER).await;
    ask(&mut other, b"{}").await;
    assert_eq!(refusal(&mut other).await, None, "others have their own rate");
    answering.abort();
}

#[tokio::test]
async fn a_certificate_that_is_revoked_in_mid_question_gets_no_answer() {
    let (rig, mut asked) = keeping(|_| {});
    let revoked = identity(&rig, TENANT.0, Roles::READER);
    let mut raw = Raw::connect(rig.address(0), &revoked).await.unwrap();
    raw.greet(TENANT, &[]).await.unwrap();
    ask(&mut raw, b"{}").await;
    let mut question = next(&mut asked).await;
    let list = server::pki_path(rig.path()).join("revoked.pem");
    std::fs::write(&list, rig.pki().revocations(std::slice::from_ref(&revoked)).unwrap()).unwrap();
    rig.running().reload();
    raw.expect_close(CloseCode::BadCertificate).await;
    tokio::time::timeout(PATIENCE, question.given_up()).await.expect("it is given up");
    question.answer(Ok(b"too late".to_vec()));
    assert!(answer(&mut raw).await.is_err());
}

async fn client(rig: &Rig, name: &str) -> Client {
    let identity = Identity::from_pem(rig.identity(name).as_bytes()).unwrap();
    let connector = QuicConnector::new(QuicOptions::new(rig.address(0), identity)).unwrap();
    Client::over(Arc::new(connector), Options::default(), &[]).await.unwrap()
}

#[tokio::test]
async fn the_client_carries_documents_and_refusals() {
    let (rig, mut asked) = keeping(|_| {});
    let client = client(&rig, "authorizer").await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            noted.lock().unwrap().push(question.document().to_vec());
            match question.document() {
                b"long" => question.answer(Ok(vec![b'x'; 1 << 20])),
                b"busy" => question.answer(Err(Unanswered::new(QueryRefusal::Busy, "later"))),
                b"gone" => drop(question),
                _ => question.answer(Ok(b"{\"ok\":{}}".to_vec())),
            }
        }
    });
    assert_eq!(client.query(b"{}").await, Ok(b"{\"ok\":{}}".to_vec()));
    assert_eq!(client.query(b"long").await, Ok(vec![b'x'; 1 << 20]));
    let refused = |why, message: &str| Err(QueryError::Refused { why, message: message.to_owned() });
    assert_eq!(client.query(b"busy").await, refused(QueryRefusal::Busy, "later"));
    assert!(matches!(client.query(b"gone").await, Err(QueryError::Refused { why: QueryRefusal::Away, .. })));
    let long = vec![b' '; QUERY_BYTES_MAX + 1];
    assert_eq!(client.query(&long).await, Err(QueryError::TooLong { found: long.len() }));
    assert_eq!(seen.lock().unwrap().len(), 4, "what cannot be asked is not sent");
    // Within the process it is the same desk.
    let caller = Caller { tenant: TenantId(0), roles: Roles::AUTHORIZER, actor: ActorId(1) };
    let within = Client::over(Arc::new(rig.running().connector(caller)), Options::default(), &[]);
    let refused = within.await.unwrap().query(b"{}").await;
    assert!(matches!(refused, Err(QueryError::Refused { why: QueryRefusal::Forbidden, .. })), "{refused:?}");
}
