//! libFuzzer's way into [`tollgate_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::control::run(data));
