//! What the demo tells at its end.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use surety_protocol::{Code, Kind};

use super::Seen;
use super::account::Account;
use super::check::MoneyCheck;
use super::world::PARTITIONS;
use crate::exit::Failure;

/// One AMP in base units.
const AMP: u128 = 1_000_000_000_000_000_000;

/// A rate in whole events.
pub(crate) fn per_second(count: u64, lasted: Duration) -> u64 {
    let micros = lasted.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// The demo as one JSON object.
pub(crate) fn json(seen: &Seen, check: &MoneyCheck) -> Value {
    let latency = &seen.outcome.latency_us;
    let mut declined = serde_json::Map::new();
    for ((_, code), count) in seen.outcome.tally.codes().iter().filter(|((_, code), _)| !code.is_success()) {
        let sum = declined.get(code.name()).and_then(Value::as_u64).unwrap_or(0) + count;
        declined.insert(code.name().to_owned(), json!(sum));
    }
    let mut done = serde_json::Map::new();
    for ((kind, _), count) in seen.outcome.tally.codes().iter().filter(|((_, code), _)| code.is_success()) {
        let sum = done.get(kind.name()).and_then(Value::as_u64).unwrap_or(0) + count;
        done.insert(kind.name().to_owned(), json!(sum));
    }
    json!({
        "ok": check.is_ok(),
        "locks": seen.locks,
        "requests": seen.answered,
        "rate_per_s": per_second(seen.answered, seen.lasted),
        "locks_per_s": per_second(seen.locks, seen.lasted),
        "p50_us": latency.value_at_quantile(0.5),
        "p99_us": latency.value_at_quantile(0.99),
        "durability": "fsync",
        "seconds": seen.lasted.as_secs_f64(),
        "done": done,
        "declined": declined,
        "repeats": seen.outcome.tally.repeats(),
        "expired": seen.elapsed.expired,
        "late_captures": seen.outcome.tally.late_captures(),
        "overdue": seen.elapsed.overdue,
        "refused": seen.outcome.refused,
        "version": env!("CARGO_PKG_VERSION"),
        "money_check": check,
    })
}

/// The demo for people.
pub(crate) fn print(
    seen: &Seen,
    check: &MoneyCheck,
    account: Option<&Account>,
    chain: Option<&Account>,
    data: &Path,
    is_temporary: bool,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let latency = &seen.outcome.latency_us;
    writeln!(out, "\nWhat happened in {:.1} s, every reply on the disk first:", seen.lasted.as_secs_f32())?;
    for (what, count) in happened(seen).into_iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "  {count:>9}  {what}")?;
    }
    writeln!(
        out,
        "\n  {} replies/s, {} locks/s, p50 {} us, p99 {} us (durability fsync, client included)",
        per_second(seen.answered, seen.lasted),
        per_second(seen.locks, seen.lasted),
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
    )?;
    if let Some(account) = account {
        writeln!(
            out,
            "\n  partition      supplied            free          held     unsettled      paid out   (AMP)"
        )?;
        for (handle, name) in PARTITIONS {
            let sums = account.partitions.get(&handle).copied().unwrap_or_default();
            let told = |account: &Account| account.partitions.get(&handle).copied();
            let on_chain = chain.and_then(told).unwrap_or_default();
            let amp = |sum: Option<u128>| sum.map_or_else(|| "?".to_owned(), |sum| (sum / AMP).to_string());
            writeln!(
                out,
                "  {name:<9} {:>13} {:>15} {:>13} {:>13} {:>13}",
                amp(on_chain.supplied),
                amp(sums.free),
                amp(sums.held),
                amp(sums.unsettled),
                amp(on_chain.consumed),
            )?;
        }
    }
    writeln!(out, "\nMoney check, four accounts from four sources:")?;
    for (party, source, verdict) in [
        ("replies", "a tally of the replies as received", &check.replies),
        ("lookups", "a look-up of every lock over QUIC", &check.lookups),
        ("log", "the closed log, replayed and verified", &check.log),
        ("chain", "contracts and tokens, the engine gone", &check.chain),
    ] {
        writeln!(out, "  {party:<8} {source:<38} {verdict}")?;
    }
    writeln!(out, "\n{}", if check.is_ok() { "All agree, to the last base unit." } else { "THEY DIFFER." })?;
    next_steps(&mut out, data, is_temporary)
}

fn next_steps(out: &mut impl Write, data: &Path, is_temporary: bool) -> Result<(), Failure> {
    let data = data.display();
    writeln!(out, "\nTry next:")?;
    if is_temporary {
        writeln!(out, "  surety demo --data my-demo             keep the data directory")?;
        writeln!(out, "  surety demo --tamper replies           see that the check notices")?;
        writeln!(out, "  surety init --data my-engine && surety serve --data my-engine")?;
    } else {
        writeln!(out, "  surety verify --data {data}")?;
        writeln!(out, "  surety dump --data {data} | less")?;
        writeln!(out, "  surety serve --data {data}")?;
    }
    Ok(())
}

fn happened(seen: &Seen) -> Vec<(&'static str, u64)> {
    let codes = seen.outcome.tally.codes();
    let done = |kind: Kind| {
        let counts = codes.iter().filter(|((known, code), _)| *known == kind && code.is_success());
        counts.map(|(_, count)| count).sum::<u64>()
    };
    let declined: u64 = codes
        .iter()
        .filter(|((kind, code), _)| *kind == Kind::Lock && !code.is_success() && *code != Code::None)
        .map(|(_, count)| count)
        .sum();
    vec![
        ("locks approved", done(Kind::Lock)),
        ("locks declined by policy", declined),
        ("locks raised", done(Kind::Increase)),
        ("captures", done(Kind::Capture)),
        ("captures after the lock had expired", seen.outcome.tally.late_captures()),
        ("captures reversed", done(Kind::Reverse)),
        ("refunds", done(Kind::Refund)),
        ("releases", done(Kind::Release)),
        ("settled: the payer's asset was final", done(Kind::Settle)),
        ("consumed: the payer's asset failed, the merchant is paid", done(Kind::Consume)),
        ("consumed by time: nobody settled", seen.elapsed.overdue),
        ("locks expired by time", seen.elapsed.expired),
        ("repeats, answered as the first time", seen.outcome.tally.repeats()),
        ("requests refused as overload, nothing executed", seen.outcome.refused),
    ]
}
