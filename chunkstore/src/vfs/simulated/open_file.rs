//! An open file description: what [`VfsFile`] and [`VfsLock`] do with a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use rustix::io::Errno;

use crate::vfs::simulated::SimulatedVfs;
use crate::vfs::simulated::call::{Call, CallKind};
use crate::vfs::simulated::fault::{Effect, FaultKind};
use crate::vfs::simulated::names::NodeId;
use crate::vfs::simulated::state::{DescriptionId, State};
use crate::vfs::{LockMode, VfsFile, VfsLock};

/// An open file description. Keeps the file alive, whatever happens to its name.
#[derive(Debug)]
pub(super) struct OpenFile {
    vfs: SimulatedVfs,
    node: NodeId,
    description: DescriptionId,
    /// The path under which it was opened, for the log.
    path: PathBuf,
    writable: bool,
}

impl OpenFile {
    /// Opens a file.
    pub(super) fn new(
        vfs: &SimulatedVfs,
        state: &mut State,
        node: NodeId,
        path: &Path,
        writable: bool,
    ) -> Self {
        let description = state.open(node);
        Self { vfs: vfs.clone(), node, description, path: path.to_path_buf(), writable }
    }

    /// Returns who holds the locks taken through this description.
    pub(super) fn description(&self) -> DescriptionId {
        self.description
    }

    /// Returns the file.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Returns a call on this file, for the log.
    fn call(&self, kind: CallKind, offset: u64, len: usize) -> Call {
        let len = u64::try_from(len).expect("memory fits in 64 bits");
        Call { offset, len, ..Call::new(kind, &self.path) }
    }

    /// Begins a call that a file opened for reading refuses.
    fn begin_writing(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let state = self.vfs.begin(call)?;
        if self.writable { Ok(state) } else { Err(Errno::INVAL.into()) }
    }

    /// Writes as far as effect and capacity let it.
    fn write(
        &self,
        state: &mut State,
        effect: Option<Effect>,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        let end = u64::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len));
        let end = end.ok_or(Errno::FBIG)?;
        let missing = shortage(state, self.node, end)
            .map_or(0, |missing| usize::try_from(missing).unwrap_or(usize::MAX));
        let (written, outcome) = match effect {
            Some(Effect::Fail(kind)) => return Err(kind.error()),
            Some(Effect::Short) => (bytes.len() / 2, Err(io::ErrorKind::WriteZero.into())),
            _ if missing != 0 => (bytes.len().saturating_sub(missing), Err(Errno::NOSPC.into())),
            _ => (bytes.len(), Ok(())),
        };
        state.file(self.node).data.write(&bytes[..written], offset)?;
        outcome
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.vfs.state().close(self.node, self.description);
        self.vfs.lock_released();
    }
}

impl VfsFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.vfs.begin(self.call(CallKind::Len, 0, 0))?;
        u64::try_from(state.file(self.node).data.live().len()).map_err(io::Error::other)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut state, effect) =
            self.vfs.enter(self.call(CallKind::ReadExactAt, offset, buffer.len()))?;
        let live = state.file(self.node).data.live();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let mut len = buffer.len().min(live.len() - start);
        match effect {
            Some(Effect::Fail(kind)) => return Err(kind.error()),
            Some(Effect::Short) => len = len.min(buffer.len() / 2),
            _ => {}
        }
        buffer[..len].copy_from_slice(&live[start..start + len]);
        if len < buffer.len() || effect == Some(Effect::Short) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, effect) =
            self.vfs.enter(self.call(CallKind::WriteAllAt, offset, bytes.len()))?;
        self.write(&mut state, effect, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let call = Call { len, ..Call::new(CallKind::SetLen, &self.path) };
        let mut state = self.begin_writing(call)?;
        if shortage(&state, self.node, len).is_some() {
            return Err(Errno::NOSPC.into());
        }
        state.file(self.node).data.set_len(len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let call = Call { offset, len, ..Call::new(CallKind::Reserve, &self.path) };
        let mut state = self.begin_writing(call)?;
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        if shortage(&state, self.node, end).is_some() {
            return Err(Errno::NOSPC.into());
        }
        state.file(self.node).data.grow(end)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let call = Call { offset, len, ..Call::new(CallKind::PunchHole, &self.path) };
        self.begin_writing(call)?.file(self.node).data.clear(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, effect) = self.vfs.enter(self.call(CallKind::SyncData, 0, 0))?;
        let data = &mut state.file(self.node).data;
        match effect {
            Some(Effect::Fail(kind)) => {
                data.lose_pending();
                Err(kind.error())
            }
            Some(Effect::Short) => {
                data.lose_pending();
                Err(FaultKind::Device.error())
            }
            Some(Effect::DropSync) => Ok(()),
            Some(Effect::Stop) | None => {
                data.sync();
                Ok(())
            }
        }
    }

    fn try_lock(&self, mode: LockMode) -> io::Result<bool> {
        let mut state = self.vfs.begin(self.call(CallKind::TryLock, 0, 0))?;
        let taken = state.file(self.node).try_lock(self.description, mode);
        drop(state);
        // A conversion may have given way to others, whether it succeeded or not.
        self.vfs.lock_released();
        Ok(taken)
    }
}

impl VfsLock for OpenFile {
    fn describe(&self, text: &str) -> io::Result<()> {
        let (mut state, effect) = self.vfs.enter(self.call(CallKind::Describe, 0, text.len()))?;
        self.write(&mut state, effect, text.as_bytes(), 0)?;
        let len = u64::try_from(text.len()).map_err(io::Error::other)?;
        state.file(self.node).data.set_len(len)
    }
}

/// Returns how many bytes the capacity is short of for a file to end at `end`, `None` if it fits.
fn shortage(state: &State, node: NodeId, end: u64) -> Option<u64> {
    let len = u64::try_from(state.files.get(&node)?.data.live().len()).ok()?;
    let growth = end.saturating_sub(len);
    let free = state.free_space()?;
    (free < growth).then(|| growth - free)
}
