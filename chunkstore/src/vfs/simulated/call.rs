//! What is counted and logged of a call.

use std::path::{Path, PathBuf};

/// Which call of the traits it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the trait's methods")]
pub enum CallKind {
    CreateNew,
    Open,
    FileLen,
    RenameNoReplace,
    RenameReplace,
    RemoveFile,
    CreateDir,
    SyncDir,
    List,
    Lock,
    FreeSpace,
    Len,
    ReadExactAt,
    WriteAllAt,
    SetLen,
    Reserve,
    PunchHole,
    SyncData,
    TryLock,
    Describe,
}

impl CallKind {
    /// Returns whether the call changes live or durable bytes or names; syncs do.
    #[must_use]
    pub fn is_mutating(self) -> bool {
        match self {
            Self::CreateNew
            | Self::RenameNoReplace
            | Self::RenameReplace
            | Self::RemoveFile
            | Self::CreateDir
            | Self::SyncDir
            | Self::WriteAllAt
            | Self::SetLen
            | Self::Reserve
            | Self::PunchHole
            | Self::SyncData
            | Self::Describe => true,
            Self::Open
            | Self::FileLen
            | Self::List
            | Self::Lock
            | Self::FreeSpace
            | Self::Len
            | Self::ReadExactAt
            | Self::TryLock => false,
        }
    }

    /// Returns whether the call makes something durable.
    #[must_use]
    pub fn is_sync(self) -> bool {
        matches!(self, Self::SyncDir | Self::SyncData)
    }
}

/// One call as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which call.
    pub kind: CallKind,
    /// The path given; of a call on an open file, the path under which it was opened.
    pub path: PathBuf,
    /// The new path, of a rename.
    pub to: Option<PathBuf>,
    /// First byte read or written, else 0.
    pub offset: u64,
    /// Bytes read or written, or the new length; else 0.
    pub len: u64,
}

impl Call {
    /// Returns a call on a path.
    pub(super) fn new(kind: CallKind, path: &Path) -> Self {
        Self { kind, path: path.to_path_buf(), to: None, offset: 0, len: 0 }
    }

    /// Returns a rename.
    pub(super) fn rename(kind: CallKind, from: &Path, to: &Path) -> Self {
        Self { to: Some(to.to_path_buf()), ..Self::new(kind, from) }
    }
}
