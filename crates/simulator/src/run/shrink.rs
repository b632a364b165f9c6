//! A failing history made short: parts of steps are left out as long as it still fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::world::{self, Outcome, Plan};

/// A short failing history.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The world, with the few parts of steps that it takes.
    pub plan: Plan,
    /// How it ends, with its story.
    pub outcome: Outcome,
}

impl Shrunk {
    /// Parts of steps that are left.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.plan.only.as_ref().map_or(0, BTreeSet::len)
    }
}

/// Leaves out halves, quarters and so on, down to single parts, as long as some invariant still fails with the same name.
#[must_use]
pub fn shrink(plan: &Plan, time_max: Duration) -> Shrunk {
    let begun = Instant::now();
    let mut plan = Plan { tells: false, ..plan.clone() };
    let mut name = None;
    let mut fails = |plan: &Plan| {
        let outcome = world::run(plan);
        let found = outcome.failure.as_ref().map(|(step, violation)| (*step, violation.invariant));
        let expected = *name.get_or_insert(found.map(|(_, invariant)| invariant));
        found.filter(|(_, invariant)| expected == Some(*invariant)).map(|(step, _)| step)
    };
    let Some(step) = fails(&plan) else {
        let outcome = world::run(&plan);
        return Shrunk { plan, outcome };
    };
    // Nothing behind the failure matters.
    let mut parts: Vec<u64> = match &plan.only {
        Some(only) => only.iter().copied().collect(),
        None => (0..2 * (step + 1)).collect(),
    };
    plan.ops = plan.ops.min(step + 1);
    let mut chunk = parts.len().div_ceil(2).max(1);
    while chunk > 0 && begun.elapsed() < time_max {
        let mut at = 0;
        while at < parts.len() && begun.elapsed() < time_max {
            let end = (at + chunk).min(parts.len());
            let rest: BTreeSet<u64> = parts[..at].iter().chain(&parts[end..]).copied().collect();
            let shorter = Plan { only: Some(rest), ..plan.clone() };
            if fails(&shorter).is_some() {
                parts.drain(at..end);
            } else {
                at = end;
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    plan.only = Some(parts.into_iter().collect());
    plan.tells = true;
    let outcome = world::run(&plan);
    Shrunk { plan, outcome }
}
