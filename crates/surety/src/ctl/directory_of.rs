//! `surety ctl tenant`, `grant` and `merchant`: who there is, and who may do what.

use clap::{Args, Subcommand};
use serde_json::json;
use surety_protocol::{
    ActorId, Address, Amount, GrantBody, Kind, MerchantBody, MerchantId, PartitionHandle, QUOTAS_HAVE_CODES,
    Record, Reply, Rights, ShardId, StateKind, StateQuery, TenantBody, TenantId, TenantRow,
};

use super::{Target, answer};
use crate::exit::{self, Exit, Failure};
use crate::remote::{Role, Session};
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Makes a tenant, or sets its quotas, on every shard; the quotas hold per shard
    ///
    /// What is not named stays as it is; a new tenant gets the defaults. Whoever asks for more is answered QUOTA_RATE,
    /// QUOTA_IN_FLIGHT, QUOTA_OPEN_LOCKS, QUOTA_LOCKS, QUOTA_IDS, QUOTA_TOMBSTONES or QUOTA_ADVICES: nothing was
    /// executed, and the same request may be sent again while its id is young enough.
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
    /// Locks kept, open and finished [default: 16000000]
    #[arg(long, value_name = "N")]
    locks_max: Option<u64>,
    /// Ids remembered [default: 16000000]
    #[arg(long, value_name = "N")]
    ids_max: Option<u64>,
    /// Tombstones remembered [default: 1000000]
    #[arg(long, value_name = "N")]
    tombstones_max: Option<u64>,
    /// Advices and reversals remembered [default: 1000000]
    #[arg(long, value_name = "N")]
    advices_max: Option<u64>,
    /// Requests per second; 0 is no limit [default: 0]
    #[arg(long, value_name = "N")]
    rate_per_s: Option<u32>,
    /// Unanswered requests; 0 is no limit [default: 0]
    #[arg(long, value_name = "N")]
    in_flight_max: Option<u32>,
    /// Open locks; 0 is no limit [default: 0]
    #[arg(long, value_name = "N")]
    open_locks_max: Option<u32>,
    /// Shuts the tenant out
    #[arg(long)]
    disabled: bool,
    /// Lets a tenant in again that was shut out
    #[arg(long, conflicts_with = "disabled")]
    enabled: bool,
}

impl Tenant {
    /// The quotas of a shard with what is named set.
    fn over(&self, present: TenantBody) -> TenantBody {
        TenantBody {
            tenant: TenantId(self.tenant),
            actor: present.actor,
            locks_max: self.locks_max.unwrap_or(present.locks_max),
            ids_max: self.ids_max.unwrap_or(present.ids_max),
            tombstones_max: self.tombstones_max.unwrap_or(present.tombstones_max),
            advices_max: self.advices_max.unwrap_or(present.advices_max),
            rate_per_s: self.rate_per_s.unwrap_or(present.rate_per_s),
            in_flight_max: self.in_flight_max.unwrap_or(present.in_flight_max),
            open_locks_max: self.open_locks_max.unwrap_or(present.open_locks_max),
            enabled: if self.disabled {
                0
            } else if self.enabled {
                1
            } else {
                present.enabled
            },
            ..TenantBody::default()
        }
    }
}

/// The quotas of a tenant that nobody has set.
fn new_tenant() -> TenantBody {
    TenantBody {
        locks_max: 16_000_000,
        ids_max: 16_000_000,
        tombstones_max: 1_000_000,
        advices_max: 1_000_000,
        enabled: 1,
        ..TenantBody::default()
    }
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
    #[arg(long, value_parser = values::somebody, value_name = "ADDRESS")]
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
            if tenant.open_locks_max.is_some() && !knows_open_locks(&session) {
                let message = "this engine is of an older release, which has no quota of open locks: leave --open-locks-max out";
                return Err(Failure::new(Exit::Usage, message));
            }
            let mut replies = Vec::new();
            for shard in (0..session.shards()).map(ShardId) {
                let number = TenantId(tenant.tenant);
                // One that was never set has nothing but its number.
                let bare = TenantBody { tenant: number, ..TenantBody::default() };
                let was_set = |row: &TenantRow| row.quotas != bare;
                let row = tenant_row(&session, number, shard).await?;
                let present = row.filter(was_set).map_or_else(new_tenant, |row| row.quotas);
                let body = TenantBody { actor: ActorId(0), ..tenant.over(present) };
                let place = PartitionHandle::new(shard, 0);
                let record = Record::new(Kind::TenantSet, session.id(), place, Amount::ZERO, &body);
                replies.push(session.ask(record).await?);
            }
            answer::tell(json, &format!("tenant {} is set", tenant.tenant), &replies)
        }
        TenantCommand::List => list(&Session::open(target, Role::Reader).await?, json).await,
    }
}

/// Whether the engine counts open locks, and has a quota for them.
fn knows_open_locks(session: &Session) -> bool {
    session.client().hello().version >= QUOTAS_HAVE_CODES
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
                "rate_per_s": quotas.rate_per_s,
                "in_flight_max": quotas.in_flight_max,
                "open_locks": knows_open_locks(session).then_some(state.open_locks),
                "open_locks_max": quotas.open_locks_max,
            }));
            lines.push(format!(
                "shard {shard}  tenant {}{}  open {}  locks {}/{}  ids {}/{}  tombstones {}/{}  advices {}/{}{}",
                quotas.tenant,
                if quotas.enabled == 1 { "" } else { " SHUT OUT" },
                state.open_locks,
                state.locks,
                quotas.locks_max,
                state.ids,
                quotas.ids_max,
                state.tombstones,
                quotas.tombstones_max,
                state.advices,
                quotas.advices_max,
                limits(&quotas),
            ));
        }
    }
    if lines.is_empty() {
        lines.push("no tenants; `surety ctl tenant set 7` makes one".to_owned());
    }
    answer::show(json, &json!({ "ok": true, "tenants": values }), &lines)
}

/// The limits that are set.
fn limits(quotas: &TenantBody) -> String {
    let mut text = String::new();
    for (name, limit) in [
        ("requests/s", quotas.rate_per_s),
        ("in flight", quotas.in_flight_max),
        ("open locks", quotas.open_locks_max),
    ] {
        if limit > 0 {
            text.push_str(&format!("  {name} {limit}"));
        }
    }
    text
}

/// `grant`.
pub(crate) async fn grant(session: &Session, grant: &Grant, json: bool) -> Result<(), Failure> {
    let body = GrantBody { tenant: TenantId(grant.tenant), rights: grant.rights.0, ..GrantBody::default() };
    let record = Record::new(Kind::Grant, session.id(), grant.partition, Amount::ZERO, &body);
    let reply = session.ask(record).await?;
    let rights = values::rights_text(grant.rights);
    answer::tell(json, &format!("tenant {} has {rights} on {}", grant.tenant, grant.partition), &[reply])?;
    if grant.rights.0 == 0 { Ok(()) } else { warn_of_shut_out(session, grant).await }
}

/// Rights do not let a tenant in: it has to be set, too.
async fn warn_of_shut_out(session: &Session, grant: &Grant) -> Result<(), Failure> {
    let (tenant, shard) = (TenantId(grant.tenant), grant.partition.shard());
    let row = tenant_row(session, tenant, shard).await?;
    if tenant != TenantId(0) && row.is_none_or(|row| row.quotas.enabled == 0) {
        exit::tell(format_args!(
            "tenant {tenant} is shut out of shard {shard} all the same: `surety ctl tenant set {tenant} --enabled` lets it in"
        ));
    }
    Ok(())
}

/// A tenant on a shard.
async fn tenant_row(
    session: &Session,
    tenant: TenantId,
    shard: ShardId,
) -> Result<Option<TenantRow>, Failure> {
    let query = StateQuery { tenant, limit: 1, ..StateQuery::new(shard, StateKind::Tenants) };
    let rows: Vec<TenantRow> = session.rows(query).await?;
    Ok(rows.into_iter().find(|row| row.quotas.tenant == tenant))
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
