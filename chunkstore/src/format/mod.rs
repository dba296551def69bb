//! Structures on disk: one file for each structure of `docs/format.md`, which has the layouts.
//!
//! Pure: bytes in, values out. Decoders never panic and take no memory that a length field alone asks for.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::big_endian_bytes)]

mod byte_reader;
mod checksum;
mod codec;
mod condemned_list;
mod document;
mod format_error;
mod given_up;
mod ledger;
mod mismatch_report;
mod object_kind;
mod overlay_header;
mod overlay_map;
mod pack_footer;
mod pack_header;
mod pack_table;
mod page;
mod quarantined;
mod record_header;
mod revision_record;
mod revision_state;
mod root;
mod session_record;
mod store_config;
mod tag;
#[cfg(test)]
mod test_support;
mod transform;
mod tree_page;
mod tree_path;
mod tree_root;

pub use byte_reader::ByteReader;
pub use codec::Codec;
pub use condemned_list::CondemnedList;
pub use document::{decode_document, encode_document};
pub use format_error::FormatError;
pub use given_up::GivenUp;
pub use ledger::{Ledger, LedgerEntry};
pub use mismatch_report::MismatchReport;
pub use object_kind::{ObjectKind, PackKind};
pub use overlay_header::OverlayHeader;
pub use overlay_map::{BlockState, BlockStates, OverlayMapKind, OverlayMapPage};
pub use pack_footer::{FooterRecord, PackFooter};
pub use pack_header::PackHeader;
pub(crate) use pack_table::TABLE_HEAD_LEN;
pub use page::{Page, PageEntry};
pub use quarantined::{Quarantined, QuarantinedRecord};
pub use record_header::RecordHeader;
pub use revision_record::{BackupStatistics, RevisionKind, RevisionRecord, Thinned};
pub use revision_state::{RevisionState, Trust};
pub use root::{Root, SpanRef};
pub use session_record::{SessionKind, SessionRecord};
pub use store_config::{ChunkingConfig, StoreConfig};
pub use tag::is_tag;
pub use transform::{POINT_LEN, Transform, Unit};
pub use tree_page::{FileMetadata, TreeEntry, TreePage, TreePages};
pub use tree_path::TreePath;
pub use tree_root::{TreePageRef, TreeRoot};
