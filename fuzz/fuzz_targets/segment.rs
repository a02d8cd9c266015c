#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggregator_fuzz::buffer::segment(data));
