//! One payment over an ordered list of partitions, locked at most once.
//!
//! The next partition is tried only after a *recorded* decline on the one before: a decline spends its id, so no retry
//! turns it into an approval. Whatever else an attempt ends with (an admission code, a lost link, no link at all) leaves
//! its id unspent, and a retry could still be executed; so the id is first burned by a look-up, and if that cannot be done
//! the payment stops there. The price is that a partition whose shard cannot be reached blocks the fall-back behind it.
//!
//! Each attempt has an id of its own, never one id in two partitions: the time of the payment's id, and 74 bits of
//! `BLAKE3-derive-key("surety router attempt v1", payment id | partition)`, both little-endian. A retry of a payment, from
//! any process, so repeats the same ids, and as long as it names the same partitions in the same order it finds what it or
//! another has locked before.

use std::sync::Arc;

use surety_protocol::{Code, End, Id, PartitionHandle, Record, Reply, sabotage};

use crate::client::Client;
use crate::error::{ResolveError, SubmitError};
use crate::request::{Draft, LockRef, LockRequest};
use crate::resolve::Outcome;

/// Routes payments over partitions.
#[derive(Clone, Debug)]
pub struct Router {
    client: Client,
    partitions: Arc<[PartitionHandle]>,
}

/// How a payment was routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Guaranteed by one partition.
    Locked {
        /// The lock, to be captured or released.
        lock: LockRef,
        /// The reply to its request, or to the look-up that found it.
        reply: Reply,
        /// The partitions that declined before.
        declined: Vec<Attempt>,
    },
    /// Every partition declined. Final: a retry gets the same answer.
    Declined(Vec<Attempt>),
    /// The payment was cancelled before: its lock was released, or the release came before the lock.
    Cancelled(Attempt),
    /// It was locked before and is not guaranteed any more, though nobody cancelled it: the reply's end tells how. An
    /// expired lock may still be presented (and captured late, where the policy allows it), so no other partition is tried.
    Ended {
        /// The lock that was.
        lock: LockRef,
        /// The reply to its request, or to the look-up that found it.
        reply: Reply,
    },
}

/// What one partition answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which partition.
    pub partition: PartitionHandle,
    /// The id of the attempt.
    pub id: Id,
    /// The decline; [`Code::Burned`] where the attempt was given up and its id spent.
    pub code: Code,
}

/// Why a payment could not be routed. Nothing was locked by this call, unless the error says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The outcome in one partition could not be made definite. It may be locked there. Route the same payment again.
    #[error("the outcome of payment {payment} in partition {partition} is unknown: {cause}")]
    Unknown {
        /// The payment.
        payment: Id,
        /// Where it stands.
        partition: PartitionHandle,
        /// Why it could not be resolved.
        cause: ResolveError,
    },
    /// A partition does not accept such a request at all; the rest of the list was not tried. An earlier call may have
    /// locked the payment there.
    #[error("partition {partition} answered {code} to payment {payment}")]
    Refused {
        /// The payment.
        payment: Id,
        /// Which partition.
        partition: PartitionHandle,
        /// Its answer.
        code: Code,
    },
    /// The payment's id is too old: engines no longer remember every attempt. An earlier call may have locked it.
    #[error("payment {payment} is too old to be routed or found")]
    TooOld {
        /// The payment.
        payment: Id,
    },
    /// The payment's id is no UUIDv7.
    #[error("payment id {payment} is no UUIDv7")]
    NotAnId {
        /// The payment.
        payment: Id,
    },
}

/// What one attempt means for the payment.
enum Step {
    Locked(Reply),
    Ended(Reply),
    Next(Code),
    Cancelled,
    TooOld,
}

impl Router {
    /// Routes over these partitions, in this order.
    #[must_use]
    pub fn new(client: Client, partitions: impl Into<Arc<[PartitionHandle]>>) -> Self {
        Self { client, partitions: partitions.into() }
    }

    /// The id of a payment's attempt in one partition.
    #[must_use]
    pub fn attempt_id(payment: Id, partition: PartitionHandle) -> Id {
        let mut hasher = blake3::Hasher::new_derive_key("surety router attempt v1");
        hasher.update(&payment.0.to_le_bytes());
        hasher.update(&partition.0.to_le_bytes());
        let mut entropy = [0; 16];
        entropy.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Id::from_parts(payment.time(), u128::from_le_bytes(entropy))
    }

    /// Locks a payment in the first partition that approves it. `terms` says all but partition and id. Safe to call again
    /// with the same payment and terms, after any error, from any process.
    ///
    /// # Errors
    /// [`RouteError`]; a decline by all partitions is not one.
    pub async fn pay(&self, payment: Id, terms: &LockRequest) -> Result<Routing, RouteError> {
        if !payment.is_uuid_v7() {
            return Err(RouteError::NotAnId { payment });
        }
        let mut declined = Vec::new();
        for &partition in self.partitions.iter() {
            let id = if sabotage!("retry-under-a-new-id") {
                self.client.new_id()
            } else {
                Self::attempt_id(payment, partition)
            };
            match self.attempt(payment, partition, id, terms).await? {
                Step::Locked(reply) => {
                    return Ok(Routing::Locked { lock: LockRef::new(partition, id), reply, declined });
                }
                Step::Next(code) => declined.push(Attempt { partition, id, code }),
                Step::Cancelled => return Ok(cancelled(partition, id)),
                Step::Ended(reply) => return Ok(Routing::Ended { lock: LockRef::new(partition, id), reply }),
                Step::TooOld => return self.find(payment, declined).await,
            }
        }
        Ok(Routing::Declined(declined))
    }

    /// Releases whatever the payment has locked, and sees to it that none of its attempts is executed later. Returns what
    /// each partition answered; a decline, such as [`Code::GuaranteeCalled`], is an answer.
    ///
    /// Each release has a new id, of the present time: the payment's own time may lie before the window in which engines
    /// accept ids, while its lock lives on. What is released stays released, so a release needs no id to be repeatable.
    ///
    /// # Errors
    /// What the first failing release ended with; call again.
    pub async fn cancel(&self, payment: Id) -> Result<Vec<(PartitionHandle, Reply)>, SubmitError> {
        let mut replies = Vec::with_capacity(self.partitions.len());
        for &partition in self.partitions.iter() {
            let release = LockRef::new(partition, Self::attempt_id(payment, partition)).release();
            replies.push((partition, self.client.send(release).await?));
        }
        Ok(replies)
    }

    async fn attempt(
        &self,
        payment: Id,
        partition: PartitionHandle,
        id: Id,
        terms: &LockRequest,
    ) -> Result<Step, RouteError> {
        let request = LockRequest { partition, id: Some(id), ..*terms };
        let record: Record = Draft::from(request).into_record(|| id);
        let code = match self.client.submit(record).await {
            Ok(reply) => return Ok(step(reply)),
            Err(error) => error.refusal(),
        };
        match code {
            Some(Code::StaleId) => return Ok(Step::TooOld),
            Some(code) if !code.may_pass() => return Err(RouteError::Refused { payment, partition, code }),
            _ => {}
        }
        if sabotage!("next-partition-without-a-burn") {
            return Ok(Step::Next(Code::Burned));
        }
        // The id is unspent, or nobody knows. Spend it before anything else is tried.
        match self.client.resolve(partition, id).await {
            Ok(Outcome::Executed(reply) | Outcome::Declined(reply)) => Ok(step(reply)),
            Ok(Outcome::Burned(_)) => Ok(Step::Next(Code::Burned)),
            // No look-up ends so. If one did, the id would be unspent.
            Ok(Outcome::Refused(reply)) => {
                Err(RouteError::Refused { payment, partition, code: reply.code() })
            }
            Err(ResolveError::Forgotten { .. }) => Ok(Step::TooOld),
            Err(cause) => Err(RouteError::Unknown { payment, partition, cause }),
        }
    }

    /// Looks for the lock of a payment that is too old to be made.
    async fn find(&self, payment: Id, declined: Vec<Attempt>) -> Result<Routing, RouteError> {
        for &partition in self.partitions.iter() {
            let id = Self::attempt_id(payment, partition);
            match self.client.lookup(partition, id, false).await {
                Ok(reply) => match step(reply) {
                    Step::Locked(reply) => {
                        return Ok(Routing::Locked { lock: LockRef::new(partition, id), reply, declined });
                    }
                    Step::Ended(reply) => {
                        return Ok(Routing::Ended { lock: LockRef::new(partition, id), reply });
                    }
                    Step::Cancelled => return Ok(cancelled(partition, id)),
                    Step::Next(_) | Step::TooOld => {}
                },
                // A look-up that was not admitted has found nothing out.
                Err(error) => {
                    let cause = ResolveError::NoAnswer { id, partition, error };
                    return Err(RouteError::Unknown { payment, partition, cause });
                }
            }
        }
        Err(RouteError::TooOld { payment })
    }
}

/// Reads the answer to an attempt. A repeat gets the code of the first time, so the code alone does not tell whether the
/// lock still stands: its end does.
fn step(reply: Reply) -> Step {
    match (reply.code(), reply.end()) {
        (Code::AlreadyReleased, _) => Step::Cancelled,
        (code, _) if !code.is_success() => Step::Next(code),
        (_, End::Live | End::Final | End::Settled) => Step::Locked(reply),
        _ if sabotage!("ended-lock-told-as-a-guarantee") => Step::Locked(reply),
        (_, End::Released | End::Tombstone) => Step::Cancelled,
        (_, End::Expired | End::Exposed | End::Declined | End::None) => Step::Ended(reply),
    }
}

fn cancelled(partition: PartitionHandle, id: Id) -> Routing {
    Routing::Cancelled(Attempt { partition, id, code: Code::AlreadyReleased })
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::Time;

    #[test]
    fn attempts_have_ids_of_their_own_that_only_payment_and_partition_decide() {
        let payment = Id::from_parts(Time::from_millis(1_700_000_000_123), 7);
        let id = |partition| Router::attempt_id(payment, PartitionHandle(partition));
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2));
        assert_ne!(id(1), Router::attempt_id(Id(payment.0 + 1), PartitionHandle(1)));
        assert!(id(1).is_uuid_v7());
        assert_eq!(id(1).time(), payment.time());
        // Retries cross versions and processes: this id is part of the contract.
        assert_eq!(id(1).to_string(), "018bcfe5-687b-767e-87fa-7bf470912a4b");
    }
}
