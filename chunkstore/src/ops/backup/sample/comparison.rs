//! Compares what the store gives back with what the source has.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::{BackupError, Run};
use super::LOOKUP_COUNT;
use super::SampleStats;
use super::evidence::{EVIDENCE_COUNT_MAX, EVIDENCE_LEN_MAX, REPORT_COUNT_MAX};
use super::pick::Pick;
use crate::chunk_reader::{ChunkReader, to_usize};
use crate::chunking::is_zero;
use crate::error::Error;
use crate::format::{ObjectKind, PageEntry};
use crate::id::ChunkId;
use crate::image_reader::locate_entries;
use crate::parallel::on_threads;

/// Bytes of the source that are looked at at once where there should be zeros.
const PIECE_LEN: u64 = 64 << 10;

/// What was compared so far.
pub(super) struct Comparison<'a> {
    run: &'a Run<'a>,
    threads: NonZero<usize>,
    pub(super) stats: SampleStats,
    pub(super) differing: Differences,
}

/// Places where store and source differ.
#[derive(Debug, Default)]
pub(in crate::ops::backup) struct Differences {
    /// How many there are.
    pub(in crate::ops::backup) count: u64,
    /// The first that were found, at most [`REPORT_COUNT_MAX`] of them.
    pub(super) first: Vec<Difference>,
    /// Bytes of these that are kept.
    kept_len: usize,
}

impl Differences {
    pub(in crate::ops::backup) fn add(&mut self, mut difference: Difference) {
        self.count += 1;
        if REPORT_COUNT_MAX <= self.first.len() {
            return;
        }
        let len = difference.stored.bytes.len() + difference.found.bytes.len();
        if EVIDENCE_COUNT_MAX <= self.first.len() || EVIDENCE_LEN_MAX < self.kept_len + len {
            difference.stored.bytes = Vec::new();
            difference.found.bytes = Vec::new();
        } else {
            self.kept_len += len;
        }
        self.first.push(difference);
    }
}

/// A place where store and source differ.
#[derive(Debug)]
pub(in crate::ops::backup) struct Difference {
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) len: u64,
    pub(super) stored: Side,
    pub(super) found: Side,
}

/// Bytes, as far as they are kept, and their digest.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) id: ChunkId,
    pub(super) bytes: Vec<u8>,
}

impl Side {
    fn new(bytes: &[u8]) -> Self {
        Self { id: ObjectKind::Data.chunk_id(bytes), bytes: bytes.to_vec() }
    }
}

impl Difference {
    pub(in crate::ops::backup) fn new(offset: u64, stored: &[u8], found: &[u8]) -> Self {
        let len = found.len() as u64;
        Self { offset, len, stored: Side::new(stored), found: Side::new(found) }
    }
}

impl<'a> Comparison<'a> {
    pub(super) fn new(run: &'a Run<'a>, in_doubt: bool, threads: NonZero<usize>) -> Self {
        let stats = SampleStats { in_doubt, ..SampleStats::default() };
        Self { run, threads, stats, differing: Differences::default() }
    }

    /// Compares `picks`, on several threads.
    pub(super) fn add(&mut self, picks: &[Pick]) -> Result<(), BackupError> {
        picks.chunks(LOOKUP_COUNT).try_for_each(|picks| self.add_some(picks))
    }

    fn add_some(&mut self, picks: &[Pick]) -> Result<(), BackupError> {
        let entries: Vec<PageEntry> = picks.iter().map(|pick| pick.entry).collect();
        let locations = locate_entries(self.run.store, &entries)?;
        let next = AtomicUsize::new(0);
        let differing = Mutex::new(&mut self.differing);
        let run = self.run;
        let work = || {
            let mut reader = ChunkReader::new(run.store);
            let (mut plain, mut current) = (Vec::new(), Vec::new());
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let (Some(pick), Some(location)) = (picks.get(index), locations.get(index)) else {
                    return Ok(());
                };
                if run.progress.is_cancelled() {
                    return Err(BackupError::Store(Error::Cancelled));
                }
                let found = match &pick.entry {
                    PageEntry::Data { len, id } => {
                        reader.read(ObjectKind::Data, id, *location, &mut plain)?;
                        current.resize(to_usize(*len), 0);
                        run.source.read_exact_at(&mut current, pick.offset)?;
                        (plain != current).then(|| Difference::new(pick.offset, &plain, &current))
                    }
                    PageEntry::Zero { len } => {
                        first_data(run, pick.offset..pick.offset + len, &mut current)?
                    }
                };
                if let Some(difference) = found {
                    differing.lock().unwrap_or_else(PoisonError::into_inner).add(difference);
                }
            }
        };
        on_threads(Some(self.threads), picks.len(), work).into_iter().collect::<Result<(), _>>()?;
        self.stats.count += picks.len() as u64;
        self.stats.bytes += picks.iter().map(|pick| pick.entry.len()).sum::<u64>();
        Ok(())
    }
}

/// Returns the first piece of `range` of the source that is not zeros. Holes are not read.
fn first_data(
    run: &Run<'_>,
    range: Range<u64>,
    current: &mut Vec<u8>,
) -> Result<Option<Difference>, BackupError> {
    let mut place = range.start;
    while place < range.end
        && let Some(data) = run.source.next_data(place)?
    {
        place = data.start.max(place);
        let len = range.end.min(data.end).saturating_sub(place).min(PIECE_LEN);
        if len == 0 {
            break;
        }
        current.resize(usize::try_from(len).expect("it is at most 64 KiB"), 0);
        run.source.read_exact_at(current, place)?;
        if !is_zero(current) {
            return Ok(Some(Difference::new(place, &vec![0; current.len()], current)));
        }
        place += len;
    }
    Ok(None)
}
