//! Why a store operation failed. Sources and targets have errors of their own, with no conversion
//! between the three: a failing destination is never taken for a failing source.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::format::FormatError;
use crate::id::{ChunkId, PackId, RevisionId, SourceName, StoreId};

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store operation failed. Variants are what a caller can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the store could not be read, written or synced.
    #[error("cannot {action} {path}", path = path.display())]
    Storage {
        /// What was tried: "read", "sync".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An object is there, but its bytes are not what they must be.
    #[error("{object} is damaged")]
    Damaged {
        /// What is damaged.
        object: ObjectName,
        /// How it was noticed.
        source: FormatError,
    },
    /// An object that another one refers to is not there.
    #[error("{object} is missing")]
    Missing {
        /// What is missing.
        object: ObjectName,
    },
    /// There is no store in this directory.
    #[error("{path} is not a store", path = path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// A store cannot be created here.
    #[error("cannot create a store in {path}: {reason}", path = path.display())]
    CannotCreate {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The store, or an object in it, was written by a newer program.
    #[error("{object} has format {found}, this program reads up to {supported}")]
    UnsupportedFormat {
        /// What has that format.
        object: ObjectName,
        /// Version, or flags, that were found.
        found: u32,
        /// Highest version that this program reads.
        supported: u32,
    },
    /// No revision has this id.
    #[error("revision {id} does not exist")]
    NoSuchRevision {
        /// The id.
        id: RevisionId,
    },
    /// The revision is protected, and would be dropped.
    #[error("revision {id} is protected")]
    Protected {
        /// The id.
        id: RevisionId,
    },
    /// A revision has other tags than the caller expects.
    #[error("revision {id} has the tags {found:?}, not {expected:?}")]
    OtherTags {
        /// The id.
        id: RevisionId,
        /// The tags that it has, with commas.
        found: String,
        /// The tags that were expected.
        expected: String,
    },
    /// Another process holds a lock.
    #[error("{what} is locked by {holder}")]
    Locked {
        /// What is locked: "source vm1".
        what: String,
        /// Who holds it, as far as it is known.
        holder: String,
    },
    /// An overlay belongs to another store.
    #[error("overlay {path} belongs to store {found}, not to this one, {expected}", path = path.display())]
    OtherStore {
        /// The overlay.
        path: PathBuf,
        /// The store that it belongs to.
        found: StoreId,
        /// The store at hand.
        expected: StoreId,
    },
    /// The revision that an overlay lies over is gone.
    #[error("overlay {path} lies over revision {id} of {source_name}, which does not exist", path = path.display())]
    NoSuchBase {
        /// The overlay.
        path: PathBuf,
        /// The source of the revision.
        source_name: SourceName,
        /// The revision.
        id: RevisionId,
    },
    /// An option or parameter is out of its range.
    #[error("{what}")]
    InvalidOption {
        /// What is wrong, and what is permitted.
        what: String,
    },
    /// The store holds another chunk under the same id: bytes were changed in memory, or BLAKE3 is broken.
    #[error("chunk {id} has {found} bytes, but the store has it with {stored} bytes")]
    LengthMismatch {
        /// The id.
        id: ChunkId,
        /// Length of the bytes at hand.
        found: u32,
        /// Length that the store recorded.
        stored: u32,
    },
    /// A compressed chunk did not expand to what was compressed. Nothing of it was written.
    #[error("chunk {id} did not survive compression: this machine's memory or zstd is faulty")]
    CompressionMismatch {
        /// The id.
        id: ChunkId,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// This program contradicts itself.
    #[error("bug in this program: {what}")]
    Bug {
        /// What happened.
        what: String,
    },
}

/// Names an object of a store in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectName {
    /// The configuration of the store.
    Config {
        /// Its file.
        path: PathBuf,
    },
    /// A pack as a whole.
    Pack(PackId),
    /// A chunk, and the pack that should hold it.
    Chunk {
        /// The id.
        id: ChunkId,
        /// The pack, if the index names one.
        pack: Option<PackId>,
    },
    /// A revision record.
    Revision {
        /// Source.
        source: SourceName,
        /// Id.
        id: RevisionId,
    },
    /// The state beside a revision record.
    State {
        /// Source.
        source: SourceName,
        /// Id.
        id: RevisionId,
    },
    /// A list of condemned packs.
    Condemned {
        /// Its generation.
        generation: u64,
    },
    /// The index.
    Index,
    /// An overlay as a whole: its header, or the directory of its map.
    Overlay {
        /// Its file.
        path: PathBuf,
    },
    /// A page of the map of an overlay.
    OverlayMap {
        /// The file of the overlay.
        path: PathBuf,
        /// Bytes of the image that the page tells about.
        range: Range<u64>,
    },
    /// Any other file of the store.
    File {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { path } => write!(formatter, "store configuration {}", path.display()),
            Self::Pack(id) => write!(formatter, "pack {id}"),
            Self::Chunk { id, pack: Some(pack) } => write!(formatter, "chunk {id} in pack {pack}"),
            Self::Chunk { id, pack: None } => write!(formatter, "chunk {id}"),
            Self::Revision { source, id } => write!(formatter, "revision {id} of {source}"),
            Self::State { source, id } => write!(formatter, "state of revision {id} of {source}"),
            Self::Condemned { generation } => write!(formatter, "condemned list {generation}"),
            Self::Index => formatter.write_str("index"),
            Self::Overlay { path } => write!(formatter, "overlay {}", path.display()),
            Self::OverlayMap { path, range } => write!(
                formatter,
                "map of bytes {} to {} in overlay {}",
                range.start,
                range.end,
                path.display()
            ),
            Self::File { path } => write!(formatter, "{}", path.display()),
        }
    }
}

impl Error {
    /// Returns a function that turns an I/O error into [`Error::Storage`].
    pub(crate) fn storage(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Storage { action, path: path.into(), source }
    }

    /// Returns the error about an object whose file was found damaged, with the name of the object.
    pub(crate) fn of_object(self, object: ObjectName) -> Self {
        match self {
            Self::Damaged { source, .. } => Self::Damaged { object, source },
            other => other,
        }
    }

    /// Returns the same error, for another report of it: of what reading can fail with.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Damaged { object, source } => {
                Self::Damaged { object: object.clone(), source: source.clone() }
            }
            Self::Missing { object } => Self::Missing { object: object.clone() },
            Self::UnsupportedFormat { object, found, supported } => {
                let (found, supported) = (*found, *supported);
                Self::UnsupportedFormat { object: object.clone(), found, supported }
            }
            Self::Storage { action, path, source } => {
                let source = source.raw_os_error().map_or_else(
                    || io::Error::new(source.kind(), source.to_string()),
                    io::Error::from_raw_os_error,
                );
                Self::Storage { action, path: path.clone(), source }
            }
            other => Self::Bug { what: format!("{other} is not what reading fails with") },
        }
    }

    /// Returns whether the error says that stored bytes are damaged or gone, so that an
    /// operation on many objects goes on with the next one.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }

    /// Returns whether the destination has no space left.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Storage { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// Adds the object to why its bytes cannot be used.
pub(crate) fn unsupported_or_damaged(object: ObjectName, reason: FormatError) -> Error {
    match reason {
        FormatError::Unsupported { found, supported, .. } => {
            Error::UnsupportedFormat { object, found, supported }
        }
        source => Error::Damaged { object, source },
    }
}
