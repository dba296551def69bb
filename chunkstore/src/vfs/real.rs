//! The operating system's files, clock, randomness and identity.
//!
//! What the calls rely on: `docs/format.md`, section "Assumptions about the medium". Nothing here
//! follows a symbolic link in the last part of a file's path, and nothing retries a failed sync.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use crate::environment::{Clock, Entropy, Identity};
use crate::time::Timestamp;
use crate::vfs::{
    ALIGNMENT, Entry, EntryKind, LockMode, Vfs, VfsFile, VfsLock, write_noise, write_zeros,
};

/// Permissions of a new file, before the umask.
const FILE_MODE: u32 = 0o640;

/// Permissions of a new file that is nobody else's business.
const PRIVATE_MODE: u32 = 0o600;

/// Permissions of a new directory, before the umask.
const DIRECTORY_MODE: u32 = 0o750;

/// Longest command in an [`Identity`], in characters.
const COMMAND_LEN_MAX: usize = 200;

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

impl RealVfs {
    /// Returns the operating system's file system.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Vfs for RealVfs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        create_with_mode(path, FILE_MODE)
    }

    fn create_private(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        create_with_mode(path, PRIVATE_MODE)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn VfsFile>> {
        // Nothing is written in bulk to files that are there already.
        let direct = OnceLock::from(None);
        Ok(Box::new(RealFile { file: open_regular(path, writable)?, direct }))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        let metadata = fs::symlink_metadata(path)?;
        refuse_all_but_files(&metadata)?;
        Ok(metadata.len())
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => checked_rename(from, to),
            Err(errno) => Err(errno.into()),
        }
    }

    fn rename_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(custom_flags(OFlags::DIRECTORY))
            .open(path)?;
        rustix::fs::fsync(&directory).map_err(|errno| match errno {
            // SMB and some FUSE file systems. To go on would promise what nobody keeps.
            Errno::INVAL | Errno::NOTSUP | Errno::NOSYS => io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the file system cannot make names durable ({errno})"),
            ),
            errno => errno.into(),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let file_type = entry.file_type()?;
            let kind = if file_type.is_file() {
                EntryKind::File
            } else if file_type.is_dir() {
                EntryKind::Directory
            } else {
                EntryKind::Other
            };
            entries.push(Entry { name, kind });
        }
        entries.sort();
        Ok(entries)
    }

    fn lock(
        &self,
        path: &Path,
        mode: LockMode,
        wait: bool,
    ) -> io::Result<Option<Box<dyn VfsLock>>> {
        // Whoever may not write the store can still read it under a lock, only not sign it.
        let file = match open_regular(path, true) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                open_regular(path, false)?
            }
            opened => opened?,
        };
        Ok(flock(&file, mode, wait)?.then(|| -> Box<dyn VfsLock> { Box::new(RealLock { file }) }))
    }

    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        let statistics = rustix::fs::statvfs(path)?;
        Ok(Some(statistics.f_bavail.saturating_mul(statistics.f_frsize)))
    }
}

/// An open file of the operating system.
#[derive(Debug)]
struct RealFile {
    file: File,
    /// The same file once more, past the page cache; `None` where the file system has no such way.
    direct: OnceLock<Option<File>>,
}

impl RealFile {
    /// Writes the beginning of `bytes` past the page cache and returns how much of it. Nothing if that is not possible
    /// here; what is wrong with the file or the medium is then found out by writing as usual.
    fn write_direct(&self, bytes: &[u8], offset: u64) -> usize {
        let is_aligned = bytes.as_ptr().align_offset(ALIGNMENT) == 0
            && offset.is_multiple_of(ALIGNMENT as u64)
            && ALIGNMENT <= bytes.len();
        if !is_aligned {
            return 0;
        }
        let Some(file) = self.direct.get_or_init(|| reopen_direct(&self.file).ok()) else {
            return 0;
        };
        let whole_blocks = bytes.len() - bytes.len() % ALIGNMENT;
        let mut written = 0;
        while written < whole_blocks {
            match file.write_at(&bytes[written..whole_blocks], offset + written as u64) {
                Ok(count) if 0 < count => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        written
    }
}

impl VfsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_bulk_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.write_direct(bytes, offset);
        self.write_all_at(&bytes[written..], offset + written as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if fallocate(&self.file, FallocateFlags::empty(), 0, len)? {
            return Ok(());
        }
        // No such call here: what is written takes space too.
        write_noise(len, |bytes, offset| self.write_all_at(bytes, offset))
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 || fallocate(&self.file, FallocateFlags::empty(), offset, len)? {
            return Ok(());
        }
        write_zeros(len, |bytes, start| self.write_all_at(bytes, offset.saturating_add(start)))
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if len != 0 {
            let _nothing_is_lost_without = fallocate(&self.file, flags, offset, len)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self, mode: LockMode) -> io::Result<bool> {
        flock(&self.file, mode, false)
    }
}

/// A lock that lasts as long as its open file.
#[derive(Debug)]
struct RealLock {
    file: File,
}

impl VfsLock for RealLock {
    fn describe(&self, text: &str) -> io::Result<()> {
        // Written before it is cut, so that a reader never finds the file empty.
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(u64::try_from(text.len()).map_err(io::Error::other)?)
    }
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Returns the clock; its monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let milliseconds = |duration: Duration| i64::try_from(duration.as_millis());
        Timestamp(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => milliseconds(since).unwrap_or(i64::MAX),
            Err(before) => milliseconds(before.duration()).map_or(i64::MIN, |before| -before),
        })
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// If the kernel has no randomness: an identifier without it could be another's.
    fn fill(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let filled = match rustix::rand::getrandom(&mut *rest, GetRandomFlags::empty()) {
                Err(Errno::INTR) => 0,
                filled => filled.expect("Linux has had getrandom since 3.17"),
            };
            rest = &mut rest[filled..];
        }
    }
}

/// Returns who runs this process: host name, process id, and the command cut to 200 characters.
#[must_use]
pub fn identity() -> Identity {
    let mut arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    if let Some(program) = arguments.first_mut()
        && let Some((_, name)) = program.rsplit_once('/')
    {
        *program = name.to_owned();
    }
    Identity {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        process: std::process::id(),
        command: shortened(&arguments.join(" "), COMMAND_LEN_MAX),
    }
}

fn create_with_mode(path: &Path, mode: u32) -> io::Result<Box<dyn VfsFile>> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    Ok(Box::new(RealFile { file, direct: OnceLock::new() }))
}

/// Calls `fallocate`; `false` where there is no such call.
fn fallocate(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
    loop {
        match rustix::fs::fallocate(file, flags, offset, len) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Opens a regular file and nothing else: no symbolic link is followed, no pipe is waited for.
fn open_regular(path: &Path, writable: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(custom_flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
        .open(path)?;
    refuse_all_but_files(&file.metadata()?)?;
    Ok(file)
}

/// Opens an open file once more, for writing past the page cache. Its name is not looked at: it may be another file's. File systems
/// that cannot do it refuse it here, and without /proc there is no such way.
pub(crate) fn reopen_direct(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(custom_flags(OFlags::DIRECT)).open(path)
}

/// Refuses what is not a regular file.
fn refuse_all_but_files(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        Ok(())
    } else if metadata.is_dir() {
        Err(Errno::ISDIR.into())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Returns flags in the type that the standard library takes.
fn custom_flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("open flags of Linux fit in 31 bits")
}

/// Renames where the file system has no call that refuses to replace (NFS, some FUSE).
///
/// Between the check and the rename another process could create `to`, which would then be
/// replaced. The names that a store renames to are digests of the content or random, so that
/// whoever creates the same name at the same time writes the same bytes.
fn checked_rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(Errno::EXIST.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// Locks an open file; `false` if another open file description holds it and `wait` is not set.
fn flock(file: &File, mode: LockMode, wait: bool) -> io::Result<bool> {
    let operation = match (mode, wait) {
        (LockMode::Shared, true) => FlockOperation::LockShared,
        (LockMode::Shared, false) => FlockOperation::NonBlockingLockShared,
        (LockMode::Exclusive, true) => FlockOperation::LockExclusive,
        (LockMode::Exclusive, false) => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if !wait => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns one line of at most `len_max` characters.
fn shortened(text: &str, len_max: usize) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= len_max {
        return text.chars().map(printable).collect();
    }
    let kept = len_max.saturating_sub(3);
    text.chars().take(kept).map(printable).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_rename_refuses_a_taken_name() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        let error = checked_rename(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"old");
        fs::remove_file(&to).unwrap();
        checked_rename(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
    }

    #[test]
    fn symbolic_links_are_listed_as_other_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        fs::write(directory.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let vfs = RealVfs::new();
        let entries = vfs.list(directory.path()).unwrap();
        assert_eq!(entries[1], Entry { name: "link".to_owned(), kind: EntryKind::Other });
        assert!(vfs.open(&link, false).is_err());
        assert!(vfs.file_len(&link).is_err());
        assert!(vfs.lock(&link, LockMode::Shared, false).is_err());
    }

    #[test]
    fn names_that_are_not_utf_8_are_left_out() {
        use std::os::unix::ffi::OsStrExt;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
        assert_eq!(RealVfs::new().list(directory.path()).unwrap(), []);
    }

    #[test]
    fn new_files_and_directories_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let vfs = RealVfs::new();
        let [file, private, subdirectory] =
            ["file", "private", "directory"].map(|name| directory.path().join(name));
        drop(vfs.create_new(&file).unwrap());
        drop(vfs.create_private(&private).unwrap());
        vfs.create_dir(&subdirectory).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file) & !FILE_MODE, 0);
        assert_eq!(mode(&private) & !PRIVATE_MODE, 0);
        assert_eq!(mode(&subdirectory) & !DIRECTORY_MODE, 0);
    }

    #[test]
    fn pipe_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = RealVfs::new().open(&pipe, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn entropy_fills_every_byte() {
        let mut seen = [false; 64];
        for _ in 0..16 {
            let mut bytes = [0; 64];
            SystemEntropy.fill(&mut bytes);
            for (seen, byte) in seen.iter_mut().zip(bytes) {
                *seen |= byte != 0;
            }
        }
        assert_eq!(seen, [true; 64]);
    }

    #[test]
    fn clock_runs_forward_from_a_plausible_year() {
        let clock = SystemClock::new();
        let first = clock.monotonic();
        assert!(first <= clock.monotonic());
        assert!(Timestamp(1_700_000_000_000) < clock.now());
    }

    #[test]
    fn command_is_one_line_of_bounded_length() {
        assert_eq!(shortened("backy\nbackup", 20), "backy backup");
        assert_eq!(shortened("0123456789", 10), "0123456789");
        assert_eq!(shortened("0123456789a", 10), "0123456...");
        assert!(identity().command.chars().count() <= COMMAND_LEN_MAX);
        assert_eq!(identity().process, std::process::id());
    }
}
