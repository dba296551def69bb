//! Limits of the format: lengths and counts that no decoder accepts beyond.
//!
//! Document: `docs/format.md`, section "Limits". A length is compared with its limit before memory is
//! taken for it, so that damaged or hostile bytes cannot make this program allocate without bound.

/// Longest plain chunk in bytes. Bounds the memory of one read.
pub const CHUNK_LEN_MAX: u32 = 16 << 20;

/// Most bytes that the stored form of a chunk may be longer than its plain form.
pub const STORED_OVERHEAD_MAX: u32 = 64 << 10;

/// Longest pack file in bytes, header and footer included.
pub const PACK_LEN_MAX: u64 = 256 << 20;

/// Most records in one pack.
pub const PACK_RECORD_COUNT_MAX: u32 = 1 << 20;

/// Largest image in bytes.
pub const IMAGE_LEN_MAX: u64 = 1 << 50;

/// Most references in the root of a chunk list.
pub const ROOT_SPAN_COUNT_MAX: u32 = 1 << 18;

/// Length in bytes of a span of an image that has at most [`ROOT_SPAN_COUNT_MAX`] of them.
pub const SPAN_LEN_MIN: u64 = 64 << 20;

/// Longest name of a source in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// Longest path of a file in a tree in bytes.
pub const TREE_PATH_LEN_MAX: usize = 4096;

/// Longest tree page in bytes. A file of which more chunks must be told cannot be stored.
pub const TREE_PAGE_LEN_MAX: usize = 8 << 20;

/// Longest JSON document in bytes.
pub const DOCUMENT_LEN_MAX: u64 = 1 << 20;

/// Most packs in one condemned list.
pub const CONDEMNED_COUNT_MAX: u32 = 1 << 24;

/// Most packs in the ledger.
pub const LEDGER_COUNT_MAX: u32 = 1 << 24;

/// Most bytes of damaged records that one quarantine file keeps.
pub const QUARANTINE_EVIDENCE_LEN_MAX: u32 = 512 << 10;

/// Longest text in a quarantine file in bytes.
pub const QUARANTINE_TEXT_LEN_MAX: u16 = 1024;

/// Most roots and pages in one file of given-up lists.
pub const GIVEN_UP_COUNT_MAX: usize = 8192;

/// Longest zero-block in bytes that the cutter looks at: zero runs consist of whole blocks.
pub const ZERO_BLOCK_LEN: u64 = 4 << 10;

/// Shortest run of zero blocks, in bytes, that becomes a zero entry.
pub const ZERO_RUN_LEN_MIN: u64 = 64 << 10;
