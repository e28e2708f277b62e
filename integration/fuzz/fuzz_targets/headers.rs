//! See `commissaire::testkit::fuzz::headers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commissaire::testkit::fuzz::headers(data));
