//! What a host did with each case.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

/// The certification report of a host.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Who was asked.
    pub host: SocketAddr,
    /// By which scenario.
    pub scenario: String,
    /// Cases that went as expected.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// All of them, in order.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// What was tried.
    pub name: String,
    /// What was sent: its type, or that it was bytes.
    pub sent: String,
    /// What came, as a type and field 39; none if nothing did.
    pub came: Option<String>,
    /// From the last byte sent to the reply, in microseconds.
    pub micros: Option<u64>,
    /// What was not as expected; empty if it passed. Never shows a card's number or what no log may show.
    pub failures: Vec<String>,
}

impl CaseReport {
    /// True if all was as expected.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Report {
    pub(super) fn of(host: SocketAddr, scenario: String, cases: Vec<CaseReport>) -> Self {
        let passed = cases.iter().filter(|case| case.has_passed()).count();
        Self { host, scenario, passed, failed: cases.len() - passed, cases }
    }

    /// True if the host may be certified by this scenario.
    #[must_use]
    pub fn is_certified(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} against {}", self.scenario, self.host)?;
        for case in &self.cases {
            let verdict = if case.has_passed() { "passed" } else { "FAILED" };
            let came = case.came.as_deref().unwrap_or("nothing");
            writeln!(f, "{verdict}  {:<44} {} -> {came}", case.name, case.sent)?;
            for failure in &case.failures {
                writeln!(f, "        {failure}")?;
            }
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}
