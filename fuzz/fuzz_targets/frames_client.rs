//! Shows the probe `frames_client` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("frames_client", bytes));
