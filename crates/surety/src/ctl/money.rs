//! `surety ctl price`, `deposit`, `withdraw` and `loss`: what the settler says, said by hand, and what nobody else can say.

use clap::{Args, Subcommand};
use surety_protocol::{
    Address, Amount, AssetId, ControlBody, Kind, PartitionHandle, PriceBody, QuoteId, Record, ShardId,
    StakeBody,
};

use super::answer;
use crate::exit::{self, Failure};
use crate::remote::{self, Session};
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum PriceCommand {
    /// Sets a price on every shard
    ///
    /// The price is in base units of the quote currency for 10^18 base units of collateral.
    ///
    /// Example: surety ctl --data DIR price set 4000 --asset 1 --quote 840
    #[command(after_help = exit::HELP)]
    Set(Price),
}

/// A price.
#[derive(Debug, Args)]
pub(crate) struct Price {
    /// Base units of the quote currency for 10^18 base units of collateral
    #[arg(value_parser = values::amount)]
    price: Amount,
    /// What is priced, by the operator's numbering; 1 is AMP
    #[arg(long, default_value_t = 1, value_name = "N")]
    asset: u32,
    /// In which currency (ISO 4217 number, or the operator's own above 1000)
    #[arg(long, value_name = "N")]
    quote: u16,
    /// Collateral per value in basis points; 0 takes each policy's
    #[arg(long, default_value_t = 0, value_name = "BPS")]
    ratio_bps: u32,
}

/// A deposit.
#[derive(Debug, Args)]
pub(crate) struct Deposit {
    /// Into which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Base units
    #[arg(value_parser = values::amount)]
    amount: Amount,
    /// Who stakes
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    supplier: Address,
    /// The chain's own number of the deposit; accepted once per partition
    #[arg(long, value_name = "N")]
    nonce: u64,
}

/// A withdrawal.
#[derive(Debug, Args)]
pub(crate) struct Withdraw {
    /// From which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Units to burn, not base units: `surety ctl supplier` shows them
    #[arg(value_parser = values::units)]
    units: Amount,
    /// Whose
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    supplier: Address,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LossCommand {
    /// The chain holds less than is owed: free collateral bears it, the rest waits for the next deposits
    ///
    /// Suppliers lose it, each by the units that it has. The partition is frozen until `surety ctl partition unfreeze`. If no answer
    /// came, look with `surety ctl query --kind deficit` before you repeat it: twice is twice.
    ///
    /// Example: surety ctl --data DIR loss deficit 0:1 5e18
    #[command(after_help = exit::HELP)]
    Deficit(Loss),
    /// Exposure was made good from outside: it is no longer open
    ///
    /// Example: surety ctl --data DIR loss cover 0:1 5e18
    #[command(after_help = exit::HELP)]
    Cover(Loss),
    /// Exposure is given up: nobody makes it good
    ///
    /// Example: surety ctl --data DIR loss write-off 0:1 5e18
    #[command(after_help = exit::HELP)]
    WriteOff(Loss),
}

/// How much, and where.
#[derive(Debug, Args)]
pub(crate) struct Loss {
    /// Of which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Base units
    #[arg(value_parser = values::amount)]
    amount: Amount,
}

/// `price set`.
pub(crate) async fn price(session: &Session, command: &PriceCommand, json: bool) -> Result<(), Failure> {
    let PriceCommand::Set(price) = command;
    let body = PriceBody {
        asset: AssetId(price.asset),
        quote: QuoteId(price.quote),
        ratio_bps: price.ratio_bps,
        observed: remote::now(),
        ..PriceBody::default()
    };
    let mut replies = Vec::new();
    for shard in 0..session.shards() {
        let place = PartitionHandle::new(ShardId(shard), 0);
        replies.push(session.ask(Record::new(Kind::Price, session.id(), place, price.price, &body)).await?);
    }
    answer::tell(json, &format!("asset {} costs {} in {}", price.asset, price.price, price.quote), &replies)
}

/// `deposit`.
pub(crate) async fn deposit(session: &Session, command: &Deposit, json: bool) -> Result<(), Failure> {
    let body = StakeBody { supplier: command.supplier, nonce: command.nonce, ..StakeBody::default() };
    let record = Record::new(Kind::Deposit, session.id(), command.partition, command.amount, &body);
    let reply = session.ask(record).await?;
    answer::tell(json, &format!("{} deposited into {}", command.amount, command.partition), &[reply])
}

/// `withdraw`.
pub(crate) async fn withdraw(session: &Session, command: &Withdraw, json: bool) -> Result<(), Failure> {
    let body = StakeBody { supplier: command.supplier, ..StakeBody::default() };
    let record = Record::new(Kind::Withdraw, session.id(), command.partition, command.units, &body);
    let reply = session.ask(record).await?;
    let done = match reply.code() {
        surety_protocol::Code::Queued => format!("queued, due {}", values::moment_text(reply.deadline)),
        _ => format!("{} paid for {} units", reply.approved, reply.extra),
    };
    answer::tell(json, &done, &[reply])
}

/// `loss`.
pub(crate) async fn loss(session: &Session, command: &LossCommand, json: bool) -> Result<(), Failure> {
    let (kind, Loss { partition, amount }, done) = match command {
        LossCommand::Deficit(loss) => (Kind::Deficit, loss, "missing in"),
        LossCommand::Cover(loss) => (Kind::Cover, loss, "of exposure made good in"),
        LossCommand::WriteOff(loss) => (Kind::WriteOff, loss, "of exposure given up in"),
    };
    let record = Record::new(kind, session.id(), *partition, *amount, &ControlBody::default());
    let reply = session.ask(record).await?;
    answer::tell(json, &format!("{amount} {done} {partition}"), &[reply])
}
