//! Makes what a scenario needs: tenant, partitions, policies, rights, collateral. Repeatable: what is there stays.

use surety_client::{Client, Draft, NotExecuted, SubmitError, request};
use surety_protocol::{
    Address, Amount, AssetId, Code, PartitionHandle, Policy, Reply, Rights, ShardId, TenantBody, TenantId,
    Time,
};

use crate::scenario::{Scenario, Terms};

/// Collateral of each partition: a billion AMP.
const DEPOSIT: Amount = Amount(1_000_000_000 * 1_000_000_000_000_000_000);
/// The chain's number of that deposit, so that it is made once.
const DEPOSIT_NONCE: u64 = 1;
/// Who staked it.
const SUPPLIER: Address = Address(*b"surety load supplier");

/// Why a scenario's needs could not be met.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The engine declined or refused a step.
    #[error("cannot prepare the scenario: {step} of {partition:?} was answered {code}")]
    Declined {
        /// What was asked.
        step: &'static str,
        /// Where.
        partition: PartitionHandle,
        /// The answer.
        code: Code,
    },
    /// A step got no answer.
    #[error("cannot prepare the scenario: {step} of {partition:?}: {error}")]
    NoAnswer {
        /// What was asked.
        step: &'static str,
        /// Where.
        partition: PartitionHandle,
        /// What happened.
        error: SubmitError,
    },
}

/// Prepares an engine for a tenant's payments.
pub(crate) async fn prepare(
    admin: &Client,
    settler: &Client,
    tenant: TenantId,
    scenario: &Scenario,
) -> Result<(), SetupError> {
    for shard in 0..admin.hello().shards {
        let shard = PartitionHandle::new(ShardId(shard), 0);
        let draft = request::set_tenant(shard, &quotas(tenant));
        expect("the tenant", shard, admin.send(draft).await)?;
    }
    for partition in scenario.partition_handles(admin.hello().shards) {
        let draft = request::create_partition(partition, onchain(partition), AssetId(1), false);
        expect("creation", partition, admin.send(draft).await)?;
        let policy = request::set_policy(admin.new_id(), partition, &policy(scenario.policy));
        expect("the policy", partition, admin.submit_long(&policy).await)?;
        expect("the grant", partition, admin.send(request::grant(partition, tenant, Rights::KNOWN)).await)?;
        let deposit: Draft = request::deposit(partition, SUPPLIER, DEPOSIT, DEPOSIT_NONCE);
        expect("the deposit", partition, settler.send(deposit).await)?;
    }
    Ok(())
}

fn expect(
    step: &'static str,
    partition: PartitionHandle,
    result: Result<Reply, SubmitError>,
) -> Result<(), SetupError> {
    let code = match result {
        Ok(reply) => reply.code(),
        Err(SubmitError::NotExecuted { why: NotExecuted::Refused { code, .. }, .. }) => code,
        Err(error) => return Err(SetupError::NoAnswer { step, partition, error }),
    };
    match code {
        Code::Approved | Code::Exists => Ok(()),
        code => Err(SetupError::Declined { step, partition, code }),
    }
}

fn quotas(tenant: TenantId) -> TenantBody {
    TenantBody {
        tenant,
        locks_max: 100_000_000,
        ids_max: 60_000_000,
        tombstones_max: 1_000_000,
        advices_max: 1_000_000,
        enabled: 1,
        ..TenantBody::default()
    }
}

/// Short lives, so that what a broken run leaves behind is free again soon.
fn policy(terms: Terms) -> Policy {
    Policy {
        life_default: Time::from_secs(120),
        headroom_bps: terms.headroom_bps,
        tolerance_bps: terms.tolerance_bps,
        ..Policy::default()
    }
}

/// An on-chain id that says where it comes from and differs for every partition.
fn onchain(partition: PartitionHandle) -> [u8; 32] {
    let mut id = [0; 32];
    id[..4].copy_from_slice(b"load");
    id[4..12].copy_from_slice(&partition.0.to_be_bytes());
    id[12..].copy_from_slice(&SUPPLIER.0);
    id
}
