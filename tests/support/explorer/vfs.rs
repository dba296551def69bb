//! The file system as one operation sees it: calls on what is shared are points.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, ThreadId};

use chunkstore::vfs::simulated::SimulatedVfs;
use chunkstore::vfs::{Entry, LockMode, Vfs, VfsFile, VfsLock, parent_of};

use crate::explorer::planted::{Bug, Faked, NoLock};
use crate::explorer::point::Point;
use crate::explorer::scheduler::Scheduler;
use crate::simulated_store::STORE_PATH;

/// Directories and files of a store that operations share.
const SHARED: [&str; 8] =
    ["sessions", "condemned", "revisions", "packs", "trash", "quarantine", "ledger", "locks"];

/// A file system on which a [`Scheduler`] decides whose call comes next.
#[derive(Clone)]
pub struct ScheduledVfs {
    simulated: SimulatedVfs,
    scheduler: Arc<Scheduler>,
    operation: usize,
    /// The thread that began the operation.
    thread: ThreadId,
    faked: Faked,
}

impl fmt::Debug for ScheduledVfs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScheduledVfs").finish_non_exhaustive()
    }
}

impl ScheduledVfs {
    /// Returns the view of an operation; it is begun by the calling thread.
    #[must_use]
    pub fn new(
        simulated: SimulatedVfs,
        scheduler: Arc<Scheduler>,
        operation: usize,
        bug: Option<Bug>,
    ) -> Self {
        let (thread, faked) = (thread::current().id(), Faked::new(bug));
        Self { simulated, scheduler, operation, thread, faked }
    }

    fn is_main(&self) -> bool {
        thread::current().id() == self.thread
    }

    /// Returns whether calls on a path are points.
    fn is_shared(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(STORE_PATH) else { return false };
        match inside.iter().next().and_then(|first| first.to_str()) {
            Some("tmp") => self.is_main(),
            Some(first) => SHARED.contains(&first),
            None => false,
        }
    }

    fn is_temporary(path: &Path) -> bool {
        parent_of(path).ends_with("tmp")
    }

    /// Stops at a call if one of its paths is shared.
    fn stop(&self, paths: &[&Path], point: impl FnOnce() -> Point) -> io::Result<()> {
        if paths.iter().any(|path| self.is_shared(path)) {
            self.scheduler.arrive(self.operation, point())?;
        } else {
            self.scheduler.check(self.operation)?;
        }
        Ok(())
    }

    fn file(&self, file: Box<dyn VfsFile>, path: &Path) -> Box<dyn VfsFile> {
        Box::new(ScheduledFile { file, vfs: self.clone(), path: path.to_path_buf() })
    }

    /// A new condemned list has a higher number than all that there are or were.
    fn check_generation(&self, to: &Path) -> io::Result<()> {
        let directory = parent_of(to);
        if !directory.ends_with("condemned") {
            return Ok(());
        }
        let lists = self.simulated.list(&directory)?;
        let numbers: Option<Vec<u64>> = lists.iter().map(|list| list.name.parse().ok()).collect();
        let number = to.file_name().and_then(|name| name.to_str()?.parse().ok());
        let (numbers, number) = numbers.zip(number).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.scheduler.note_generation(numbers.into_iter().max(), number)?)
    }

    fn rename(
        &self,
        from: &Path,
        to: &Path,
        call: impl FnOnce(&SimulatedVfs) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.faked.postpones(from, to) {
            return Ok(());
        }
        self.stop(&[from, to], || Point::write("renames", &[to, from]))?;
        call(&self.simulated)?;
        for (from, to) in self.faked.postponed(to) {
            self.stop(&[&from, &to], || Point::write("renames late", &[&to, &from]))?;
            self.simulated.rename_replace(&from, &to)?;
        }
        Ok(())
    }
}

impl Vfs for ScheduledVfs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.stop(&[path], || Point::write("creates", &[path]))?;
        if Self::is_temporary(path) && !self.is_main() {
            self.scheduler.hide(self.operation, path);
        }
        Ok(self.file(self.simulated.create_new(path)?, path))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn VfsFile>> {
        self.stop(&[path], || Point::read("opens", path))?;
        let opened = self.faked.opened(path, self.simulated.open(path, writable))?;
        Ok(self.file(opened, path))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.stop(&[path], || Point::read("looks for", path))?;
        self.faked.looked_up(path, self.simulated.file_len(path))
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to, |simulated| {
            self.check_generation(to)?;
            simulated.rename_no_replace(from, to)
        })
    }

    fn rename_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to, |simulated| simulated.rename_replace(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.stop(&[path], || Point::write("removes", &[path]))?;
        self.simulated.remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.stop(&[path], || Point::write("creates", &[path]))?;
        self.simulated.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Changes what survives a power cut, and there is none here.
        self.scheduler.check(self.operation)?;
        self.simulated.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.stop(&[path], || Point::read("lists", path))?;
        let mut entries = self.simulated.list(path)?;
        entries.retain(|entry| !self.scheduler.is_hidden(self.operation, &path.join(&entry.name)));
        Ok(self.faked.listed(path, entries))
    }

    fn lock(
        &self,
        path: &Path,
        mode: LockMode,
        wait: bool,
    ) -> io::Result<Option<Box<dyn VfsLock>>> {
        if self.faked.leaves_unlocked(path) {
            self.scheduler.check(self.operation)?;
            return Ok(Some(Box::new(NoLock)));
        }
        self.stop(&[path], || Point::lock(path, mode, wait))?;
        // The scheduler lets nobody go on who would have to wait.
        let lock = self.simulated.lock(path, mode, false)?;
        if wait && lock.is_none() {
            return Err(io::Error::other("a lock was taken by somebody who did not run"));
        }
        Ok(lock)
    }

    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        self.scheduler.check(self.operation)?;
        self.simulated.free_space(path)
    }
}

/// An open file of an operation. Its bytes are nobody else's concern, and it has no points but the lock.
#[derive(Debug)]
struct ScheduledFile {
    file: Box<dyn VfsFile>,
    vfs: ScheduledVfs,
    path: PathBuf,
}

impl ScheduledFile {
    fn check(&self) -> io::Result<()> {
        Ok(self.vfs.scheduler.check(self.vfs.operation)?)
    }
}

impl VfsFile for ScheduledFile {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        self.file.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check()?;
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check()?;
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn try_lock(&self, mode: LockMode) -> io::Result<bool> {
        self.vfs.stop(&[&self.path], || Point::lock(&self.path, mode, false))?;
        if self.vfs.faked.leaves_unlocked(&self.path) { Ok(true) } else { self.file.try_lock(mode) }
    }
}
