//! What a test sees of the files and does to them, past the calls: nothing here is counted, logged
//! or hit by a fault, and every change is live and durable at once.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::vfs::simulated::SimulatedVfs;
use crate::vfs::simulated::file_data::FileData;
use crate::vfs::simulated::names::{NameChange, NodeId, ROOT};
use crate::vfs::simulated::state::{FileNode, State};

impl SimulatedVfs {
    /// Returns the live bytes of a file.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    pub fn read_all(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let (_, node) = state.file_at(path.as_ref())?;
        Ok(state.file(node).data.live().to_vec())
    }

    /// Replaces the content of a file, or creates it and the directories above it.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::IsADirectory`] if the path is a directory.
    /// - [`io::ErrorKind::NotADirectory`] if the path leads through a file.
    pub fn write_raw(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        let path = path.as_ref();
        let mut state = self.state();
        create_parents(&mut state, path)?;
        let at = state.place(path)?;
        let node = match state.live.at(&at) {
            Some(node) if !state.files.contains_key(&node) => return Err(Errno::ISDIR.into()),
            Some(node) => node,
            None => {
                let node = state.new_node();
                state.files.insert(node, FileNode::of(FileData::default()));
                state.change_names(NameChange::File { at, node });
                node
            }
        };
        settle(&mut state, path)?;
        state.file(node).data = FileData::of(bytes.into());
        Ok(())
    }

    /// Flips the bits of `mask` in one byte.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    /// - [`io::ErrorKind::UnexpectedEof`] if it ends before.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        self.damage(path.as_ref(), |bytes| {
            let byte = usize::try_from(offset).ok().and_then(|offset| bytes.get_mut(offset));
            *byte.ok_or(io::ErrorKind::UnexpectedEof)? ^= mask;
            Ok(())
        })
    }

    /// Cuts a file to `len` bytes, or extends it by zeros.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        self.damage(path.as_ref(), |bytes| {
            bytes.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            Ok(())
        })
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    pub fn remove(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let mut state = self.state();
        let (at, _) = state.file_at(path)?;
        state.change_names(NameChange::Unlink { at });
        settle(&mut state, path)
    }

    /// Returns every file by its absolute path, sorted, with its length in bytes.
    #[must_use]
    pub fn all_files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let mut files = Vec::new();
        collect_files(&state, ROOT, Path::new("/"), &mut files);
        files.sort();
        files
    }

    /// Shows every file to `look`: its absolute path and its live bytes, sorted by directory.
    ///
    /// # Panics
    ///
    /// If the file system contradicts itself, which cannot be.
    pub fn for_each_file(&self, mut look: impl FnMut(&Path, &[u8])) {
        let state = self.state();
        let mut files = Vec::new();
        collect_files(&state, ROOT, Path::new("/"), &mut files);
        for (path, _) in files {
            let (_, node) = state.file_at(&path).expect("it was found a moment ago");
            let file = state.files.get(&node).expect("it was found a moment ago");
            look(&path, file.data.live());
        }
    }

    fn damage(
        &self,
        path: &Path,
        change: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = self.read_all(path)?;
        change(&mut bytes)?;
        self.write_raw(path, bytes)
    }
}

/// Creates the directories above a path.
fn create_parents(state: &mut State, path: &Path) -> io::Result<()> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents {
        match state.directory(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let at = state.place(parent)?;
                let node = state.new_node();
                state.change_names(NameChange::Directory { at, node });
            }
            found => _ = found?,
        }
    }
    Ok(())
}

/// Makes the name of a file, or its absence, durable, and the names of the directories above it.
fn settle(state: &mut State, path: &Path) -> io::Result<()> {
    for part in path.ancestors() {
        if let Ok(place) = state.place(part) {
            state.commit_names(|pending| pending.change.places().any(|other| *other == place));
        }
    }
    Ok(())
}

fn collect_files(state: &State, directory: NodeId, path: &Path, files: &mut Vec<(PathBuf, u64)>) {
    for (name, node) in state.live.table(directory).into_iter().flatten() {
        let path = path.join(&**name);
        match state.files.get(node) {
            None => collect_files(state, *node, &path, files),
            Some(file) => {
                let len = file.data.live().len();
                files.push((path, u64::try_from(len).expect("memory fits in 64 bits")));
            }
        }
    }
}
