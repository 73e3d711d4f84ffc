//! `cargo +nightly fuzz run manifest`, in the folder `host`: see [`backstop_tests::fuzzing::manifest`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| backstop_tests::fuzzing::manifest(bytes));
