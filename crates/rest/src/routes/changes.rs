//! `/v1/locks/{id}/...`: what happens to a lock.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, Request};
use axum::http::StatusCode;
use iso8583::payment::{Rounding, edge_code};
use surety_client::protocol::{Amount, Flags, Id, PartitionHandle, Record};
use surety_client::{Draft, LockRef};

use super::locks::refuse_others;
use super::{Answer, amount_problem, expect_asset, keyed, lock_id, named, query};
use crate::guard::Visit;
use crate::ids::Key;
use crate::json as body;
use crate::money::Asset;
use crate::problem::Problem;
use crate::shapes::{
    Capture, Change, Consume, InPartition, Increase, Nothing, Refund, Settle, Status, capture_of,
    decline_code, if_any, millis, state,
};

/// A query that names a lock's partition.
type Named = Result<Query<InPartition>, QueryRejection>;

macro_rules! change_path {
    ($(#[$doc:meta])* $name:ident, $path:literal, $operation:literal, $body:ty, $read:ident, $make:expr) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "locks", operation_id = $operation, request_body = $body,
            params(
                ("id" = String, Path, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", description = "The lock."),
                InPartition,
                ("Idempotency-Key" = String, Header, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", description = "A UUIDv7, made once for this request and kept through every repeat."),
            ),
            responses(
                (status = 200, description = "Done, done for a part, or declined.", body = Change,
                    headers(("Idempotent-Replayed" = String, description = "`true` if this is the answer of an earlier request with the same key."))),
                (status = 202, description = "Accepted; done when it is due.", body = Change),
                (status = "4XX", description = "Nothing was done for this sending.", body = crate::problem::Problem, content_type = "application/problem+json"),
                (status = "5XX", description = "503: not available; 504: the outcome is not known.", body = crate::problem::Problem, content_type = "application/problem+json"),
            )
        )]
        pub(super) async fn $name(
            Extension(visit): Extension<Visit>,
            Path(id): Path<String>,
            parameters: Named,
            request: Request,
        ) -> Answer {
            let aim = Aim::of(&visit, Key::of(request.headers())?, &id, parameters).await?;
            let wanted: $body = body::$read(request, &visit.desk.limits).await?;
            let make: fn(&Aim<'_>, &$body) -> Result<Draft, Box<Problem>> = $make;
            let request = make(&aim, &wanted)?.into_record(|| aim.key.id());
            aim.send(&visit, request).await
        }
    };
}

change_path!(
    /// Raises a lock to a total.
    increase, "/v1/locks/{id}/increase", "increaseLock", Increase, read, |aim, wanted| {
        let total = aim.amount(&wanted.total, &wanted.asset, "total", Rounding::Up)?;
        let mut request = aim.lasting(aim.lock.increase(total, wanted.version)).into_record(|| aim.key.id());
        if let Some(life_ms) = wanted.life_ms {
            let body: surety_client::protocol::ChangeBody = request.body();
            request.set_body(&surety_client::protocol::ChangeBody { life_ms_or_actor: life_ms, ..body });
        }
        Ok(request.into())
    }
);

change_path!(
    /// Claims a part of a lock.
    ///
    /// More captures may follow, unless it is the last: then the rest is given back. What exceeds the lock is captured as far as the
    /// partition's policy allows.
    capture, "/v1/locks/{id}/capture", "captureLock", Capture, read, |aim, wanted| {
        let amount = aim.amount(&wanted.amount, &wanted.asset, "amount", Rounding::Down)?;
        let draft = if wanted.last { aim.lock.capture_last(amount) } else { aim.lock.capture(amount) };
        let marks = if wanted.all_or_nothing { Flags::ALL_OR_NOTHING } else { Flags(0) };
        Ok(aim.lasting(draft.flags(marks)))
    }
);

change_path!(
    /// Gives the rest of a lock back. Captures stay.
    ///
    /// A lock that has not come yet never will be made, if its partition is named.
    release, "/v1/locks/{id}/release", "releaseLock", Nothing, read_or_default, |aim, _| Ok(aim.lasting(aim.lock.release()))
);

change_path!(
    /// Gives a part of a capture back.
    refund, "/v1/locks/{id}/refund", "refundCapture", Refund, read, |aim, wanted| {
        let amount = aim.amount(&wanted.amount, &wanted.asset, "amount", Rounding::Down)?;
        Ok(aim.lasting(aim.lock.refund(wanted.capture, amount)))
    }
);

change_path!(
    /// Says that the payer's asset is final: the guarantee is no longer needed.
    settle, "/v1/locks/{id}/settle", "settleLock", Settle, read_or_default, |aim, wanted| {
        let draft = wanted.capture.map_or_else(|| aim.lock.settle(), |capture| aim.lock.settle_capture(capture));
        Ok(draft.id(aim.key.id()))
    }
);

change_path!(
    /// Says that the payer's asset has failed: collateral is owed to the lock's merchant.
    consume, "/v1/locks/{id}/consume", "consumeLock", Consume, read, |aim, wanted| {
        let draft = match (wanted.capture, &wanted.amount, &wanted.asset) {
            (Some(capture), None, None) => aim.lock.consume_capture(capture),
            (None, Some(amount), Some(asset)) => {
                aim.lock.consume_held(aim.amount(amount, asset, "amount", Rounding::Down)?)
            }
            _ => return Err(Problem::parameter("capture", "Name either a capture, or an amount and its asset.")),
        };
        Ok(draft.id(aim.key.id()))
    }
);

/// What a request is about.
struct Aim<'a> {
    key: Key,
    id: Id,
    partition: PartitionHandle,
    lock: LockRef,
    asset: &'a Asset,
}

impl<'a> Aim<'a> {
    async fn of(visit: &'a Visit, key: Key, id: &str, parameters: Named) -> Result<Self, Box<Problem>> {
        let id = lock_id(id)?;
        let named = named(query(parameters)?.partition.as_deref())?;
        let (partition, _) = visit.desk.find(id, named).await?;
        let asset = visit.desk.asset_of(partition).await?;
        Ok(Self { key, id, partition, lock: LockRef::new(partition, id), asset })
    }

    fn amount(
        &self,
        text: &str,
        asset: &str,
        param: &'static str,
        rounding: Rounding,
    ) -> Result<Amount, Box<Problem>> {
        expect_asset(self.asset, asset)?;
        self.asset.read(text, rounding).map_err(|error| amount_problem(param, error))
    }

    /// What may come late is remembered for days.
    fn lasting(&self, draft: Draft) -> Draft {
        draft.id(self.key.lasting()).flags(Flags::LASTING)
    }

    async fn send(&self, visit: &Visit, request: Record) -> Answer {
        let reply = visit.desk.submit(request, visit.deadline).await?;
        let code = reply.code();
        refuse_others(code)?;
        let asset = self.asset;
        let change = Change {
            lock: self.id.to_string(),
            partition: self.partition.to_string(),
            status: Status::of(code),
            decline_code: decline_code(code),
            asset: asset.name.clone(),
            amount: asset.tell(reply.approved),
            remaining: asset.tell(reply.remaining),
            state: state(reply.end()),
            version: reply.version,
            capture: capture_of(&reply),
            exposure: if_any(asset, reply.extra),
            deadline_ms: millis(reply.deadline),
        };
        keyed(&change, &reply, StatusCode::from_u16(edge_code(code).http).unwrap_or(StatusCode::OK))
    }
}
