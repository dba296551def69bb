//! Revision record: what one backup was of, and where its chunk list begins.
//!
//! Layout: `docs/format.md`, section "Revision record". Written once, as the commit of a backup, and never changed;
//! what may change is in [`crate::format::RevisionState`].

use serde::{Deserialize, Serialize};

use crate::format::tag::check_tags;
use crate::format::{FormatError, decode_document, encode_document};
use crate::id::{ChunkId, RevisionId, SessionId, SourceName};
use crate::limits::IMAGE_LEN_MAX;
use crate::time::Timestamp;

const MAGIC: &str = "chunkstore revision";
const VERSION: u32 = 1;

/// What a revision is a state of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RevisionKind {
    /// A disk image.
    Image,
    /// A tree of files.
    Tree,
}

/// What one backup read, found and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatistics {
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of the image that were holes in the source and were not read.
    pub hole_bytes: u64,
    /// Plain bytes of the chunks that were written.
    pub new_bytes: u64,
    /// Bytes that these chunks take in packs.
    pub stored_bytes: u64,
    /// Plain bytes of the chunks that the store had already.
    pub reused_bytes: u64,
    /// Chunks that were written.
    pub new_chunks: u64,
    /// Chunks that the store had already.
    pub reused_chunks: u64,
    /// How long it took.
    pub duration_milliseconds: u64,
}

/// State of a source at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its name, also the name of the file.
    pub id: RevisionId,
    /// What it is a state of, also the name of the directory.
    pub source: SourceName,
    /// Place in the history of the source, from 1: the order of revisions whatever the clock says.
    pub sequence: u64,
    /// The session that wrote it.
    pub session: SessionId,
    /// When the backup began.
    pub time: Timestamp,
    /// What it is a state of.
    pub kind: RevisionKind,
    /// Length of the image, or of all files together, in bytes.
    pub size: u64,
    /// The root of its chunk list or tree.
    pub root: ChunkId,
    /// The revision that chunks were predicted from. It may be gone; nothing depends on it.
    pub parent: Option<RevisionId>,
    /// The host that made the backup.
    pub host: String,
    /// What was read, for people.
    pub origin: String,
    /// Tags that it was made with; see [`crate::format::RevisionState`] for those that it has.
    pub tags: Vec<String>,
    /// What the backup read, found and wrote.
    pub statistics: BackupStatistics,
    /// How this revision came from another one of its source, which it takes the place of, if it was thinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinned: Option<Thinned>,
}

/// What a thinned revision is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thinned {
    /// The revision that it takes the place of.
    pub from: RevisionId,
    /// Files that the complete revision had.
    pub complete_entries: u64,
}

impl RevisionRecord {
    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the document is longer than 1 MiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.check(), Ok(()));
        encode_document(MAGIC, VERSION, self)
    }

    /// Reads a record from the bytes of its file.
    ///
    /// # Errors
    ///
    /// - Those of [`decode_document`].
    /// - [`FormatError::OutOfRange`] if the size or the sequence number is beyond its limits.
    /// - [`FormatError::Inconsistent`] if a tag is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let record: Self = decode_document(MAGIC, VERSION, bytes)?;
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), FormatError> {
        if IMAGE_LEN_MAX < self.size {
            return Err(FormatError::out_of_range("size", self.size, "at most 2^50"));
        }
        if self.sequence == 0 {
            return Err(FormatError::out_of_range("sequence", self.sequence, "1 or more"));
        }
        check_tags(&self.tags)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    pub(in crate::format) fn example() -> RevisionRecord {
        RevisionRecord {
            id: RevisionId::from_bytes([1; 16]),
            source: "vm1".parse().unwrap(),
            sequence: 3,
            session: SessionId::from_bytes([2; 16]),
            time: Timestamp(1_790_000_000_123),
            kind: RevisionKind::Image,
            size: 1 << 30,
            root: ChunkId::from_bytes([3; 32]),
            parent: None,
            host: "backup1".into(),
            origin: "/dev/vg0/vm1".into(),
            tags: vec!["daily".into()],
            statistics: BackupStatistics { read_bytes: 5, ..BackupStatistics::default() },
            thinned: None,
        }
    }

    #[test]
    fn record_reads_back() {
        let with_parent =
            RevisionRecord { parent: Some(RevisionId::from_bytes([9; 16])), ..example() };
        for record in [example(), with_parent] {
            assert_eq!(RevisionRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn damaged_record_is_rejected() {
        assert_flips_rejected(&example().encode(), RevisionRecord::decode);
        assert_exact_length(&example().encode(), RevisionRecord::decode);
    }

    #[test]
    fn size_and_sequence_are_checked_at_their_limits() {
        let size = |size| RevisionRecord { size, ..example() }.check();
        assert!(size(0).is_ok());
        assert!(size(IMAGE_LEN_MAX.saturating_sub(1)).is_ok());
        assert!(size(IMAGE_LEN_MAX).is_ok());
        assert!(size(IMAGE_LEN_MAX.saturating_add(1)).is_err());
        let sequence = |sequence| RevisionRecord { sequence, ..example() }.check();
        assert!(sequence(0).is_err());
        assert!(sequence(1).is_ok());
    }

    #[test]
    fn text_that_is_no_tag_is_rejected() {
        let record = RevisionRecord { tags: vec!["a,b".into()], ..example() };
        let result = RevisionRecord::decode(&encode_document(MAGIC, VERSION, &record));
        assert!(matches!(result, Err(FormatError::Inconsistent { .. })), "{result:?}");
    }

    #[test]
    fn members_of_the_future_are_passed_over() {
        let mut body = serde_json::to_value(example()).unwrap();
        body.as_object_mut().unwrap().insert("mood".into(), "good".into());
        assert_eq!(RevisionRecord::decode(&encode_document(MAGIC, VERSION, &body)), Ok(example()));
    }

    #[test]
    fn missing_member_is_rejected() {
        let mut body = serde_json::to_value(example()).unwrap();
        body.as_object_mut().unwrap().remove("root").unwrap();
        let result = RevisionRecord::decode(&encode_document(MAGIC, VERSION, &body));
        assert!(matches!(result, Err(FormatError::Document { .. })), "{result:?}");
    }
}
