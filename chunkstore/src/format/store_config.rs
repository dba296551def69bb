//! Store configuration: what is fixed when a store is created.
//!
//! Layout: `docs/format.md`, section "Store configuration". The chunking parameters never change: the same bytes must always
//! give the same chunks. They are checked as a whole where a cutter is made of them.

use serde::{Deserialize, Serialize};

use crate::format::{FormatError, decode_document, encode_document};
use crate::id::StoreId;
use crate::time::Timestamp;

const MAGIC: &str = "chunkstore store";
const VERSION: u32 = 1;

/// Lengths in bytes that the cutter works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkingConfig {
    /// Shortest chunk, unless a run of data ends.
    pub min: u32,
    /// Average that the cutter aims at, a power of two.
    pub average: u32,
    /// Longest chunk.
    pub max: u32,
}

/// What is fixed when a store is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreConfig {
    /// Its name, in the header of each of its packs.
    pub store_id: StoreId,
    /// When it was created.
    pub created: Timestamp,
    /// Lengths that images are cut by.
    pub chunking: ChunkingConfig,
    /// Level of zstd that new chunks are compressed at. Of no consequence to readers.
    pub compression_level: i32,
    /// Names of extensions without which the store cannot be read or written.
    pub incompatible_flags: Vec<String>,
}

/// The part of the body that every program must understand before it looks at the rest.
#[derive(Deserialize)]
struct Flags {
    incompatible_flags: Vec<String>,
}

impl StoreConfig {
    /// Returns the stored form.
    ///
    /// # Panics
    ///
    /// If the document is longer than 1 MiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_document(MAGIC, VERSION, self)
    }

    /// Reads a configuration from the bytes of its file.
    ///
    /// # Errors
    ///
    /// - Those of [`decode_document`].
    /// - [`FormatError::Unsupported`] also if there is a flag that this program does not know: it knows none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let flags: Flags = decode_document(MAGIC, VERSION, bytes)?;
        if !flags.incompatible_flags.is_empty() {
            return Err(FormatError::Unsupported {
                structure: "list of extensions of the store",
                found: u32::try_from(flags.incompatible_flags.len()).unwrap_or(u32::MAX),
                supported: 0,
            });
        }
        decode_document(MAGIC, VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::test_support::{assert_exact_length, assert_flips_rejected};

    fn example() -> StoreConfig {
        StoreConfig {
            store_id: StoreId::from_bytes([1; 16]),
            created: Timestamp(1_790_000_000_123),
            chunking: ChunkingConfig { min: 16 << 10, average: 64 << 10, max: 256 << 10 },
            compression_level: -1,
            incompatible_flags: Vec::new(),
        }
    }

    #[test]
    fn configuration_reads_back() {
        assert_eq!(StoreConfig::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn damaged_configuration_is_rejected() {
        assert_flips_rejected(&example().encode(), StoreConfig::decode);
        assert_exact_length(&example().encode(), StoreConfig::decode);
    }

    #[test]
    fn flag_of_the_future_is_unsupported_whatever_else_changed() {
        let body = serde_json::json!({ "incompatible_flags": ["encryption"], "chunking": null });
        let result = StoreConfig::decode(&encode_document(MAGIC, VERSION, &body));
        assert!(matches!(result, Err(FormatError::Unsupported { .. })), "{result:?}");
    }

    #[test]
    fn version_of_the_future_is_unsupported() {
        let result = StoreConfig::decode(&encode_document(MAGIC, 2, &example()));
        assert!(matches!(result, Err(FormatError::Unsupported { .. })), "{result:?}");
    }
}
