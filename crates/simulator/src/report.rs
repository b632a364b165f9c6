//! What every command ends with: one line, one JSON object.

use serde::Serialize;

/// Prints a report as the last line.
pub fn print(report: &impl Serialize) {
    match serde_json::to_string(report) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("the report cannot be written: {error}"),
    }
}
