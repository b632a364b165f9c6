//! The contract of ASK.md: its examples are read as they stand there, and what it lists is what there is.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use history::{Fault, Question, State, Status, read_answer};

const CONTRACT: &str = include_str!("../ASK.md");

/// The examples of a kind.
fn examples(kind: &str) -> Vec<&'static str> {
    let fence = format!("```json {kind}\n");
    let found: Vec<&str> =
        CONTRACT.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!found.is_empty(), "{kind}");
    found
}

#[test]
fn every_question_of_the_contract_is_read_and_written_as_it_stands_there() {
    let questions = examples("question");
    for text in &questions {
        let question = Question::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
        let written: serde_json::Value = serde_json::to_value(&question).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).unwrap(), "{text}");
    }
    for ask in ["records", "locks", "open_locks", "lock", "balances", "statement", "status"] {
        let of_it = questions.iter().filter(|text| text.contains(&format!("{{\"{ask}\": ")));
        assert!(of_it.count() > 0, "no example of {ask}");
    }
}

#[test]
fn every_answer_of_the_contract_is_read() {
    for text in examples("answer") {
        let said = read_answer(text.as_bytes());
        assert_eq!(said.is_err(), text.contains("\"error\""), "{text}: {said:?}");
    }
    for text in examples("status") {
        let status: Status = serde_json::from_value(read_answer(text.as_bytes()).unwrap()).unwrap();
        let again = serde_json::json!({ "ok": status });
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}

#[test]
fn every_code_and_state_stands_in_the_contract() {
    let rows: Vec<&str> =
        CONTRACT.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let codes = Fault::ALL.map(Fault::name);
    let states = State::ALL.map(State::name);
    assert_eq!(rows, [&codes[..], &states[..]].concat());
}

#[test]
fn what_is_no_question_is_refused() {
    for wrong in [
        "",
        "null",
        "{}",
        r#"{"of": null}"#,
        r#"{"of": "1", "ask": {"status": {}}}"#,
        r#"{"of": -1, "ask": {"status": {}}}"#,
        r#"{"of": null, "ask": {"status": {"x": 1}}}"#,
        r#"{"of": null, "ask": {"status": {}, "records": {}}}"#,
        r#"{"of": null, "ask": {"everything": {}}}"#,
        r#"{"of": null, "ask": {"balances": {}}}"#,
        r#"{"of": null, "ask": {"records": {"merchant": ["x7"]}}}"#,
        r#"{"of": null, "ask": {"records": {"limit": -1}}}"#,
    ] {
        assert!(Question::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
}
