//! `surety load find-knee`: how much an engine takes before its latency gives way.

use std::io::Write;
use std::time::Duration;

use clap::Args as ClapArgs;
use loadtest::{KneeStep, Pace, Rate, Search, find_knee};
use surety_protocol::Time;

use super::job::Job;
use super::{Engine, interrupts, load_failure, with_version};
use crate::exit::{self, Exit, Failure};
use crate::{remote, values};

/// What to look for.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    engine: Engine,
    /// The 99th percentile of the latency that must not be passed
    #[arg(long, value_name = "D", default_value = "10ms", value_parser = values::some_span)]
    p99: Time,
    /// The first rate that is tried, in payments a second
    #[arg(long, value_name = "R", default_value = "1000", value_parser = steady)]
    from: f64,
    /// How long each rate is tried
    #[arg(long, value_name = "D", default_value = "5s", value_parser = values::some_span)]
    duration: Time,
    /// How near to the knee the search ends, in per cent
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    precision: u8,
    /// Payments under way at most; what comes beyond is dropped, and the rate does not hold
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(super) json: bool,
}

fn steady(text: &str) -> Result<f64, String> {
    match text.parse::<Rate>() {
        Ok(Rate::Steady(rate)) => Ok(rate),
        _ => Err("not a number above 0 and at most 2000000".to_owned()),
    }
}

/// Searches.
pub(super) fn find(args: &Args) -> Result<(), Failure> {
    let search = Search {
        p99_max: Duration::from_nanos(args.p99.0),
        from: args.from,
        precision: f64::from(args.precision) / 100.0,
    };
    let knee = remote::run(async {
        let pace = Pace::Poisson { rate: Rate::Steady(args.from) };
        let job = Job::new(&args.engine, &pace, args.duration, args.in_flight)?;
        let (clients, options) = job.prepare(interrupts().1).await?;
        find_knee(&clients, &options, &search, tell).await.map_err(|error| load_failure(&error))
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", with_version(serde_json::to_value(&knee).unwrap_or_default()))?;
    } else {
        writeln!(
            out,
            "knee: {:.0} payments/s with a p99 of at most {:.0} us",
            knee.knee_per_s, knee.p99_max_us
        )?;
    }
    if knee.stopped_early {
        let text = "ended before the knee was found: what is told is the highest rate that held so far";
        return Err(Failure::new(Exit::Failure, text).told());
    }
    if knee.knee_per_s <= 0.0 {
        return Err(Failure::new(Exit::Failure, "no rate held").told());
    }
    if !knee.ok {
        return Err(Failure::new(
            Exit::Failure,
            "outcomes were left unknown, or replies contradict their requests",
        )
        .told());
    }
    Ok(())
}

fn tell(step: &KneeStep) {
    let verdict = if step.holds { "holds" } else { "does not hold" };
    let noisy = if step.noisy { " (the machine was not quiet)" } else { "" };
    exit::tell(format_args!(
        "{:>10.0}/s offered, {:>10.0}/s begun, p99 {:>9.0} us: {verdict}{noisy}",
        step.offered_per_s, step.begun_per_s, step.p99_us
    ));
}
