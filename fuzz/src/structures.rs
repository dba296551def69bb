//! Structures of fixed layout: no panic, and what decodes encodes back to the same bytes.

use chunkstore::format::{
    BlockStates, CondemnedList, FormatError, Ledger, OverlayHeader, OverlayMapPage, PackFooter,
    PackHeader, Page, PageEntry, Quarantined, RecordHeader, Root, TreePage, TreeRoot,
};

use crate::seeds;

/// Bytes of a whole digest.
const DIGEST_LEN: usize = 32;

/// Bytes of the short checksum of a header.
const CHECKSUM8_LEN: usize = 8;

fn round_trip<T, E: AsRef<[u8]>>(
    bytes: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    encode: impl FnOnce(&T) -> E,
) -> Option<T> {
    let value = decode(bytes).ok()?;
    assert!(encode(&value).as_ref() == bytes, "other bytes decode to the same");
    Some(value)
}

/// Returns the bytes with their digest behind them.
fn with_digest(bytes: &[u8]) -> Vec<u8> {
    [bytes, blake3::hash(bytes).as_bytes()].concat()
}

/// Returns the bytes, cut or extended to `len`, with their digest at the end.
fn of_len(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut fields = bytes.to_vec();
    fields.resize(len - DIGEST_LEN, 0);
    with_digest(&fields)
}

/// Writes the short checksum of the first `covered_len` bytes behind them, if there is room.
pub(crate) fn fix_checksum8(bytes: &mut [u8], covered_len: usize) {
    let Some((covered, rest)) = bytes.split_at_mut_checked(covered_len) else { return };
    if let Some(checksum) = rest.first_chunk_mut::<CHECKSUM8_LEN>() {
        *checksum = *blake3::hash(covered).as_bytes().first_chunk().expect("a digest has 32 bytes");
    }
}

/// Returns each seed, and the same without its last `len` bytes.
fn and_without_end(seeds: Vec<Vec<u8>>, len: usize) -> Vec<Vec<u8>> {
    let cut = |seed: &Vec<u8>| seed[..seed.len().saturating_sub(len)].to_vec();
    let without: Vec<Vec<u8>> = seeds.iter().map(cut).collect();
    [seeds, without].concat()
}

pub(crate) fn pack_header(bytes: &[u8]) -> bool {
    let check = |bytes: &[u8]| round_trip(bytes, PackHeader::decode, PackHeader::encode).is_some();
    let mut fixed = bytes.to_vec();
    fix_checksum8(&mut fixed, PackHeader::LEN - CHECKSUM8_LEN);
    check(bytes) | check(&fixed)
}

pub(crate) fn pack_header_seeds() -> Vec<Vec<u8>> {
    let headers = seeds::packs().into_iter().map(|pack| pack[..PackHeader::LEN].to_vec());
    headers.chain([seeds::example("pack-header")]).collect()
}

pub(crate) fn record_header(bytes: &[u8]) -> bool {
    let check =
        |bytes: &[u8]| round_trip(bytes, RecordHeader::decode, RecordHeader::encode).is_some();
    let mut fixed = bytes.to_vec();
    fix_checksum8(&mut fixed, RecordHeader::LEN - CHECKSUM8_LEN);
    check(bytes) | check(&fixed)
}

pub(crate) fn record_header_seeds() -> Vec<Vec<u8>> {
    let examples = ["record", "record-of-points"].map(seeds::example);
    let examples = examples.iter().map(|record| record[..RecordHeader::LEN].to_vec());
    seeds::records().iter().map(|(header, _)| header.encode().to_vec()).chain(examples).collect()
}

/// Where the offset of the table stands in a trailer.
pub(crate) const TABLE_OFFSET_START: usize = 36;
/// Bytes of a trailer before its checksum.
const TRAILER_COVERED_LEN: usize = 48;

pub(crate) fn pack_footer(bytes: &[u8]) -> bool {
    let mut fixed = bytes.to_vec();
    fix_footer(&mut fixed);
    check_footer(bytes) | check_footer(&fixed)
}

/// Sets the checksums of a footer right.
pub(crate) fn fix_footer(bytes: &mut [u8]) {
    if let Some(table_len) = bytes.len().checked_sub(PackFooter::TRAILER_LEN) {
        let (table, trailer) = bytes.split_at_mut(table_len);
        trailer[..DIGEST_LEN].copy_from_slice(blake3::hash(table).as_bytes());
        fix_checksum8(trailer, TRAILER_COVERED_LEN);
    }
}

/// Decodes the footer of a file that is as long as the footer says.
fn check_footer(bytes: &[u8]) -> bool {
    let Some(trailer) = bytes.last_chunk::<{ PackFooter::TRAILER_LEN }>() else {
        assert!(PackFooter::decode(bytes, bytes.len() as u64).is_err());
        return false;
    };
    let (_, rest) = trailer.split_at(TABLE_OFFSET_START);
    let table_offset = u32::from_le_bytes(*rest.first_chunk().expect("a trailer is longer"));
    let file_len = u64::from(table_offset) + bytes.len() as u64;
    let decode = |bytes: &[u8]| PackFooter::decode(bytes, file_len);
    if round_trip(bytes, decode, |footer| footer.encode(table_offset)).is_none() {
        return false;
    }
    let range = PackFooter::table_range(trailer, file_len).expect("the footer decodes");
    assert_eq!(range.start, u64::from(table_offset));
    true
}

pub(crate) fn pack_footer_seeds() -> Vec<Vec<u8>> {
    let footers = seeds::packs().into_iter().map(|pack| seeds::footer(&pack).to_vec());
    footers.chain([seeds::example("pack-footer")]).collect()
}

pub(crate) fn condemned_list(bytes: &[u8]) -> bool {
    let check =
        |bytes: &[u8]| round_trip(bytes, CondemnedList::decode, CondemnedList::encode).is_some();
    check(bytes) | check(&with_digest(bytes))
}

pub(crate) fn condemned_list_seeds() -> Vec<Vec<u8>> {
    and_without_end(seeds::files("condemned", &["condemned-list"]), DIGEST_LEN)
}

pub(crate) fn ledger(bytes: &[u8]) -> bool {
    let check = |bytes: &[u8]| round_trip(bytes, Ledger::decode, Ledger::encode).is_some();
    check(bytes) | check(&with_digest(bytes))
}

pub(crate) fn ledger_seeds() -> Vec<Vec<u8>> {
    and_without_end(seeds::files("ledger", &["ledger"]), DIGEST_LEN)
}

pub(crate) fn quarantined(bytes: &[u8]) -> bool {
    let check =
        |bytes: &[u8]| round_trip(bytes, Quarantined::decode, Quarantined::encode).is_some();
    check(bytes) | check(&with_digest(bytes))
}

pub(crate) fn quarantined_seeds() -> Vec<Vec<u8>> {
    and_without_end(vec![seeds::example("quarantine-file")], DIGEST_LEN)
}

pub(crate) fn overlay_header(bytes: &[u8]) -> bool {
    let check =
        |bytes: &[u8]| round_trip(bytes, OverlayHeader::decode, OverlayHeader::encode).is_some();
    check(bytes) | check(&of_len(bytes, OverlayHeader::LEN))
}

pub(crate) fn overlay_header_seeds() -> Vec<Vec<u8>> {
    and_without_end(vec![seeds::example("overlay-header")], DIGEST_LEN)
}

pub(crate) fn overlay_map(bytes: &[u8]) -> bool {
    check_overlay_map(bytes) | check_overlay_map(&of_len(bytes, OverlayMapPage::LEN))
}

fn check_overlay_map(bytes: &[u8]) -> bool {
    let page = round_trip(bytes, OverlayMapPage::decode, OverlayMapPage::encode);
    let Some(page) = page else { return false };
    let mut start = 0;
    while start < BlockStates::COUNT {
        let (state, end) = page.states.run(start, BlockStates::COUNT);
        assert!((start..end).all(|index| page.states.get(index) == state));
        assert!(start < end && (end == BlockStates::COUNT || page.states.get(end) != state));
        start = end;
    }
    true
}

pub(crate) fn overlay_map_seeds() -> Vec<Vec<u8>> {
    let page = seeds::example("overlay-map");
    let short = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    vec![page[..page.len() - DIGEST_LEN].iter().copied().take(short).collect(), page]
}

pub(crate) fn page(bytes: &[u8]) -> bool {
    let Some(page) = round_trip(bytes, Page::decode, Page::encode) else { return false };
    check_entries(&page.entries);
    true
}

/// No entry is empty, and no two zero entries follow each other.
fn check_entries(entries: &[PageEntry]) {
    assert!(entries.iter().all(|entry| entry.len() != 0), "an empty entry");
    let is_zero = |entry: &PageEntry| matches!(entry, PageEntry::Zero { .. });
    assert!(!entries.windows(2).any(|pair| pair.iter().all(is_zero)), "two zero entries");
}

pub(crate) fn page_seeds() -> Vec<Vec<u8>> {
    [seeds::lists(|bytes| Page::decode(bytes).is_ok()), vec![seeds::example("page")]].concat()
}

pub(crate) fn root(bytes: &[u8]) -> bool {
    let Some(root) = round_trip(bytes, Root::decode, Root::encode) else { return false };
    let end = (0..root.spans.len()).fold(0, |end, index| {
        let range = root.span_range(index);
        assert_eq!(range.start, end);
        range.end
    });
    assert_eq!(end, root.image_len);
    true
}

pub(crate) fn root_seeds() -> Vec<Vec<u8>> {
    [seeds::lists(|bytes| Root::decode(bytes).is_ok()), vec![seeds::example("root")]].concat()
}

/// Also: no path leads out of its tree.
pub(crate) fn tree_page(bytes: &[u8]) -> bool {
    let page = round_trip(bytes, TreePage::decode, TreePage::encode);
    let Some(page) = page else { return false };
    for entry in &page.entries {
        let path = entry.path.as_bytes();
        let leads_out = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
        assert!(!path.split(|byte| *byte == b'/').any(leads_out), "{}", entry.path);
        check_entries(&entry.content);
    }
    assert!(page.entries.windows(2).all(|pair| pair[0].path < pair[1].path), "paths ascend");
    true
}

pub(crate) fn tree_page_seeds() -> Vec<Vec<u8>> {
    [seeds::lists(|bytes| TreePage::decode(bytes).is_ok()), vec![seeds::example("tree-page")]]
        .concat()
}

pub(crate) fn tree_root(bytes: &[u8]) -> bool {
    round_trip(bytes, TreeRoot::decode, TreeRoot::encode).is_some()
}

pub(crate) fn tree_root_seeds() -> Vec<Vec<u8>> {
    [seeds::lists(|bytes| TreeRoot::decode(bytes).is_ok()), vec![seeds::example("tree-root")]]
        .concat()
}
