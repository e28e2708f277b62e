//! See `commissaire::testkit::fuzz::envelope`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commissaire::testkit::fuzz::envelope(data));
