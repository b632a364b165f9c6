//! Starts that fail halfway: whoever tries again finds everything as it should be.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};

use rig::Rig;

#[test]
fn after_a_failed_start_nobody_is_left_on_the_directory() {
    let rig = Rig::stopped(3);
    // Hit after the last moment at which nothing was changed on the disk: the other two go on to serve.
    let obstacle = rig.path().join("epochs/1.tmp");
    fs::create_dir(&obstacle).unwrap();
    let error = rig.try_start().unwrap_err();
    assert!(error.to_string().contains("shard 1"), "{error}");
    assert_eq!(open_files(rig.path()), Vec::<PathBuf>::new());
    fs::remove_dir(&obstacle).unwrap();
    let running = rig.try_start().unwrap();
    assert_ne!(open_files(rig.path()), Vec::<PathBuf>::new(), "open files are found");
    running.shutdown();
}

/// What this process has open below a directory.
fn open_files(directory: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    // Other tests open and close meanwhile.
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(directory)).collect()
}
