//! Fuzz targets live in `fuzz_targets/`; run one with `cargo +nightly fuzz run NAME`.
