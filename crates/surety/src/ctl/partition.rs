//! `surety ctl partition` and `supplier`.

use clap::{Args, Subcommand};
use ledger::Totals;
use serde_json::json;
use surety_protocol::{
    Address, Amount, AssetId, Code, ControlBody, Kind, PartitionBody, PartitionHandle, PartitionRow, Record,
    ShardId, StateKind, StateQuery, SupplierRow, TenantId, TenantRow, WithdrawalRow,
};

use super::answer;
use crate::exit::{self, Exit, Failure};
use crate::remote::Session;
use crate::{totals, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a partition
    ///
    /// Example: surety ctl --data DIR partition create 0:1 --asset 1
    #[command(after_help = exit::HELP)]
    Create {
        /// Where: shard:number
        #[arg(value_parser = values::partition)]
        partition: PartitionHandle,
        /// Its id on chain, 32 bytes in hexadecimal; without it one that holds nothing but the handle
        #[arg(long, value_parser = values::onchain, value_name = "HEX")]
        onchain: Option<[u8; 32]>,
        /// The collateral, by the operator's numbering; 1 is AMP
        #[arg(long, default_value_t = 1, value_name = "N")]
        asset: u32,
        /// Keep the open value of each merchant, which a limit per merchant needs; for ever
        #[arg(long)]
        track_merchants: bool,
    },
    /// Lists all partitions with their money
    ///
    /// Example: surety ctl --data DIR partition list
    #[command(after_help = exit::HELP)]
    List,
    /// Shows one partition: money, units, policy
    ///
    /// Example: surety ctl --data DIR partition show 0:1 --json
    #[command(after_help = exit::HELP)]
    Show {
        /// Which: shard:number
        #[arg(value_parser = values::partition)]
        partition: PartitionHandle,
    },
    /// Declines new locks until it is unfrozen; what is locked goes on
    ///
    /// Example: surety ctl --data DIR partition freeze 0:1 --reason 7
    #[command(after_help = exit::HELP)]
    Freeze {
        /// Which: shard:number
        #[arg(value_parser = values::partition)]
        partition: PartitionHandle,
        /// A number for the log
        #[arg(long, default_value_t = 0, value_name = "N")]
        reason: u64,
    },
    /// Allows new locks again
    ///
    /// Example: surety ctl --data DIR partition unfreeze 0:1
    #[command(after_help = exit::HELP)]
    Unfreeze {
        /// Which: shard:number
        #[arg(value_parser = values::partition)]
        partition: PartitionHandle,
    },
    /// Lets a partition live on after a loss: its books say again what chain and merchants say
    ///
    /// After `surety restore --accept-loss-after` nothing moves in a partition until this is said of it. Without --yes it only shows
    /// what is kept, to be compared, and ends with 2. With it what has become due meanwhile happens at once, and it cannot be taken
    /// back. Of the directory tenants, rights, merchants and policies are those of the backup, too. A partition that is made after
    /// a loss has to be reconciled as well.
    ///
    /// Example: surety ctl --data DIR partition reconcile 0:1 --note 20261122 --yes
    #[command(after_help = exit::HELP)]
    Reconcile {
        /// Which: shard:number
        #[arg(value_parser = values::partition)]
        partition: PartitionHandle,
        /// A number for the log: of the report on what was compared
        #[arg(long, value_name = "CODE")]
        note: u64,
        /// It was compared: do it
        #[arg(long)]
        yes: bool,
    },
}

/// Which suppliers to show.
#[derive(Debug, Args)]
pub(crate) struct Supplier {
    /// Of which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// One supplier only
    #[arg(value_parser = values::address)]
    supplier: Option<Address>,
}

impl Command {
    /// True if the command only reads.
    pub(crate) const fn is_reading(&self) -> bool {
        matches!(self, Self::List | Self::Show { .. })
    }
}

/// `list` and `show`.
pub(crate) async fn read(session: &Session, command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Show { partition } => {
            let found = session.partition(*partition).await?.ok_or_else(|| unknown(*partition))?;
            let mut value = totals::to_json(&found);
            value["ok"] = json!(true);
            value["policy"] = crate::policy_text::PolicyText::from(&found.policy).to_json();
            answer::show(json, &value, &totals::to_lines(&found))
        }
        _ => {
            let mut all = Vec::new();
            for shard in (0..session.shards()).map(ShardId) {
                let rows = session.rows(StateQuery::new(shard, StateKind::Partitions)).await?;
                all.extend(rows.iter().map(|row: &PartitionRow| Totals::from(row)));
            }
            let value =
                json!({ "ok": true, "partitions": all.iter().map(totals::to_json).collect::<Vec<_>>() });
            let mut lines: Vec<String> = all.iter().map(totals::to_line).collect();
            if lines.is_empty() {
                lines.push("no partitions; `surety ctl partition create 0:1` makes one".to_owned());
            }
            answer::show(json, &value, &lines)
        }
    }
}

/// `create`, `freeze`, `unfreeze` and `reconcile`.
pub(crate) async fn change(session: &Session, command: &Command, json: bool) -> Result<(), Failure> {
    let (record, done) = match command {
        Command::Create { partition, onchain, asset, track_merchants } => {
            let body = PartitionBody {
                onchain: onchain.unwrap_or_else(|| onchain_of(*partition)),
                asset: AssetId(*asset),
                track_merchants: u8::from(*track_merchants),
                ..PartitionBody::default()
            };
            let record = Record::new(Kind::PartitionCreate, session.id(), *partition, Amount::ZERO, &body);
            (record, format!("partition {partition} is made"))
        }
        Command::Freeze { partition, reason } => {
            let body = ControlBody { user: *reason, ..ControlBody::default() };
            let record = Record::new(Kind::Freeze, session.id(), *partition, Amount::ZERO, &body);
            (record, format!("partition {partition} is frozen"))
        }
        Command::Unfreeze { partition } => {
            let body = ControlBody::default();
            let record = Record::new(Kind::Unfreeze, session.id(), *partition, Amount::ZERO, &body);
            (record, format!("partition {partition} is no longer frozen"))
        }
        Command::Reconcile { partition, note, yes } => {
            let found = session.partition(*partition).await?.ok_or_else(|| unknown(*partition))?;
            if !found.is_unreconciled {
                return tell_nothing_to_do(*partition, json);
            }
            if !yes {
                return tell_kept(session, &found, json).await;
            }
            let body = ControlBody { user: *note, ..ControlBody::default() };
            let record = Record::new(Kind::Reconcile, session.id(), *partition, Amount::ZERO, &body);
            (record, format!("partition {partition} is reconciled and lives on"))
        }
        Command::List | Command::Show { .. } => return Ok(()),
    };
    let reply = session.ask(record).await?;
    answer::tell(json, &done, &[reply])
}

/// What was not lost, or lives on already, is left alone: nothing is logged a second time.
fn tell_nothing_to_do(partition: PartitionHandle, json: bool) -> Result<(), Failure> {
    let line = format!(
        "partition {partition}: there is nothing to reconcile: no loss was accepted, or it is reconciled already; nothing was done"
    );
    let value =
        json!({ "ok": true, "partition": partition.to_string(), "unreconciled": false, "changed": false });
    answer::show(json, &value, &[line])
}

/// Shows what somebody has to have compared who lets a partition live on: it is as the backup has it. Nothing is done.
async fn tell_kept(session: &Session, found: &Totals, json: bool) -> Result<(), Failure> {
    let partition = found.handle;
    let tenants: Vec<TenantRow> =
        session.rows(StateQuery::new(partition.shard(), StateKind::Tenants)).await?;
    let others = || tenants.iter().filter(|row| row.quotas.tenant != TenantId(0));
    let mut value = totals::to_json(found);
    value["ok"] = json!(false);
    value["reconciled"] = json!(false);
    value["policy"] = crate::policy_text::PolicyText::from(&found.policy).to_json();
    value["tenants"] = others()
        .map(|row| {
            let is_enabled = row.quotas.enabled == 1;
            json!({ "tenant": row.quotas.tenant.0, "enabled": is_enabled, "locks": row.locks })
        })
        .collect();
    value["compare"] = json!(KEPT);
    let mut lines = totals::to_lines(found);
    lines.extend(others().map(|row| {
        let state = if row.quotas.enabled == 1 { "let in" } else { "SHUT OUT" };
        format!("tenant {}  {state}  locks {}", row.quotas.tenant, row.locks)
    }));
    lines.push(KEPT.to_owned());
    answer::show(json, &value, &lines)?;
    let advice = "nothing was done: compare this with chain and merchants, then say it again with --yes";
    let failure = Failure::new(Exit::Usage, format!("partition {partition}: {advice}"));
    Err(if json { failure.told() } else { failure })
}

/// Nothing marks what a restore has taken back of these, and rights and merchants are in no answer of the engine: they are in its records.
const KEPT: &str = "\
as it was when the log that is kept ended; what was changed later is taken back and counts at once. Compare, and set again, in this
shard: tenants that were shut out since, rights that were withdrawn (`ctl grant`), payees and release keys of merchants (`ctl
merchant ID --tenant N --payee ADDRESS`: whoever holds an old release key could free their locks), prices, this partition's policy,
revoked certificates. Rights and merchants as they are kept, where the log still has them: `surety ctl query --kind grant` and
`--kind merchant_set`, with --shard; or `surety restore --until` the end of the backup, and `surety dump` of what that makes.";

/// `supplier`.
pub(crate) async fn suppliers(session: &Session, command: &Supplier, json: bool) -> Result<(), Failure> {
    if session.partition(command.partition).await?.is_none() {
        return Err(unknown(command.partition));
    }
    let ask = |kind| StateQuery {
        partition: command.partition,
        ..StateQuery::new(command.partition.shard(), kind)
    };
    let asked = ask(StateKind::Suppliers);
    let asked = match command.supplier {
        Some(supplier) => StateQuery { supplier, limit: 1, ..asked },
        None => asked,
    };
    let is_wanted = |supplier| command.supplier.is_none_or(|wanted| wanted == supplier);
    let mut suppliers: Vec<SupplierRow> = session.rows(asked).await?;
    suppliers.retain(|row| is_wanted(row.supplier));
    let mut queued: Vec<WithdrawalRow> = session.rows(ask(StateKind::Withdrawals)).await?;
    queued.retain(|row| is_wanted(row.supplier));
    let value = json!({
        "ok": true,
        "partition": command.partition.to_string(),
        "suppliers": suppliers.iter().map(|state| json!({
            "supplier": state.supplier.to_string(),
            "units": state.units.to_string(),
            "queued": state.queued.to_string(),
            "value": state.value.to_string(),
        })).collect::<Vec<_>>(),
        "queued": queued.iter().map(|queued| json!({
            "id": queued.id.to_string(),
            "supplier": queued.supplier.to_string(),
            "units": queued.units.to_string(),
            "due": values::moment_text(queued.due),
        })).collect::<Vec<_>>(),
    });
    let line = |row: &SupplierRow| {
        format!("{}  units {}  queued {}  worth {}", row.supplier, row.units, row.queued, row.value)
    };
    let due = |row: &WithdrawalRow| {
        format!("{}  withdraws {} units, due {}", row.supplier, row.units, values::moment_text(row.due))
    };
    let mut lines: Vec<String> = suppliers.iter().map(line).chain(queued.iter().map(due)).collect();
    if lines.is_empty() {
        lines.push("no suppliers".to_owned());
    }
    answer::show(json, &value, &lines)
}

pub(crate) fn unknown(partition: PartitionHandle) -> Failure {
    let code = Code::UnknownPartition;
    let advice = "`surety ctl partition list` shows what there is";
    Failure::new(Exit::Declined, format!("partition {partition}: {code}; {advice}"))
}

/// An id on chain for development: the handle at its end, under a prefix that means nothing on chain.
fn onchain_of(partition: PartitionHandle) -> [u8; 32] {
    let mut id = [0; 32];
    id[24..].copy_from_slice(&partition.0.to_be_bytes());
    id
}
