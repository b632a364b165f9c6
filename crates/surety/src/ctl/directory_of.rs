//! `surety ctl tenant`, `grant` and `merchant`: who there is, and who may do what.

use clap::{Args, Subcommand};
use serde_json::json;
use surety_protocol::{
    Address, Amount, GrantBody, Kind, MerchantBody, MerchantId, PartitionHandle, Record, Reply, Rights,
    ShardId, StateKind, StateQuery, TenantBody, TenantId, TenantRow,
};

use super::{Target, answer};
use crate::exit::{self, Failure};
use crate::remote::{Role, Session};
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Makes a tenant, or sets its quotas, on every shard; the quotas hold per shard
    ///
    /// Example: surety ctl --data DIR tenant set 7 --locks-max 1000000
    #[command(after_help = exit::HELP)]
    Set(Tenant),
    /// Lists tenants: quotas, and what is used of them
    ///
    /// Example: surety ctl --data DIR tenant list --json
    #[command(after_help = exit::HELP)]
    List,
}

/// A tenant.
#[derive(Debug, Args)]
pub(crate) struct Tenant {
    /// Which
    tenant: u32,
    /// Locks kept, open and finished
    #[arg(long, default_value_t = 16_000_000, value_name = "N")]
    locks_max: u64,
    /// Ids remembered
    #[arg(long, default_value_t = 16_000_000, value_name = "N")]
    ids_max: u64,
    /// Tombstones remembered
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    tombstones_max: u64,
    /// Advices and reversals remembered
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    advices_max: u64,
    /// Requests per second; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    rate_per_s: u32,
    /// Unanswered requests; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    in_flight_max: u32,
    /// Shuts the tenant out
    #[arg(long)]
    disabled: bool,
}

/// Rights.
#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// On which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Whose rights
    tenant: u32,
    /// authorize, settle, consume, advise, read with commas; or all, or none
    #[arg(value_parser = values::rights)]
    rights: Rights,
}

/// A merchant.
#[derive(Debug, Args)]
pub(crate) struct Merchant {
    /// Which, by its tenant's numbering
    merchant: u64,
    /// Whose merchant
    #[arg(long, value_name = "N")]
    tenant: u32,
    /// Who is paid on chain
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    payee: Address,
    /// Whose signature releases certified locks; without it the payee's
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    release_key: Option<Address>,
    /// Shuts the merchant out
    #[arg(long)]
    disabled: bool,
}

/// `tenant`.
pub(crate) async fn tenant(target: &Target, command: &TenantCommand, json: bool) -> Result<(), Failure> {
    match command {
        TenantCommand::Set(tenant) => {
            let session = Session::open(target, Role::Admin).await?;
            let body = TenantBody {
                tenant: TenantId(tenant.tenant),
                locks_max: tenant.locks_max,
                ids_max: tenant.ids_max,
                tombstones_max: tenant.tombstones_max,
                advices_max: tenant.advices_max,
                rate_per_s: tenant.rate_per_s,
                in_flight_max: tenant.in_flight_max,
                enabled: u8::from(!tenant.disabled),
                ..TenantBody::default()
            };
            let make = |place, id| Record::new(Kind::TenantSet, id, place, Amount::ZERO, &body);
            let replies = everywhere(&session, make).await?;
            answer::tell(json, &format!("tenant {} is set", tenant.tenant), &replies)
        }
        TenantCommand::List => list(&Session::open(target, Role::Reader).await?, json).await,
    }
}

async fn list(session: &Session, json: bool) -> Result<(), Failure> {
    let (mut values, mut lines) = (Vec::new(), Vec::new());
    for shard in 0..session.shards() {
        let asked = StateQuery::new(ShardId(shard), StateKind::Tenants);
        let tenants: Vec<TenantRow> = session.rows(asked).await?;
        // The operator has no quotas, though its ids are counted.
        for state in tenants.into_iter().filter(|state| state.quotas.tenant != TenantId(0)) {
            let quotas = state.quotas;
            values.push(json!({
                "shard": shard,
                "tenant": quotas.tenant.0,
                "enabled": quotas.enabled == 1,
                "locks": state.locks,
                "locks_max": quotas.locks_max,
                "ids": state.ids,
                "ids_max": quotas.ids_max,
                "tombstones": state.tombstones,
                "tombstones_max": quotas.tombstones_max,
                "advices": state.advices,
                "advices_max": quotas.advices_max,
            }));
            lines.push(format!(
                "shard {shard}  tenant {}{}  locks {}/{}  ids {}/{}  tombstones {}/{}  advices {}/{}",
                quotas.tenant,
                if quotas.enabled == 1 { "" } else { " SHUT OUT" },
                state.locks,
                quotas.locks_max,
                state.ids,
                quotas.ids_max,
                state.tombstones,
                quotas.tombstones_max,
                state.advices,
                quotas.advices_max,
            ));
        }
    }
    if lines.is_empty() {
        lines.push("no tenants; `surety ctl tenant set 7` makes one".to_owned());
    }
    answer::show(json, &json!({ "ok": true, "tenants": values }), &lines)
}

/// `grant`.
pub(crate) async fn grant(session: &Session, grant: &Grant, json: bool) -> Result<(), Failure> {
    let body = GrantBody { tenant: TenantId(grant.tenant), rights: grant.rights.0, ..GrantBody::default() };
    let record = Record::new(Kind::Grant, session.id(), grant.partition, Amount::ZERO, &body);
    let reply = session.ask(record).await?;
    let rights = values::rights_text(grant.rights);
    answer::tell(json, &format!("tenant {} has {rights} on {}", grant.tenant, grant.partition), &[reply])
}

/// `merchant`.
pub(crate) async fn merchant(session: &Session, merchant: &Merchant, json: bool) -> Result<(), Failure> {
    let body = MerchantBody {
        merchant: MerchantId(merchant.merchant),
        payee: merchant.payee,
        release_key: merchant.release_key.unwrap_or(merchant.payee),
        enabled: u32::from(!merchant.disabled),
        ..MerchantBody::default()
    };
    let tenant = TenantId(merchant.tenant);
    let make = |place, id| {
        let record = Record::new(Kind::MerchantSet, id, place, Amount::ZERO, &body);
        Record { tenant, ..record }
    };
    let replies = everywhere(session, make).await?;
    answer::tell(json, &format!("merchant {} of tenant {tenant} is set", merchant.merchant), &replies)
}

/// Asks every shard the same.
async fn everywhere(
    session: &Session,
    make: impl Fn(PartitionHandle, surety_protocol::Id) -> Record,
) -> Result<Vec<Reply>, Failure> {
    let mut replies = Vec::new();
    for shard in 0..session.shards() {
        let place = PartitionHandle::new(ShardId(shard), 0);
        replies.push(session.ask(make(place, session.id())).await?);
    }
    Ok(replies)
}
