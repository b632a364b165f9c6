//! What many worlds came to, for people and for programs.

use serde_json::json;

use crate::world::coverage::Coverage;

/// The sum over worlds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Everything held, and everything that must be met was met.
    pub ok: bool,
    /// The first seed.
    pub first_seed: u64,
    /// Worlds that were run.
    pub seeds: u64,
    /// Steps in each.
    pub ops: u64,
    /// Operations that engines handled.
    pub operations: u64,
    /// How long it took.
    pub seconds: f64,
    /// Hash of all that happened in all of them.
    pub trace: u64,
    /// What was met.
    pub coverage: Coverage,
    /// What should have been met and was not.
    pub missing: Vec<&'static str>,
}

impl Report {
    /// Prints it on standard output.
    pub fn print(&self, is_json: bool) {
        let table = |title: &str, counts: &std::collections::BTreeMap<&'static str, u64>| {
            println!("{title}:");
            counts.iter().for_each(|(name, count)| println!("  {name:<24} {count:>10}"));
        };
        table("faults", &self.coverage.faults());
        table("ways back", &self.coverage.branches());
        table("codes", &self.coverage.codes());
        println!("kinds, asked and done:");
        for (name, [asked, done]) in self.coverage.kinds() {
            println!("  {name:<24} {asked:>10} {done:>10}");
        }
        println!(
            "{} worlds, {} operations, {:.1} s, trace {:016x}",
            self.seeds, self.operations, self.seconds, self.trace
        );
        if !self.missing.is_empty() {
            println!("never met: {}", self.missing.join(", "));
        }
        if is_json {
            println!("{}", self.to_json());
        }
    }

    /// One object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "ok": self.ok,
            "seed": self.first_seed,
            "seeds": self.seeds,
            "ops": self.ops,
            "operations": self.operations,
            "seconds": (self.seconds * 10.0).round() / 10.0,
            "trace": format!("{:016x}", self.trace),
            "faults": self.coverage.faults(),
            "branches": self.coverage.branches(),
            "kinds": self.coverage.kinds(),
            "codes": self.coverage.codes(),
            "missing": self.missing,
        })
    }
}
