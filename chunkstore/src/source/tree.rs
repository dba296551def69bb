//! What the backup of a tree reads: many files, each with an error of its own.

use std::io;
use std::ops::ControlFlow;

use super::SourceError;
use crate::format::{FileMetadata, TreePath};

/// Why one file of a tree could not be read. The others are backed up all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It was listed, and is gone.
    #[error("it vanished while the backup ran")]
    Vanished,
    /// The operating system refuses.
    #[error("cannot {action} it")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else has it locked all the time.
    #[error("it was locked by somebody else for {seconds} seconds")]
    Locked {
        /// How long it was waited for.
        seconds: u64,
    },
    /// It is no file of the kind that the tree has.
    #[error("it is corrupt: {reason}")]
    Corrupt {
        /// What is wrong.
        reason: String,
    },
    /// It was written to, without a lock, whenever it was read.
    #[error("it was written to, without a lock, each time it was read")]
    Unsteady,
    /// Its name cannot be stored.
    #[error("its path cannot be stored: {reason}")]
    Name {
        /// What is wrong.
        reason: String,
    },
    /// Whoever took the pieces wants no more of them.
    #[error("reading was ended")]
    Ended,
}

/// What a file is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Owner, times and the like.
    pub metadata: FileMetadata,
    /// Length in bytes.
    pub len: u64,
}

/// A part of a file that is being read, in order.
#[derive(Clone, Copy, Debug)]
pub enum FilePiece<'a> {
    /// The next chunk.
    Chunk {
        /// Its bytes, 1 to 16 MiB.
        bytes: &'a [u8],
        /// Whether these are points of 12 bytes each, so that it is stored by columns.
        is_points: bool,
    },
    /// So many zero bytes.
    Zeros {
        /// How many, not 0.
        len: u64,
    },
    /// The file was written to meanwhile: all pieces so far are void, and it is read again from the start.
    Again,
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Found {
    /// A file to be backed up.
    File(TreePath),
    /// A file, or a directory with all that is below it, that cannot be looked at.
    Unreadable {
        /// Where it lies, in the tree, as the file system has it.
        path: Vec<u8>,
        /// Whether it is a directory.
        is_directory: bool,
        /// Why.
        error: FileError,
    },
}

/// A tree of files, read by several threads.
pub trait TreeSource: Send + Sync {
    /// Returns the name for messages and for the revision record.
    fn name(&self) -> &str;

    /// Returns whether the file with this path is to be backed up now. Of others the revision keeps what the one before has.
    fn includes(&self, path: &TreePath) -> bool {
        let _ = path;
        true
    }

    /// Returns all files, also those that are not included, in the order of their paths as bytes.
    ///
    /// # Errors
    ///
    /// - [`SourceError::Open`] if the tree itself cannot be listed.
    fn walk(&self) -> Result<Box<dyn Iterator<Item = Found> + Send + '_>, SourceError>;

    /// Returns what the file is now, without opening it.
    ///
    /// # Errors
    ///
    /// - [`FileError`], why it cannot be told.
    fn status(&self, path: &TreePath) -> Result<FileStatus, FileError>;

    /// Reads the file whole, in a state that its writers have left it in, and hands it over piece by piece. The same bytes always give the
    /// same pieces. Returns what the file was while it was read.
    ///
    /// # Errors
    ///
    /// - [`FileError::Ended`] if `take` breaks; otherwise why the file cannot be read.
    fn read(
        &self,
        path: &TreePath,
        take: &mut dyn FnMut(FilePiece<'_>) -> ControlFlow<()>,
    ) -> Result<FileStatus, FileError>;
}
