//! Named objects of a store: packs, records, states, lists. Whole and durable, or not there.
//!
//! [`Storage`] knows no directories, no renames and no syncs, so that an object store can be a
//! second implementation. [`LocalStorage`] builds it on [`Vfs`]; the order of its steps
//! is `docs/durability.md`, sections "A pack" and "A small object".

mod aside;
mod found;
mod temporary;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self::temporary::LocalUpload;
pub(crate) use self::temporary::TemporaryFile;
use crate::environment::Environment;
use crate::error::{Error, ObjectName, Result, unsupported_or_damaged};
use crate::format::{FormatError, TABLE_HEAD_LEN};
use crate::id::{ChunkId, PackId, QuarantineId, RevisionId, SourceName};
use crate::layout::Layout;
use crate::limits::DOCUMENT_LEN_MAX;
use crate::planted::{Bug, has};
use crate::vfs::{EntryKind, LockMode, Vfs, VfsFile, parent_of, read_file};

/// Open pack files that [`LocalStorage`] keeps.
const OPEN_PACKS_MAX: usize = 64;

/// How often a new temporary name is tried before giving up.
const TEMPORARY_NAME_ATTEMPTS: u32 = 16;

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectKey {
    /// The configuration of the store.
    Config,
    /// A pack.
    Pack(PackId),
    /// A revision record.
    Record(SourceName, RevisionId),
    /// The state of a revision.
    State(SourceName, RevisionId),
    /// A list of condemned packs, by its generation.
    Condemned(u64),
    /// When every pack was last read.
    Ledger,
    /// A report of what a backup read back wrongly, by its name.
    Mismatch(ChunkId),
    /// One side of a mismatch, by the BLAKE3 of its bytes.
    Evidence(ChunkId),
    /// Roots and pages that were given up, by the BLAKE3 of the file.
    GivenUp(ChunkId),
    /// Records that were found damaged.
    Quarantined(QuarantineId),
}

/// Whether an object may take the place of one with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is an error if the object exists.
    Refuse,
    /// The object is replaced atomically.
    Replace,
}

/// Named objects, each whole and durable or not there.
pub trait Storage: Debug + Send + Sync {
    /// Begins an object whose key is known only at its end.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn upload(&self) -> Result<Box<dyn Upload>>;

    /// Stores a small object; it is durable when the call returns.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`]; whether the object exists is then unknown.
    fn put(&self, key: &ObjectKey, bytes: &[u8], existing: Existing) -> Result<()>;

    /// Returns the whole of a small object, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`], naming the file, if it is longer than `len_max` bytes, or no file at all.
    /// - [`Error::Storage`].
    fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Option<Vec<u8>>>;

    /// Returns the length of an object in bytes, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn object_len(&self, key: &ObjectKey) -> Result<Option<u64>>;

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`] with [`io::ErrorKind::NotFound`] or [`io::ErrorKind::UnexpectedEof`] among others.
    fn read_exact_at(&self, key: &ObjectKey, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// Removes an object durably. It is no error if it is not there.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn delete(&self, key: &ObjectKey) -> Result<()>;

    /// Lists the packs, sorted.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn list_packs(&self) -> Result<Vec<PackId>>;

    /// Lists the sources that have a place for revisions, sorted.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn list_sources(&self) -> Result<Vec<SourceName>>;

    /// Lists the revision records of a source, sorted by id.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn list_records(&self, source: &SourceName) -> Result<Vec<RevisionId>>;

    /// Lists the generations of the condemned lists, ascending.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn list_condemned(&self) -> Result<Vec<u64>>;

    /// Lists the quarantine files, sorted.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    fn list_quarantined(&self) -> Result<Vec<QuarantineId>>;

    /// Returns the path, for messages.
    fn path(&self, key: &ObjectKey) -> PathBuf;
}

/// Returns an object as [`Storage::get`] does, but a long one only if `check` finds in its first bytes that it is as long as it says. So
/// memory is taken for what is there, and not for what somebody has made of it.
pub(crate) fn get_table(
    storage: &dyn Storage,
    key: &ObjectKey,
    len_max: u64,
    check: impl Fn(&[u8; TABLE_HEAD_LEN], u64) -> std::result::Result<(), FormatError>,
) -> Result<Option<Vec<u8>>> {
    let len = storage.object_len(key)?.unwrap_or(0);
    if DOCUMENT_LEN_MAX < len && len <= len_max {
        let mut head = [0; TABLE_HEAD_LEN];
        storage.read_exact_at(key, &mut head, 0)?;
        let object = ObjectName::File { path: storage.path(key) };
        check(&head, len).map_err(|source| unsupported_or_damaged(object, source))?;
    }
    storage.get(key, len_max)
}

/// An object in the making. Dropped without [`finish`](Upload::finish) it never existed.
pub trait Upload: Debug + Send {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`]; the upload must then be dropped.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Gives the object its name; it is durable when the call returns. An object that is there
    /// under the same name is kept: names are digests.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`]; the upload is lost, and is never tried again.
    fn finish(self: Box<Self>, key: &ObjectKey) -> Result<()>;
}

/// Open files of packs, the one used last at the end.
type OpenPacks = VecDeque<(PackId, Arc<dyn VfsFile>)>;

/// Objects as files of a local file system.
#[derive(Clone, Debug)]
pub struct LocalStorage {
    environment: Environment,
    layout: Layout,
    open_packs: Arc<Mutex<OpenPacks>>,
    /// Directories whose own name is known to be durable.
    durable_directories: Arc<Mutex<HashSet<PathBuf>>>,
}

impl LocalStorage {
    /// Returns the storage in the directory of `layout`.
    #[must_use]
    pub fn new(environment: Environment, layout: Layout) -> Self {
        // Whoever creates a store makes its own name durable. Later nobody needs a right to what is above.
        let durable = HashSet::from([layout.root().to_path_buf()]);
        Self {
            environment,
            layout,
            open_packs: Arc::default(),
            durable_directories: Arc::new(Mutex::new(durable)),
        }
    }

    fn vfs(&self) -> &dyn Vfs {
        self.environment.vfs.as_ref()
    }

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.vfs().sync_dir(directory).map_err(Error::storage("sync", directory))
    }

    /// Creates a file in `tmp/` that this process holds locked: what is not locked there is a leftover.
    pub(crate) fn temporary(&self) -> Result<TemporaryFile> {
        let directory = self.layout.directory("tmp");
        for _ in 0..TEMPORARY_NAME_ATTEMPTS {
            let mut random = [0; 16];
            self.environment.entropy.fill(&mut random);
            let path = directory.join(format!("{:032x}", u128::from_le_bytes(random)));
            let file = match self.vfs().create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(Error::storage("create", &path))?,
            };
            // A cleaner may have seen the file before it was locked; it then holds the lock or has
            // removed the name, and another name is taken.
            let locked =
                file.try_lock(LockMode::Exclusive).map_err(Error::storage("lock", &path))?;
            if locked && self.vfs().file_len(&path).is_ok() {
                let vfs = Arc::clone(&self.environment.vfs);
                return Ok(TemporaryFile { vfs, path, file, published: false });
            }
        }
        Err(Error::Bug { what: format!("no free name in {}", directory.display()) })
    }

    /// Removes files in `tmp/` that no living process holds. Best effort: what cannot be locked or removed, because it is
    /// another user's, costs space only.
    pub(crate) fn remove_leftovers(&self) -> Result<u64> {
        let directory = self.layout.directory("tmp");
        let entries = self.vfs().list(&directory).map_err(Error::storage("list", &directory))?;
        let mut removed = 0;
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let path = directory.join(entry.name);
            let lock = self.vfs().lock(&path, LockMode::Exclusive, false);
            if let Ok(Some(_lock)) = lock
                && self.vfs().remove_file(&path).is_ok()
            {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes sure that the directory of an object exists and that its own name is durable, also
    /// if another process has created it a moment ago.
    fn ensure_directory(&self, directory: &Path) -> Result<()> {
        let known = self.durable_directories.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(directory) {
            return Ok(());
        }
        drop(known);
        match self.vfs().create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::storage("create", directory)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let parent = parent_of(directory);
        if !has(Bug::DirectoryNotSynced) {
            self.sync_directory(&parent)?;
        }
        self.durable_directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(directory.to_path_buf());
        Ok(())
    }

    /// Syncs a finished temporary file and gives it its name. The file stays open and locked.
    pub(crate) fn publish(
        &self,
        temporary: &mut TemporaryFile,
        path: &Path,
        existing: Existing,
    ) -> Result<()> {
        let directory = parent_of(path);
        self.ensure_directory(&directory)?;
        temporary.sync_data()?;
        if has(Bug::ReplacedInTwoSteps) && existing == Existing::Replace {
            let _is_new = self.vfs().remove_file(path);
        }
        match existing {
            Existing::Refuse => self.vfs().rename_no_replace(&temporary.path, path),
            Existing::Replace => self.vfs().rename_replace(&temporary.path, path),
        }
        .map_err(Error::storage("rename to", path))?;
        temporary.published = true;
        if has(Bug::NameNotSynced) {
            return Ok(());
        }
        self.sync_directory(&directory)
    }

    /// Gives a temporary file its name, which need not survive a crash.
    pub(crate) fn publish_volatile(
        &self,
        temporary: &mut TemporaryFile,
        path: &Path,
    ) -> Result<()> {
        self.vfs()
            .rename_no_replace(&temporary.path, path)
            .map_err(Error::storage("rename to", path))?;
        temporary.published = true;
        Ok(())
    }

    fn open_pack(&self, id: &PackId) -> Result<Arc<dyn VfsFile>> {
        let mut open = self.open_packs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = open.iter().position(|(known, _)| known == id) {
            let entry = open.remove(found).expect("the position was just found");
            open.push_back(entry.clone());
            return Ok(entry.1);
        }
        drop(open);
        let path = self.layout.pack(id);
        let file: Arc<dyn VfsFile> =
            Arc::from(self.vfs().open(&path, false).map_err(Error::storage("open", &path))?);
        let mut open = self.open_packs.lock().unwrap_or_else(PoisonError::into_inner);
        if OPEN_PACKS_MAX <= open.len() {
            open.pop_front();
        }
        open.push_back((*id, Arc::clone(&file)));
        Ok(file)
    }

    /// Forgets the open file of a pack that is about to go away.
    fn close_pack(&self, id: &PackId) {
        self.open_packs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(known, _)| known != id);
    }

    /// Moves swept packs to `trash/`, durably.
    pub(crate) fn trash_packs(&self, packs: &[PackId]) -> Result<()> {
        let mut directories = BTreeSet::new();
        for id in packs {
            self.close_pack(id);
            let (from, to) = (self.layout.pack(id), self.layout.trashed_pack(id));
            match self.vfs().rename_replace(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::storage("move to trash", &from))?,
            }
            directories.insert(parent_of(&from));
        }
        if directories.is_empty() {
            return Ok(());
        }
        // The new names first: a pack that is in neither directory could not be found again.
        for directory in [self.layout.directory("trash")].into_iter().chain(directories) {
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Removes all that is in `trash/` and returns how many bytes that gave back.
    pub(crate) fn empty_trash(&self) -> Result<u64> {
        let directory = self.layout.directory("trash");
        let entries = self.vfs().list(&directory).map_err(Error::storage("list", &directory))?;
        let mut freed = 0;
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let path = directory.join(entry.name);
            let len = self.vfs().file_len(&path).map_err(Error::storage("stat", &path))?;
            self.vfs().remove_file(&path).map_err(Error::storage("remove", &path))?;
            freed += len;
        }
        Ok(freed)
    }

    /// Returns the names of all files of given-up lists.
    pub(crate) fn list_given_up(&self) -> Result<Vec<ChunkId>> {
        let parse = |name: &str| name.strip_prefix("given-up-")?.parse().ok();
        match self.list_named(&self.layout.directory("quarantine"), EntryKind::File, parse) {
            // A store that was copied without its empty directories has nothing in it.
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// Returns the names of all mismatch reports.
    pub(crate) fn list_mismatches(&self) -> Result<Vec<ChunkId>> {
        let parse = |name: &str| name.strip_prefix("mismatch-")?.parse().ok();
        self.list_named(&self.layout.directory("quarantine"), EntryKind::File, parse)
    }

    /// Lists the files of `directory` whose names `parse` accepts.
    ///
    /// That the directory is not there is an error. All that are listed exist from the beginning, and "no revisions" would
    /// let a purge conclude that nothing is needed.
    fn list_named<T: Ord>(
        &self,
        directory: &Path,
        kind: EntryKind,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>> {
        let entries = match self.vfs().list(directory) {
            Err(_) if has(Bug::ListErrorIgnored) => Vec::new(),
            other => other.map_err(Error::storage("list", directory))?,
        };
        let mut names: Vec<T> = entries
            .iter()
            .filter(|entry| entry.kind == kind)
            .filter_map(|entry| parse(&entry.name))
            .collect();
        names.sort();
        Ok(names)
    }
}

impl Storage for LocalStorage {
    fn upload(&self) -> Result<Box<dyn Upload>> {
        let temporary = self.temporary()?;
        Ok(Box::new(LocalUpload { storage: self.clone(), temporary, len: 0 }))
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8], existing: Existing) -> Result<()> {
        let mut temporary = self.temporary()?;
        temporary.write_all_at(bytes, 0)?;
        self.publish(&mut temporary, &self.path(key), existing)
    }

    fn get(&self, key: &ObjectKey, len_max: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path(key);
        match read_file(self.vfs(), &path, len_max) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Whatever it is, it is not what was written there: that must not stop who looks for others.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::FileTooLarge | io::ErrorKind::IsADirectory
                ) =>
            {
                let source = FormatError::Unreadable { reason: error.to_string() };
                Err(Error::Damaged { object: ObjectName::File { path }, source })
            }
            other => other.map(Some).map_err(Error::storage("read", &path)),
        }
    }

    fn object_len(&self, key: &ObjectKey) -> Result<Option<u64>> {
        let path = self.path(key);
        match self.vfs().file_len(&path) {
            // A directory is passed over, as it is where names are listed.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::IsADirectory
                ) =>
            {
                Ok(None)
            }
            other => other.map(Some).map_err(Error::storage("stat", &path)),
        }
    }

    fn read_exact_at(&self, key: &ObjectKey, buffer: &mut [u8], offset: u64) -> Result<()> {
        let path = self.path(key);
        let result = match key {
            ObjectKey::Pack(id) => self.open_pack(id)?.read_exact_at(buffer, offset),
            _ => {
                let file = self.vfs().open(&path, false).map_err(Error::storage("open", &path))?;
                file.read_exact_at(buffer, offset)
            }
        };
        result.map_err(Error::storage("read", &path))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        if let ObjectKey::Pack(id) = key {
            self.close_pack(id);
        }
        let path = self.path(key);
        match self.vfs().remove_file(&path) {
            // Whoever removed it may not have got to its sync.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(Error::storage("remove", &path))?,
        }
        if has(Bug::RemovalNotSynced) {
            return Ok(());
        }
        let directory = parent_of(&path);
        match self.vfs().sync_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::storage("sync", &directory)),
        }
    }

    fn list_packs(&self) -> Result<Vec<PackId>> {
        let root = self.layout.directory("packs");
        let level = |name: &str| (name.len() == 2).then(|| name.to_owned());
        let mut packs = Vec::new();
        for name in self.list_named(&root, EntryKind::Directory, level)? {
            let belongs =
                |text: &str| text.parse::<PackId>().ok().filter(|_| text.starts_with(&name));
            packs.extend(self.list_named(&root.join(&name), EntryKind::File, belongs)?);
        }
        packs.sort();
        Ok(packs)
    }

    fn list_sources(&self) -> Result<Vec<SourceName>> {
        let root = self.layout.directory("revisions");
        self.list_named(&root, EntryKind::Directory, |name| name.parse().ok())
    }

    fn list_records(&self, source: &SourceName) -> Result<Vec<RevisionId>> {
        let parse = |name: &str| name.strip_suffix(".rev")?.parse().ok();
        let directory = self.layout.source_directory(source);
        match self.list_named(&directory, EntryKind::File, parse) {
            // It comes with the first revision.
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    fn list_condemned(&self) -> Result<Vec<u64>> {
        let parse = |name: &str| (name.len() == 20).then(|| name.parse().ok()).flatten();
        self.list_named(&self.layout.directory("condemned"), EntryKind::File, parse)
    }

    fn list_quarantined(&self) -> Result<Vec<QuarantineId>> {
        let parse = |name: &str| name.parse().ok();
        self.list_named(&self.layout.directory("quarantine"), EntryKind::File, parse)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        match key {
            ObjectKey::Config => self.layout.config(),
            ObjectKey::Pack(id) => self.layout.pack(id),
            ObjectKey::Record(source, id) => self.layout.record(source, id),
            ObjectKey::State(source, id) => self.layout.state(source, id),
            ObjectKey::Condemned(generation) => self.layout.condemned(*generation),
            ObjectKey::Ledger => self.layout.ledger(),
            ObjectKey::Mismatch(name) => self.layout.mismatch(name),
            ObjectKey::Evidence(id) => self.layout.evidence(id),
            ObjectKey::GivenUp(name) => self.layout.given_up(name),
            ObjectKey::Quarantined(id) => self.layout.quarantined(id),
        }
    }
}
