//! Where things lie in the file of an overlay: `docs/format.md`, section "Overlay file".

use std::ops::Range;

use crate::format::{BlockStates, OverlayHeader, OverlayMapKind, OverlayMapPage};

/// Bytes of the image whose state is kept together.
pub(super) const BLOCK_LEN: u64 = OverlayHeader::BLOCK_LEN as u64;

/// Bytes of the image that a page of the map tells about.
pub(super) const PAGE_IMAGE_LEN: u64 = BLOCK_LEN * BlockStates::COUNT as u64;

/// Bytes of one slot.
const SLOT_LEN: u64 = OverlayMapPage::LEN as u64;

/// Slots of each page.
pub(super) const SLOT_COUNT: u64 = 2;

/// Where the bytes of the image begin is a multiple of this.
const DATA_ALIGNMENT: u64 = 64 << 10;

/// Places in the file of an overlay over an image of a certain length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) image_len: u64,
    /// Pages of the map.
    pub(super) page_count: u64,
    /// Pages of the directory; at least one.
    pub(super) directory_count: u64,
    /// Start of the map.
    pub(super) map_start: u64,
    /// Start of the bytes of the image.
    pub(super) data_start: u64,
}

impl Geometry {
    pub(super) fn new(image_len: u64) -> Self {
        let page_count = image_len.div_ceil(PAGE_IMAGE_LEN);
        let directory_count = page_count.div_ceil(BlockStates::COUNT as u64).max(1);
        let map_start = SLOT_LEN + directory_count * SLOT_COUNT * SLOT_LEN;
        let map_end = map_start + page_count * SLOT_COUNT * SLOT_LEN;
        let data_start = map_end.next_multiple_of(DATA_ALIGNMENT);
        Self { image_len, page_count, directory_count, map_start, data_start }
    }

    /// Returns where the first slot of a page lies; the other one follows.
    pub(super) fn slots(&self, kind: OverlayMapKind, number: u64) -> u64 {
        let start = match kind {
            OverlayMapKind::Directory => SLOT_LEN,
            OverlayMapKind::Map => self.map_start,
        };
        start + number * SLOT_COUNT * SLOT_LEN
    }

    /// Returns the bytes of the image that a page of the map tells about.
    pub(super) fn page_range(&self, number: u64) -> Range<u64> {
        let start = number * PAGE_IMAGE_LEN;
        start..(start + PAGE_IMAGE_LEN).min(self.image_len)
    }

    /// Returns where the block ends that ends at or behind `offset`. The last block ends with the image.
    pub(super) fn block_end(&self, offset: u64) -> u64 {
        offset.next_multiple_of(BLOCK_LEN).min(self.image_len)
    }

    /// Returns the whole blocks in a range of the image; empty if there is none.
    pub(super) fn whole_blocks(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.next_multiple_of(BLOCK_LEN).min(range.end);
        let end = if range.end == self.image_len { range.end } else { block_start(range.end) };
        start..end.max(start)
    }
}

/// Returns where the block of `offset` starts.
pub(super) fn block_start(offset: u64) -> u64 {
    offset - offset % BLOCK_LEN
}

/// Returns the page of the map that tells about `offset`.
pub(super) fn page_of(offset: u64) -> u64 {
    offset / PAGE_IMAGE_LEN
}

/// Returns the places in a page of the blocks that a range touches, which lies in the image of that page.
pub(super) fn indexes(range: &Range<u64>) -> Range<usize> {
    let start = page_of(range.start) * PAGE_IMAGE_LEN;
    let index = |offset: u64| usize::try_from(offset / BLOCK_LEN).expect("a page has 8192 blocks");
    index(range.start - start)..index((range.end - start).next_multiple_of(BLOCK_LEN))
}

/// Returns the length of a range of which the bytes are in memory.
pub(super) fn memory_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("these bytes are in memory")
}

/// Splits a range where a multiple of `len` lies in it.
pub(super) fn pieces(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        (start < range.end).then(|| {
            let piece = start..((start / len + 1) * len).min(range.end);
            start = piece.end;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::IMAGE_LEN_MAX;

    #[test]
    fn parts_of_the_file_follow_each_other() {
        for image_len in [0, 1, 4096, PAGE_IMAGE_LEN, PAGE_IMAGE_LEN + 1, 1 << 44, IMAGE_LEN_MAX] {
            let it = Geometry::new(image_len);
            assert_eq!(it.slots(OverlayMapKind::Directory, it.directory_count), it.map_start);
            assert!(it.slots(OverlayMapKind::Map, it.page_count) <= it.data_start);
            assert!(it.page_count <= it.directory_count * BlockStates::COUNT as u64);
            assert!(it.page_count * PAGE_IMAGE_LEN >= image_len);
            assert!(i64::try_from(it.data_start + image_len).is_ok());
        }
        assert_eq!(Geometry::new(69632).data_start, 64 << 10);
    }

    #[test]
    fn last_block_ends_with_the_image() {
        let it = Geometry::new(10_000);
        assert_eq!(it.whole_blocks(&(0..10_000)), 0..10_000);
        assert_eq!(it.whole_blocks(&(1..9_999)), 4096..8192);
        assert_eq!(it.whole_blocks(&(8193..10_000)), 10_000..10_000);
        assert_eq!(it.whole_blocks(&(5000..6000)), 6000..6000);
        assert_eq!((it.block_end(8193), it.block_end(4096)), (10_000, 4096));
    }

    #[test]
    fn pieces_cover_the_range() {
        assert_eq!(pieces(5..25, 10).collect::<Vec<_>>(), [5..10, 10..20, 20..25]);
        assert_eq!(pieces(10..20, 10).count(), 1);
        assert_eq!(pieces(5..5, 10).count(), 0);
        let page = PAGE_IMAGE_LEN;
        assert_eq!(indexes(&(page..page + 1)), 0..1);
        assert_eq!(indexes(&(page - 1..page)), 8191..8192);
    }
}
