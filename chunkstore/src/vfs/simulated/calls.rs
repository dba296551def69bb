//! The calls of [`Vfs`].

use std::io;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::vfs::simulated::SimulatedVfs;
use crate::vfs::simulated::call::{Call, CallKind};
use crate::vfs::simulated::fault::{Effect, FaultKind};
use crate::vfs::simulated::file_data::FileData;
use crate::vfs::simulated::names::{NameChange, NodeId};
use crate::vfs::simulated::open_file::OpenFile;
use crate::vfs::simulated::state::{FileNode, State};
use crate::vfs::{Entry, EntryKind, LockMode, Vfs, VfsFile, VfsLock};

impl SimulatedVfs {
    /// Begins a call, and returns what is to happen to it; a stop is an error.
    pub(super) fn enter(&self, call: Call) -> io::Result<(MutexGuard<'_, State>, Option<Effect>)> {
        let mut state = self.state();
        // Who waits for a lock has to learn of a stop.
        let effect = state.faults.begin(call).inspect_err(|_| self.lock_released())?;
        Ok((state, effect))
    }

    /// Begins a call that a fault makes fail without effect.
    pub(super) fn begin(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let (state, effect) = self.enter(call)?;
        match effect {
            Some(Effect::Fail(kind)) => Err(kind.error()),
            Some(Effect::Short) => Err(FaultKind::Device.error()),
            Some(Effect::Stop | Effect::DropSync) | None => Ok(state),
        }
    }

    fn rename(&self, kind: CallKind, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(Call::rename(kind, from, to))?;
        let (from, node) = state.file_at(from)?;
        let to = state.place(to)?;
        match state.live.at(&to) {
            Some(_) if kind == CallKind::RenameNoReplace => return Err(Errno::EXIST.into()),
            Some(taken) if taken == node => return Ok(()),
            Some(taken) if !state.files.contains_key(&taken) => return Err(Errno::ISDIR.into()),
            Some(_) | None => {}
        }
        state.change_names(NameChange::Rename { from, to, node });
        Ok(())
    }

    /// Waits until a lock is free. The deadline is that of a deadlocked test.
    fn wait_for_lock(
        &self,
        mut state: MutexGuard<'_, State>,
        file: &OpenFile,
        path: &Path,
        mode: LockMode,
    ) -> io::Result<()> {
        let (start, wait_max) = (Instant::now(), state.lock_wait_max);
        while !state.file(file.node()).try_lock(file.description(), mode) {
            let Some(rest) = wait_max.checked_sub(start.elapsed()) else {
                drop(state);
                deadlocked(path, mode, wait_max);
            };
            let waited = self.shared.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.faults.refuse_if_stopped()?;
        }
        Ok(())
    }
}

impl Vfs for SimulatedVfs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.begin(Call::new(CallKind::CreateNew, path))?;
        let at = state.place(path)?;
        if state.live.at(&at).is_some() {
            return Err(Errno::EXIST.into());
        }
        let node = state.new_node();
        state.files.insert(node, FileNode::of(FileData::default()));
        state.change_names(NameChange::File { at, node });
        Ok(Box::new(OpenFile::new(self, &mut state, node, path, true)))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.begin(Call::new(CallKind::Open, path))?;
        let (_, node) = state.file_at(path)?;
        Ok(Box::new(OpenFile::new(self, &mut state, node, path, writable)))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.begin(Call::new(CallKind::FileLen, path))?;
        let (_, node) = state.file_at(path)?;
        u64::try_from(state.file(node).data.live().len()).map_err(io::Error::other)
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(CallKind::RenameNoReplace, from, to)
    }

    fn rename_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(CallKind::RenameReplace, from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Call::new(CallKind::RemoveFile, path))?;
        let (at, _) = state.file_at(path)?;
        state.change_names(NameChange::Unlink { at });
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Call::new(CallKind::CreateDir, path))?;
        if state.directory(path).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let at = state.place(path)?;
        if state.live.at(&at).is_some() {
            return Err(Errno::EXIST.into());
        }
        let node = state.new_node();
        state.change_names(NameChange::Directory { at, node });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, effect) = self.enter(Call::new(CallKind::SyncDir, path))?;
        let directory = state.directory(path)?;
        match effect {
            Some(Effect::Fail(kind)) => {
                abandon_names(&mut state, directory);
                Err(kind.error())
            }
            Some(Effect::Short) => {
                abandon_names(&mut state, directory);
                Err(FaultKind::Device.error())
            }
            Some(Effect::DropSync) => Ok(()),
            Some(Effect::Stop) | None => {
                state.commit_names(|pending| {
                    !pending.abandoned
                        && pending.change.places().any(|place| place.directory == directory)
                });
                Ok(())
            }
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.begin(Call::new(CallKind::List, path))?;
        let directory = state.directory(path)?;
        let table = state.live.table(directory).into_iter().flatten();
        Ok(table
            .map(|(name, node)| {
                let is_file = state.files.contains_key(node);
                let kind = if is_file { EntryKind::File } else { EntryKind::Directory };
                Entry { name: name.to_string(), kind }
            })
            .collect())
    }

    fn lock(
        &self,
        path: &Path,
        mode: LockMode,
        wait: bool,
    ) -> io::Result<Option<Box<dyn VfsLock>>> {
        let mut state = self.begin(Call::new(CallKind::Lock, path))?;
        let (_, node) = state.file_at(path)?;
        let file = OpenFile::new(self, &mut state, node, path, true);
        if wait {
            self.wait_for_lock(state, &file, path, mode)?;
            return Ok(Some(Box::new(file)));
        }
        let taken = state.file(node).try_lock(file.description(), mode);
        // Dropping the file takes the state again.
        drop(state);
        Ok(taken.then(|| -> Box<dyn VfsLock> { Box::new(file) }))
    }

    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.begin(Call::new(CallKind::FreeSpace, path))?;
        if state.directory(path).is_err() {
            state.file_at(path)?;
        }
        Ok(state.free_space())
    }
}

/// Leaves the pending names of a directory to chance.
fn abandon_names(state: &mut State, directory: NodeId) {
    for pending in &mut state.pending_names {
        pending.abandoned |= pending.change.places().any(|place| place.directory == directory);
    }
}

/// Ends a test that would wait forever.
fn deadlocked(path: &Path, mode: LockMode, waited: Duration) -> ! {
    panic!("deadlock: waited {waited:?} for the lock ({mode:?}) on {}", path.display());
}
