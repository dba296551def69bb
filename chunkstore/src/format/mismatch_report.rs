//! Mismatch report: that a backup read something else back than its source had.
//!
//! Layout: `docs/format.md`, section "Mismatch report". A report is evidence for people. Nothing is rebuilt from it; only that
//! there is one for a source makes backups of it read back more.

use serde::{Deserialize, Serialize};

use crate::format::FormatError;
use crate::format::document::{decode_document, encode_document};
use crate::id::{ChunkId, RevisionId, SourceName};
use crate::time::Timestamp;

const MAGIC: &str = "chunkstore mismatch";
const VERSION: u32 = 1;

/// One place of an image at which store and source differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MismatchReport {
    /// The revision that was not made because of it.
    pub revision: RevisionId,
    /// The source by its name in the store.
    pub source: SourceName,
    /// What the source called itself.
    pub origin: String,
    /// When it was found.
    pub time: Timestamp,
    /// Offset in bytes in the image.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// BLAKE3 of the bytes that the store gave back; they had been read from the source before.
    pub stored: ChunkId,
    /// BLAKE3 of the bytes that the source had when they were compared.
    pub found: ChunkId,
}

impl MismatchReport {
    /// Returns the name of the report: the same place with the same bytes on both sides is reported once.
    #[must_use]
    pub fn name(&self) -> ChunkId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.source.as_str().as_bytes());
        // No name of a source has this byte.
        hasher.update(&[0]);
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(self.stored.as_bytes());
        hasher.update(self.found.as_bytes());
        ChunkId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the document is longer than 1 MiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_document(MAGIC, VERSION, self)
    }

    /// Reads a report from the bytes of its file.
    ///
    /// # Errors
    ///
    /// Those of [`decode_document`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        decode_document(MAGIC, VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    fn example() -> MismatchReport {
        MismatchReport {
            revision: RevisionId::from_bytes([1; RevisionId::LEN]),
            source: "vm1".parse().unwrap(),
            origin: "/dev/vg0/vm1".to_owned(),
            time: Timestamp(1_790_000_000_123),
            offset: 65536,
            len: 4096,
            stored: ChunkId::from_bytes([2; ChunkId::LEN]),
            found: ChunkId::from_bytes([3; ChunkId::LEN]),
        }
    }

    #[test]
    fn report_reads_back_and_damage_is_rejected() {
        let report = example();
        assert_eq!(MismatchReport::decode(&report.encode()), Ok(report));
        assert_flips_rejected(&example().encode(), MismatchReport::decode);
        assert_exact_length(&example().encode(), MismatchReport::decode);
    }

    #[test]
    fn name_depends_on_the_place_and_both_sides_only() {
        let report = example();
        let later = MismatchReport { time: Timestamp(5), ..example() };
        let again =
            MismatchReport { revision: RevisionId::from_bytes([9; RevisionId::LEN]), ..later };
        assert_eq!(again.name(), report.name());
        let others = [
            MismatchReport { source: "vm2".parse().unwrap(), ..example() },
            MismatchReport { offset: 65537, ..example() },
            MismatchReport { stored: report.found, found: report.stored, ..example() },
        ];
        for other in others {
            assert_ne!(other.name(), report.name());
        }
    }
}
