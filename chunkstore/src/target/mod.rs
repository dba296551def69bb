//! What a restore writes.
//!
//! [`Target`] is the small interface; there are targets for a new file, for an existing file or block device,
//! and for a stream.

use std::io;

mod direct;
mod edges;
mod file;
mod stream;
mod whisper_tree;

pub use file::{FileTarget, FileTargetOptions, Sparse};
pub use stream::StreamTarget;
pub(crate) use whisper_tree::{Content, Fault, FileWriter, Outcome, Restored, Rules, TreeWriter};
pub use whisper_tree::{Existing, TargetFileError, WhisperTarget};

/// Block in bytes that a target may write past the page cache: that of a page, and a multiple of the sectors of all disks.
pub const BLOCK_LEN: usize = crate::vfs::ALIGNMENT;

/// Why a target could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The target cannot be created, written, synced or renamed.
    #[error("cannot {action} target {name}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The target.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The target exists, and nobody said that it may be overwritten.
    #[error("target {name} exists")]
    Exists {
        /// The target.
        name: String,
    },
    /// The target is in use: mounted, or held by another program.
    #[error("target {name} is in use")]
    InUse {
        /// The target.
        name: String,
    },
    /// The target is neither a regular file nor a block device.
    #[error("target {name} is {found}, neither a regular file nor a block device")]
    NotAnImage {
        /// The target.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// The target is a device that is smaller than the revision. Nothing was written.
    #[error("target {name} has {target_len} bytes, but the revision has {image_len}")]
    TooSmall {
        /// The target.
        name: String,
        /// Its size in bytes.
        target_len: u64,
        /// Size of the image in bytes.
        image_len: u64,
    },
    /// What was written does not read back.
    #[error("target {name} does not read back what was written at byte {offset}")]
    ReadBack {
        /// The target.
        name: String,
        /// Offset in bytes of the chunk that differs.
        offset: u64,
    },
    /// The target cannot be read, so it cannot be compared.
    #[error("target {name} is a stream and cannot be read back")]
    NotReadable {
        /// The target.
        name: String,
    },
}

impl TargetError {
    /// Returns whether the target has no space left.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// Something that an image can be written to, by several threads unless it is sequential.
///
/// Calls come in this order: [`prepare`](Target::prepare) once; writes and zeros that cover the image exactly
/// once, in any order unless [`is_sequential`](Target::is_sequential); [`finish`](Target::finish) once, or never if the restore failed.
pub trait Target: Send + Sync {
    /// Returns the name for messages.
    fn name(&self) -> &str;

    /// Returns whether ranges must come in order.
    fn is_sequential(&self) -> bool {
        false
    }

    /// Gets ready for an image of `len` bytes. Nothing of what the target holds is changed if this fails.
    ///
    /// # Errors
    ///
    /// - [`TargetError::TooSmall`] if the image does not fit.
    fn prepare(&self, len: u64) -> Result<(), TargetError>;

    /// Learns that `len` bytes at `offset` will be written, and may take the space for them. Called for ranges that do not
    /// overlap, in any order, each before anything is written there; not called for what stays as it is.
    ///
    /// # Errors
    ///
    /// - [`TargetError::Io`] if there is no space for them.
    fn reserve(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        let (_, _) = (offset, len);
        Ok(())
    }

    /// Writes `bytes` at `offset`. It is fastest where the address of `bytes` equals `offset` modulo [`BLOCK_LEN`].
    ///
    /// # Errors
    ///
    /// - [`TargetError::Io`].
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError>;

    /// Makes `len` bytes at `offset` read as zeros, whatever the target held there.
    ///
    /// # Errors
    ///
    /// - [`TargetError::Io`].
    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError>;

    /// Fills `buffer` with what the target holds at `offset` now, and returns whether it holds anything there. It may come
    /// from a cache: it is compared with what is to be written, and decides only whether that is written.
    ///
    /// # Errors
    ///
    /// - [`TargetError::Io`].
    fn read_current_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, TargetError> {
        let (_, _) = (buffer, offset);
        Ok(false)
    }

    /// Returns whether [`zero_at`](Target::zero_at) costs next to nothing, so that looking for zeros first costs more.
    fn makes_holes(&self) -> bool {
        false
    }

    /// Makes all durable and gives the target its final length and name.
    ///
    /// # Errors
    ///
    /// - [`TargetError::Io`]; the target is then not complete.
    fn finish(&self) -> Result<(), TargetError>;

    /// Fills `buffer` with what the target holds at `offset`, not from a cache where that can be avoided.
    ///
    /// # Errors
    ///
    /// - [`TargetError::NotReadable`] if it is a stream.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError>;
}
