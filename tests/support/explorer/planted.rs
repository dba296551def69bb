//! Bugs that a test plants, to see that the search finds them: the file system fakes what an operation without some
//! step of the protocol would see or do.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chunkstore::format::{SessionKind, SessionRecord};
use chunkstore::vfs::simulated::SimulatedVfs;
use chunkstore::vfs::{Entry, LockMode, Vfs, VfsFile, VfsLock, parent_of};

/// A bug, in all operations of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Purge finds no sessions.
    SessionsUnseen,
    /// Purge looks for sessions once, and does not look again when it has read the records.
    PinsReadOnce,
    /// Purge sweeps without waiting for writers that are older than the condemnation.
    OlderWritersIgnored,
    /// Sessions get their name without being locked.
    SessionsUnlocked,
    /// Readers and writers do not read the record again after they have registered.
    RecordReadOnce,
    /// Purge shortens a list before the packs have left.
    ListShortenedFirst,
    /// States are changed without the lock of the history.
    HistoryUnlocked,
    /// A source is backed up without its lock.
    SourceUnlocked,
    /// Purges run beside each other.
    PurgeUnlocked,
}

/// What a bug makes one operation see.
#[derive(Clone, Debug)]
pub(super) struct Faked {
    bug: Option<Bug>,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The sessions as they were when they were listed first.
    sessions: Option<Vec<Entry>>,
    /// Records as they were when they were read first.
    records: BTreeMap<PathBuf, Vec<u8>>,
    /// Moves to the trash that are yet to come.
    moves: Vec<(PathBuf, PathBuf)>,
}

impl Faked {
    pub(super) fn new(bug: Option<Bug>) -> Self {
        Self { bug, memory: Arc::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is seen of a directory.
    pub(super) fn listed(&self, path: &Path, entries: Vec<Entry>) -> Vec<Entry> {
        match self.bug {
            Some(Bug::SessionsUnseen) if path.ends_with("sessions") => Vec::new(),
            Some(Bug::PinsReadOnce) if path.ends_with("sessions") => {
                self.memory().sessions.get_or_insert(entries).clone()
            }
            _ => entries,
        }
    }

    /// Returns what is seen of a file that was opened.
    pub(super) fn opened(
        &self,
        path: &Path,
        file: io::Result<Box<dyn VfsFile>>,
    ) -> io::Result<Box<dyn VfsFile>> {
        let is_in = |name: &str| parent_of(path).ends_with(name);
        match self.bug {
            Some(Bug::OlderWritersIgnored) if is_in("sessions") => {
                let bytes = content(file?.as_ref())?;
                let record = SessionRecord::decode(&bytes).map_err(io::Error::other)?;
                in_memory(&SessionRecord { kind: SessionKind::Restore, ..record }.encode())
            }
            Some(Bug::RecordReadOnce) if path.extension().is_some_and(|end| end == "rev") => {
                let mut memory = self.memory();
                if let Some(bytes) = memory.records.get(path) {
                    return in_memory(bytes);
                }
                let file = file?;
                memory.records.insert(path.to_path_buf(), content(file.as_ref())?);
                Ok(file)
            }
            _ => file,
        }
    }

    /// Returns the length that is seen of a file.
    pub(super) fn looked_up(&self, path: &Path, len: io::Result<u64>) -> io::Result<u64> {
        let memory = self.memory();
        memory.records.get(path).map_or(len, |bytes| Ok(bytes.len() as u64))
    }

    /// Returns whether a lock is not taken.
    pub(super) fn leaves_unlocked(&self, path: &Path) -> bool {
        let parent_is = |name: &str| parent_of(path).ends_with(name);
        match self.bug {
            Some(Bug::SessionsUnlocked) => parent_is("tmp"),
            Some(Bug::HistoryUnlocked) => path.ends_with("locks/history"),
            Some(Bug::SourceUnlocked) => parent_is("locks/sources"),
            Some(Bug::PurgeUnlocked) => path.ends_with("locks/purge"),
            _ => false,
        }
    }

    /// Returns whether a rename is put off, and remembers it.
    pub(super) fn postpones(&self, from: &Path, to: &Path) -> bool {
        let is_swept = parent_of(to).ends_with("trash");
        let postpones = self.bug == Some(Bug::ListShortenedFirst) && is_swept;
        if postpones {
            self.memory().moves.push((from.to_path_buf(), to.to_path_buf()));
        }
        postpones
    }

    /// Returns the renames that were put off until after this one.
    pub(super) fn postponed(&self, to: &Path) -> Vec<(PathBuf, PathBuf)> {
        let is_list = parent_of(to).ends_with("condemned");
        if is_list { std::mem::take(&mut self.memory().moves) } else { Vec::new() }
    }
}

/// A lock that nobody holds.
#[derive(Debug)]
pub(super) struct NoLock;

impl VfsLock for NoLock {
    fn describe(&self, _text: &str) -> io::Result<()> {
        Ok(())
    }
}

fn content(file: &dyn VfsFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Returns an open file with these bytes.
fn in_memory(bytes: &[u8]) -> io::Result<Box<dyn VfsFile>> {
    let file = SimulatedVfs::new().create_new(Path::new("/file"))?;
    file.write_all_at(bytes, 0)?;
    file.try_lock(LockMode::Exclusive)?;
    Ok(file)
}
