//! libFuzzer's way into [`tollgate_fuzz::engine`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::engine::run(data));
