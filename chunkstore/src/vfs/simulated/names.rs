//! Directories: which name stands for which file, live and durable.
//!
//! A file has at most one name: where a crash would keep two, the one given later stays. The root
//! directory always exists; directories are neither renamed nor removed.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A file or directory, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u64);

/// The root directory.
pub(super) const ROOT: NodeId = NodeId(0);

/// A name in a directory, whether it is taken or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) directory: NodeId,
    pub(super) name: Arc<str>,
}

/// One atomic change of names.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    File { at: Place, node: NodeId },
    Directory { at: Place, node: NodeId },
    Unlink { at: Place },
    Rename { from: Place, to: Place, node: NodeId },
}

impl NameChange {
    /// Returns the one or two names that change.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        let (first, second) = match self {
            Self::File { at, .. } | Self::Directory { at, .. } | Self::Unlink { at } => (at, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        [Some(first), second].into_iter().flatten()
    }

    /// Returns the file or directory that gets a name.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Self::File { node, .. } | Self::Directory { node, .. } | Self::Rename { node, .. } => {
                Some(*node)
            }
            Self::Unlink { .. } => None,
        }
    }
}

/// The names of one directory.
pub(super) type Table = BTreeMap<Arc<str>, NodeId>;

/// All names of the file system. A clone shares the tables until one of the two changes.
#[derive(Clone, Debug)]
pub(super) struct Names {
    tables: BTreeMap<NodeId, Arc<Table>>,
    /// Where each node is named: the tables read backwards.
    places: BTreeMap<NodeId, Place>,
}

impl Names {
    /// Returns the names of an empty file system.
    pub(super) fn new() -> Self {
        Self { tables: BTreeMap::from([(ROOT, Arc::default())]), places: BTreeMap::new() }
    }

    /// Returns the names in a directory, `None` if the node is none.
    pub(super) fn table(&self, directory: NodeId) -> Option<&Table> {
        self.tables.get(&directory).map(|table| &**table)
    }

    /// Returns what is named there.
    pub(super) fn at(&self, place: &Place) -> Option<NodeId> {
        self.table(place.directory)?.get(&place.name).copied()
    }

    /// Returns whether a node has a name.
    pub(super) fn is_named(&self, node: NodeId) -> bool {
        self.places.contains_key(&node)
    }

    /// Applies a change, which always succeeds: names that are taken are replaced.
    pub(super) fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::File { at, node } => self.link(at, *node),
            NameChange::Directory { at, node } => {
                self.link(at, *node);
                self.tables.entry(*node).or_default();
            }
            NameChange::Unlink { at } => self.unlink(at),
            NameChange::Rename { from, to, node } => {
                self.unlink(from);
                self.link(to, *node);
            }
        }
    }

    /// Forgets what has no path from the root.
    pub(super) fn retain_reachable(&mut self) {
        let mut reachable = Self::new();
        let mut directories = vec![ROOT];
        while let Some(directory) = directories.pop() {
            let Some(table) = self.tables.get(&directory) else { continue };
            for (name, node) in table.iter() {
                reachable.places.insert(*node, Place { directory, name: Arc::clone(name) });
                if self.tables.contains_key(node) {
                    directories.push(*node);
                }
            }
            reachable.tables.insert(directory, Arc::clone(table));
        }
        *self = reachable;
    }

    fn link(&mut self, at: &Place, node: NodeId) {
        if let Some(before) = self.places.get(&node).cloned() {
            self.unlink(&before);
        }
        self.unlink(at);
        let table = self.tables.entry(at.directory).or_default();
        Arc::make_mut(table).insert(Arc::clone(&at.name), node);
        self.places.insert(node, at.clone());
    }

    fn unlink(&mut self, at: &Place) {
        if self.at(at).is_none() {
            return;
        }
        let table = self.tables.entry(at.directory).or_default();
        if let Some(node) = Arc::make_mut(table).remove(&at.name) {
            self.places.remove(&node);
        }
    }
}
