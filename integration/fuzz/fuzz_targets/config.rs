//! See `commissaire::testkit::fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commissaire::testkit::fuzz::config(data));
