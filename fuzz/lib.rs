//! Fuzz targets live in `fuzz_targets/`; run one with `cargo +nightly fuzz run NAME`.
//!
//! A fuzzer does not guess checksums. Each target therefore tries its input twice: as it is, and with checksums
//! that match, so that the checks behind them are reached.

/// Writes the short checksum of the first `covered_len` bytes behind them, if there is room.
pub fn fix_checksum8(bytes: &mut [u8], covered_len: usize) {
    let Some((covered, rest)) = bytes.split_at_mut_checked(covered_len) else { return };
    if let Some(checksum) = rest.first_chunk_mut::<8>() {
        *checksum = *blake3::hash(covered).as_bytes().first_chunk().expect("a digest has 32 bytes");
    }
}

/// Returns a document with `body`, its checksum, and this magic.
#[must_use]
pub fn document(magic: &str, body: &[u8]) -> Vec<u8> {
    let checksum = blake3::hash(body).to_hex();
    let start =
        format!("{{\"magic\":\"{magic}\",\"version\":1,\"checksum\":\"{checksum}\",\"body\":");
    [start.as_bytes(), body, b"}\n"].concat()
}
