//! Sets the checksums of files right after they were changed, so that the checks behind them are reached.

use std::path::Path;

use chunkstore::format::{OverlayHeader, OverlayMapPage, PackFooter, PackHeader, RecordHeader};
use support::damage::FileKind;

use crate::documents::{body, document};
use crate::structures::{fix_checksum8, fix_footer};

const DIGEST_LEN: usize = 32;
const CHECKSUM8_LEN: usize = 8;

/// Where the length of a payload stands in the header of a record.
const STORED_LEN_START: usize = 44;

/// Records whose checksums are set right.
const RECORD_COUNT_MAX: usize = 64;

/// Sets the checksums of a file of a store right, as far as it has any.
pub(super) fn fix(path: &Path, bytes: &mut Vec<u8>) {
    match FileKind::of(path) {
        FileKind::Pack => fix_pack(bytes, true),
        FileKind::Config => fix_document(bytes, "chunkstore store"),
        FileKind::Record => fix_document(bytes, "chunkstore revision"),
        FileKind::State => fix_document(bytes, "chunkstore state"),
        FileKind::Session => fix_document(bytes, "chunkstore session"),
        FileKind::Condemned | FileKind::Ledger => fix_digest(bytes),
        FileKind::Index | FileKind::Lock => {}
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

/// Sets the checksums of headers right, one record behind the other, and that of the footer too if there is to be one.
pub(super) fn fix_pack(bytes: &mut [u8], has_footer: bool) {
    fix_checksum8(bytes, PackHeader::LEN - CHECKSUM8_LEN);
    let mut start = PackHeader::LEN;
    for _ in 0..RECORD_COUNT_MAX {
        let Some(header) =
            bytes.get_mut(start..).and_then(|rest| rest.get_mut(..RecordHeader::LEN))
        else {
            break;
        };
        fix_checksum8(header, RecordHeader::LEN - CHECKSUM8_LEN);
        let stored_len: [u8; 4] =
            *header[STORED_LEN_START..].first_chunk().expect("a header is longer");
        let stored_len = u32::from_le_bytes(stored_len) as usize;
        start = start.saturating_add(RecordHeader::LEN).saturating_add(stored_len);
    }
    if has_footer {
        fix_whole_footer(bytes);
    }
}

/// Sets the checksums of the footer right that begins where its trailer says.
fn fix_whole_footer(bytes: &mut [u8]) {
    let Some(trailer_start) = bytes.len().checked_sub(PackFooter::TRAILER_LEN) else { return };
    let offset: [u8; 4] = *bytes[trailer_start + 36..].first_chunk().expect("a trailer is longer");
    let offset = u32::from_le_bytes(offset) as usize;
    if offset <= trailer_start {
        fix_footer(&mut bytes[offset..]);
    }
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
