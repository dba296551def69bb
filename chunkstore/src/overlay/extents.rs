//! What lies where: extents of the whole image, and those that differ from the revision.

use std::ops::Range;

use super::Overlay;
use crate::error::Result;
use crate::format::BlockState;
use crate::image_reader::Extent;

/// What an extent of an overlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlayExtentKind {
    /// Bytes that are stored, in the revision or in the overlay.
    Data,
    /// Zeros that take no space: the revision has none there.
    Hole,
    /// Zeros that the overlay keeps. They may take space.
    Zero,
}

/// A stretch of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayExtent {
    /// Bytes of the image.
    pub range: Range<u64>,
    /// What they are.
    pub kind: OverlayExtentKind,
}

/// A stretch that differs from the revision, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedExtent {
    /// Bytes of the image.
    pub range: Range<u64>,
    /// Whether the overlay has them: they were written, zeroed or trimmed, be it with what was there before.
    pub is_changed: bool,
}

impl Overlay {
    /// Returns what lies in `len` bytes at `offset`, in order and without gaps, at most `count_max` extents: if there are more, the
    /// rest of the range is left out. Neighbours are of different kinds.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], but of the revision only pages are read.
    pub fn extents(&self, offset: u64, len: u64, count_max: usize) -> Result<Vec<OverlayExtent>> {
        let range = self.check_range(offset, len)?;
        let mut found = Extents::new(count_max);
        self.for_each_extent(range, |range, kind| found.push(range, kind))?;
        let extent = |(range, kind)| OverlayExtent { range, kind };
        Ok(found.list.into_iter().map(extent).collect())
    }

    /// Returns which of `len` bytes at `offset` the overlay has, in whole blocks as far as they lie in the range, in order and without
    /// gaps, at most `count_max` extents: if there are more, the rest of the range is left out.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], but nothing of the revision is read.
    pub fn changed_extents(
        &self,
        offset: u64,
        len: u64,
        count_max: usize,
    ) -> Result<Vec<ChangedExtent>> {
        let range = self.check_range(offset, len)?;
        let mut found = Extents::new(count_max);
        self.for_each_run(range, |run, state| Ok(found.push(run, state != BlockState::Base)))?;
        let extent = |(range, is_changed)| ChangedExtent { range, is_changed };
        Ok(found.list.into_iter().map(extent).collect())
    }

    /// Calls `visit` for what lies in a range, in order, until it returns `false`. A run lies in one page of the map, so few
    /// extents of the revision are in memory. Neighbours may be of one kind.
    pub(super) fn for_each_extent(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(Range<u64>, OverlayExtentKind) -> bool,
    ) -> Result<()> {
        self.for_each_run(range, |run, state| match state {
            BlockState::Data => Ok(visit(run, OverlayExtentKind::Data)),
            BlockState::Zero => Ok(visit(run, OverlayExtentKind::Zero)),
            BlockState::Base => {
                let mut extents = self.base.extents(run.start, run.end - run.start)?.into_iter();
                Ok(extents.all(|extent| match extent {
                    Extent::Data { range, .. } => visit(range, OverlayExtentKind::Data),
                    Extent::Zero { range } => visit(range, OverlayExtentKind::Hole),
                }))
            }
        })
    }
}

/// A list of extents that does not grow beyond a count.
struct Extents<K> {
    list: Vec<(Range<u64>, K)>,
    count_max: usize,
}

impl<K: PartialEq> Extents<K> {
    fn new(count_max: usize) -> Self {
        Self { list: Vec::new(), count_max }
    }

    /// Adds an extent, or makes the last one longer; returns `false` if there is no room for it.
    fn push(&mut self, range: Range<u64>, kind: K) -> bool {
        if let Some((last, other)) = self.list.last_mut()
            && *other == kind
        {
            last.end = range.end;
            return true;
        }
        if self.count_max <= self.list.len() {
            return false;
        }
        self.list.push((range, kind));
        true
    }
}
