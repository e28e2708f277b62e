//! See `commissaire::testkit::fuzz::pattern`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commissaire::testkit::fuzz::pattern(data));
