//! Payments over several partitions on an engine that loses links, replies and admissions: guaranteed once, or not at all.
#![allow(dead_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod scripted;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use scripted::{Peer, Stage, id, reply};
use surety_client::protocol::{
    Amount, ChangeBody, Code, CodeClass, End, Flags, Id, Kind, MerchantId, PartitionHandle, Record, Reply,
    Seq, ShardId, Time,
};
use surety_client::transport::Closed;
use surety_client::{
    Draft, LockRequest, Options, Outcome, ResolveError, RouteError, Router, Routing, SubmitError,
};

/// What an engine remembers of an id, by the rules of idempotency.
#[derive(Default)]
struct Model {
    free: HashMap<PartitionHandle, u32>,
    decided: HashMap<(PartitionHandle, Id), Reply>,
    /// Codes that the next locks and look-ups are refused with.
    refusals: Vec<Code>,
    random: u64,
    /// Faults in 256 frames.
    faults: u64,
    /// The ids that were burned, and which of them for days.
    burns: Vec<(Id, bool)>,
    /// Burns are not recorded: the ids are too old.
    is_late: bool,
    /// New requests whose ids are of an earlier time are refused.
    oldest: Option<Time>,
}

impl Model {
    fn draw(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn decide(&mut self, request: &Record) -> Reply {
        let partition = request.partition;
        if let Some(code) = self.refusals.pop() {
            return reply(request, code);
        }
        if !self.free.contains_key(&partition) {
            return reply(request, Code::UnknownPartition);
        }
        match request.kind() {
            Some(Kind::Lookup) => self.look_up(request),
            _ if self.is_stale(request) => reply(request, Code::StaleId),
            Some(Kind::Release) => {
                self.release(partition, request.body::<ChangeBody>().lock, request);
                reply(request, Code::Approved)
            }
            _ => self.lock(request),
        }
    }

    fn is_stale(&self, request: &Record) -> bool {
        let is_known = self.decided.contains_key(&(request.partition, request.id));
        !is_known && self.oldest.is_some_and(|oldest| request.id.time() < oldest)
    }

    /// A lock keeps its code and ends; an id that is not known gets a tombstone; a declined one stays what it is.
    fn release(&mut self, partition: PartitionHandle, lock: Id, request: &Record) {
        let tombstone = reply(&Record { id: lock, ..*request }, Code::AlreadyReleased);
        let tombstone = Reply { end: End::Tombstone as u8, ..tombstone };
        let known = self.decided.entry((partition, lock)).or_insert(tombstone);
        if known.end() == End::Live {
            known.end = End::Released as u8;
            *self.free.get_mut(&partition).unwrap() += 1;
        }
    }

    fn lock(&mut self, request: &Record) -> Reply {
        if let Some(first) = self.decided.get(&(request.partition, request.id)) {
            return *first;
        }
        let free = self.free.get_mut(&request.partition).unwrap();
        let code = if *free > 0 { Code::Approved } else { Code::Insufficient };
        *free -= u32::from(code.is_success());
        let end = if code.is_success() { End::Live } else { End::Declined };
        let decision = Reply { end: end as u8, ..reply(request, code) };
        self.decided.insert((request.partition, request.id), decision);
        decision
    }

    fn look_up(&mut self, request: &Record) -> Reply {
        let wanted = request.body::<ChangeBody>().lock;
        if let Some(first) = self.decided.get(&(request.partition, wanted)) {
            return Reply { id: request.id, kind: request.kind, ..*first };
        }
        let found_nothing = reply(request, Code::NotFound);
        if !request.flags().has(Flags::BURN) || self.is_late {
            return found_nothing;
        }
        let burned = reply(&Record { id: wanted, ..*request }, Code::Burned);
        self.decided.insert((request.partition, wanted), burned);
        self.burns.push((wanted, request.flags().has(Flags::LASTING)));
        Reply { seq: Seq(1), ..found_nothing }
    }

    fn live(&self, payment: Id) -> Vec<PartitionHandle> {
        let is_live = |partition: &&PartitionHandle| {
            let key = (**partition, Router::attempt_id(payment, **partition));
            self.decided.get(&key).is_some_and(|reply| reply.end() == End::Live)
        };
        let mut live: Vec<PartitionHandle> = self.free.keys().filter(is_live).copied().collect();
        live.sort_unstable();
        live
    }
}

/// Answers link after link, with faults, until the client is gone.
async fn serve(mut stage: Stage, first: Peer, model: Arc<Mutex<Model>>) {
    let mut peer = first;
    loop {
        let Some(frame) = peer.frame_or_end().await else { return };
        let (replies, cut) = {
            let mut model = model.lock();
            let faults = model.faults;
            let fault = model.draw(256) < faults;
            match (fault, model.draw(3)) {
                (true, 0) => (Vec::new(), true),
                (true, 1) => {
                    frame.iter().for_each(|request| {
                        model.decide(request);
                    });
                    (Vec::new(), true)
                }
                (true, _) => (frame.iter().map(|request| reply(request, Code::Overloaded)).collect(), false),
                (false, _) => (frame.iter().map(|request| model.decide(request)).collect::<Vec<_>>(), false),
            }
        };
        peer.answer(&replies);
        if cut {
            peer.cut(Closed::Reset);
            peer = stage.peer().await;
        }
    }
}

fn partitions() -> [PartitionHandle; 3] {
    [1, 2, 3].map(|number| PartitionHandle::new(ShardId(0), number))
}

fn terms() -> LockRequest {
    LockRequest::new(PartitionHandle(0), Amount(10), MerchantId(1))
}

/// A router on a model whose partitions have room for so many locks each.
async fn router(free: [u32; 3], options: Options) -> (Router, Arc<Mutex<Model>>) {
    let (stage, peer) = Stage::new(options).await;
    let client = stage.client.clone();
    let model = Model { free: partitions().into_iter().zip(free).collect(), ..Model::default() };
    let model = Arc::new(Mutex::new(model));
    tokio::spawn(serve(stage, peer, model.clone()));
    (Router::new(client, partitions()), model)
}

fn locked_in(routing: &Routing) -> Option<PartitionHandle> {
    match routing {
        Routing::Locked { lock, .. } => Some(lock.partition),
        Routing::Declined(_) | Routing::Cancelled(_) | Routing::Ended { .. } => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_partition_with_room_gets_the_payment() {
    let [one, two, three] = partitions();
    for (free, expect, declined) in [
        ([1, 1, 1], Some(one), 0),
        ([0, 1, 1], Some(two), 1),
        ([0, 0, 1], Some(three), 2),
        ([0, 0, 0], None, 3),
    ] {
        let (router, model) = router(free, Options::default()).await;
        let payment = id(1);
        let routing = router.pay(payment, &terms()).await.unwrap();
        assert_eq!(locked_in(&routing), expect);
        match &routing {
            Routing::Locked { declined: before, .. } => assert_eq!(before.len(), declined),
            Routing::Declined(all) => assert!(all.iter().all(|attempt| attempt.code == Code::Insufficient)),
            Routing::Cancelled(_) | Routing::Ended { .. } => panic!("nobody cancelled"),
        }
        // A retry finds what is there, although there is room elsewhere now.
        partitions().iter().for_each(|partition| {
            model.lock().free.insert(*partition, 5);
        });
        assert_eq!(locked_in(&router.pay(payment, &terms()).await.unwrap()), expect);
        assert_eq!(model.lock().live(payment), expect.into_iter().collect::<Vec<_>>());
    }
}

/// The trap of an admission code: it spends no id, so falling back without a burn lets a retry lock twice.
#[tokio::test(start_paused = true)]
async fn an_overloaded_partition_is_burned_before_the_next_is_tried() {
    let [one, two, _] = partitions();
    let (router, model) = router([1, 1, 1], Options::default()).await;
    let payment = id(1);
    model.lock().refusals = vec![Code::Overloaded];
    let routing = router.pay(payment, &terms()).await.unwrap();
    let Routing::Locked { lock, declined, .. } = routing else { panic!("{routing:?}") };
    assert_eq!(lock.partition, two);
    assert_eq!((declined[0].partition, declined[0].code), (one, Code::Burned));
    assert_eq!(locked_in(&router.pay(payment, &terms()).await.unwrap()), Some(two));
    assert_eq!(model.lock().live(payment), [two]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_burned_stops_the_payment() {
    let (router, model) = router([1, 1, 1], Options::default()).await;
    let payment = id(1);
    model.lock().refusals = vec![Code::Overloaded; 10_000];
    let error = router.pay(payment, &terms()).await.unwrap_err();
    assert!(
        matches!(error, RouteError::Unknown { partition, .. } if partition == partitions()[0]),
        "{error}"
    );
    model.lock().refusals.clear();
    assert!(model.lock().live(payment).is_empty());
    let routing = router.pay(payment, &terms()).await.unwrap();
    assert_eq!(locked_in(&routing), Some(partitions()[0]));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_know_the_caller_stops_the_payment() {
    let (router, model) = router([0, 1, 1], Options::default()).await;
    model.lock().free.remove(&partitions()[1]);
    let error = router.pay(id(1), &terms()).await.unwrap_err();
    let expect = partitions()[1];
    assert!(
        matches!(error, RouteError::Refused { partition, code: Code::UnknownPartition, .. } if partition == expect)
    );
    assert!(matches!(router.pay(Id(5), &terms()).await, Err(RouteError::NotAnId { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_payment_stays_cancelled() {
    let (router, model) = router([1, 1, 1], Options::default()).await;
    for pays_first in [true, false] {
        let payment = id(1 + u128::from(pays_first));
        if pays_first {
            router.pay(payment, &terms()).await.unwrap();
        }
        assert_eq!(router.cancel(payment).await.unwrap().len(), 3);
        let routing = router.pay(payment, &terms()).await.unwrap();
        assert!(matches!(routing, Routing::Cancelled(_)), "{routing:?}");
        assert!(model.lock().live(payment).is_empty());
    }
}

/// Locks outlive the window in which engines accept new ids of the payment's time.
#[tokio::test(start_paused = true)]
async fn an_old_payment_can_be_cancelled_again_and_again() {
    let (router, model) = router([1, 1, 1], Options::default()).await;
    let payment = Id::from_parts(Time(scripted::now().0 - Time::from_secs(600).0), 1);
    router.pay(payment, &terms()).await.unwrap();
    model.lock().oldest = Some(Time(scripted::now().0 - Time::from_secs(120).0));
    for _ in 0..2 {
        let replies = router.cancel(payment).await.unwrap();
        assert!(replies.iter().all(|(_, reply)| reply.code() == Code::Approved));
        assert!(model.lock().live(payment).is_empty());
        assert_eq!(model.lock().free[&partitions()[0]], 1);
    }
    assert!(matches!(router.pay(payment, &terms()).await, Ok(Routing::Cancelled(_))));
}

/// A repeat gets the code of the first time, whatever has become of the lock since; so does a look-up.
#[tokio::test(start_paused = true)]
async fn only_a_lock_that_stands_is_a_guarantee() {
    let word = |routing: &Routing| match routing {
        Routing::Locked { .. } => "locked",
        Routing::Declined(_) => "declined",
        Routing::Cancelled(_) => "cancelled",
        Routing::Ended { .. } => "ended",
    };
    for (end, expect) in [
        (End::Live, "locked"),
        (End::Final, "locked"),
        (End::Settled, "locked"),
        (End::Released, "cancelled"),
        (End::Tombstone, "cancelled"),
        (End::Expired, "ended"),
        (End::Exposed, "ended"),
        (End::Declined, "ended"),
        (End::None, "ended"),
    ] {
        let (router, model) = router([1, 1, 1], Options::default()).await;
        let payment = id(1);
        router.pay(payment, &terms()).await.unwrap();
        model.lock().decided.values_mut().for_each(|reply| reply.end = end as u8);
        // A repeat; a repeat that is not admitted, so that a look-up tells; a payment that is too old to be made.
        for refusal in [None, Some(Code::Overloaded), Some(Code::StaleId)] {
            model.lock().refusals.extend(refusal);
            let routing = router.pay(payment, &terms()).await.unwrap();
            assert_eq!(word(&routing), expect, "{end} {refusal:?}");
            if let Routing::Ended { lock, reply } = routing {
                assert_eq!((lock.partition, reply.end()), (partitions()[0], end));
            }
        }
        assert_eq!(model.lock().decided.len(), 1, "no other partition was tried");
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_is_too_old_is_looked_for_and_not_made() {
    let (router, model) = router([0, 1, 1], Options::default()).await;
    let payment = id(1);
    router.pay(payment, &terms()).await.unwrap();
    // The decline of the first partition is forgotten; its id is stale by now.
    model.lock().decided.retain(|_, reply| reply.code().is_success());
    model.lock().refusals = vec![Code::StaleId];
    let routing = router.pay(payment, &terms()).await.unwrap();
    assert_eq!(locked_in(&routing), Some(partitions()[1]));
    let old = id(2);
    model.lock().refusals = vec![Code::StaleId];
    assert_eq!(router.pay(old, &terms()).await, Err(RouteError::TooOld { payment: old }));
    assert!(model.lock().live(old).is_empty());
}

#[tokio::test(start_paused = true)]
async fn not_found_is_an_answer_only_once_it_is_recorded() {
    let (stage, peer) = Stage::new(Options::default()).await;
    let client = stage.client.clone();
    let partition = partitions()[0];
    let model = Arc::new(Mutex::new(Model::default()));
    model.lock().free.insert(partition, 1);
    tokio::spawn(serve(stage, peer, model.clone()));
    let wanted = id(1);
    model.lock().is_late = true;
    assert_eq!(client.resolve(partition, wanted).await, Err(ResolveError::Forgotten { id: wanted }));
    model.lock().is_late = false;
    let other = id(2);
    assert!(matches!(client.resolve(partition, other).await, Ok(Outcome::Burned(_))));
    let elsewhere = client.resolve(PartitionHandle(99), wanted).await;
    assert!(matches!(elsewhere, Err(ResolveError::NoAnswer { error: SubmitError::NotExecuted { .. }, .. })));
}

/// That a sending was not admitted says nothing of an earlier one, by a process that has ended since.
#[tokio::test(start_paused = true)]
async fn a_request_that_was_executed_before_is_found_behind_an_admission_code() {
    for code in Code::ALL.iter().copied().filter(|code| code.class() == CodeClass::Admission) {
        let (stage, peer) = Stage::new(Options::default()).await;
        let client = stage.client.clone();
        let model = Arc::new(Mutex::new(Model::default()));
        model.lock().free.insert(partitions()[0], 1);
        tokio::spawn(serve(stage, peer, model.clone()));
        let draft =
            LockRequest { id: Some(id(1)), ..LockRequest::new(partitions()[0], Amount(10), MerchantId(1)) };
        let request = Draft::from(draft).into_record(|| id(1));
        client.submit(request).await.unwrap();
        model.lock().refusals = vec![code];
        let outcome = client.submit_definite(request).await.unwrap();
        let is_of_the_body = matches!(code, Code::Malformed | Code::TooLarge | Code::IdConflict);
        match outcome {
            Outcome::Executed(reply) => assert!(!is_of_the_body && reply.code() == Code::Approved, "{code}"),
            Outcome::Refused(reply) => assert!(is_of_the_body && reply.code() == code, "{code}"),
            other => panic!("{code}: {other:?}"),
        }
        // Without an earlier sending the id is spent, so that the outcome stays what it was said to be.
        let other = Record { id: id(2), ..request };
        model.lock().refusals = vec![Code::StorageLow];
        assert!(matches!(client.submit_definite(other).await, Ok(Outcome::Burned(_))));
    }
}

/// What may come for days is burned for days: an ordinary burn is forgotten before.
#[tokio::test(start_paused = true)]
async fn what_lasts_is_burned_for_as_long_as_it_lasts() {
    let (stage, peer) = Stage::new(Options::default()).await;
    let client = stage.client.clone();
    let model = Arc::new(Mutex::new(Model::default()));
    model.lock().free.insert(partitions()[0], 1);
    tokio::spawn(serve(stage, peer, model.clone()));
    let change = |kind, id, flags| {
        let body = ChangeBody { lock: Id(9), ..ChangeBody::default() };
        Record::new(kind, id, partitions()[0], Amount(1), &body).with_flags(flags)
    };
    let (lasting, none) = (id(2).lasting(), Flags(0));
    let requests = [
        (change(Kind::Capture, id(1), none), false),
        (change(Kind::Capture, lasting, Flags::LASTING), true),
        (change(Kind::Advice, id(3), none), true),
        (change(Kind::Reverse, id(4), none), true),
        (change(Kind::Release, id(5), none), false),
    ];
    for (request, _) in &requests {
        model.lock().refusals = vec![Code::StorageLow];
        assert!(matches!(client.submit_definite(*request).await, Ok(Outcome::Burned(_))), "{request:?}");
    }
    let (by_id, by_lookup) = (id(6).lasting(), id(7).lasting());
    assert!(matches!(client.resolve(partitions()[0], by_id).await, Ok(Outcome::Burned(_))));
    client.lookup(partitions()[0], by_lookup, true).await.unwrap();
    let mut expected: Vec<_> = requests.iter().map(|(request, lasts)| (request.id, *lasts)).collect();
    expected.extend([(by_id, true), (by_lookup, true)]);
    assert_eq!(model.lock().burns, expected);
}

#[tokio::test(start_paused = true)]
async fn a_code_that_answers_the_look_up_decides_nothing() {
    let unrecorded = |code: &Code| !code.is_recorded() && *code != Code::NotFound;
    for code in Code::ALL.iter().copied().filter(unrecorded) {
        let (stage, peer) = Stage::new(Options::default()).await;
        let client = stage.client.clone();
        let model = Arc::new(Mutex::new(Model::default()));
        model.lock().refusals = vec![code; 10_000];
        tokio::spawn(serve(stage, peer, model.clone()));
        let resolved = client.resolve(partitions()[0], id(1)).await;
        let is_undecided = match code {
            // It speaks of the id, and is the last word on it.
            Code::UnknownAfterRestore => matches!(resolved, Err(ResolveError::Lost { .. })),
            _ => matches!(resolved, Err(ResolveError::NoAnswer { .. })),
        };
        assert!(is_undecided, "{code}: {resolved:?}");
        // Nor does it tell a router that there is no lock of an old payment.
        model.lock().refusals.push(Code::StaleId);
        let routing = Router::new(client, partitions()).pay(id(1), &terms()).await;
        assert!(matches!(routing, Err(RouteError::Unknown { .. })), "{code}: {routing:?}");
    }
}

/// The main property, over many seeds: whatever breaks, and however many calls race and retry, a payment has at most one
/// lock, and the last word is true.
#[tokio::test(start_paused = true)]
async fn a_payment_is_never_doubled() {
    let options = Options { deadline: Duration::from_millis(200), links_lost_max: 2, ..Options::default() };
    let (mut calls_unknown, mut locked, mut declined) = (0, 0, 0);
    for seed in 0..400_u64 {
        let free = [seed % 2, seed / 2 % 2, seed / 4 % 2].map(|free| free as u32);
        let (router, model) = router(free, options.clone()).await;
        model.lock().random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        model.lock().faults = [0, 40, 110, 200][(seed / 8 % 4) as usize];
        let payment = id(u128::from(seed));
        let calls: Vec<_> = (0..1 + seed % 3)
            .map(|_| {
                let router = router.clone();
                tokio::spawn(async move { router.pay(payment, &terms()).await })
            })
            .collect();
        let mut said = Vec::new();
        for call in calls {
            match call.await.unwrap() {
                Ok(routing) => said.push(locked_in(&routing)),
                Err(RouteError::Unknown { .. }) => calls_unknown += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        model.lock().faults = 0;
        // Room that appears later tempts a careless retry.
        partitions().iter().for_each(|partition| *model.lock().free.get_mut(partition).unwrap() += 1);
        let last = locked_in(&router.pay(payment, &terms()).await.unwrap());
        let live = model.lock().live(payment);
        assert_eq!(live, last.into_iter().collect::<Vec<_>>(), "seed {seed}");
        assert!(said.iter().all(|word| *word == last), "seed {seed}: {said:?}, then {last:?}");
        locked += u32::from(last.is_some());
        declined += u32::from(last.is_none());
    }
    // The faults were there, and so were both endings.
    assert!(calls_unknown > 0 && locked > 100 && declined > 10, "{calls_unknown} {locked} {declined}");
}
