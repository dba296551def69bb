//! A store: the directory with packs, revisions, index, locks and sessions, as one thing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::chunking::ChunkingParams;
use crate::compression::{Compressor, LEVEL_DEFAULT};
use crate::environment::Environment;
use crate::error::unsupported_or_damaged;
use crate::error::{Error, ObjectName, Result};
use crate::format::{ChunkingConfig, SessionKind, StoreConfig};
use crate::id::{ChunkId, SourceName, StoreId};
use crate::index::Index;
use crate::layout::Layout;
use crate::limits::DOCUMENT_LEN_MAX;
use crate::lock::{self, HistoryLock, PurgeLock, SourceLock};
use crate::session::Session;
use crate::storage::{Existing, LocalStorage, ObjectKey, Storage};
use crate::vfs::LockMode;

/// Version of the store format that this program writes, and the highest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What is fixed when a store is created.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How images are cut. Can never be changed later.
    pub chunking: ChunkingParams,
    /// zstd level for new chunks, -7 to 12. With level 1 or 2, what is new in an image that the store mostly has is
    /// compressed two levels higher.
    pub compression_level: i32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { chunking: ChunkingParams::IMAGE, compression_level: LEVEL_DEFAULT }
    }
}

/// An open store. Clones are handles to the same store; they can be used from several threads, and several processes
/// can have the same store open.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    environment: Environment,
    layout: Layout,
    storage: LocalStorage,
    index: Index,
    config: StoreConfig,
    chunking: ChunkingParams,
    /// Damaged copies that readers have set aside.
    set_aside_count: AtomicU32,
    /// Readers set nothing aside.
    is_passive: AtomicBool,
}

impl Store {
    /// Creates a store in `path`, which is made if need be; its parent must exist.
    ///
    /// # Errors
    ///
    /// - [`Error::CannotCreate`] if there is a store already.
    /// - [`Error::InvalidOption`] if the compression level is out of range.
    /// - [`Error::Storage`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use chunkstore::store::{Store, StoreOptions};
    ///
    /// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
    /// let again = Store::open(store.path())?;
    /// assert_eq!(again.id(), store.id());
    /// # Ok::<(), chunkstore::error::Error>(())
    /// ```
    pub fn create(path: impl AsRef<Path>, options: &StoreOptions) -> Result<Self> {
        Self::create_in(Environment::system(), path, options)
    }

    /// Creates a store in another environment than the operating system.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_in(
        environment: Environment,
        path: impl AsRef<Path>,
        options: &StoreOptions,
    ) -> Result<Self> {
        Compressor::new(options.compression_level)
            .map_err(|error| Error::InvalidOption { what: error.to_string() })?;
        let layout = Layout::new(path.as_ref());
        let vfs = environment.vfs.as_ref();
        let storage = LocalStorage::new(environment.clone(), layout.clone());
        let exists = Error::CannotCreate {
            path: layout.root().to_path_buf(),
            reason: "there is a store already",
        };
        if storage.object_len(&ObjectKey::Config)?.is_some() {
            return Err(exists);
        }
        let directories = Layout::DIRECTORIES.map(|name| layout.directory(name));
        for directory in [layout.root().to_path_buf()].into_iter().chain(directories) {
            match vfs.create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::storage("create", directory)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let parent = crate::vfs::parent_of(layout.root());
        for directory in [layout.root(), &parent] {
            vfs.sync_dir(directory).map_err(Error::storage("sync", directory))?;
        }
        let mut random = [0; StoreId::LEN];
        environment.entropy.fill(&mut random);
        let config = StoreConfig {
            store_id: StoreId::from_bytes(random),
            created: environment.clock.now(),
            chunking: ChunkingConfig {
                min: options.chunking.min(),
                average: options.chunking.average(),
                max: options.chunking.max(),
            },
            compression_level: options.compression_level,
            incompatible_flags: Vec::new(),
        };
        match storage.put(&ObjectKey::Config, &config.encode(), Existing::Refuse) {
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(exists);
            }
            other => other?,
        }
        let store = Self::assemble(environment, layout, storage, config)?;
        store.index().rebuild(&crate::progress::NoProgress)?;
        Ok(store)
    }

    /// Opens the store in `path`. Writes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::NotAStore`] if there is none.
    /// - [`Error::UnsupportedFormat`] if a newer program wrote it.
    /// - [`Error::Damaged`] if its configuration is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(Environment::system(), path)
    }

    /// Opens a store in another environment than the operating system.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_in(environment: Environment, path: impl AsRef<Path>) -> Result<Self> {
        let layout = Layout::new(path.as_ref());
        let storage = LocalStorage::new(environment.clone(), layout.clone());
        let bytes = match storage.get(&ObjectKey::Config, DOCUMENT_LEN_MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(Error::NotAStore { path: layout.root().to_path_buf() }),
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
                return Err(Error::NotAStore { path: layout.root().to_path_buf() });
            }
            Err(other) => return Err(other.of_object(ObjectName::Config { path: layout.config() })),
        };
        let object = ObjectName::Config { path: layout.config() };
        let config =
            StoreConfig::decode(&bytes).map_err(|reason| unsupported_or_damaged(object, reason))?;
        Self::assemble(environment, layout, storage, config)
    }

    fn assemble(
        environment: Environment,
        layout: Layout,
        storage: LocalStorage,
        config: StoreConfig,
    ) -> Result<Self> {
        let ChunkingConfig { min, average, max } = config.chunking;
        let chunking = ChunkingParams::new(min, average, max).map_err(|error| {
            Error::InvalidOption { what: format!("{}: {error}", layout.config().display()) }
        })?;
        let index =
            Index::new(environment.clone(), layout.clone(), storage.clone(), config.store_id);
        let set_aside_count = AtomicU32::new(0);
        let is_passive = AtomicBool::new(false);
        let inner = Inner {
            environment,
            layout,
            storage,
            index,
            config,
            chunking,
            set_aside_count,
            is_passive,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the directory of the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.inner.layout.root()
    }

    /// Returns the id of the store.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.config.store_id
    }

    /// Returns what was fixed when the store was created.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.inner.config
    }

    /// Returns how images are cut.
    #[must_use]
    pub fn chunking(&self) -> &ChunkingParams {
        &self.inner.chunking
    }

    /// Returns the path of the file with the index, for messages.
    #[must_use]
    pub fn index_path(&self) -> PathBuf {
        self.inner.layout.index()
    }

    /// Takes the right to add revisions of `source`.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] if another backup of the same source is running; says which.
    pub fn lock_source(&self, source: &SourceName) -> Result<SourceLock> {
        let path = self.layout().source_lock(source);
        let what = format!("source {source}");
        lock::try_exclusive(self.environment(), &path, &what).map(SourceLock)
    }

    /// Takes the right to purge.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] if another purge is running.
    pub fn lock_purge(&self) -> Result<PurgeLock> {
        let path = self.layout().lock("purge");
        lock::try_exclusive(self.environment(), &path, "purge of this store").map(PurgeLock)
    }

    /// Takes the right to change states and to remove records, and waits for it. No other lock may be taken while it is held.
    pub(crate) fn lock_history(&self) -> Result<HistoryLock> {
        let path = self.layout().lock("history");
        lock::wait(self.environment(), &path, LockMode::Exclusive).map(HistoryLock)
    }

    /// Registers a session; purge knows it, and what it pins, when the call returns.
    pub(crate) fn begin_session(
        &self,
        kind: SessionKind,
        pinned_roots: Vec<ChunkId>,
    ) -> Result<Session> {
        // The generation is read first: one that is too old makes purge wait longer, never shorter.
        let generation = if kind.is_writer() {
            self.index().view_current(|view| view.generation())?
        } else {
            self.index().view(|view| view.generation())?
        };
        Session::begin(
            self.environment(),
            self.layout(),
            self.storage(),
            kind,
            generation,
            pinned_roots,
        )
    }

    /// Registers a session that only reads, or none where nothing can be written: what can be read
    /// is still checked, but another machine's purge may then take it away.
    pub(crate) fn begin_reading_session(
        &self,
        kind: SessionKind,
        pinned_roots: Vec<ChunkId>,
    ) -> Result<Option<Session>> {
        match self.begin_session(kind, pinned_roots) {
            Err(Error::Storage { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Returns the files that report places at which a backup read something else back than its source had. Whoever has looked
    /// into them removes them.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    pub fn mismatches(&self) -> Result<Vec<PathBuf>> {
        let names = self.storage().list_mismatches()?;
        let path = |name| self.storage().path(&ObjectKey::Mismatch(name));
        Ok(names.into_iter().map(path).collect())
    }

    /// Returns a handle to the same store whose readers set nothing aside.
    pub(crate) fn passive(&self) -> Result<Self> {
        let Inner { environment, layout, storage, config, .. } = &*self.inner;
        let passive =
            Self::assemble(environment.clone(), layout.clone(), storage.clone(), config.clone())?;
        passive.inner.is_passive.store(true, Ordering::Relaxed);
        Ok(passive)
    }

    /// Counts a copy that a reader is about to set aside, and returns whether fewer than `count_max` were before.
    pub(crate) fn may_set_aside(&self, count_max: u32) -> bool {
        !self.inner.is_passive.load(Ordering::Relaxed)
            && self.inner.set_aside_count.fetch_add(1, Ordering::Relaxed) < count_max
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.inner.environment
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn storage(&self) -> &LocalStorage {
        &self.inner.storage
    }

    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }
}
