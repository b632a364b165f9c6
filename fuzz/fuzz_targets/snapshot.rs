//! Shows the probe `snapshot` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("snapshot", bytes));
