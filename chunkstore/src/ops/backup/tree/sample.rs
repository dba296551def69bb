//! Reads some files of a new tree back from the store, before there is a revision, and compares them with the source.
//!
//! A file may be written to meanwhile: then only what the store gives back is checked. How much: `docs/trust.md`, section "After each
//! backup".

use std::ops::ControlFlow;

use super::TreeRun;
use crate::chunk_reader::ChunkReader;
use crate::error::Result;
use crate::format::{ObjectKind, PageEntry, TreeEntry, TreeRoot};
use crate::id::RevisionId;
use crate::ops::backup::sample::{
    Difference, Differences, SampleMismatch, SampleSize, SampleStats, keep_evidence,
};
use crate::ops::backup::{BackupError, has_reports};
use crate::ops::findings::with_causes;
use crate::progress::Phase;
use crate::source::{FileError, FilePiece, FileStatus};
use crate::tree_reader::check_len;

/// Usually one file of this many is read back, ...
const USUAL_SHARE: u64 = 256;
/// ... but not fewer ...
const USUAL_COUNT_MIN: u64 = 32;
/// ... and not more than these.
const USUAL_COUNT_MAX: u64 = 1024;

/// Percentage that is read back while something speaks against the source or its revisions.
const PERCENT_IN_DOUBT: u64 = 10;

/// Compares a sample of what would become a revision.
pub(super) fn compare(
    run: &TreeRun<'_>,
    root: &TreeRoot,
) -> std::result::Result<SampleStats, BackupError> {
    let (count, in_doubt) = choose(run, root.entry_count())?;
    let mut stats = SampleStats { in_doubt, ..SampleStats::default() };
    if count == 0 {
        return Ok(stats);
    }
    run.progress.begin(Phase::Sample, None);
    let mut sampler = Sampler {
        run,
        reader: ChunkReader::new(run.store),
        plain: Vec::new(),
        differing: Differences::default(),
    };
    let mut wanted = numbers(run, count, root.entry_count()).into_iter().peekable();
    let mut first = 0;
    for (place, page) in root.places() {
        let behind = first + u64::from(page.entry_count);
        if wanted.peek().is_some_and(|number| *number < behind) {
            let len = place.end - place.start;
            let entries = sampler.reader.read_tree_page(&page.id, None, len)?.entries;
            let mut offset = place.start;
            for (number, entry) in (first..).zip(&entries) {
                if wanted.next_if_eq(&number).is_some() {
                    stats.count += 1;
                    stats.bytes += entry.len();
                    sampler.compare_file(entry, offset)?;
                }
                offset += entry.len();
            }
        }
        first = behind;
    }
    run.progress.end();
    if sampler.differing.count == 0 {
        return Ok(stats);
    }
    Err(BackupError::Mismatch(Box::new(sampler.into_mismatch(stats))))
}

/// Returns how many files are compared, and whether something is in doubt.
fn choose(run: &TreeRun<'_>, file_count: u64) -> Result<(u64, bool)> {
    let common = &run.options.common;
    if let SampleSize::Percent(percent) = common.sample {
        return Ok(((file_count * u64::from(percent.min(100))).div_ceil(100), false));
    }
    let in_doubt = run.parent.history_has_doubts || has_reports(run.store, &common.source_name)?;
    let usual = (file_count / USUAL_SHARE).clamp(USUAL_COUNT_MIN, USUAL_COUNT_MAX);
    let in_case_of_doubt = if in_doubt { file_count * PERCENT_IN_DOUBT / 100 } else { 0 };
    Ok((usual.max(in_case_of_doubt).min(file_count), in_doubt))
}

/// Returns `count` random numbers below `limit`, ascending, each once.
fn numbers(run: &TreeRun<'_>, count: u64, limit: u64) -> Vec<u64> {
    let mut random = [0; 8];
    run.store.environment().entropy.fill(&mut random);
    let mut state = u64::from_le_bytes(random);
    let mut chosen = Vec::new();
    // Selection sampling: Knuth, The Art of Computer Programming, volume 2, section 3.4.2, algorithm S.
    for number in 0..limit {
        let left = count - chosen.len() as u64;
        if left == 0 {
            break;
        }
        // SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (mixed ^ (mixed >> 31)) % (limit - number) < left {
            chosen.push(number);
        }
    }
    chosen
}

struct Sampler<'a> {
    run: &'a TreeRun<'a>,
    reader: ChunkReader,
    plain: Vec<u8>,
    differing: Differences,
}

impl Sampler<'_> {
    /// Reads a file back. `offset` is its place in the content of the tree.
    fn compare_file(
        &mut self,
        entry: &TreeEntry,
        offset: u64,
    ) -> std::result::Result<(), BackupError> {
        let ids = self.read_source(entry);
        let mut place = offset;
        for (index, part) in entry.content.iter().enumerate() {
            if let PageEntry::Data { id, len } = part {
                self.reader.read(ObjectKind::Data, id, None, &mut self.plain)?;
                check_len(id, *len, self.plain.len())?;
            }
            if let Some(found) = &ids
                && found.get(index) != Some(part)
            {
                self.differ(entry, index, place, part);
                return Ok(());
            }
            place += part.len();
        }
        Ok(())
    }

    /// Returns the content that the file has now; `None` if it was written to since it was read, or cannot be read.
    fn read_source(&self, entry: &TreeEntry) -> Option<Vec<PageEntry>> {
        if entry.is_carried || entry.is_unsettled {
            return None;
        }
        let mut content = Vec::new();
        let mut take = |piece: FilePiece<'_>| {
            match piece {
                FilePiece::Again => content.clear(),
                FilePiece::Zeros { len } => content.push(PageEntry::Zero { len }),
                FilePiece::Chunk { bytes, .. } => content.push(PageEntry::Data {
                    len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                    id: ObjectKind::Data.chunk_id(bytes),
                }),
            }
            ControlFlow::Continue(())
        };
        match self.run.source.read(&entry.path, &mut take) {
            Ok(status) => (status == FileStatus { metadata: entry.metadata, len: entry.len() })
                .then(|| joined(content)),
            Err(FileError::Vanished) => None,
            Err(error) => {
                let reason = with_causes(&error);
                let note = format!("{} is not compared with the source: {reason}", entry.path);
                self.run.progress.note(&note);
                None
            }
        }
    }

    fn differ(&mut self, entry: &TreeEntry, index: usize, offset: u64, part: &PageEntry) {
        let stored = match part {
            PageEntry::Data { .. } => std::mem::take(&mut self.plain),
            PageEntry::Zero { .. } => Vec::new(),
        };
        let found = self.source_bytes(entry, index);
        // Zeros are told by as many as the other side has bytes.
        let zeros = vec![0; stored.len().max(found.len())];
        let or_zeros = |bytes: Vec<u8>| if bytes.is_empty() { zeros.clone() } else { bytes };
        self.differing.add(Difference::new(offset, &or_zeros(stored), &or_zeros(found)));
    }

    /// Returns the piece of the source with this number, if that is a chunk.
    fn source_bytes(&self, entry: &TreeEntry, index: usize) -> Vec<u8> {
        let (mut number, mut found) = (0, Vec::new());
        let mut take = |piece: FilePiece<'_>| {
            match piece {
                FilePiece::Again => number = 0,
                FilePiece::Zeros { .. } => number += 1,
                FilePiece::Chunk { bytes, .. } => {
                    if number == index {
                        found = bytes.to_vec();
                    }
                    number += 1;
                }
            }
            ControlFlow::Continue(())
        };
        // It is evidence for people: what cannot be read now is left out.
        let _status = self.run.source.read(&entry.path, &mut take);
        found
    }

    fn into_mismatch(self, compared: SampleStats) -> SampleMismatch {
        let run = self.run;
        let mut random = [0; RevisionId::LEN];
        run.store.environment().entropy.fill(&mut random);
        let revision = RevisionId::from_bytes(random);
        let (source, origin) = (&run.options.common.source_name, run.source.name());
        keep_evidence(run.store, source, origin, revision, compared, self.differing)
    }
}

/// Joins zero entries in a row, as the entries of a tree have them.
fn joined(content: Vec<PageEntry>) -> Vec<PageEntry> {
    let mut joined: Vec<PageEntry> = Vec::with_capacity(content.len());
    for part in content {
        match (joined.last_mut(), part) {
            (Some(PageEntry::Zero { len }), PageEntry::Zero { len: more }) => *len += more,
            (_, part) => joined.push(part),
        }
    }
    joined
}
