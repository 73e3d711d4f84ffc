//! `cargo +nightly fuzz run answer`, in the folder `host`: see [`backstop_tests::fuzzing::answer`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| backstop_tests::fuzzing::answer(bytes));
