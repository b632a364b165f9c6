//! Shows the probe `frames_server` what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probes::run("frames_server", bytes));
