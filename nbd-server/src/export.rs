//! What is served: a block device that can be read, and perhaps written.
//!
//! The server checks a request before it calls an export: ranges are not empty, lie within the size, and are multiples of
//! the smallest block. Calls come from several threads at once. An error fails one request, never the connection.

use std::fmt::Debug;
use std::sync::Arc;

use crate::proto::ErrorCode;

/// Why an export could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExportError {
    /// What the client is told in a number.
    pub code: ErrorCode,
    /// What the client is told in words, if it understands structured replies.
    pub message: String,
    /// First byte of the export that is affected, if it is known. Must lie in the range of the request.
    pub offset: Option<u64>,
}

impl ExportError {
    /// Makes an error without a place.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), offset: None }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

/// What is known about the allocation of a run of bytes. Runs follow each other without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the run.
    pub len: u64,
    /// Whether it takes up no space.
    pub is_hole: bool,
    /// Whether it reads as zeros.
    pub is_zero: bool,
}

/// Status of a run of bytes in a metadata context. Runs follow each other without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusExtent {
    /// Bytes of the run.
    pub len: u64,
    /// Flags; the context defines what they mean.
    pub flags: u32,
}

/// In which way zeros are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroOptions {
    /// They need not take up space. If not, later writes to the range must not fail for lack of space.
    pub may_make_hole: bool,
    /// If this is not faster than writing them, the request shall fail with [`ErrorCode::NotSupported`].
    pub must_be_fast: bool,
}

/// Block sizes of an export, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// What every offset and length must be a multiple of; 65536 at most. 1 suits all clients.
    pub min: u32,
    /// What is served well; at least `min` and 512.
    pub preferred: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { min: 1, preferred: 4096 }
    }
}

impl BlockSizes {
    /// Returns the nearest sizes that the protocol allows (section "Size constraints"). What is announced and what is checked
    /// are the same.
    pub(crate) fn allowed(self) -> Self {
        let min = self.min.clamp(1, 1 << 16).next_power_of_two();
        let preferred = self.preferred.clamp(min.max(512), 1 << 25).next_power_of_two();
        Self { min, preferred }
    }
}

/// A block device that is served.
pub trait Export: Debug + Send + Sync {
    /// Returns the size in bytes. It never changes, and is below 2^63.
    fn size(&self) -> u64;

    /// Returns the block sizes. They never change.
    fn block_sizes(&self) -> BlockSizes {
        BlockSizes::default()
    }

    /// Returns a line for people.
    fn description(&self) -> Option<String> {
        None
    }

    /// Fills the buffer with the bytes from `offset` on: all of it, since what it holds at first is of earlier replies,
    /// perhaps to somebody else.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Io`] if these bytes cannot be had as they were stored. They are never replaced by zeros.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError>;

    /// Fills the buffer as [`Export::read`] does, if the bytes are at hand: without I/O, decoding or waiting. Otherwise
    /// returns `false` at once, and the server calls [`Export::read`] on a thread that may wait.
    fn read_immediately(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let _ = (offset, buffer);
        false
    }

    /// Returns what is known about the allocation of a range, from its start on: one extent at least, `count_max` at most.
    /// They may end before or after the range. Should be cheap: each longer read asks it, so as not to send zeros.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Io`] if that cannot be found out.
    fn extents(&self, offset: u64, len: u64, count_max: usize) -> Result<Vec<Extent>, ExportError> {
        let _ = (offset, count_max);
        Ok(vec![Extent { len, is_hole: false, is_zero: false }])
    }

    /// Returns the names of metadata contexts beside `base:allocation` that clients are told of, such as
    /// `qemu:dirty-bitmap:since-monday`.
    fn contexts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Opens a metadata context. The name need not be one of [`Export::contexts`]: it can be one of a kind that has too
    /// many to list.
    ///
    /// # Errors
    ///
    /// - [`OpenError::Unknown`] if there is none of this name; the client is not told of it.
    /// - [`OpenError::Failed`] if there is, but it cannot be opened.
    fn open_context(&self, name: &str) -> Result<Arc<dyn MetaContext>, OpenError> {
        let _ = name;
        Err(OpenError::Unknown)
    }

    /// Returns whether [`Export::cache`] does anything; only then clients are told of it.
    fn can_cache(&self) -> bool {
        false
    }

    /// Prepares for reading a range soon.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Io`] if that failed. Reading may work nevertheless.
    fn cache(&self, offset: u64, len: u64) -> Result<(), ExportError> {
        let _ = (offset, len);
        Ok(())
    }

    /// Returns the part that writes, or `None` if the export is read-only. That never changes.
    fn writer(&self) -> Option<&dyn ExportWriter> {
        None
    }

    /// Returns whether all connections to this export see the same bytes at any time, and a flush on one of them is one
    /// for all. What cannot be written can always be served so.
    fn can_multi_conn(&self) -> bool {
        self.writer().is_none()
    }
}

/// A metadata context of an export, beside `base:allocation`.
pub trait MetaContext: Debug + Send + Sync {
    /// Returns the status of a range, as [`Export::extents`] does.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Io`] if that cannot be found out.
    fn extents(
        &self,
        offset: u64,
        len: u64,
        count_max: usize,
    ) -> Result<Vec<StatusExtent>, ExportError>;
}

/// The part of an export that writes.
pub trait ExportWriter {
    /// Writes bytes at `offset`.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::NoSpace`] if there is no room.
    /// - [`ErrorCode::Io`] if it failed otherwise.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ExportError>;

    /// Writes zeros.
    ///
    /// # Errors
    ///
    /// As [`ExportWriter::write`], and [`ErrorCode::NotSupported`] if it must be fast and is not.
    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), ExportError>;

    /// Takes note that the content of a range is not needed.
    ///
    /// # Errors
    ///
    /// As [`ExportWriter::write`].
    fn trim(&self, offset: u64, len: u64) -> Result<(), ExportError>;

    /// Makes durable what was written before. Also called after each write that asks for it (FUA).
    ///
    /// # Errors
    ///
    /// As [`ExportWriter::write`].
    fn flush(&self) -> Result<(), ExportError>;
}

/// An export under the name that the server uses for it.
#[derive(Clone, Debug)]
pub struct NamedExport {
    /// Canonical name.
    pub name: String,
    /// What is served.
    pub export: Arc<dyn Export>,
}

/// One line of the list of exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedExport {
    /// Name to open it by.
    pub name: String,
    /// A line for people, perhaps empty.
    pub description: String,
}

/// Why there is no export for a name, or no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no export of this name.
    #[error("no such export")]
    Unknown,
    /// There is one, or a list, but not for this client.
    #[error("not allowed: {0}")]
    Refused(String),
    /// It cannot be opened now.
    #[error("{0}")]
    Failed(String),
}

/// All exports of a server.
pub trait Exports: Debug + Send + Sync {
    /// Returns what a client may see.
    ///
    /// # Errors
    ///
    /// - [`OpenError::Refused`] if that is nobody's business.
    /// - [`OpenError::Failed`] if it cannot be found out.
    fn list(&self) -> Result<Vec<ListedExport>, OpenError>;

    /// Opens the export of this name; the empty name means the default one. Any text may come, of up to 4096 bytes.
    /// Called for clients that only want to know about it, too: expensive work belongs into the first read.
    ///
    /// # Errors
    ///
    /// - [`OpenError::Unknown`] if there is none.
    /// - [`OpenError::Refused`], [`OpenError::Failed`] if there is.
    fn open(&self, name: &str) -> Result<NamedExport, OpenError>;
}
