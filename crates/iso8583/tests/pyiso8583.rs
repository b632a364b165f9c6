//! The codec held against PyPI's `pyiso8583`, which shares nothing with it: it must read the same fields and write the same
//! bytes. Its specifications of the ASCII profiles are its own.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod made;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use iso8583::{Codec, Dialect, Draft, Message};
use made::PROFILES;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// Messages of each profile.
const MESSAGES: usize = 500;
/// Changes of each message, of which those are compared that are messages still.
const CHANGES: usize = 8;

/// The interpreter with the library, or a loud line.
fn python() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pyiso8583");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyiso8583/install.sh");
    let is_installed = Command::new(script).arg(&directory).status().is_ok_and(|status| status.success());
    if !is_installed {
        eprintln!("SKIPPED: pyiso8583 cannot be installed here, so nobody else has read our messages");
    }
    is_installed.then(|| directory.join("bin/python"))
}

/// What `compare.py` reads.
fn line(name: &str, bytes: &[u8], message: &Message) -> String {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let mut line = format!("{name} {} {}", hex(bytes), message.mti());
    for field in message.fields().fields() {
        let units: Vec<u8> = message.units(field).unwrap().collect();
        write!(line, " {field}={}", hex(&units)).unwrap();
    }
    line + "\n"
}

/// True for what both can say: pyiso8583 has longer fields 54, no lower-case hexadecimal of its own, and other separators.
fn is_comparable(codec: Codec, message: &Message, bytes: &[u8]) -> bool {
    let mut again = Draft::new(codec.dialect);
    again.reset(message.mti());
    message.fields().fields().for_each(|field| again.copy(message, field));
    let mut written = Vec::new();
    again.encode(codec, &mut written).is_ok() && written == bytes
}

fn lines() -> String {
    let mut runner = TestRunner::deterministic();
    let mut lines = String::new();
    for (name, profile) in PROFILES {
        let codec = Codec { dialect: Dialect::V1987, profile };
        for _ in 0..MESSAGES {
            let draft = made::draft(codec.dialect).new_tree(&mut runner).unwrap().current();
            let mut bytes = Vec::new();
            draft.encode(codec, &mut bytes).unwrap();
            lines += &line(name, &bytes, &Message::parse(codec, &bytes).unwrap());
            for _ in 0..CHANGES {
                let mut changed = bytes.clone();
                let at = (0..bytes.len()).new_tree(&mut runner).unwrap().current();
                changed[at] = proptest::num::u8::ANY.new_tree(&mut runner).unwrap().current();
                let parsed = Message::parse(codec, &changed);
                if let Some(message) = parsed.ok().filter(|message| is_comparable(codec, message, &changed)) {
                    lines += &line(name, &changed, &message);
                }
            }
        }
    }
    lines
}

#[test]
fn pyiso8583_reads_and_writes_the_same() {
    let Some(python) = python() else { return };
    let lines = lines();
    let count = lines.lines().count();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyiso8583/compare.py");
    let mut compare =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = compare.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = compare.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let differences: Vec<&str> =
        printed.lines().filter(|line| line.starts_with("DIFFERENCE")).take(5).collect();
    assert!(differences.is_empty() && output.status.success(), "{differences:#?}");
    assert!(printed.ends_with(&format!("compared {count}\n")), "{printed}");
    println!("pyiso8583 agrees on {count} messages");
}
