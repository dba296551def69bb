//! A whisper file in memory.

use std::ops::Range;

use super::aggregation::Aggregation;
use super::changes::Changes;
use super::header::{Archive, Header, Retention, SLOT_LEN};
use super::ring::{Point, Ring};
use super::whisper_error::WhisperError;

/// A whisper file in memory: its bytes, all of which lie where the header says.
#[derive(Clone, Debug)]
pub struct WhisperFile {
    header: Header,
    bytes: Vec<u8>,
    changes: Changes,
}

impl WhisperFile {
    /// Makes a new file without points, as long as its archives need: 12 bytes for each slot.
    ///
    /// # Errors
    ///
    /// - Those of [`Header::new`].
    pub fn create(
        aggregation: Aggregation,
        x_files_factor: f32,
        retentions: &[Retention],
    ) -> Result<Self, WhisperError> {
        let header = Header::new(aggregation, x_files_factor, retentions)?;
        let len = usize::try_from(header.file_len()).map_err(|_| WhisperError::TooLong)?;
        let mut bytes = header.encode();
        bytes.resize(len, 0);
        Ok(Self { header, bytes, changes: Changes::default() })
    }

    /// Takes the bytes of a file, which may be followed by others.
    ///
    /// # Errors
    ///
    /// - Those of [`Header::decode`].
    pub fn decode(bytes: Vec<u8>) -> Result<Self, WhisperError> {
        let header = Header::decode(&bytes, bytes.len() as u64)?;
        Ok(Self { header, bytes, changes: Changes::default() })
    }

    /// Returns the header, which never changes.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the whole file.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns which of the bytes were changed since the file was made or decoded: sorted ranges, no two of which touch.
    #[must_use]
    pub fn changed_ranges(&self) -> Vec<Range<u64>> {
        self.changes.ranges(self.header.archives())
    }

    /// Returns the points of an archive in the order of their slots. Points that have left the retention by now are among them
    /// until something else is written in their place.
    ///
    /// # Panics
    ///
    /// If the file has no archive of this index.
    pub fn points(&self, archive: usize) -> impl Iterator<Item = Point> + use<'_> {
        self.ring(archive).points()
    }

    /// Returns the slots of an archive that exists.
    pub(super) fn ring(&self, archive: usize) -> Ring<'_> {
        let archive = &self.header.archives()[archive];
        Ring::new(&self.bytes[place(archive)], archive)
    }

    /// Writes a point, whose time is a multiple of the step, into its slot. Time 0 is not a point and is not written.
    pub(super) fn write(&mut self, archive: usize, point: Point) {
        if point.time == 0 {
            return;
        }
        let slot = self.ring(archive).slot_of(point.time.into());
        let mut bytes = [0; SLOT_LEN as usize];
        bytes[..4].copy_from_slice(&point.time.to_be_bytes());
        bytes[4..].copy_from_slice(&point.value.to_be_bytes());
        let archives = self.header.archives();
        let slots = &mut self.bytes[place(&archives[archive])];
        let old = &mut slots[slot * bytes.len()..][..bytes.len()];
        if old != bytes {
            old.copy_from_slice(&bytes);
            self.changes.mark(archives, archive, slot);
        }
    }
}

/// Returns where in the file an archive is; the header was checked against the length of the file.
fn place(archive: &Archive) -> Range<usize> {
    let end = usize::try_from(archive.end()).expect("an archive lies in the file");
    archive.offset as usize..end
}
