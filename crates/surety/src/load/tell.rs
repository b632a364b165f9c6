//! What a run came to, as text or as one JSON object.

use std::io::Write;

use loadtest::Report;
use serde_json::json;

use super::with_version;
use crate::exit::{Exit, Failure};

/// Tells it. A run that is not sound is a failure, and so is what went wrong beside it.
pub(super) fn tell(report: &Report, json: bool, trouble: Option<&Failure>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        let mut value = with_version(serde_json::to_value(report).unwrap_or_default());
        value["generator_us_per_request"] = json!(report.generator_us_per_request());
        value["engine_us_per_request"] = json!(report.engine_us_per_request());
        if let Some(trouble) = trouble {
            value["ok"] = json!(false);
            value["error"] = json!(trouble.to_string());
        }
        writeln!(out, "{value}")?;
    } else {
        let Report { scenario, transport, pace, durability, .. } = report;
        writeln!(
            out,
            "scenario {scenario} over {transport}, pace {pace}, durability {durability}, {:.1} s",
            report.seconds
        )?;
        writeln!(
            out,
            "  {} payments, {} requests, {} approved, {} replies/s",
            report.payments,
            report.sent,
            report.approved,
            report.rate_per_s.round()
        )?;
        writeln!(
            out,
            "  latency us   p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}",
            report.p50_us, report.p90_us, report.p99_us, report.p999_us, report.max_us
        )?;
        if report.processes > 1 {
            writeln!(out, "  {} processes", report.processes)?;
        }
        if report.noisy {
            writeln!(
                out,
                "  NOISY: others took {:.0} % of the cores, the generator was {:.0} us late (idle: {:.0} us)",
                report.busy_by_others * 100.0,
                report.late_p99_us,
                report.jitter_p99_us
            )?;
        }
        if report.stopped_early {
            writeln!(out, "  ended before its time")?;
        }
        for trouble in &report.troubles {
            writeln!(out, "  {trouble}")?;
        }
        tell_cost(&mut out, report)?;
        for (what, count) in [
            ("dropped (too many under way)", report.dropped),
            ("not sent", report.unsent),
            ("resolved by look-up", report.resolved),
            ("outcome unknown", report.unknown),
            ("replies that contradict their request", report.contradictions),
        ] {
            if count > 0 {
                writeln!(out, "  {count} {what}")?;
            }
        }
        if let Some(why) = &report.unsent_why {
            writeln!(out, "  the first that was not sent: {why}")?;
        }
        for (code, count) in report.declined.iter().chain(&report.refused) {
            writeln!(out, "  {count} {code}")?;
        }
        if let Some(injected) = &report.injected {
            writeln!(
                out,
                "  injected: {} frames of replies lost, {} late, {} requests doubled, {} connections killed",
                injected.dropped, injected.delayed, injected.doubled, injected.killed
            )?;
        }
        if let Some(found) = &report.money_check {
            writeln!(
                out,
                "  money check: replies {}, {} look-ups {}, {} records in the log {}",
                found.replies, found.looked_up, found.lookups, found.recorded, found.log
            )?;
        }
    }
    if report.ok {
        return Ok(());
    }
    let money = match &report.money_check {
        Some(found) if !found.is_ok() => ", and the money does not agree",
        _ => "",
    };
    let Report { replied, unknown, contradictions, .. } = report;
    let mut what =
        format!("{replied} replies, {unknown} unknown outcomes, {contradictions} contradictions{money}");
    if let (0, Some((code, _))) = (*replied, report.refused.iter().max_by_key(|(_, count)| **count)) {
        what = format!("{what}: every request was refused, most with {code}");
    }
    if let Some(trouble) = report.troubles.first() {
        what = format!("{what}; {trouble}");
    }
    Err(Failure::new(Exit::Failure, what).told())
}

/// What the run has cost in processor time.
fn tell_cost(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let Some((cpu_s, each_us)) = report.generator_cpu_s.zip(report.generator_us_per_request()) else {
        return Ok(());
    };
    write!(out, "  processor time   generator {cpu_s:.2} s ({each_us:.1} us a request)")?;
    if let Some((engine_s, each_us)) = report.engine_cpu_s.zip(report.engine_us_per_request()) {
        write!(out, ", engine {engine_s:.2} s ({each_us:.1} us)")?;
        if engine_s > 0.0 {
            write!(out, ": the generator takes {:.0} % of what the engine takes", 100.0 * cpu_s / engine_s)?;
        }
    }
    writeln!(out)
}
