#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggregator_fuzz::checks::v2_to_v1(data));
