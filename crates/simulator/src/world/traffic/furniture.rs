//! What a world begins with: tenants, merchants, partitions in their characters, collateral and prices.

use surety_protocol::{
    Address, Amount, AssetId, CategoryRule, GrantBody, Id, Kind, MerchantBody, MerchantId, PartitionBody,
    PartitionHandle, Policy, PriceBody, Record, Rights, StakeBody, TenantBody, TenantId, Time, long,
};

use super::{PARTITIONS, QUOTES, SHARD};
use crate::random::Random;

pub(super) fn release_key(merchant: u64) -> Address {
    Address([u8::try_from(merchant).unwrap_or(0) + 100; 20])
}

pub(super) fn merchant_set(id: Id, tenant: u32, merchant: u64) -> Record {
    let body = MerchantBody {
        merchant: MerchantId(merchant),
        payee: Address([50 + u8::try_from(merchant).unwrap_or(0); 20]),
        release_key: release_key(merchant),
        enabled: 1,
        ..MerchantBody::default()
    };
    let shard = PartitionHandle::new(SHARD, 0);
    let mut record = Record::new(Kind::MerchantSet, id, shard, Amount(0), &body);
    record.tenant = TenantId(tenant);
    record
}

pub(super) fn partition_create(id: Id, number: u64) -> Record {
    let body = PartitionBody {
        onchain: onchain(number),
        asset: AssetId(1),
        track_merchants: u8::from(number < 3),
        ..PartitionBody::default()
    };
    let handle = PartitionHandle::new(SHARD, number);
    Record::new(Kind::PartitionCreate, id, handle, Amount(0), &body)
}

pub(super) fn tenant_body(tenant: u32) -> TenantBody {
    TenantBody {
        tenant: TenantId(tenant),
        locks_max: 900,
        ids_max: 2_000,
        tombstones_max: 100,
        advices_max: 2_000,
        enabled: 1,
        ..TenantBody::default()
    }
}

/// A policy in the character of its partition, with something changed. Where a chain makes blocks, certificates are claimable for
/// as long as clocks may differ and a call takes to be final.
pub(super) fn policy(number: u64, random: &mut Random, has_chain: bool) -> Policy {
    let mut policy = Policy {
        life_default: Time::from_secs(8),
        life_max: Time::from_secs(40),
        settle_by: Time::from_millis(6_000 + random.below(3_000)),
        claim_margin: Time::from_secs(if has_chain { 300 } else { 5 }),
        unbonding: Time::from_secs(10),
        price_age_max: Time::from_secs(15),
        velocity_window: Time::from_secs(10),
        headroom_bps: 1_500,
        tolerance_bps: 2_000,
        fee_bps: 25,
        ratio_bps: 15_000,
        stop_ratio_bps: 12_000,
        edge_unit: Amount(10),
        late_window: Time::from_secs(10),
        refund_window: Time::from_secs(12),
        late_capture: u8::from(number != 2),
        settle_by_action: u8::from(number == 4),
        ..Policy::default()
    };
    policy.categories[0] =
        CategoryRule { category: 5_401, tolerance_bps: 5_000, headroom_bps: 0, reserved: 0 };
    match number {
        1 => policy.lock_max = Amount(30_000),
        2 => {
            policy.merchant_open_max = Amount(9_000);
            policy.merchants_listed = 1;
            policy.settle_by = Time::ZERO;
        }
        3 => (policy.velocity_count, policy.velocity_value) = (60, Amount(20_000)),
        _ => policy.unbonding = Time::ZERO,
    }
    match random.below(6) {
        0 => policy.life_default = Time::from_secs(50),
        1 => policy.late_capture = 0,
        2 => policy.settle_by_action = 1 - policy.settle_by_action,
        3 => policy.headroom_bps = 0,
        4 => policy.unbonding = Time::from_secs(1),
        _ => {}
    }
    policy
}

/// A partition's id on chain.
pub(in crate::world) fn onchain(number: u64) -> [u8; 32] {
    [if number == PARTITIONS { 0xaa } else { u8::try_from(number).unwrap_or(0) }; 32]
}

/// The supplies that a world begins with, by their number on chain: each partition has one.
pub(in crate::world) fn first_supplies() -> impl Iterator<Item = (PartitionHandle, Address, u128)> {
    (1..=PARTITIONS).map(|number| {
        let amount = if number == PARTITIONS { 4_000 } else { 60_000 };
        (PartitionHandle::new(SHARD, number), Address([1; 20]), amount)
    })
}

/// The operator tells where every merchant is paid, whatever tenant it belongs to.
pub(in crate::world) fn payees_of_all(random: &mut Random, now: Time) -> Vec<Vec<Record>> {
    let mut operations = Vec::new();
    for tenant in [0, 7, 8, 9, 77] {
        for merchant in 1..6 {
            let entropy = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
            operations.push(vec![merchant_set(Id::from_parts(now, entropy), tenant, merchant)]);
        }
    }
    operations
}

/// What the operator sends before anything else can happen.
pub(in crate::world) fn furniture(random: &mut Random, now: Time, has_chain: bool) -> Vec<Vec<Record>> {
    let mut operations = Vec::new();
    let mut id = {
        let mut ids = random.fork();
        move || Id::from_parts(now, u128::from(ids.next_u64()) << 64 | u128::from(ids.next_u64()))
    };
    let shard = PartitionHandle::new(SHARD, 0);
    for tenant in 7..10 {
        operations.push(vec![Record::new(Kind::TenantSet, id(), shard, Amount(0), &tenant_body(tenant))]);
        for merchant in 1..6 {
            operations.push(vec![merchant_set(id(), tenant, merchant)]);
        }
    }
    for number in 1..=PARTITIONS {
        let handle = PartitionHandle::new(SHARD, number);
        operations.push(vec![partition_create(id(), number)]);
        operations.push(long::split(
            Kind::Policy,
            id(),
            handle,
            0,
            &policy(number, random, has_chain).to_bytes(),
        ));
        for tenant in 7..9 {
            let body =
                GrantBody { tenant: TenantId(tenant), rights: Rights::KNOWN.0, ..GrantBody::default() };
            operations.push(vec![Record::new(Kind::Grant, id(), handle, Amount(0), &body)]);
        }
    }
    for (nonce, (handle, supplier, amount)) in (1..).zip(first_supplies()) {
        let body = StakeBody { supplier, nonce, ..StakeBody::default() };
        operations.push(vec![Record::new(Kind::Deposit, id(), handle, Amount(amount), &body)]);
    }
    for quote in QUOTES {
        let body =
            PriceBody { asset: AssetId(1), quote, observed: now, ratio_bps: 15_000, ..PriceBody::default() };
        let price = Amount(2_000_000_000_000_000_000);
        operations.push(vec![Record::new(Kind::Price, id(), shard, price, &body)]);
    }
    operations
}
