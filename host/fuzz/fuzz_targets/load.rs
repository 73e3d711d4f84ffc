//! `cargo +nightly fuzz run load`, in the folder `host`: see [`backstop_tests::fuzzing::load`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| backstop_tests::fuzzing::load(bytes));
