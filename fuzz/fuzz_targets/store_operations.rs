//! Runs the fuzz target of this name, whose code is in `fuzz/src`.
#![no_main]
const TARGET: backy_fuzz::Target = backy_fuzz::target(env!("CARGO_BIN_NAME"));
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    TARGET.run(bytes);
});
