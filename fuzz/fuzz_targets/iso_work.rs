//! Shows the probe `iso_work` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("iso_work", bytes));
