//! Shows the probe `release_group` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("release_group", bytes));
