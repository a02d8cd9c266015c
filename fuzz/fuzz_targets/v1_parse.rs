#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggregator_fuzz::checks::v1_parse(data));
