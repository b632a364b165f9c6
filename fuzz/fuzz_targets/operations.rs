//! Shows the probe `operations` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("operations", bytes));
