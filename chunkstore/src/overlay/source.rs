//! An overlay as the source of a backup. The change list against its own revision is what the overlay has.

use std::io;
use std::ops::Range;

use super::{Overlay, OverlayExtentKind};
use crate::error::Error;
use crate::format::RevisionRecord;
use crate::source::{Source, SourceError};

/// Where this much data is found, its end is not searched for.
const DATA_LEN_MAX: u64 = 64 << 20;

impl Overlay {
    /// What cannot be read here is the source's, also where it is a revision of the store.
    fn unreadable(&self, offset: u64, len: u64, error: Error) -> SourceError {
        let source = io::Error::other(error);
        SourceError::Read { name: self.name.clone(), offset, len, source }
    }
}

impl Source for Overlay {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len()
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        if self.len() <= offset {
            return Ok(None);
        }
        let mut found: Option<Range<u64>> = None;
        let visited = self.for_each_extent(offset..self.len(), |range, kind| {
            match (&mut found, kind) {
                (None, OverlayExtentKind::Data) => found = Some(range),
                (None, _) => {}
                (Some(data), OverlayExtentKind::Data) if data.end - data.start < DATA_LEN_MAX => {
                    data.end = range.end;
                }
                (Some(_), _) => return false,
            }
            true
        });
        visited.map_err(|error| self.unreadable(offset, self.len() - offset, error))?;
        Ok(found)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        self.read(offset, buffer)
            .map_err(|error| self.unreadable(offset, buffer.len() as u64, error))
    }

    fn changes_since(
        &self,
        parent: &RevisionRecord,
    ) -> Result<Option<Vec<Range<u64>>>, SourceError> {
        if parent.id != self.revision().record.id {
            return Ok(None);
        }
        let extents = self.changed_extents(0, self.len(), usize::MAX);
        let extents = extents.map_err(|error| self.unreadable(0, self.len(), error))?;
        let changed = extents.into_iter().filter(|extent| extent.is_changed);
        Ok(Some(changed.map(|extent| extent.range).collect()))
    }
}
