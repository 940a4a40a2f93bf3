//! libFuzzer's way into [`tollgate_fuzz::packet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::packet::run(data));
