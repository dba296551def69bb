//! Short checksum of fixed headers: the first 8 bytes of BLAKE3-256.
//!
//! Byte layout: `docs/format.md`, section "Conventions".

/// Length of the short checksum in bytes.
pub(super) const CHECKSUM8_LEN: usize = 8;

/// Returns the short checksum of `bytes`. It finds accidents; it is no proof against an attacker.
pub(super) fn checksum8(bytes: &[u8]) -> [u8; CHECKSUM8_LEN] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a digest has 32 bytes")
}
