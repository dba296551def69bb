//! Where the files of a store lie: `docs/format.md`, section "Directory tree".

use std::path::{Path, PathBuf};

use crate::id::{ChunkId, PackId, QuarantineId, RevisionId, SessionId, SourceName};

/// Paths of the files of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Directories that every store has, parents first.
    pub const DIRECTORIES: [&'static str; 9] = [
        "packs",
        "revisions",
        "condemned",
        "sessions",
        "locks",
        "locks/sources",
        "trash",
        "quarantine",
        "tmp",
    ];

    /// Returns the layout of the store in `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns one of [`Self::DIRECTORIES`].
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the file with the configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("store.json")
    }

    /// Returns the index.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("index.redb")
    }

    /// Returns the ledger: when every pack was last read.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// Returns the file that keeps space for a purge.
    #[must_use]
    pub fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Returns the directory of a pack: its level is the first byte of the name.
    #[must_use]
    pub fn pack_directory(&self, id: &PackId) -> PathBuf {
        self.root.join("packs").join(format!("{:02x}", id.as_bytes()[0]))
    }

    /// Returns the file of a pack.
    #[must_use]
    pub fn pack(&self, id: &PackId) -> PathBuf {
        self.pack_directory(id).join(id.to_string())
    }

    /// Returns the place of a pack that was swept.
    #[must_use]
    pub fn trashed_pack(&self, id: &PackId) -> PathBuf {
        self.root.join("trash").join(id.to_string())
    }

    /// Returns the directory with the revisions of a source.
    #[must_use]
    pub fn source_directory(&self, source: &SourceName) -> PathBuf {
        self.root.join("revisions").join(source.as_str())
    }

    /// Returns the file of a revision record.
    #[must_use]
    pub fn record(&self, source: &SourceName, id: &RevisionId) -> PathBuf {
        self.source_directory(source).join(format!("{id}.rev"))
    }

    /// Returns the file of a revision's state.
    #[must_use]
    pub fn state(&self, source: &SourceName, id: &RevisionId) -> PathBuf {
        self.source_directory(source).join(format!("{id}.state"))
    }

    /// Returns the file of a condemned list.
    #[must_use]
    pub fn condemned(&self, generation: u64) -> PathBuf {
        self.root.join("condemned").join(format!("{generation:020}"))
    }

    /// Returns the file of a mismatch report.
    #[must_use]
    pub fn mismatch(&self, name: &ChunkId) -> PathBuf {
        self.root.join("quarantine").join(format!("mismatch-{name}"))
    }

    /// Returns the file with one side of a mismatch.
    #[must_use]
    pub fn evidence(&self, id: &ChunkId) -> PathBuf {
        self.root.join("quarantine").join(format!("bytes-{id}"))
    }

    /// Returns a file of given-up lists.
    #[must_use]
    pub fn given_up(&self, name: &ChunkId) -> PathBuf {
        self.root.join("quarantine").join(format!("given-up-{name}"))
    }

    /// Returns the directory for records and states of a source that were set aside.
    #[must_use]
    pub fn aside_directory(&self, source: &SourceName) -> PathBuf {
        self.root.join("quarantine").join("revisions").join(source.as_str())
    }

    /// Returns a quarantine file.
    #[must_use]
    pub fn quarantined(&self, id: &QuarantineId) -> PathBuf {
        self.root.join("quarantine").join(id.to_string())
    }

    /// Returns the file of a session.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> PathBuf {
        self.root.join("sessions").join(id.to_string())
    }

    /// Returns a lock file.
    #[must_use]
    pub fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    /// Returns the lock file of a source.
    #[must_use]
    pub fn source_lock(&self, source: &SourceName) -> PathBuf {
        self.root.join("locks").join("sources").join(source.as_str())
    }
}
