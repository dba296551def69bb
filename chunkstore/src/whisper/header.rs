//! Header of a whisper file: where its archives are, and how points go from one to the next.
//!
//! Byte layout: the documentation of the module [`whisper`](super). A header that was decoded can be worked with: no division by
//! zero, no slot outside of the file, no two archives in one place, and archives sorted.

use super::aggregation::Aggregation;
use super::whisper_error::WhisperError;

/// Bytes of the fields before the archives.
const METADATA_LEN: usize = 16;

/// Bytes that describe one archive.
const ARCHIVE_INFO_LEN: usize = 12;

/// Bytes of one slot.
pub(super) const SLOT_LEN: u32 = 12;

/// How fine and how long an archive keeps points, for a file that is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Step in seconds.
    pub seconds_per_point: u32,
    /// Number of slots.
    pub points: u32,
}

/// One archive of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// First byte in the file.
    pub offset: u32,
    /// Step in seconds, at least 1.
    pub seconds_per_point: u32,
    /// Number of slots, `1..=Header::POINTS_MAX`.
    pub points: u32,
}

impl Archive {
    /// Returns how far it reaches back, in seconds.
    #[must_use]
    pub fn retention(&self) -> u64 {
        u64::from(self.seconds_per_point) * u64::from(self.points)
    }

    /// Returns its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an archive has at least one slot")]
    pub fn len(&self) -> u64 {
        u64::from(self.points) * u64::from(SLOT_LEN)
    }

    /// Returns the first byte of the file that is behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + self.len()
    }
}

/// Where the archives of a file are, and how points go from one to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    aggregation: Aggregation,
    max_retention: u32,
    x_files_factor: f32,
    archives: Vec<Archive>,
}

impl Header {
    /// Most archives of a file.
    pub const ARCHIVE_COUNT_MAX: u32 = 64;

    /// Most slots of an archive.
    pub const POINTS_MAX: u32 = 1 << 26;

    /// Length of the longest header in bytes.
    pub const LEN_MAX: usize = METADATA_LEN + 64 * ARCHIVE_INFO_LEN;

    /// Returns the header of a new file, with the archives sorted and one behind the other.
    ///
    /// The rules are those of the Python package for new files, which are stricter than those of [`decode`](Self::decode): a
    /// step of an archive must fit into the one before.
    ///
    /// # Errors
    ///
    /// - [`WhisperError::XFilesFactor`], [`WhisperError::ArchiveCount`], [`WhisperError::OutOfRange`],
    ///   [`WhisperError::Schema`] as for `decode`.
    /// - [`WhisperError::TooLong`] if an offset or a retention is above 2^32 - 1.
    pub fn new(
        aggregation: Aggregation,
        x_files_factor: f32,
        retentions: &[Retention],
    ) -> Result<Self, WhisperError> {
        let count = u32::try_from(retentions.len()).unwrap_or(u32::MAX);
        check_metadata(x_files_factor, count)?;
        let mut retentions = retentions.to_vec();
        retentions.sort_by_key(|retention| retention.seconds_per_point);
        let mut offset = header_len(retentions.len()) as u64;
        let mut archives = Vec::with_capacity(retentions.len());
        for Retention { seconds_per_point, points } in retentions {
            let start = u32::try_from(offset).map_err(|_| WhisperError::TooLong)?;
            let archive = Archive { offset: start, seconds_per_point, points };
            check_range(archives.len(), &archive)?;
            offset = archive.end();
            archives.push(archive);
        }
        check_schema(&archives)?;
        check_consolidation(&archives)?;
        let longest = archives.last().map_or(0, Archive::retention);
        let max_retention = u32::try_from(longest).map_err(|_| WhisperError::TooLong)?;
        Ok(Self { aggregation, max_retention, x_files_factor, archives })
    }

    /// Reads and checks the header of a file of `file_len` bytes.
    ///
    /// `bytes` are the first ones of the file, at least the header ([`LEN_MAX`](Self::LEN_MAX) are always enough). Bytes behind
    /// the archives are permitted.
    ///
    /// # Errors
    ///
    /// - [`WhisperError::Truncated`] if `bytes` end before the header does.
    /// - [`WhisperError::UnknownAggregation`] if the aggregation is none of the eight.
    /// - [`WhisperError::XFilesFactor`] if the x-files factor is not from 0 to 1.
    /// - [`WhisperError::ArchiveCount`] if there is no archive, or more than [`ARCHIVE_COUNT_MAX`](Self::ARCHIVE_COUNT_MAX).
    /// - [`WhisperError::OutOfRange`] if an archive has step 0, no slots, or more than [`POINTS_MAX`](Self::POINTS_MAX).
    /// - [`WhisperError::Misplaced`] if an archive overlaps the header or another one, or ends past the file.
    /// - [`WhisperError::Schema`] if archives are not sorted, a step is not a multiple of the one before, or a retention is
    ///   not longer than the one before. No version of whisper has made such a file.
    pub fn decode(bytes: &[u8], file_len: u64) -> Result<Self, WhisperError> {
        let truncated = WhisperError::Truncated { len: bytes.len() };
        let (metadata, mut rest) =
            bytes.split_first_chunk::<METADATA_LEN>().ok_or_else(|| truncated.clone())?;
        let [aggregation, max_retention, x_files_factor, archive_count] = words(metadata);
        let aggregation = Aggregation::decode(aggregation)?;
        let x_files_factor = f32::from_bits(x_files_factor);
        check_metadata(x_files_factor, archive_count)?;
        let mut archives = Vec::new();
        for index in 0..archive_count as usize {
            let (info, more) =
                rest.split_first_chunk::<ARCHIVE_INFO_LEN>().ok_or_else(|| truncated.clone())?;
            let [offset, seconds_per_point, points] = words(info);
            let archive = Archive { offset, seconds_per_point, points };
            check_range(index, &archive)?;
            archives.push(archive);
            rest = more;
        }
        check_places(&archives, file_len)?;
        check_schema(&archives)?;
        Ok(Self { aggregation, max_retention, x_files_factor, archives })
    }

    /// Returns the stored form.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a header has at most 64 archives")]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.archives.len()).expect("a header has at most 64 archives");
        let mut out = Vec::with_capacity(self.header_len());
        let factor = self.x_files_factor.to_bits();
        for word in [self.aggregation.encode(), self.max_retention, factor, count] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        for archive in &self.archives {
            for word in [archive.offset, archive.seconds_per_point, archive.points] {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
        out
    }

    /// Returns how points of one archive become points of the next.
    #[must_use]
    pub fn aggregation(&self) -> Aggregation {
        self.aggregation
    }

    /// Returns which share of the points of a step must be known for an aggregate, 0 to 1.
    #[must_use]
    pub fn x_files_factor(&self) -> f32 {
        self.x_files_factor
    }

    /// Returns the archives in the order of the header, the finest first. There is at least one.
    #[must_use]
    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    /// Returns how far the file reaches back, in seconds: what the header says, but no more than the archives have.
    #[must_use]
    pub fn max_retention(&self) -> u64 {
        let longest = self.archives.last().map_or(0, Archive::retention);
        longest.min(self.max_retention.into())
    }

    /// Returns the length of the header in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        header_len(self.archives.len())
    }

    /// Returns where the last archive ends. A file is at least as long.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.archives.iter().map(Archive::end).max().unwrap_or(0)
    }
}

fn header_len(archive_count: usize) -> usize {
    METADATA_LEN + archive_count * ARCHIVE_INFO_LEN
}

/// Splits bytes into big-endian words. `LEN` is four times `COUNT`.
fn words<const LEN: usize, const COUNT: usize>(bytes: &[u8; LEN]) -> [u32; COUNT] {
    let mut words = [0; COUNT];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_be_bytes(bytes.try_into().expect("a chunk has 4 bytes"));
    }
    words
}

fn check_metadata(x_files_factor: f32, archive_count: u32) -> Result<(), WhisperError> {
    if !(0.0..=1.0).contains(&x_files_factor) {
        return Err(WhisperError::XFilesFactor { found: x_files_factor });
    }
    if archive_count == 0 || Header::ARCHIVE_COUNT_MAX < archive_count {
        return Err(WhisperError::ArchiveCount { found: archive_count });
    }
    Ok(())
}

fn check_range(index: usize, archive: &Archive) -> Result<(), WhisperError> {
    let &Archive { seconds_per_point, points, .. } = archive;
    if seconds_per_point == 0 || points == 0 || Header::POINTS_MAX < points {
        return Err(WhisperError::OutOfRange { archive: index, seconds_per_point, points });
    }
    Ok(())
}

/// Checks that archives lie in the file, and neither in the header nor in each other.
fn check_places(archives: &[Archive], file_len: u64) -> Result<(), WhisperError> {
    let mut in_order: Vec<(usize, &Archive)> = archives.iter().enumerate().collect();
    in_order.sort_by_key(|(_, archive)| archive.offset);
    let mut free = header_len(archives.len()) as u64;
    for (index, archive) in in_order {
        if u64::from(archive.offset) < free || file_len < archive.end() {
            let offset = archive.offset;
            return Err(WhisperError::Misplaced { archive: index, offset, file_len });
        }
        free = archive.end();
    }
    Ok(())
}

/// Checks what every version of whisper demanded of new files.
fn check_schema(archives: &[Archive]) -> Result<(), WhisperError> {
    for (archive, pair) in (1..).zip(archives.windows(2)) {
        let [finer, coarser] = pair else { unreachable!("a window of two") };
        let what = if coarser.seconds_per_point <= finer.seconds_per_point {
            "is not coarser than the one before"
        } else if coarser.seconds_per_point % finer.seconds_per_point != 0 {
            "has a step that is not a multiple of the one before"
        } else if coarser.retention() <= finer.retention() {
            "does not reach back further than the one before"
        } else {
            continue;
        };
        return Err(WhisperError::Schema { archive, what });
    }
    Ok(())
}

/// Checks what is demanded since whisper 0.9.10, but not of files that are there.
fn check_consolidation(archives: &[Archive]) -> Result<(), WhisperError> {
    for (archive, pair) in (1..).zip(archives.windows(2)) {
        let [finer, coarser] = pair else { unreachable!("a window of two") };
        if u64::from(coarser.seconds_per_point) > finer.retention() {
            let what = "has a step that is longer than the one before reaches back";
            return Err(WhisperError::Schema { archive, what });
        }
    }
    Ok(())
}
