//! libFuzzer's way into [`tollgate_fuzz::list`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::list::run(data));
