//! The operator's guide, run as it stands: every block of commands, in order, in one shell and an empty directory.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const GUIDE: &str = include_str!("../../../../deploy/GUIDE.md");
/// Stands before what a block prints.
const MARK: &str = "@@ block";
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Commands, and lines that their output has to have, in this order.
struct Block {
    commands: String,
    expected: Vec<String>,
}

/// The blocks of the guide.
fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let body: Vec<String> = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        match language {
            "sh" => blocks.push(Block { commands: body.join("\n"), expected: Vec::new() }),
            "text" => blocks.last_mut().expect("output stands behind commands").expected.extend(body),
            other => panic!("nobody runs a block of `{other}`"),
        }
    }
    blocks
}

/// Ports that nobody has now: of the engine, which is UDP, and of its admin listener, which is TCP.
fn free_ports() -> [u16; 2] {
    let (engine, admin) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    [engine.local_addr().unwrap().port(), admin.local_addr().unwrap().port()]
}

/// Everything that the blocks print, each behind its mark.
fn run(blocks: &[Block], directory: &Path) -> String {
    let [engine, admin] = free_ports();
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for (number, block) in blocks.iter().enumerate() {
        script += &format!("echo '{MARK} {number}'\n{}\n", block.commands);
    }
    let script = script
        .replace("127.0.0.1:7400", &format!("127.0.0.1:{engine}"))
        .replace("127.0.0.1:9400", &format!("127.0.0.1:{admin}"));
    let program = Path::new(env!("CARGO_BIN_EXE_surety")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let out = std::fs::File::create(directory.join("guide.out")).unwrap();
    let mut child = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(directory)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(out)
        .process_group(0)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            // The engine that it has started, too.
            kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
            break child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let printed = std::fs::read_to_string(directory.join("guide.out")).unwrap();
    let logs = std::fs::read_to_string(directory.join("serve.log")).unwrap_or_default();
    assert!(status.success(), "{status}: {printed}\n{logs}");
    printed
}

/// Lines that a text does not have behind those before them.
fn missing<'a>(text: &str, expected: &'a [String]) -> Option<&'a str> {
    let mut lines = text.lines();
    let is_missing = |wanted: &&String| !lines.by_ref().any(|line| line.contains(wanted.as_str()));
    expected.iter().find(is_missing).map(String::as_str)
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    for tool in ["curl", "openssl"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return eprintln!("SKIPPED: no {tool} here, so nobody follows the operator's guide");
        }
    }
    let blocks = blocks(GUIDE);
    assert!(blocks.len() > 8, "{}", blocks.len());
    let directory = tempfile::tempdir().unwrap();
    let printed = run(&blocks, directory.path());
    let parts: Vec<&str> = printed.split(MARK).skip(1).collect();
    assert_eq!(parts.len(), blocks.len());
    for (block, part) in blocks.iter().zip(parts) {
        if let Some(line) = missing(part, &block.expected) {
            panic!("no line with `{line}` behind\n{}\nbut\n{part}", block.commands);
        }
    }
}

#[test]
fn a_line_that_is_not_there_is_missed() {
    let expected = ["one".to_owned(), "two".to_owned()];
    assert_eq!(missing("one 1\nand\ntwo 2", &expected), None);
    assert_eq!(missing("two 2\none 1", &expected), Some("two"));
    assert_eq!(missing("", &expected), Some("one"));
}
