//! A file or a block device as a target.
//!
//! A new file is written under a temporary name beside its own, which it gets when it is complete and
//! durable; until then it is removed if the target is dropped. An existing file or device is written in place.
//! Invariants: nothing that exists is written to unless the options permit it; a name is never taken from
//! another file; a device that somebody uses is not opened.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Advice, CWD, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::direct::DirectFile;
use super::stream::first_zeros;
use super::{Target, TargetError};
use crate::source::{describe_no_image, size_of};

/// How zeros are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// As holes in files; on devices they are written.
    #[default]
    Auto,
    /// As holes in files, and by discarding on devices that promise to read zeros after it.
    Always,
    /// They are written like other bytes, so that all space is taken.
    Never,
}

/// How a [`FileTarget`] is opened.
#[derive(Clone, Debug, Default)]
pub struct FileTargetOptions {
    /// Whether an existing file or device may be overwritten.
    pub overwrite: bool,
    /// How zeros are written.
    pub sparse: Sparse,
}

/// A new file, an existing file, or a block device.
#[derive(Debug)]
pub struct FileTarget {
    name: String,
    file: File,
    direct: DirectFile,
    place: Place,
    sparse: Sparse,
    /// Whether something was written since the last sync.
    is_dirty: AtomicBool,
    /// Held by who makes durable what is to be read back: nobody else reads before that is done.
    read_back_turn: Mutex<()>,
    /// Whether a sync failed. What it should have made durable may be lost although the next sync
    /// succeeds, so there is no next one.
    is_broken: AtomicBool,
}

#[derive(Debug)]
enum Place {
    NewFile(PartialFile),
    ExistingFile,
    Device,
}

impl FileTarget {
    /// Opens a target; `path` may not exist yet. Nothing is changed but that a new file, readable by its owner
    /// only, gets its temporary name.
    ///
    /// # Errors
    ///
    /// - [`TargetError::Exists`] if there is something and `overwrite` is not set.
    /// - [`TargetError::NotAnImage`] if it is neither a regular file nor a block device.
    /// - [`TargetError::InUse`] if it is a device that is mounted or held by somebody else.
    /// - [`TargetError::Io`] if it cannot be opened or created.
    pub fn open(path: &Path, options: &FileTargetOptions) -> Result<Self, TargetError> {
        let name = path.display().to_string();
        let io_error = |action, source| TargetError::Io { action, name: name.clone(), source };
        let (file, place) = match fs::metadata(path) {
            Ok(metadata) => {
                if let Some(found) = describe_no_image(metadata.file_type()) {
                    return Err(TargetError::NotAnImage { name, found });
                }
                if !options.overwrite {
                    return Err(TargetError::Exists { name });
                }
                let is_device = !metadata.is_file();
                let file = open_existing(path, is_device).map_err(|error| match error {
                    Errno::BUSY => TargetError::InUse { name: name.clone() },
                    _ => io_error("open", error.into()),
                })?;
                let opened = file.metadata().map_err(|source| io_error("open", source))?;
                if opened.file_type() != metadata.file_type() {
                    return Err(TargetError::InUse { name });
                }
                (file, if is_device { Place::Device } else { Place::ExistingFile })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A symbolic link to nothing is a name that is taken.
                if fs::symlink_metadata(path).is_ok() {
                    return Err(TargetError::Exists { name });
                }
                let (partial, file) =
                    PartialFile::create(path).map_err(|source| io_error("create", source))?;
                (file, Place::NewFile(partial))
            }
            Err(source) => return Err(io_error("open", source)),
        };
        Ok(Self {
            name,
            direct: DirectFile::open(&file),
            file,
            place,
            sparse: options.sparse,
            is_dirty: AtomicBool::new(false),
            read_back_turn: Mutex::new(()),
            is_broken: AtomicBool::new(false),
        })
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> TargetError {
        TargetError::Io { action, name: self.name.clone(), source }
    }

    /// Makes durable what was written.
    fn sync(&self) -> Result<(), TargetError> {
        if self.is_broken.load(Ordering::Acquire) {
            return Err(self.io_error("sync", io::Error::other("it failed before")));
        }
        self.direct.flush(&self.file).map_err(|source| self.io_error("write", source))?;
        self.file.sync_all().map_err(|source| {
            self.is_broken.store(true, Ordering::Release);
            self.io_error("sync", source)
        })
    }

    /// Returns whether ranges of zeros become holes.
    fn punches_holes(&self) -> bool {
        match (&self.place, self.sparse) {
            (_, Sparse::Never) | (Place::Device, Sparse::Auto) => false,
            (Place::NewFile(_) | Place::ExistingFile, _) | (Place::Device, Sparse::Always) => true,
        }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        let end = offset.saturating_add(len);
        let mut place = offset;
        while place < end {
            let part = first_zeros(end - place);
            self.write_all_at(part, place)?;
            place += part.len() as u64;
        }
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.is_dirty.store(true, Ordering::Release);
        rustix::fs::fallocate(&self.file, flags, offset, len)
    }
}

impl Target for FileTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, len: u64) -> Result<(), TargetError> {
        if matches!(self.place, Place::Device) {
            let target_len =
                size_of(&self.file).map_err(|source| self.io_error("measure", source))?;
            if target_len < len {
                let name = self.name.clone();
                return Err(TargetError::TooSmall { name, target_len, image_len: len });
            }
            return Ok(());
        }
        self.is_dirty.store(true, Ordering::Release);
        self.file.set_len(len).map_err(|source| self.io_error("set the length of", source))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        self.is_dirty.store(true, Ordering::Release);
        self.direct
            .write_all_at(&self.file, bytes, offset)
            .map_err(|source| self.io_error("write", source))
    }

    fn reserve(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        if matches!(self.place, Place::Device) || len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                Err(self.io_error("take space in", error.into()))
            }
            // Not every file system can. Then it is found out by writing.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        if matches!(self.place, Place::NewFile(_)) && self.punches_holes() {
            // It was empty when it got its length, and each range comes once: here is a hole.
            return Ok(());
        }
        // Whatever the reason for which there can be no hole: zeros can be written instead.
        if self.punches_holes() && len != 0 && self.punch_hole(offset, len).is_ok() {
            return Ok(());
        }
        self.write_zeros(offset, len)
    }

    fn read_current_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, TargetError> {
        if matches!(self.place, Place::NewFile(_)) {
            return Ok(false);
        }
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            // A place that cannot be read may well be written.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(false),
            Err(source) => Err(self.io_error("read", source)),
        }
    }

    fn makes_holes(&self) -> bool {
        self.punches_holes() && !matches!(self.place, Place::Device)
    }

    fn finish(&self) -> Result<(), TargetError> {
        self.sync()?;
        let Place::NewFile(partial) = &self.place else {
            return Ok(());
        };
        partial.rename().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => TargetError::Exists { name: self.name.clone() },
            _ => self.io_error("rename", source),
        })?;
        partial.sync_directory().map_err(|source| self.io_error("sync the directory of", source))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError> {
        let turn = self.read_back_turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_dirty.swap(false, Ordering::AcqRel) {
            self.sync()?;
        }
        drop(turn);
        // What is read shall come from the medium. The kernel is free to ignore it, and some file systems do.
        let len = std::num::NonZero::new(buffer.len() as u64);
        let _dropped = rustix::fs::fadvise(&self.file, offset, len, Advice::DontNeed);
        self.file.read_exact_at(buffer, offset).map_err(|source| self.io_error("read back", source))
    }
}

/// Opens a file or device that exists. Nobody else can hold a device exclusively at the same time: mounts,
/// volume managers and swap do.
fn open_existing(path: &Path, is_device: bool) -> Result<File, Errno> {
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if is_device {
        flags |= OFlags::EXCL;
    }
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

/// A new file under a temporary name. Removed when dropped, unless it got its own name.
#[derive(Debug)]
struct PartialFile {
    path: PathBuf,
    partial_path: PathBuf,
    is_renamed: AtomicBool,
}

impl PartialFile {
    fn create(path: &Path) -> io::Result<(Self, File)> {
        let not_a_name =
            || io::Error::new(io::ErrorKind::InvalidInput, "it does not end in a name");
        let file_name = path.file_name().ok_or_else(not_a_name)?;
        let mut attempt = 0_u32;
        loop {
            let partial_path = path.with_file_name(partial_name(file_name, attempt));
            // An image may hold anything, so it is for its owner to say who else reads it.
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            match options.open(&partial_path) {
                Ok(file) => {
                    let is_renamed = AtomicBool::new(false);
                    return Ok((Self { path: path.to_owned(), partial_path, is_renamed }, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file its own name, if that is still free.
    fn rename(&self) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(CWD, &self.partial_path, CWD, &self.path, flags) {
            Ok(()) => {}
            // Not all file systems can do that, but a link never replaces anything either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(&self.partial_path, &self.path)?;
                fs::remove_file(&self.partial_path)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.is_renamed.store(true, Ordering::Release);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_renamed.load(Ordering::Acquire) {
            // Nobody is left to tell if it fails; the name says what the file is.
            let _removed = fs::remove_file(&self.partial_path);
        }
    }
}

/// Returns `.<name>.<process>-<attempt>.partial`, without the name where that would be too long.
fn partial_name(file_name: &OsStr, attempt: u32) -> OsString {
    let shown = if file_name.len() <= 200 { file_name } else { OsStr::new("image") };
    let mut name = OsString::from(".");
    name.push(shown);
    name.push(format!(".{}-{attempt}.partial", std::process::id()));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{FileSource, Source};
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    const OVERWRITE: FileTargetOptions =
        FileTargetOptions { overwrite: true, sparse: Sparse::Auto };
    const LEN: u64 = 3 << 20;

    /// Writes 1 MiB of 7, then 2 MiB of zeros less 5 bytes, then 5 bytes.
    fn restore(target: &FileTarget) {
        target.prepare(LEN).unwrap();
        target.zero_at(1 << 20, (2 << 20) - 5).unwrap();
        target.write_all_at(b"tails", LEN - 5).unwrap();
        target.write_all_at(&[7; 1 << 20], 0).unwrap();
    }

    fn expected() -> Vec<u8> {
        let mut image = vec![7; 1 << 20];
        image.resize((3 << 20) - 5, 0);
        image.extend_from_slice(b"tails");
        image
    }

    fn names_in(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn new_file_gets_its_name_when_it_is_complete() {
        for sparse in [Sparse::Auto, Sparse::Always, Sparse::Never] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("image");
            let options = FileTargetOptions { overwrite: false, sparse };
            let target = FileTarget::open(&path, &options).unwrap();
            restore(&target);
            assert!(!path.exists());
            target.finish().unwrap();
            drop(target);
            assert_eq!(names_in(directory.path()), ["image"]);
            assert!(fs::read(&path).unwrap() == expected());
            let len_on_disk = fs::metadata(&path).unwrap().blocks() * 512;
            assert_eq!(len_on_disk >= LEN, sparse == Sparse::Never, "{sparse:?}: {len_on_disk}");
        }
    }

    #[test]
    fn unfinished_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n".repeat(255));
        let target = FileTarget::open(&path, &FileTargetOptions::default()).unwrap();
        restore(&target);
        assert_eq!(names_in(directory.path()).len(), 1);
        drop(target);
        assert!(names_in(directory.path()).is_empty());
    }

    #[test]
    fn name_that_was_taken_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let target = FileTarget::open(&path, &OVERWRITE).unwrap();
        restore(&target);
        fs::write(&path, "somebody else's").unwrap();
        assert!(matches!(target.finish(), Err(TargetError::Exists { .. })));
        drop(target);
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
        assert_eq!(names_in(directory.path()), ["image"]);
    }

    #[test]
    fn threads_that_read_back_see_all_that_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        fs::write(&path, [0; 8193]).unwrap();
        let target = FileTarget::open(&path, &OVERWRITE).unwrap();
        for turn in 1..50 {
            // A part of a block is kept back until the sync.
            target.write_all_at(&[turn], 8192).unwrap();
            let barrier = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut found = [0];
                        barrier.wait();
                        target.read_exact_at(&mut found, 8192).unwrap();
                        assert_eq!(found, [turn]);
                    });
                }
            });
        }
    }

    #[test]
    fn two_restores_to_one_name_do_not_share_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let first = FileTarget::open(&path, &OVERWRITE).unwrap();
        let second = FileTarget::open(&path, &OVERWRITE).unwrap();
        restore(&first);
        second.prepare(1).unwrap();
        first.finish().unwrap();
        assert!(matches!(second.finish(), Err(TargetError::Exists { .. })));
        assert!(fs::read(&path).unwrap() == expected());
    }

    #[test]
    fn existing_file_is_overwritten_only_if_permitted() {
        for (old_len, sparse) in
            [(0, Sparse::Auto), (5 << 20, Sparse::Auto), (4 << 20, Sparse::Never)]
        {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("image");
            fs::write(&path, vec![0xff; old_len]).unwrap();
            let refused = FileTarget::open(&path, &FileTargetOptions::default());
            assert!(matches!(refused, Err(TargetError::Exists { .. })));
            assert_eq!(fs::metadata(&path).unwrap().len(), old_len as u64);
            let options = FileTargetOptions { overwrite: true, sparse };
            let target = FileTarget::open(&path, &options).unwrap();
            restore(&target);
            target.finish().unwrap();
            assert!(fs::read(&path).unwrap() == expected());
            assert_eq!(names_in(directory.path()), ["image"]);
        }
    }

    #[test]
    fn written_bytes_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let target = FileTarget::open(&path, &FileTargetOptions::default()).unwrap();
        restore(&target);
        let mut tail = [1; 10];
        target.read_exact_at(&mut tail, LEN - 10).unwrap();
        assert_eq!(&tail, b"\0\0\0\0\0tails");
        let behind = target.read_exact_at(&mut tail, LEN - 9);
        assert!(matches!(behind, Err(TargetError::Io { action: "read back", .. })));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        for path in [directory.path(), &fifo, Path::new("/dev/null")] {
            let result = FileTarget::open(path, &OVERWRITE);
            assert!(matches!(result, Err(TargetError::NotAnImage { .. })), "{result:?}");
        }
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        let result = FileTarget::open(&dangling, &OVERWRITE);
        assert!(matches!(result, Err(TargetError::Exists { .. })));
        let result = FileTarget::open(&directory.path().join("no/image"), &OVERWRITE);
        assert!(matches!(result, Err(TargetError::Io { action: "create", .. })));
    }

    /// A block device in a file. Detached when dropped.
    struct LoopDevice {
        path: PathBuf,
        _file: tempfile::NamedTempFile,
    }

    impl LoopDevice {
        /// Returns a device of `len` bytes 0xff, or says why there is none.
        fn attach(len: usize) -> Result<Self, String> {
            if !rustix::process::geteuid().is_root() {
                return Err("a loop device needs root".to_owned());
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), vec![0xff; len]).unwrap();
            let output =
                Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output();
            match output {
                Ok(output) if output.status.success() => {
                    let path = String::from_utf8(output.stdout).unwrap().trim().into();
                    Ok(Self { path, _file: file })
                }
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                Err(error) => Err(format!("losetup: {error}")),
            }
        }

        fn bytes(&self) -> Vec<u8> {
            fs::read(&self.path).unwrap()
        }
    }

    impl Drop for LoopDevice {
        fn drop(&mut self) {
            let status = Command::new("losetup").arg("--detach").arg(&self.path).status();
            assert!(status.unwrap().success() || std::thread::panicking());
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn block_device_is_overwritten_exactly() {
        for sparse in [Sparse::Auto, Sparse::Always, Sparse::Never] {
            let device = match LoopDevice::attach(4 << 20) {
                Ok(device) => device,
                Err(reason) => return println!("SKIPPED: {reason}"),
            };
            let refused = FileTarget::open(&device.path, &FileTargetOptions::default());
            assert!(matches!(refused, Err(TargetError::Exists { .. })));
            let options = FileTargetOptions { overwrite: true, sparse };
            let target = FileTarget::open(&device.path, &options).unwrap();
            let second = FileTarget::open(&device.path, &options);
            assert!(matches!(second, Err(TargetError::InUse { .. })), "{second:?}");
            restore(&target);
            let mut read_back = vec![1; 3 << 20];
            target.read_exact_at(&mut read_back, 0).unwrap();
            assert!(read_back == expected());
            target.finish().unwrap();
            drop(target);
            let source = FileSource::open(&device.path).unwrap();
            assert_eq!(source.next_data(5).unwrap(), Some(5..4 << 20));
            source.read_exact_at(&mut read_back, 0).unwrap();
            assert!(read_back == expected());
            let bytes = device.bytes();
            assert!(bytes[..3 << 20] == expected());
            assert!(bytes[3 << 20..].iter().all(|byte| *byte == 0xff));
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn device_that_is_too_small_is_left_alone() {
        let device = match LoopDevice::attach(2 << 20) {
            Ok(device) => device,
            Err(reason) => return println!("SKIPPED: {reason}"),
        };
        let target = FileTarget::open(&device.path, &OVERWRITE).unwrap();
        let result = target.prepare((2 << 20) + 1);
        assert!(matches!(
            result,
            Err(TargetError::TooSmall { target_len: 0x20_0000, image_len: 0x20_0001, .. })
        ));
        drop(target);
        assert!(device.bytes().iter().all(|byte| *byte == 0xff));
    }
}
