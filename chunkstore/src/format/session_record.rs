//! Session record: an operation that purge must know of.
//!
//! Layout: `docs/format.md`, section "Session". The file is locked by the process that it describes: without
//! its lock it describes an operation that is over.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::format::{FormatError, decode_document, encode_document};
use crate::id::{ChunkId, SessionId};
use crate::time::Timestamp;

const MAGIC: &str = "chunkstore session";
const VERSION: u32 = 1;

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SessionKind {
    /// Writes a revision.
    Backup,
    /// Writes an image out.
    Restore,
    /// Reads the chunks of revisions.
    Verify,
    /// Serves an image.
    Export,
}

impl SessionKind {
    /// Returns whether such a session refers to chunks that no revision needs yet.
    #[must_use]
    pub const fn is_writer(self) -> bool {
        matches!(self, Self::Backup)
    }

    /// Returns whether such a session relies on packs staying where it found them when it looked them up. Other readers look up
    /// again what has moved.
    #[must_use]
    pub const fn relies_on_places(self) -> bool {
        matches!(self, Self::Backup | Self::Verify)
    }
}

impl fmt::Display for SessionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Export => "export",
        })
    }
}

/// A running backup, restore, verify or export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its name, also the name of the file and in the header of the packs that it writes.
    pub id: SessionId,
    /// What it does.
    pub kind: SessionKind,
    /// Generation of the store when it began: it may refer to what was condemned later.
    pub start_generation: u64,
    /// Roots of the images that it reads. What they need is kept while the session lives.
    pub pinned_roots: Vec<ChunkId>,
    /// The host that it runs on.
    pub host: String,
    /// Process id on that host.
    pub process: u32,
    /// The command, for people.
    pub command: String,
    /// When it began.
    pub started: Timestamp,
}

impl SessionRecord {
    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the document is longer than 1 MiB, which it is with more than about 15,000 roots.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_document(MAGIC, VERSION, self)
    }

    /// Reads a session from the bytes of its file.
    ///
    /// # Errors
    ///
    /// - Those of [`decode_document`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode_document(MAGIC, VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    fn example() -> SessionRecord {
        SessionRecord {
            id: SessionId::from_bytes([1; 16]),
            kind: SessionKind::Export,
            start_generation: 4,
            pinned_roots: vec![ChunkId::from_bytes([2; 32])],
            host: "backup1".into(),
            process: 4711,
            command: "backy nbd-server".into(),
            started: Timestamp(1_790_000_000_123),
        }
    }

    #[test]
    fn session_reads_back() {
        assert_eq!(SessionRecord::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn damaged_session_is_rejected() {
        assert_flips_rejected(&example().encode(), SessionRecord::decode);
        assert_exact_length(&example().encode(), SessionRecord::decode);
    }

    #[test]
    fn kind_is_stored_as_it_prints() {
        let kinds =
            [SessionKind::Backup, SessionKind::Restore, SessionKind::Verify, SessionKind::Export];
        for kind in kinds {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
        assert_eq!(kinds.map(SessionKind::is_writer), [true, false, false, false]);
    }
}
