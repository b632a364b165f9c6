//! What must not be in the binary that is shipped.

use std::fs;

/// What stands before the name of each deliberate bug, where they are compiled in; see `sabotage!` in `surety-protocol`.
/// In two parts, so that a binary that held this very test would not be taken for one with bugs.
const MARKER: [&str; 2] = ["deliberate", "-bug:"];

#[test]
fn no_deliberate_bug_is_compiled_in() {
    let binary = fs::read(env!("CARGO_BIN_EXE_surety")).unwrap();
    let holds = |text: &str| binary.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("a deficit with free collateral"), "texts of the ledger can be found");
    assert!(!holds(&MARKER.concat()));
}
