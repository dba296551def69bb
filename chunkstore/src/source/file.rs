//! An image file or a block device as a source.
//!
//! Invariants: the source is opened for reading only; opening never blocks; every byte that is handed over was read, or
//! lies in a hole that the file system names.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;

use super::{Source, SourceError, append_cleared};
use crate::limits::IMAGE_LEN_MAX;

/// Lengths in bytes of the reads that are tried again after a read error: a smaller one may get by with what
/// the device can still read.
const RETRY_LENS: [usize; 3] = [64 << 10, 4 << 10, 4 << 10];

/// An image file or a block device.
#[derive(Debug)]
pub struct FileSource {
    name: String,
    file: File,
    len: u64,
    /// What the file system said when the file was opened.
    metadata: Metadata,
    failed_reads: Mutex<FailedReads>,
}

/// Reads that gave an I/O error. Where one of them did not succeed in the end, there is an error to tell.
#[derive(Debug, Default)]
struct FailedReads {
    count: u64,
    /// The lowest place of them.
    first: u64,
}

impl FileSource {
    /// Opens a regular file or a block device.
    ///
    /// # Errors
    ///
    /// - [`SourceError::Open`] if it cannot be opened.
    /// - [`SourceError::NotAnImage`] if it is something else; a FIFO is not waited for.
    /// - [`SourceError::TooLarge`] if it is longer than [`IMAGE_LEN_MAX`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let cannot_open = |source| SourceError::Open { name: name.clone(), source };
        let refuse_others = |metadata: &Metadata| match describe_no_image(metadata.file_type()) {
            Some(found) => Err(SourceError::NotAnImage { name: name.clone(), found }),
            None => Ok(()),
        };
        // Opening alone can have effects (a tape rewinds), so the type is looked at before, and again after in
        // case that the name was given to something else meanwhile.
        refuse_others(&fs::metadata(path).map_err(cannot_open)?)?;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(cannot_open)?;
        let metadata = file.metadata().map_err(cannot_open)?;
        refuse_others(&metadata)?;
        let len = size_of(&file).map_err(cannot_open)?;
        if len > IMAGE_LEN_MAX {
            return Err(SourceError::TooLarge { name, len, len_max: IMAGE_LEN_MAX });
        }
        // A hint to the kernel; without it the source is read as well.
        let _hinted = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self { name, file, len, metadata, failed_reads: Mutex::default() })
    }

    fn read_error(&self, offset: u64, len: u64, source: io::Error) -> SourceError {
        SourceError::Read { name: self.name.clone(), offset, len, source }
    }

    fn note_failure(&self, error: &io::Error, offset: u64) {
        if Errno::from_io_error(error) == Some(Errno::IO) {
            let mut failed = self.failed_reads.lock().unwrap_or_else(PoisonError::into_inner);
            failed.first = if failed.count == 0 { offset } else { failed.first.min(offset) };
            failed.count += 1;
        }
    }

    /// Returns what a person should know of reads that failed before they succeeded: a disk may do that before it fails.
    fn failed_reads_warning(&self) -> Option<String> {
        let failed = self.failed_reads.lock().unwrap_or_else(PoisonError::into_inner);
        let FailedReads { count, first } = *failed;
        let (name, error) = (&self.name, io::Error::from(Errno::IO));
        match count {
            0 => None,
            1 => Some(format!(
                "a read at byte {first} of source {name} failed, and succeeded when it was tried again: {error}"
            )),
            _ => Some(format!(
                "{count} reads of source {name} failed, the lowest at byte {first}, and succeeded when they were tried \
                 again: {error}"
            )),
        }
    }

    fn size_changed(&self, found: u64) -> SourceError {
        SourceError::SizeChanged { name: self.name.clone(), expected: self.len, found }
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        if offset >= self.len {
            return Ok(None);
        }
        let rest = offset..self.len;
        if !self.metadata.is_file() {
            return Ok(Some(rest));
        }
        // These seeks take absolute places and return what they found, and all reads say where: threads that
        // seek in the same open file do not disturb each other.
        let seek = |place| rustix::fs::seek(&self.file, place);
        let start = match seek(rustix::fs::SeekFrom::Data(offset)) {
            Ok(start) if start >= self.len => return Ok(None),
            Ok(start) => start,
            // No data up to the end. If that is so because the file was cut, `finish` finds it out.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Some(rest)),
            Err(error) => return Err(self.read_error(offset, self.len - offset, error.into())),
        };
        // Whatever goes wrong in the search for the end: reading holes is right as well.
        let end = seek(rustix::fs::SeekFrom::Hole(start)).unwrap_or(self.len);
        if end <= start { Ok(Some(start..self.len)) } else { Ok(Some(start..end.min(self.len))) }
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let result = read_fully(buffer, offset, |buffer, offset| {
            let result = self.file.read_at(buffer, offset);
            result.inspect_err(|error| self.note_failure(error, offset))
        });
        result.map_err(|failure| match failure.cause {
            Some(cause) => self.read_error(failure.offset, failure.len, cause),
            None => match size_of(&self.file) {
                Ok(found) if found != self.len => self.size_changed(found),
                _ => self.size_changed(failure.offset),
            },
        })
    }

    fn append_at(
        &self,
        buffer: &mut Vec<u8>,
        len_max: usize,
        offset: u64,
    ) -> Result<(), SourceError> {
        let start = buffer.len();
        if start < buffer.capacity() {
            match rustix::io::pread(&self.file, spare_capacity(buffer), offset) {
                Ok(count) if 0 < count => {
                    buffer.truncate(start.saturating_add(len_max));
                    return Ok(());
                }
                // The end of the source, or an error: the other way tries again and says what is wrong.
                Ok(_) => {}
                Err(error) => self.note_failure(&error.into(), offset),
            }
        }
        append_cleared(buffer, len_max, |bytes| self.read_exact_at(bytes, offset))
    }

    fn finish(&self) -> Result<Vec<String>, SourceError> {
        let cannot_tell = |source| self.read_error(0, self.len, source);
        let found = size_of(&self.file).map_err(cannot_tell)?;
        if found != self.len {
            return Err(self.size_changed(found));
        }
        let metadata = self.file.metadata().map_err(cannot_tell)?;
        let changed = metadata.is_file() && last_change(&metadata) != last_change(&self.metadata);
        let warning = || {
            format!(
                "source {} was changed while it was read: the revision may mix two states of it",
                self.name
            )
        };
        Ok(self.failed_reads_warning().into_iter().chain(changed.then(warning)).collect())
    }
}

/// Returns what a file is, if it is neither a regular file nor a block device.
pub(crate) fn describe_no_image(file_type: FileType) -> Option<&'static str> {
    if file_type.is_file() || file_type.is_block_device() {
        None
    } else if file_type.is_dir() {
        Some("a directory")
    } else if file_type.is_fifo() {
        Some("a FIFO")
    } else if file_type.is_socket() {
        Some("a socket")
    } else if file_type.is_char_device() {
        Some("a character device")
    } else {
        Some("of unknown type")
    }
}

/// Returns the size in bytes of a regular file or a block device; the file system knows only the former.
pub(crate) fn size_of(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

fn last_change(metadata: &Metadata) -> [i64; 4] {
    [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

/// Where and why a read ended early.
#[derive(Debug)]
struct ReadFailure {
    offset: u64,
    /// Bytes that were still to be read.
    len: u64,
    /// What the operating system said; nothing at the end of the source.
    cause: Option<io::Error>,
}

/// Fills `buffer` by calls of `read_at`. At a place that gives an I/O error, smaller reads are tried.
fn read_fully(
    buffer: &mut [u8],
    mut offset: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> Result<(), ReadFailure> {
    let mut rest = buffer;
    let mut retry_lens = RETRY_LENS.iter();
    let mut read_len = usize::MAX;
    while !rest.is_empty() {
        let part_len = rest.len().min(read_len);
        let cause = match read_at(&mut rest[..part_len], offset) {
            Ok(0) => None,
            Ok(count) => {
                rest = &mut rest[count..];
                offset += count as u64;
                retry_lens = RETRY_LENS.iter();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Some(error),
        };
        let is_io_error =
            cause.as_ref().is_some_and(|error| Errno::from_io_error(error) == Some(Errno::IO));
        match retry_lens.next() {
            Some(retry_len) if is_io_error => read_len = *retry_len,
            _ => return Err(ReadFailure { offset, len: rest.len() as u64, cause }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const KIB: usize = 1 << 10;

    fn image(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn io_error() -> io::Error {
        Errno::IO.into()
    }

    #[test]
    fn file_is_read_at_any_place() {
        let file = image(b"0123456789");
        let source = FileSource::open(file.path()).unwrap();
        let mut buffer = [0; 4];
        source.read_exact_at(&mut buffer, 6).unwrap();
        assert_eq!((&buffer, source.len()), (b"6789", 10));
        assert_eq!(source.finish().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn bytes_are_appended_up_to_the_capacity_and_the_limit() {
        let file = image(b"0123456789");
        let source = FileSource::open(file.path()).unwrap();
        let mut buffer = Vec::with_capacity(5);
        buffer.push(b'-');
        source.append_at(&mut buffer, 100, 2).unwrap();
        assert_eq!((buffer.as_slice(), buffer.capacity()), (b"-2345".as_slice(), 5));
        source.append_at(&mut buffer, 3, 0).unwrap();
        assert_eq!(&buffer[..6], b"-23450", "at least one byte, whatever the capacity");
        let mut buffer = Vec::with_capacity(100);
        source.append_at(&mut buffer, 3, 1).unwrap();
        assert_eq!(buffer, b"123");
        source.append_at(&mut buffer, 100, 10).unwrap_err();
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn holes_are_found() {
        let file = image(b"");
        file.as_file().set_len(1 << 20).unwrap();
        file.as_file().write_all_at(&[1; 4096], 512 << 10).unwrap();
        let source = FileSource::open(file.path()).unwrap();
        let data = source.next_data(0).unwrap().unwrap();
        assert!(data.start <= 512 << 10 && (512 << 10) + 4096 <= data.end, "{data:?}");
        if data.start == 0 {
            println!("SKIPPED: the file system of {} has no holes", file.path().display());
            return;
        }
        assert_eq!(source.next_data(data.start + 5).unwrap(), Some(data.start + 5..data.end));
        assert_eq!(source.next_data(data.end).unwrap(), None);
        assert_eq!(source.next_data(5 << 20).unwrap(), None);
    }

    #[test]
    fn empty_file_has_no_data() {
        let file = image(b"");
        let source = FileSource::open(file.path()).unwrap();
        assert!(source.is_empty());
        assert_eq!(source.next_data(0).unwrap(), None);
    }

    #[test]
    fn what_is_no_image_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        let paths = [directory.path(), &fifo, Path::new("/dev/zero")];
        for (path, kind) in paths.into_iter().zip(["a directory", "a FIFO", "a character device"]) {
            let error = FileSource::open(path).unwrap_err();
            assert!(matches!(error, SourceError::NotAnImage { found, .. } if found == kind));
        }
        let missing = FileSource::open(&directory.path().join("missing")).unwrap_err();
        assert!(matches!(missing, SourceError::Open { .. }));
    }

    #[test]
    fn changed_size_is_an_error() {
        let file = image(&[1; 100]);
        let source = FileSource::open(file.path()).unwrap();
        file.as_file().set_len(40).unwrap();
        let changed =
            |error| matches!(error, SourceError::SizeChanged { expected: 100, found: 40, .. });
        assert!(changed(source.read_exact_at(&mut [0; 60], 10).unwrap_err()));
        assert!(changed(source.finish().unwrap_err()));
        file.as_file().set_len(101).unwrap();
        assert!(matches!(source.finish(), Err(SourceError::SizeChanged { found: 101, .. })));
    }

    #[test]
    fn change_while_reading_is_a_warning() {
        let file = image(&[1; 100]);
        let source = FileSource::open(file.path()).unwrap();
        let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        file.as_file().set_modified(later).unwrap();
        assert_eq!(source.finish().unwrap().len(), 1);
    }

    #[test]
    fn reads_that_failed_are_told_with_their_place() {
        let file = image(&[1; 100]);
        let source = FileSource::open(file.path()).unwrap();
        source.note_failure(&Errno::INTR.into(), 7);
        assert_eq!(source.finish().unwrap(), Vec::<String>::new());
        let told = |offset| {
            source.note_failure(&io_error(), offset);
            source.finish().unwrap().remove(0)
        };
        let name = file.path().display().to_string();
        let first = told(50);
        assert!(
            first.starts_with(&format!("a read at byte 50 of source {name} failed")),
            "{first}"
        );
        told(20);
        let third = told(80);
        let expected = format!("3 reads of source {name} failed, the lowest at byte 20");
        assert!(third.starts_with(&expected), "{third}");
    }

    #[test]
    fn failing_place_is_read_again_in_small_parts() {
        let mut buffer = vec![0; 256 * KIB];
        let mut failures = 0;
        let result = read_fully(&mut buffer, 1000, |part, offset| {
            let bad = (1000 + 100 * KIB as u64..).contains(&offset) && failures < 3;
            if bad {
                failures += 1;
                return Err(io_error());
            }
            let len = if failures == 0 { 100 * KIB } else { part.len() };
            part[..len].fill(7);
            Ok(len)
        });
        result.unwrap();
        assert_eq!(failures, 3);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn place_that_stays_bad_is_named() {
        let mut lens = Vec::new();
        let failure = read_fully(&mut vec![0; 256 * KIB], 5, |part, _| {
            lens.push(part.len());
            Err(io_error())
        })
        .unwrap_err();
        assert_eq!((failure.offset, failure.len), (5, 256 * KIB as u64));
        assert!(failure.cause.is_some());
        assert_eq!(lens, [256 * KIB, 64 * KIB, 4 * KIB, 4 * KIB]);
    }

    #[test]
    fn other_errors_are_not_tried_again_and_interruptions_are() {
        let mut calls = 0;
        let failure = read_fully(&mut [0; 10], 0, |_, _| {
            calls += 1;
            Err(if calls == 1 { Errno::INTR.into() } else { Errno::BADF.into() })
        })
        .unwrap_err();
        assert!(failure.cause.is_some());
        assert_eq!(calls, 2);
    }
}
