//! Why bytes are not the structure that they should be. No path, no I/O: the layer that knows the file adds it.

use crate::time::Timestamp;

/// Why bytes are not the structure that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The input ends inside a field.
    #[error("{field} is cut off")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// The first bytes are not those of this structure.
    #[error("it does not begin as {expected} does")]
    WrongMagic {
        /// The structure.
        expected: &'static str,
    },
    /// A version or a flag that this program does not know.
    #[error("{structure} has version or flags {found}, this program reads up to {supported}")]
    Unsupported {
        /// The structure.
        structure: &'static str,
        /// What was found.
        found: u32,
        /// Highest version that this program reads.
        supported: u32,
    },
    /// A checksum does not match.
    #[error("the checksum of {structure} does not match")]
    WrongChecksum {
        /// What the checksum covers.
        structure: &'static str,
    },
    /// A field has a value that is never written.
    #[error("{field} is {found}, expected {expected}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was found.
        found: u64,
        /// What is permitted.
        expected: &'static str,
    },
    /// Two parts contradict each other.
    #[error("{what}")]
    Inconsistent {
        /// The contradiction.
        what: &'static str,
    },
    /// Bytes follow where the structure ends.
    #[error("{count} bytes follow where {structure} ends")]
    TrailingBytes {
        /// The structure.
        structure: &'static str,
        /// How many.
        count: u64,
    },
    /// A JSON document cannot be read.
    #[error("not a valid document: {reason}")]
    Document {
        /// What the JSON reader said.
        reason: String,
    },
    /// Compressed bytes cannot be expanded.
    #[error("it cannot be expanded: {reason}")]
    Compression {
        /// What the decoder said.
        reason: String,
    },
    /// The bytes do not hash to the id under which they are stored.
    #[error("its bytes hash to {found}")]
    WrongHash {
        /// What they hash to, in hexadecimal.
        found: String,
    },
    /// It was found damaged before, and its chunk has no other place.
    #[error("it is in quarantine since {since}: {reason}")]
    Quarantined {
        /// When the damage was found.
        since: Timestamp,
        /// What was wrong then.
        reason: String,
    },
    /// The operating system could not read the bytes of the object.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// What the operating system said.
        reason: String,
    },
}

impl FormatError {
    /// Returns [`FormatError::OutOfRange`].
    pub(crate) fn out_of_range(
        field: &'static str,
        found: impl Into<u64>,
        expected: &'static str,
    ) -> Self {
        Self::OutOfRange { field, found: found.into(), expected }
    }
}
