//! The whole file system in memory: files, live and durable names, and what is pending.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::vfs::LockMode;
use crate::vfs::simulated::fault::Faults;
use crate::vfs::simulated::file_data::FileData;
use crate::vfs::simulated::names::{NameChange, Names, NodeId, Place, ROOT};

/// How long a call waits for a lock before the test is taken for deadlocked.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);

/// An open file description; `flock` tells holders apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptionId(u64);

/// A file: its bytes, and who has it open.
#[derive(Clone, Debug)]
pub(super) struct FileNode {
    pub(super) data: FileData,
    open_count: usize,
    locks: Vec<(DescriptionId, LockMode)>,
}

impl FileNode {
    /// Returns a file that nobody has open.
    pub(super) fn of(data: FileData) -> Self {
        Self { data, open_count: 0, locks: Vec::new() }
    }

    /// Takes or converts a lock as `flock` does: a conversion that fails loses the old lock.
    pub(super) fn try_lock(&mut self, holder: DescriptionId, mode: LockMode) -> bool {
        if self.locks.contains(&(holder, mode)) {
            return true;
        }
        self.locks.retain(|(other, _)| *other != holder);
        let free = self
            .locks
            .iter()
            .all(|(_, other)| *other == LockMode::Shared && mode == LockMode::Shared);
        if free {
            self.locks.push((holder, mode));
        }
        free
    }
}

/// A change of names that no directory sync has made durable.
#[derive(Clone, Debug)]
pub(super) struct PendingName {
    pub(super) change: NameChange,
    /// A sync of its directory failed: no later one makes up for it.
    pub(super) abandoned: bool,
}

/// The whole file system.
#[derive(Debug)]
pub(super) struct State {
    pub(super) files: BTreeMap<NodeId, FileNode>,
    pub(super) live: Names,
    pub(super) durable: Names,
    /// In the order of the calls, over all directories.
    pub(super) pending_names: Vec<PendingName>,
    pub(super) faults: Faults,
    pub(super) capacity: Option<u64>,
    pub(super) lock_wait_max: Duration,
    next_node: u64,
    next_description: u64,
}

impl State {
    /// Returns an empty file system.
    pub(super) fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            live: Names::new(),
            durable: Names::new(),
            pending_names: Vec::new(),
            faults: Faults::default(),
            capacity: None,
            lock_wait_max: LOCK_WAIT_MAX,
            next_node: ROOT.0 + 1,
            next_description: 0,
        }
    }

    /// Returns a file system of the same size with other files, without faults and log.
    pub(super) fn successor(
        &self,
        files: BTreeMap<NodeId, FileNode>,
        live: Names,
        durable: Names,
        pending_names: Vec<PendingName>,
    ) -> Self {
        Self {
            files,
            live,
            durable,
            pending_names,
            faults: Faults::default(),
            capacity: self.capacity,
            lock_wait_max: self.lock_wait_max,
            next_node: self.next_node,
            next_description: 0,
        }
    }

    /// Returns a copy in which nobody has a file open or locked.
    pub(super) fn after_kill(&self) -> Self {
        let files = self.files.iter().map(|(node, file)| (*node, FileNode::of(file.data.clone())));
        let (live, durable) = (self.live.clone(), self.durable.clone());
        let mut state = self.successor(files.collect(), live, durable, self.pending_names.clone());
        for node in self.files.keys() {
            state.forget_if_unused(*node);
        }
        state
    }

    /// Returns where a path leads; its directories must exist.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let mut parts = components(path);
        let mut name = parts.next().ok_or(Errno::ISDIR)??;
        let mut directory = ROOT;
        for part in parts {
            directory = self.live.at(&Place { directory, name }).ok_or(Errno::NOENT)?;
            name = part?;
            self.live.table(directory).ok_or(Errno::NOTDIR)?;
        }
        Ok(Place { directory, name })
    }

    /// Returns the directory at a path.
    pub(super) fn directory(&self, path: &Path) -> io::Result<NodeId> {
        let mut directory = ROOT;
        for name in components(path) {
            let place = Place { directory, name: name? };
            directory = self.live.at(&place).ok_or(Errno::NOENT)?;
            self.live.table(directory).ok_or(Errno::NOTDIR)?;
        }
        Ok(directory)
    }

    /// Returns the file at a path, and its place.
    pub(super) fn file_at(&self, path: &Path) -> io::Result<(Place, NodeId)> {
        let place = self.place(path)?;
        let node = self.live.at(&place).ok_or(Errno::NOENT)?;
        if !self.files.contains_key(&node) {
            return Err(Errno::ISDIR.into());
        }
        Ok((place, node))
    }

    /// Returns a file that is known to exist, because it is named or open.
    pub(super) fn file(&mut self, node: NodeId) -> &mut FileNode {
        self.files.get_mut(&node).expect("files live as long as they are named or open")
    }

    /// Returns the number of a new file or directory.
    pub(super) fn new_node(&mut self) -> NodeId {
        self.next_node += 1;
        NodeId(self.next_node - 1)
    }

    /// Changes live names; durable ones follow with the next sync of the directory.
    pub(super) fn change_names(&mut self, change: NameChange) {
        let replaced: Vec<NodeId> =
            change.places().filter_map(|place| self.live.at(place)).collect();
        self.live.apply(&change);
        self.pending_names.push(PendingName { change, abandoned: false });
        for node in replaced {
            self.forget_if_unused(node);
        }
    }

    /// Makes the selected pending changes durable, and those that they build upon: earlier changes
    /// of the same names.
    pub(super) fn commit_names(&mut self, selected: impl Fn(&PendingName) -> bool) {
        let mut committed: Vec<NameChange> = Vec::new();
        let mut committed_places: BTreeSet<Place> = BTreeSet::new();
        let mut rest = Vec::new();
        for pending in self.pending_names.drain(..).rev() {
            let needed = || pending.change.places().any(|place| committed_places.contains(place));
            if selected(&pending) || needed() {
                committed_places.extend(pending.change.places().cloned());
                committed.push(pending.change);
            } else {
                rest.push(pending);
            }
        }
        rest.reverse();
        self.pending_names = rest;
        let mut touched = Vec::new();
        for change in committed.iter().rev() {
            touched.extend(change.places().filter_map(|place| self.durable.at(place)));
            touched.extend(change.node());
            self.durable.apply(change);
        }
        for node in touched {
            self.forget_if_unused(node);
        }
    }

    /// Counts one more open file description of a file.
    pub(super) fn open(&mut self, node: NodeId) -> DescriptionId {
        self.file(node).open_count += 1;
        self.next_description += 1;
        DescriptionId(self.next_description)
    }

    /// Ends an open file description, and its lock with it.
    pub(super) fn close(&mut self, node: NodeId, description: DescriptionId) {
        let file = self.file(node);
        file.open_count -= 1;
        file.locks.retain(|(holder, _)| *holder != description);
        self.forget_if_unused(node);
    }

    /// Returns the bytes that can still be written, `None` if there is no limit.
    pub(super) fn free_space(&self) -> Option<u64> {
        let capacity = self.capacity?;
        let in_use =
            |(node, file): &(&NodeId, &FileNode)| self.live.is_named(**node) || 0 < file.open_count;
        let used: usize =
            self.files.iter().filter(in_use).map(|(_, file)| file.data.live().len()).sum();
        let used = u64::try_from(used).expect("memory fits in 64 bits");
        Some(capacity.saturating_sub(used))
    }

    /// Drops a file that no name, no open file and no crash could bring back.
    fn forget_if_unused(&mut self, node: NodeId) {
        let unused = self.files.get(&node).is_some_and(|file| file.open_count == 0)
            && !self.live.is_named(node)
            && !self.durable.is_named(node)
            && !self.pending_names.iter().any(|pending| pending.change.node() == Some(node));
        if unused {
            self.files.remove(&node);
        }
    }
}

/// Returns the names in a path. The working directory is the root.
fn components(path: &Path) -> impl Iterator<Item = io::Result<Arc<str>>> {
    path.components().filter_map(|component| match component {
        Component::RootDir | Component::CurDir => None,
        Component::Normal(name) => {
            Some(name.to_str().map(Arc::from).ok_or_else(|| Errno::ILSEQ.into()))
        }
        Component::ParentDir | Component::Prefix(_) => Some(Err(Errno::INVAL.into())),
    })
}
