//! Cuts an image into chunks: the same bytes always give the same list, whichever way it is made.
//!
//! Document: `docs/format.md`, section "Chunking". An image is divided into spans and chunking starts anew at
//! each of them. In a span, counted from its start in blocks of
//! [`ZERO_BLOCK_LEN`](crate::limits::ZERO_BLOCK_LEN) bytes (the last block of an image may be shorter), a maximal run of zero blocks that is
//! at least [`ZERO_RUN_LEN_MIN`](crate::limits::ZERO_RUN_LEN_MIN) bytes long is one zero entry. What lies between is a data
//! run, and each data run is cut by FastCDC from its start.
//!
//! Pure: no I/O, no clock, no thread. Invariant: the entries depend on the bytes and the parameters alone,
//! neither on how the bytes arrive nor on what is predicted.

mod cutter;
mod params;
mod points;
mod prediction;
mod span;
mod splice;
mod zero;

pub use cutter::Cutter;
pub use params::{ChunkingError, ChunkingParams};
pub use points::{PointArchive, PointRange, block_points, point_ranges, point_ranges_by};
pub use span::{EntrySink, Piece, SpanInput, chunk_span};
pub use splice::spans_to_read;
pub(crate) use zero::is_zero;

#[cfg(test)]
mod tests;
