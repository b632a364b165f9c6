//! The committed corpus, and changes of it, through every probe: what the fuzz targets run, on stable and in seconds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use probes::{PROBES, Random, mutate, seeds};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Changes of each file of the corpus that are tried.
const CHANGES: u64 = 150;
/// Address space for all of it: an input of a few kilobytes that makes a decoder ask for more ends the test.
const ADDRESS_SPACE: u64 = 4 << 30;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn corpus(probe: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(probe);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| (path.display().to_string(), fs::read(path).unwrap());
    files.iter().map(read).collect()
}

fn limit_memory() {
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current: Some(ADDRESS_SPACE), maximum }).unwrap();
}

/// Prints what it was when a probe fails.
struct Culprit<'a>(&'a str, u64);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the culprit is {}, change {}", self.0, self.1);
        }
    }
}

#[test]
fn the_corpus_and_changes_of_it_pass_every_probe() {
    limit_memory();
    for probe in PROBES {
        let files = corpus(probe.name);
        assert!(!files.is_empty(), "{} has a corpus", probe.name);
        for (name, bytes) in files {
            let mut culprit = Culprit(&name, 0);
            (probe.run)(&bytes);
            let mut random = Random(bytes.len() as u64);
            for change in 1..=CHANGES {
                culprit.1 = change;
                (probe.run)(&mutate(&bytes, &mut random));
            }
        }
    }
}

#[test]
fn the_corpus_holds_the_seeds_of_today_s_formats() {
    for probe in PROBES {
        let known: BTreeSet<Vec<u8>> = corpus(probe.name).into_iter().map(|(_, bytes)| bytes).collect();
        let missing = seeds(probe.name).into_iter().filter(|seed| !known.contains(seed)).count();
        assert_eq!(missing, 0, "{}: run `cargo run -p probes --example seed`", probe.name);
    }
}

#[test]
fn every_probe_is_a_fuzz_target() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for probe in PROBES {
        let target = fs::read_to_string(fuzz().join(format!("fuzz_targets/{}.rs", probe.name))).unwrap();
        assert!(target.contains(&format!("probes::run(\"{}\"", probe.name)));
        assert!(manifest.contains(&format!("name = \"{}\"", probe.name)));
    }
    assert_eq!(manifest.matches("[[bin]]").count(), PROBES.len(), "no target without a probe");
}

#[test]
#[should_panic(expected = "no probe")]
fn an_unknown_probe_is_no_success() {
    probes::run("nothing", &[]);
}
