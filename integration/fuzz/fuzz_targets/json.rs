//! See `commissaire::testkit::fuzz::json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commissaire::testkit::fuzz::json(data));
