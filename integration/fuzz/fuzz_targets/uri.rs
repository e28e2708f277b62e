//! See `commissaire::testkit::fuzz::uri`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commissaire::testkit::fuzz::uri(data));
