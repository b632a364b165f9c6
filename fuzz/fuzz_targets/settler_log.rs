//! Shows the probe `settler_log` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("settler_log", bytes));
