//! What a chunk holds, how it is stored, and what a pack holds.
//!
//! Byte values and contexts: `docs/format.md`, section "Ids". Every kind but data is hashed in a
//! context of its own, so that no bytes of an image can ever be taken for a chunk list.

use std::fmt;

use crate::format::FormatError;
use crate::id::ChunkId;

/// Key derivation context of the ids of pages.
const PAGE_CONTEXT: &str = "chunkstore 2026-11-20 chunk list page v1";

/// Key derivation context of the ids of roots.
const ROOT_CONTEXT: &str = "chunkstore 2026-11-20 chunk list root v1";

/// What the plain bytes of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Bytes of an image.
    Data = 0,
    /// The chunk list of one span, see [`crate::format::Page`].
    Page = 1,
    /// The list of pages of one image, see [`crate::format::Root`].
    Root = 2,
}

impl ObjectKind {
    /// Returns the kind that this byte stands for.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if it stands for none.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Self::Data),
            1 => Ok(Self::Page),
            2 => Ok(Self::Root),
            _ => Err(FormatError::out_of_range("object kind", byte, "0 to 2")),
        }
    }

    /// Returns the byte that stands for this kind.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Returns whether this is a part of a chunk list, which is kept in list packs.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(self, Self::Page | Self::Root)
    }

    /// Returns the kind of pack that objects of this kind are kept in.
    #[must_use]
    pub const fn pack_kind(self) -> PackKind {
        if self.is_list() { PackKind::List } else { PackKind::Data }
    }

    /// Returns the id of an object of this kind with these plain bytes.
    #[must_use]
    pub fn chunk_id(self, plain: &[u8]) -> ChunkId {
        ChunkId::from_bytes(match self {
            Self::Data => *blake3::hash(plain).as_bytes(),
            Self::Page => blake3::derive_key(PAGE_CONTEXT, plain),
            Self::Root => blake3::derive_key(ROOT_CONTEXT, plain),
        })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Data => "data",
            Self::Page => "page",
            Self::Root => "root",
        })
    }
}

/// What the records of a pack are. Chunk lists are kept apart from data, so that serving an image
/// and purging read no data packs for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PackKind {
    /// Objects of kind [`ObjectKind::Data`].
    Data = 0,
    /// Objects of kind [`ObjectKind::Page`] and [`ObjectKind::Root`].
    List = 1,
}

impl PackKind {
    /// Returns the kind that this byte stands for.
    ///
    /// # Errors
    ///
    /// - [`FormatError::OutOfRange`] if it stands for none.
    pub fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            0 => Ok(Self::Data),
            1 => Ok(Self::List),
            _ => Err(FormatError::out_of_range("pack kind", byte, "0 or 1")),
        }
    }

    /// Returns the byte that stands for this kind.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for PackKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Data => "data",
            Self::List => "list",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_kind_or_rejected() {
        for byte in 0..=u8::MAX {
            assert_eq!(
                ObjectKind::from_byte(byte).map(ObjectKind::to_byte).ok(),
                (byte < 3).then_some(byte)
            );
            assert_eq!(
                PackKind::from_byte(byte).map(PackKind::to_byte).ok(),
                (byte < 2).then_some(byte)
            );
        }
    }

    #[test]
    fn id_of_data_is_what_b3sum_prints() {
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(ObjectKind::Data.chunk_id(b"").to_string(), empty);
    }

    #[test]
    fn same_bytes_have_another_id_in_every_kind() {
        let [data, page, root] =
            [ObjectKind::Data, ObjectKind::Page, ObjectKind::Root].map(|kind| kind.chunk_id(b"x"));
        assert!(data != page && page != root && root != data);
    }

    #[test]
    fn lists_are_kept_in_list_packs() {
        assert_eq!(ObjectKind::Data.pack_kind(), PackKind::Data);
        assert_eq!(ObjectKind::Page.pack_kind(), PackKind::List);
        assert_eq!(ObjectKind::Root.pack_kind(), PackKind::List);
    }
}
