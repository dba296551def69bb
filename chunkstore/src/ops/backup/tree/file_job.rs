//! One file: whether it has changed, and its chunks.

use std::ops::ControlFlow;

use super::merge::Task;
use super::{BackupError, FileProblem, TreeCounts, TreeRun};
use crate::chunk_reader::ChunkReader;
use crate::error::{Error, Result};
use crate::format::{BackupStatistics, FileMetadata, ObjectKind, PageEntry, TreeEntry, TreePath};
use crate::id::ChunkId;
use crate::limits::TREE_PAGE_LEN_MAX;
use crate::ops::backup::chunk_writer::Worker;
use crate::source::{FileError, FilePiece, FileStatus};
use crate::time::Timestamp;
use crate::tree_reader::check_len;

/// A file that was changed so many milliseconds before it was read, or less, may be changed again without other times: file systems
/// count in ticks of up to 2 seconds (FAT), usually 4 milliseconds.
const SETTLED_AFTER_MILLISECONDS: i64 = 2000;

/// Content entries of one file: its entry must fit into a page.
const CONTENT_COUNT_MAX: usize = TREE_PAGE_LEN_MAX / 40;

/// What has become of one file.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) entry: Option<TreeEntry>,
    pub(super) counts: TreeCounts,
    pub(super) problem: Option<FileProblem>,
}

/// What one worker needs for its files.
pub(super) struct FileJob<'a> {
    run: &'a TreeRun<'a>,
    /// `None`: nothing is stored, only compared.
    worker: Option<Worker<'a>>,
    reader: ChunkReader,
    plain: Vec<u8>,
    read_bytes: u64,
}

impl<'a> FileJob<'a> {
    pub(super) fn new(run: &'a TreeRun<'a>, worker: Option<Worker<'a>>) -> Self {
        let reader = ChunkReader::new(run.store);
        Self { run, worker, reader, plain: Vec::new(), read_bytes: 0 }
    }

    /// Does what is to be done with one path.
    pub(super) fn run(&mut self, task: Task) -> std::result::Result<Outcome, BackupError> {
        match task {
            Task::Carry(entry) => Ok(self.carry(entry)?),
            Task::Look { path, known } => self.look(path, known),
        }
    }

    /// Stores an encoded page.
    pub(super) fn store_page(&mut self, id: ChunkId, encoded: &[u8]) -> Result<()> {
        match &mut self.worker {
            Some(worker) => worker.store_chunk(ObjectKind::Page, id, encoded),
            None => Ok(()),
        }
    }

    /// Hands over what is left and adds to the statistics.
    pub(super) fn finish(self, statistics: &mut BackupStatistics) -> Result<()> {
        statistics.read_bytes += self.read_bytes;
        match self.worker {
            Some(worker) => worker.finish(statistics),
            None => Ok(()),
        }
    }

    fn look(
        &mut self,
        path: TreePath,
        known: Option<TreeEntry>,
    ) -> std::result::Result<Outcome, BackupError> {
        if !self.run.options.read_all
            && let Some(entry) = known.as_ref().filter(|entry| self.is_reliable(entry))
        {
            match self.run.source.status(&path) {
                Ok(status) if is_unchanged(entry, &status) => {
                    let counts = TreeCounts { files: 1, unchanged: 1, ..TreeCounts::default() };
                    self.reuse(entry);
                    return Ok(Outcome { entry: known, counts, problem: None });
                }
                Ok(_) => {}
                Err(error) => return Ok(self.fail(&path, known, error)?),
            }
        }
        match self.read(&path, known.as_ref())? {
            Err(error) => Ok(self.fail(&path, known, error)?),
            Ok((status, content)) => {
                let now = self.run.store.environment().clock.now();
                let mut counts = TreeCounts { files: 1, read: 1, ..TreeCounts::default() };
                let since = match &known {
                    Some(entry) if entry.content == content => {
                        counts.unchanged = 1;
                        entry.since
                    }
                    Some(_) => {
                        counts.changed = 1;
                        self.run.time
                    }
                    None => {
                        counts.new = 1;
                        self.run.time
                    }
                };
                let entry = TreeEntry {
                    path,
                    metadata: status.metadata,
                    since,
                    is_carried: false,
                    is_unsettled: is_unsettled(&status.metadata, now),
                    content,
                };
                Ok(Outcome { entry: Some(entry), counts, problem: None })
            }
        }
    }

    /// Returns whether the store is known to have all that an entry needs.
    fn is_reliable(&self, entry: &TreeEntry) -> bool {
        let parent = self.run.parent;
        let is_there = |part: &PageEntry| match part {
            PageEntry::Data { id, .. } => parent.is_reliable(id),
            PageEntry::Zero { .. } => true,
        };
        !parent.rewrites_all && entry.content.iter().all(is_there)
    }

    fn reuse(&mut self, entry: &TreeEntry) {
        let Some(worker) = &mut self.worker else { return };
        for part in &entry.content {
            if let PageEntry::Data { len, .. } = part {
                worker.reuse(u64::from(*len));
            }
        }
    }

    /// Reads a file and stores its chunks. The inner error is one of the file.
    fn read(
        &mut self,
        path: &TreePath,
        known: Option<&TreeEntry>,
    ) -> std::result::Result<std::result::Result<(FileStatus, Vec<PageEntry>), FileError>, Error>
    {
        let known = known.map_or(&[][..], |entry| &entry.content);
        let mut content = Vec::new();
        let mut failed = None;
        let (run, worker, read_bytes) = (self.run, &mut self.worker, &mut self.read_bytes);
        let mut take = |piece: FilePiece<'_>| {
            let taken = match piece {
                FilePiece::Again => {
                    content.clear();
                    Ok(())
                }
                FilePiece::Zeros { len } => {
                    push_zeros(&mut content, len);
                    *read_bytes += len;
                    Ok(())
                }
                FilePiece::Chunk { bytes, is_points } => {
                    *read_bytes += bytes.len() as u64;
                    run.progress.advance(bytes.len() as u64);
                    store_piece(run, worker.as_mut(), known, &mut content, bytes, is_points)
                }
            };
            match taken {
                Ok(()) if run.progress.is_cancelled() => {
                    failed = Some(Error::Cancelled);
                    ControlFlow::Break(())
                }
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let status = run.source.read(path, &mut take);
        match failed {
            Some(error) => Err(error),
            None if CONTENT_COUNT_MAX < content.len() => Ok(Err(FileError::Corrupt {
                reason: format!("it has {} chunks, more than a tree can list", content.len()),
            })),
            None => Ok(status.map(|status| (status, content))),
        }
    }

    /// Notes why a file was not read, and keeps what the revision before has of it, unless the file is gone.
    fn fail(
        &mut self,
        path: &TreePath,
        known: Option<TreeEntry>,
        error: FileError,
    ) -> Result<Outcome> {
        let text = path.to_string();
        let kept = match (known, &error) {
            (Some(entry), FileError::Vanished) => {
                let counts = TreeCounts { gone: 1, problems: 1, ..TreeCounts::default() };
                drop(entry);
                let problem = FileProblem { path: text, error, is_carried: false };
                return Ok(Outcome { entry: None, counts, problem: Some(problem) });
            }
            (Some(entry), _) => self.carry(entry)?,
            (None, _) => Outcome::default(),
        };
        let is_carried = kept.entry.is_some();
        let counts = TreeCounts { problems: 1, ..kept.counts };
        let problem = FileProblem { path: text, error, is_carried };
        Ok(Outcome { entry: kept.entry, counts, problem: Some(problem) })
    }

    /// Keeps what the revision before has of a file. Where the store is not known to have it, it is read from there and stored again.
    fn carry(&mut self, mut entry: TreeEntry) -> Result<Outcome> {
        entry.is_carried = true;
        if self.is_reliable(&entry) {
            self.reuse(&entry);
        } else if let Err(error) = self.store_again(&entry) {
            if !error.is_damage() {
                return Err(error);
            }
            let counts = TreeCounts { problems: 1, ..TreeCounts::default() };
            let reason = format!("it cannot be read from the store either: {error}");
            let error = FileError::Corrupt { reason };
            let problem = FileProblem { path: entry.path.to_string(), error, is_carried: false };
            return Ok(Outcome { entry: None, counts, problem: Some(problem) });
        }
        let counts = TreeCounts { files: 1, carried: 1, ..TreeCounts::default() };
        Ok(Outcome { entry: Some(entry), counts, problem: None })
    }

    fn store_again(&mut self, entry: &TreeEntry) -> Result<()> {
        let Some(worker) = &mut self.worker else { return Ok(()) };
        for part in &entry.content {
            let PageEntry::Data { id, len } = part else { continue };
            self.reader.read(ObjectKind::Data, id, None, &mut self.plain)?;
            check_len(id, *len, self.plain.len())?;
            worker.store_chunk(ObjectKind::Data, *id, &self.plain)?;
        }
        Ok(())
    }
}

/// Adds a chunk to the content of a file, and stores it unless the revision before has it in the same place.
fn store_piece(
    run: &TreeRun<'_>,
    worker: Option<&mut Worker<'_>>,
    known: &[PageEntry],
    content: &mut Vec<PageEntry>,
    bytes: &[u8],
    is_points: bool,
) -> Result<()> {
    let id = ObjectKind::Data.chunk_id(bytes);
    let len = u32::try_from(bytes.len())
        .map_err(|_| Error::Bug { what: format!("a chunk of {} bytes", bytes.len()) })?;
    let entry = PageEntry::Data { len, id };
    let is_known = known.get(content.len()) == Some(&entry) && run.parent.is_reliable(&id);
    content.push(entry);
    match worker {
        Some(worker) if is_known => worker.reuse(u64::from(len)),
        Some(worker) if is_points => worker.store_points(id, bytes)?,
        Some(worker) => worker.store_chunk(ObjectKind::Data, id, bytes)?,
        None => {}
    }
    Ok(())
}

fn push_zeros(content: &mut Vec<PageEntry>, more: u64) {
    match content.last_mut() {
        Some(PageEntry::Zero { len }) => *len += more,
        _ => content.push(PageEntry::Zero { len: more }),
    }
}

/// Returns whether length, times and inode say that the file still has the content of its entry.
fn is_unchanged(entry: &TreeEntry, status: &FileStatus) -> bool {
    !entry.is_carried
        && !entry.is_unsettled
        && entry.metadata == status.metadata
        && entry.len() == status.len
}

/// Returns whether a file was changed so shortly before `now`, or behind it, that its times cannot tell the next change.
fn is_unsettled(metadata: &FileMetadata, now: Timestamp) -> bool {
    let newest = metadata.modified_nanoseconds.max(metadata.changed_nanoseconds) / 1_000_000;
    now.0.saturating_sub(newest) < SETTLED_AFTER_MILLISECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_settled_two_seconds_after_its_last_change() {
        let metadata = FileMetadata {
            modified_nanoseconds: 5_000_000_000,
            changed_nanoseconds: 6_000_000_000,
            ..FileMetadata::default()
        };
        for (now, unsettled) in [(5_000, true), (6_000, true), (7_999, true), (8_000, false)] {
            assert_eq!(is_unsettled(&metadata, Timestamp(now)), unsettled, "{now}");
        }
    }

    #[test]
    fn zeros_in_a_row_are_one_entry() {
        let mut content = Vec::new();
        push_zeros(&mut content, 10);
        push_zeros(&mut content, 5);
        assert_eq!(content, [PageEntry::Zero { len: 15 }]);
    }
}
