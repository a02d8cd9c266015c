#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggregator_fuzz::checks::json_read(data));
