//! What a backup reads.
//!
//! [`Source`] is the small interface; [`FileSource`] is an image file or a block device. The errors of
//! this module and those of a store are different types on purpose.

use std::io;
use std::ops::Range;

mod file;
mod tree;
mod whisper_tree;

pub use file::FileSource;
pub(crate) use file::{describe_no_image, size_of};
pub use tree::{FileError, FilePiece, FileStatus, Found, TreeSource};
pub use whisper_tree::{MetricFilter, WhisperTree};

use crate::format::RevisionRecord;

/// Why a source could not be read completely. There is then no revision.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source cannot be opened.
    #[error("cannot open source {name}")]
    Open {
        /// The source.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The source is neither a regular file nor a block device.
    #[error("source {name} is {found}, neither an image file nor a block device")]
    NotAnImage {
        /// The source.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// A range cannot be read.
    #[error("cannot read {len} bytes at byte {offset} of source {name}")]
    Read {
        /// The source.
        name: String,
        /// Start of the range in bytes.
        offset: u64,
        /// Length of the range in bytes.
        len: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The source ends earlier than it said, or changed its size while it was read.
    #[error("source {name} changed its size from {expected} to {found} bytes during the backup")]
    SizeChanged {
        /// The source.
        name: String,
        /// Size in bytes when it was opened.
        expected: u64,
        /// Size in bytes now.
        found: u64,
    },
    /// The image is larger than the format can hold.
    #[error("source {name} has {len} bytes, more than the {len_max} that a revision can hold")]
    TooLarge {
        /// The source.
        name: String,
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        len_max: u64,
    },
    /// A tree has no file to back up, although it had some.
    #[error("source {name} has no file to back up, and the revision before has {before}")]
    Empty {
        /// The source.
        name: String,
        /// How many files there were.
        before: u64,
    },
    /// A change list left out a range that did change.
    #[error("the change list of source {name} is wrong: byte {offset} changed and is not in it")]
    WrongChangeList {
        /// The source.
        name: String,
        /// Start in bytes of the range that differs.
        offset: u64,
    },
}

/// An image that can be read at any place, by several threads.
pub trait Source: Send + Sync {
    /// Returns the name for messages and for the revision record.
    fn name(&self) -> &str;

    /// Returns the size in bytes; it is fixed when the source is opened.
    fn len(&self) -> u64;

    /// Returns whether the image has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the first range at or behind `offset` that may hold other bytes than zero; all that lies before it
    /// reads as zeros. `None`: only zeros follow.
    ///
    /// # Errors
    ///
    /// - [`SourceError::Read`] if the source cannot tell.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError>;

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// - [`SourceError::Read`] if the range cannot be read.
    /// - [`SourceError::SizeChanged`] if the source ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError>;

    /// Appends the bytes at `offset` to `buffer`: as many as its spare capacity takes, at most `len_max`, and at least
    /// one. A source that can write into memory that was never initialised saves clearing it.
    ///
    /// # Errors
    ///
    /// As [`Self::read_exact_at`]; what `buffer` has got is then of no use.
    fn append_at(
        &self,
        buffer: &mut Vec<u8>,
        len_max: usize,
        offset: u64,
    ) -> Result<(), SourceError> {
        let read = |bytes: &mut [u8]| self.read_exact_at(bytes, offset);
        append_cleared(buffer, len_max, read)
    }

    /// Returns the ranges that may have changed since `parent` was read, in order and without overlap, or
    /// `None` if the source does not know. It is a hint: the backup checks samples outside of it.
    ///
    /// # Errors
    ///
    /// - [`SourceError::Read`] if the source cannot tell although it should.
    fn changes_since(
        &self,
        parent: &RevisionRecord,
    ) -> Result<Option<Vec<Range<u64>>>, SourceError> {
        let _ = parent;
        Ok(None)
    }

    /// Checks after the last read that the source is still the one that was opened. Returns
    /// what a person should know: "it was written to while it was read".
    ///
    /// # Errors
    ///
    /// - [`SourceError::SizeChanged`] if it has another size now.
    fn finish(&self) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
}

/// Clears the spare capacity of `buffer`, at most `len_max` bytes and at least one, and has `read` fill it.
fn append_cleared(
    buffer: &mut Vec<u8>,
    len_max: usize,
    read: impl FnOnce(&mut [u8]) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let start = buffer.len();
    let len = (buffer.capacity() - start).clamp(1, len_max);
    buffer.resize(start + len, 0);
    read(&mut buffer[start..])
}
