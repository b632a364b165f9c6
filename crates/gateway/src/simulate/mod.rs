//! A simulated acquirer: says what a scenario has, and reports which of its cases a host answers as it should.

mod line;
mod report;
mod run;
mod scenario;

pub use report::{CaseReport, Report};
pub use run::{SimulateError, simulate};
pub use scenario::{Case, Expect, Fields, Scenario, ScenarioError, Send, Wanted};
