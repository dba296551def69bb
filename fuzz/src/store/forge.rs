//! Sets the checksums of files right after they were changed, so that the checks behind them are reached.

use std::path::Path;

use chunkstore::format::{OverlayHeader, OverlayMapPage, PackFooter, PackHeader, RecordHeader};
use support::damage::FileKind;

use crate::documents::{body, document};
use crate::structures::{TABLE_OFFSET_START, fix_checksum8, fix_footer};

const DIGEST_LEN: usize = 32;
const CHECKSUM8_LEN: usize = 8;

/// Where the length of a payload stands in the header of a record.
const STORED_LEN_START: usize = 44;

/// Records whose checksums are set right.
const RECORD_COUNT_MAX: usize = 64;

/// Sets the checksums of a file of a store right, as far as it has any.
pub(super) fn fix(path: &Path, bytes: &mut Vec<u8>) {
    match FileKind::of(path) {
        // Who could make the checksums of a table right could say that a chunk is not there, as by removing the pack.
        FileKind::Pack => fix_pack(bytes, false),
        FileKind::Config => fix_document(bytes, "chunkstore store"),
        FileKind::Record => fix_document(bytes, "chunkstore revision"),
        FileKind::State => fix_document(bytes, "chunkstore state"),
        FileKind::Session => fix_document(bytes, "chunkstore session"),
        FileKind::Condemned | FileKind::Ledger => fix_digest(bytes),
        _ => {}
    }
}

/// Writes the digest of what is before them into the last bytes.
fn fix_digest(bytes: &mut [u8]) {
    if let Some((covered, digest)) = bytes.split_last_chunk_mut::<DIGEST_LEN>() {
        *digest = *blake3::hash(covered).as_bytes();
    }
}

fn fix_document(bytes: &mut Vec<u8>, magic: &str) {
    if let Some(fixed) = body(bytes).map(|body| document(magic, body)) {
        *bytes = fixed;
    }
}

/// Sets the checksums of headers right, one record behind the other up to the table, and those of the footer too if it is to have
/// right ones.
pub(super) fn fix_pack(bytes: &mut [u8], has_footer: bool) {
    fix_checksum8(bytes, PackHeader::LEN - CHECKSUM8_LEN);
    let table_start = table_start(bytes);
    let end = table_start.unwrap_or(bytes.len());
    let mut start = PackHeader::LEN;
    for _ in 0..RECORD_COUNT_MAX {
        let record = bytes[..end].get_mut(start..);
        let Some(header) = record.and_then(|rest| rest.get_mut(..RecordHeader::LEN)) else { break };
        fix_checksum8(header, RecordHeader::LEN - CHECKSUM8_LEN);
        let stored_len = u32_at(header, STORED_LEN_START);
        start = start.saturating_add(RecordHeader::LEN).saturating_add(stored_len);
    }
    if let Some(start) = table_start.filter(|_| has_footer) {
        fix_footer(&mut bytes[start..]);
    }
}

/// Returns where the table begins by what the trailer says, if there is room for both.
fn table_start(bytes: &[u8]) -> Option<usize> {
    let trailer_start = bytes.len().checked_sub(PackFooter::TRAILER_LEN)?;
    let start = u32_at(bytes, trailer_start + TABLE_OFFSET_START);
    (PackHeader::LEN..=trailer_start).contains(&start).then_some(start)
}

fn u32_at(bytes: &[u8], start: usize) -> usize {
    let number: [u8; 4] = *bytes[start..].first_chunk().expect("the place lies in the bytes");
    u32::from_le_bytes(number) as usize
}

/// Sets the checksums of the header and of all slots of an overlay right that are not empty.
pub(super) fn fix_overlay(bytes: &mut [u8], slots_end: usize) {
    if let Some(header) = bytes.get_mut(..OverlayHeader::LEN) {
        fix_digest(header);
    }
    let end = slots_end.min(bytes.len());
    let slots = bytes[..end].chunks_exact_mut(OverlayMapPage::LEN).skip(1);
    slots.filter(|slot| slot.iter().any(|byte| *byte != 0)).for_each(fix_digest);
}
