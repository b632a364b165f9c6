//! What the demo's engine holds: one tenant, its merchants, three partitions with policies, prices and stake.

use std::time::Duration;

use surety_client::{Client, Draft, request};
use surety_protocol::{
    Address, Amount, AssetId, Id, MerchantBody, PartitionHandle, Policy, QuoteId, Record, Reply, Rights,
    TenantBody, TenantId, Time,
};

use super::on_chain::OnChain;
use super::tally::Tally;
use crate::exit::{Exit, Failure};

/// Whose payments they are; the development authorizer's tenant.
pub(crate) const TENANT: TenantId = TenantId(1);
/// Merchants, numbered from 1.
pub(crate) const MERCHANTS: u64 = 8;
/// Long lives, everything settled by hand.
pub(crate) const RETAIL: PartitionHandle = PartitionHandle(1);
/// Short lives, late captures, and captures that are consumed when nobody settles them in time.
pub(crate) const STREET: PartitionHandle = PartitionHandle(2);
/// Locks in dollars.
pub(crate) const FX: PartitionHandle = PartitionHandle(3);
/// US dollars (ISO 4217), in millionths.
pub(crate) const FX_QUOTE: QuoteId = QuoteId(840);
/// Life of a lock on [`STREET`].
pub(crate) const SHORT_LIFE: Duration = Duration::from_millis(250);
/// From a capture on [`STREET`] until it is consumed.
const SHORT_SETTLE_BY: Duration = Duration::from_millis(400);
/// More than the policy of [`RETAIL`] allows.
pub(crate) const TOO_LARGE: Amount = Amount(1_000_000_000_000_000_000_000_000);
/// The most that one lock of [`RETAIL`] may take: 10,000 AMP.
const LOCK_MAX: Amount = Amount(10_000_000_000_000_000_000_000);
/// Collateral of each partition: a billion AMP.
pub(crate) const STAKE: Amount = Amount(1_000_000_000_000_000_000_000_000_000);
/// Millionths of a dollar for one AMP.
const PRICE: Amount = Amount(4_000);
const AMP: AssetId = AssetId(1);
/// The shard itself.
const SHARD: PartitionHandle = PartitionHandle(0);

/// The partitions with their names for people.
pub(crate) const PARTITIONS: [(PartitionHandle, &str); 3] =
    [(RETAIL, "retail"), (STREET, "street"), (FX, "dollars")];

/// Makes everything, and notes what the replies say.
pub(crate) async fn build(
    admin: &Client,
    settler: &Client,
    lasting: Duration,
    on_chain: &OnChain,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut world = Builder { tally };
    let quotas = TenantBody {
        tenant: TENANT,
        locks_max: 64_000_000,
        ids_max: 64_000_000,
        tombstones_max: 1_000_000,
        advices_max: 1_000_000,
        enabled: 1,
        ..TenantBody::default()
    };
    world.send(admin, request::set_tenant(SHARD, &quotas)).await?;
    for merchant in 1..=MERCHANTS {
        let address = payee(merchant);
        let body = MerchantBody {
            merchant: surety_protocol::MerchantId(merchant),
            payee: address,
            release_key: address,
            enabled: 1,
            ..MerchantBody::default()
        };
        world.send(admin, request::set_merchant(SHARD, TENANT, &body)).await?;
    }
    for (partition, _) in PARTITIONS {
        let onchain = on_chain.onchain(partition);
        world.send(admin, request::create_partition(partition, onchain, AMP, false)).await?;
        let records = request::set_policy(admin.new_id(), partition, &policy(partition, lasting));
        world.note(&records[0], admin.submit_long(&records).await)?;
        let rights = Rights::AUTHORIZE | Rights::READ;
        world.send(admin, request::grant(partition, TENANT, rights)).await?;
    }
    world.send(settler, request::price(SHARD, AMP, FX_QUOTE, PRICE, settler.now())).await?;
    Ok(())
}

/// The rules of a partition. Locks are kept until the demo has looked them all up.
fn policy(partition: PartitionHandle, lasting: Duration) -> Policy {
    let kept = span(lasting + Duration::from_secs(3600));
    let common = Policy {
        life_default: kept,
        life_max: kept,
        settlement_window: kept,
        price_age_max: kept,
        settle_by: kept,
        ..Policy::default()
    };
    match partition {
        STREET => Policy {
            life_default: span(SHORT_LIFE),
            settle_by: span(SHORT_SETTLE_BY),
            late_capture: 1,
            late_window: kept,
            ..common
        },
        FX => Policy { ratio_bps: 12_000, stop_ratio_bps: 11_000, ..common },
        _ => Policy { lock_max: LOCK_MAX, ..common },
    }
}

fn span(duration: Duration) -> Time {
    Time(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Where a merchant is paid.
pub(crate) fn payee(merchant: u64) -> Address {
    let mut bytes = [0xbb; 20];
    bytes[12..].copy_from_slice(&merchant.to_be_bytes());
    Address(bytes)
}

struct Builder<'a> {
    tally: &'a mut Tally,
}

impl Builder<'_> {
    async fn send(&mut self, client: &Client, draft: Draft) -> Result<Id, Failure> {
        let record = draft.into_record(|| client.new_id());
        self.note(&record, client.submit(record).await)
    }

    fn note(
        &mut self,
        record: &Record,
        answer: Result<Reply, surety_client::SubmitError>,
    ) -> Result<Id, Failure> {
        let reply = answer.map_err(|error| Failure::new(Exit::Failure, format!("setting up: {error}")))?;
        if !reply.code().is_success() {
            let kind = record.kind().map_or("?", surety_protocol::Kind::name);
            return Err(Failure::new(
                Exit::Failure,
                format!("setting up: {kind} was answered {}", reply.code()),
            ));
        }
        self.tally.note(record, &reply);
        Ok(record.id)
    }
}
