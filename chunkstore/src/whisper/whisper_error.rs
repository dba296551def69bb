//! Why bytes are not a whisper file, or a point cannot be written. No path, no I/O: the layer that knows the file adds it.

/// Why bytes are not a whisper file, or a point cannot be written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WhisperError {
    /// The input ends inside the header.
    #[error("the header is cut off after {len} bytes")]
    Truncated {
        /// Bytes that are there.
        len: usize,
    },
    /// No known aggregation has this number. So begin files of whisper before 0.9.9, and most of what is no whisper file.
    #[error("aggregation {found} is not known")]
    UnknownAggregation {
        /// What was found.
        found: u32,
    },
    /// The x-files factor is not a share.
    #[error("x-files factor is {found}, expected 0 to 1")]
    XFilesFactor {
        /// What was found.
        found: f32,
    },
    /// There is no archive, or there are more than files have.
    #[error("there are {found} archives, expected 1 to {max}", max = super::Header::ARCHIVE_COUNT_MAX)]
    ArchiveCount {
        /// What was found.
        found: u32,
    },
    /// An archive has no slots or too many, or a step of 0.
    #[error("archive {archive} has {points} slots of {seconds_per_point} s")]
    OutOfRange {
        /// Index of the archive in the header.
        archive: usize,
        /// Step in seconds.
        seconds_per_point: u32,
        /// Number of slots.
        points: u32,
    },
    /// An archive is not where it can be: it overlaps the header or another one, or ends past the file.
    #[error("archive {archive} cannot be at {offset} in a file of {file_len} bytes")]
    Misplaced {
        /// Index of the archive in the header.
        archive: usize,
        /// Its first byte in the file.
        offset: u32,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// An archive and the finer one before it do not go together.
    #[error("archive {archive} {what}")]
    Schema {
        /// Index of the coarser archive.
        archive: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A new file would be longer than its own header can say.
    #[error("the archives are too long for a whisper file")]
    TooLong,
    /// The time of a point is in the future, or before the longest retention.
    #[error("no archive covers the time {time}")]
    NotCovered {
        /// Time of the point.
        time: u32,
    },
}
