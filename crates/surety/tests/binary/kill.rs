//! kill -9 at any moment of a full-rate load: whatever was acknowledged is there afterwards.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Data, Ended, Engine, send, spawn, surety};

/// Rounds of serve, kill, check.
const ROUNDS: u32 = 40;
/// A round that brings no new reply in this time has hung.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn nothing_acknowledged_is_lost_by_a_killed_engine() {
    rounds("fsync", ROUNDS / 2);
    rounds("os", ROUNDS / 2);
}

/// One load goes on through all rounds: it repeats under the same ids what the kills left unanswered.
fn rounds(durability: &str, rounds: u32) {
    let data = Data::init(1);
    let beside = Data::empty();
    let acks = beside.file("acks.bin");
    let acks = acks.to_str().unwrap();
    let mut engine = Engine::start(&data, durability);
    let listen = engine.listen().to_owned();
    let load = spawn(&[
        "load",
        "--data",
        data.path(),
        "--duration",
        "1h",
        "--acks",
        acks,
        "--in-flight",
        "256",
        "--json",
    ]);
    let mut load = Load { child: Some(load) };
    let mut verified = 0;
    for round in 0..rounds {
        // Kill at another moment each time: after so many more replies, which arrive in bursts.
        let replies = 200 + 61 * u64::from(round) % 700;
        load.wait_for_replies(acks, replies);
        engine.kill();
        let value = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
        assert_eq!(value["ok"], true);
        let value =
            surety(&["load", "check", "--acks", acks, "--data", data.path(), "--json"]).exits(0).json();
        assert_eq!(
            (&value["missing"], &value["different"], &value["doubled"]),
            (&0.into(), &0.into(), &0.into())
        );
        let now_verified = value["verified"].as_u64().unwrap();
        assert!(now_verified >= verified + replies, "round {round}: {now_verified} after {verified}");
        verified = now_verified;
        engine = Engine::start_at(&data, durability, &listen, &[]);
    }
    load.wait_for_replies(acks, 500);
    let report = load.stop();
    // Every request of the whole time has a definite outcome, kills or not.
    assert_eq!((&report["unknown"], &report["contradictions"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(engine.terminate(Signal::TERM), 0);
    let value = surety(&["load", "check", "--acks", acks, "--data", data.path(), "--json"]).exits(0).json();
    // Those that were resolved are on file as their look-ups' answers.
    let told = report["replied"].as_u64().unwrap() + report["resolved"].as_u64().unwrap();
    assert_eq!(value["verified"], told, "{value} {report}");
    surety(&["verify", "--data", data.path()]).exits(0);
}

/// A running load.
struct Load {
    child: Option<Child>,
}

impl Load {
    /// Waits until so many more replies are on file.
    fn wait_for_replies(&mut self, acks: &str, more: u64) {
        let count = || std::fs::metadata(acks).map_or(0, |file| file.len() / 128);
        let (goal, begun) = (count() + more, Instant::now());
        while count() < goal {
            assert!(begun.elapsed() < PATIENCE, "no more replies come");
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            if let (Some(status), Some(child)) = (ended, self.child.take_if(|_| ended.is_some())) {
                let ended = Ended::from(child.wait_with_output().unwrap());
                panic!("the load ended with {status}: {} {}", ended.stdout, ended.stderr);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it and reads its report.
    fn stop(mut self) -> serde_json::Value {
        let child = self.child.take().unwrap();
        send(&child, Signal::INT);
        Ended::from(child.wait_with_output().unwrap()).json()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
