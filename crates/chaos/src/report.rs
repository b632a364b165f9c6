//! What a command has done, found and not been able to do.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Faults that a report lists; the others are only counted.
const FAULTS_LISTED: usize = 20;

/// Counts, faults and what was skipped.
#[derive(Debug)]
pub(crate) struct Report {
    counts: Map<String, Value>,
    faults: Vec<String>,
    skipped: Vec<String>,
    /// Where the moments of faults come from.
    pub(crate) random: Random,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        let mut counts = Map::new();
        counts.insert("seed".to_owned(), json!(seed));
        Self { counts, faults: Vec::new(), skipped: Vec::new(), random: Random::new(seed) }
    }

    /// A run that could not be carried to its end.
    pub(crate) fn broken(seed: u64, error: &anyhow::Error) -> Self {
        let mut report = Self::new(seed);
        report.fault(format!("the run ended early: {error:#}"));
        report
    }

    /// Adds to a count.
    pub(crate) fn add(&mut self, name: &str, count: u64) {
        let before = self.counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.counts.insert(name.to_owned(), json!(before + count));
    }

    /// Sets a figure.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.counts.insert(name.to_owned(), value.into());
    }

    /// Something that must hold did not.
    pub(crate) fn fault(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("FAULT: {what}");
        self.faults.push(what);
    }

    /// Notes a fault unless something holds.
    pub(crate) fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fault(what());
        }
    }

    /// Something cannot be done here.
    pub(crate) fn skip(&mut self, what: &str, why: impl std::fmt::Display) {
        eprintln!("SKIPPED: {what}: {why}");
        self.skipped.push(format!("{what}: {why}"));
    }

    /// True if everything that was done held.
    pub(crate) fn is_ok(&self) -> bool {
        self.faults.is_empty()
    }

    /// How many faults there are.
    pub(crate) fn faults(&self) -> usize {
        self.faults.len()
    }

    /// Prints the report and turns it into an exit code.
    pub(crate) fn tell(&self, json: bool) -> ExitCode {
        if json {
            println!("{}", self.to_json());
        } else {
            for (name, value) in &self.counts {
                println!("{name:<28} {value}");
            }
            self.skipped.iter().for_each(|what| println!("SKIPPED: {what}"));
            self.faults.iter().for_each(|what| println!("FAULT: {what}"));
            println!("{}", if self.is_ok() { "ok" } else { "NOT OK" });
        }
        if self.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("ok".to_owned(), json!(self.is_ok()));
        object.extend(self.counts.clone());
        object.insert("skipped".to_owned(), json!(self.skipped));
        object.insert("faults_found".to_owned(), json!(self.faults.len()));
        object.insert("faults".to_owned(), json!(self.faults.iter().take(FAULTS_LISTED).collect::<Vec<_>>()));
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_makes_a_report_not_ok_and_a_skip_does_not() {
        let mut report = Report::new(1);
        report.add("rounds", 2);
        report.add("rounds", 3);
        report.skip("power", "no root");
        assert!(report.is_ok());
        assert_eq!(report.to_json()["rounds"], 5);
        report.expect(true, || unreachable!("it holds"));
        report.expect(false, || "lost".to_owned());
        let value = report.to_json();
        assert_eq!((&value["ok"], &value["faults"][0]), (&json!(false), &json!("lost")));
        assert_eq!(value["skipped"][0], "power: no root");
    }
}
