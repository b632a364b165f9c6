//! Two guarantees that are no card payments, from end to end: a rental deposit and a bridge transfer.
//!
//! Neither needs a watcher: the release rules `manual` and `timeout` are for assurance whose end no chain shows. They stand
//! here beside the watchers so that all three rules can be compared.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::engine::{COLLATERAL, Engine, rules};
use support::watch;
use surety_client::{LockRef, LockRequest};
use surety_protocol::{Amount, Code, End, Kind, MerchantId, Policy, Seq, Time};
use watcher::WatchError;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A rental deposit. The landlord is the merchant: instead of money in an account, the renter brings a guarantee for as long
/// as the lease runs. When the lease ends the landlord claims what is broken, and an arbiter, who has the right to settle and
/// to consume, says who pays. Nothing happens by itself: the rule is `manual` and a claim waits for as long as it takes.
#[tokio::test]
async fn a_rental_deposit_on_the_manual_rule() {
    let by_hand = Policy {
        release_rule: 0,
        settle_by: Time::ZERO,
        life_max: Time::from_secs(400 * 24 * 3600),
        ..rules()
    };
    let engine = Engine::start(by_hand).await;
    // There is nothing to watch, and whoever asks for it is told.
    assert_eq!(watch(1, "renter").by_rule(by_hand.release_rule()), Err(WatchError::Manual));

    let lease = |landlord| LockRequest {
        life: 30 * DAY,
        ..LockRequest::new(engine.partition, Amount(1_500), MerchantId(landlord))
    };
    let mut deposits = Vec::new();
    for landlord in 1..=3 {
        let reply = engine.send(lease(landlord)).await;
        assert_eq!(reply.code(), Code::Approved);
        deposits.push(LockRef::new(engine.partition, reply.id));
    }
    assert_eq!(engine.free().await, COLLATERAL - 4_500);

    // The first flat is as it was: the landlord gives the deposit back.
    assert_eq!(engine.send(deposits[0].release()).await.code(), Code::Approved);
    assert_eq!(engine.free().await, COLLATERAL - 3_000);

    // In the second a window is broken. The landlord claims it, the rest is free at once, and the claim waits.
    let claim = engine.send(deposits[1].capture_last(Amount(400))).await;
    assert_eq!((claim.code(), claim.deadline), (Code::Approved, Time::ZERO));
    assert_eq!(engine.free().await, COLLATERAL - 1_900);
    // The renter has it repaired: the arbiter settles, and nobody is paid out of the collateral.
    assert_eq!(engine.send(deposits[1].settle_capture(0)).await.code(), Code::Approved);
    assert_eq!(engine.free().await, COLLATERAL - 1_500);

    // In the third two things are broken, and the renter has left. The arbiter grants one of the claims.
    engine.send(deposits[2].capture(Amount(900))).await;
    engine.send(deposits[2].capture_last(Amount(600))).await;
    let paid = engine.send(deposits[2].consume_capture(0)).await;
    assert_eq!((paid.code(), paid.approved), (Code::Approved, Amount(900)));
    assert_eq!(engine.send(deposits[2].settle_capture(1)).await.code(), Code::Approved);
    // 900 leave with the next batch; no more, whatever is tried.
    assert_eq!(engine.send(deposits[2].consume_capture(0)).await.code(), Code::NotOpen);
    assert_eq!(engine.send(deposits[2].consume_capture(1)).await.code(), Code::AlreadySettled);
    assert_eq!(engine.free().await, COLLATERAL - 900);
}

/// A bridge transfer. A user's tokens are on their way from one chain to another, which takes long; a provider of liquidity,
/// who is the merchant, hands them out on the other side at once against a guarantee. The rule is `timeout`: unless a
/// watchtower shows within the challenge time that the transfer was no good, it counts as final.
#[tokio::test]
async fn a_bridge_transfer_on_the_timeout_rule() {
    // In earnest a day or a week. Long enough for the challenge below, also on a busy machine.
    let challenge = Duration::from_secs(6);
    let optimistic =
        Policy { release_rule: 2, settle_by: Time::from_secs(6), settle_by_action: 1, ..rules() };
    let engine = Engine::start(optimistic).await;
    assert_eq!(watch(1, "user").by_rule(optimistic.release_rule()), Err(WatchError::Timeout));

    // Guarantee and claim are one request: the provider pays out as soon as it has the answer.
    let transfer = |amount| {
        let lock = LockRequest::new(engine.partition, Amount(amount), MerchantId(77));
        LockRequest { is_sale: true, ..lock }
    };
    let honest = engine.send(transfer(20_000)).await;
    let forged = engine.send(transfer(5_000)).await;
    let pledged = forged.free;
    assert_eq!(pledged, Amount(COLLATERAL - 25_000));

    // A watchtower with the right to consume has seen no deposit behind the second: the provider is paid from the collateral.
    let forged = LockRef::new(engine.partition, forged.id);
    assert_eq!(engine.send(forged.consume_capture(0)).await.code(), Code::Approved);

    // Nobody has challenged the first. The engine settles it by itself; the stream tells when.
    let honest = LockRef::new(engine.partition, honest.id);
    let mut stream = engine.settler.tail(engine.partition.shard(), Seq(1));
    let settled = async {
        loop {
            let (_, record) = stream.next().await.unwrap();
            if record.kind() == Some(Kind::AutoSettle) {
                return record;
            }
        }
    };
    let record = tokio::time::timeout(challenge + Duration::from_secs(30), settled).await.unwrap();
    assert_eq!(record.code(), Some(Code::Approved));
    assert_eq!(engine.show(honest).await.end(), End::Final);
    assert_eq!(engine.send(honest.consume_capture(0)).await.code(), Code::AlreadySettled, "too late");
    assert_eq!(engine.free().await, COLLATERAL - 5_000);
}
