//! Walks over spans: settles zeros and what the target holds already, and plans the rest.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::plan::Plan;
use super::target_check::TargetCheck;
use super::{RestoreResult, Run};
use crate::chunk_reader::ChunkReader;
use crate::format::PageEntry;
use crate::image_reader::locate_entries;

/// Entries that are looked up in the index at once: bounds the memory of a span that has very many.
pub(super) const LOOKUP_LEN: usize = 8192;

/// Bytes of a zero entry that a target in place is asked for at once, and that are written if they are not zero.
const ZERO_LEN: u64 = 1 << 20;

/// Plans the spans from `next` on until the plan is full. `next` is then the first span that was not looked at.
pub(super) fn plan(run: &Run<'_>, next: &AtomicUsize) -> RestoreResult<Plan> {
    let plan = Mutex::new(Plan::default());
    let span_count = run.image.root().spans.len();
    let work = || {
        let mut survey = Survey {
            run,
            reader: ChunkReader::new(run.store),
            check: TargetCheck::new(run.target),
            plan: &plan,
        };
        while run.goes_on()? && !survey.plan().is_full() {
            let span = next.fetch_add(1, Ordering::Relaxed);
            if span_count <= span {
                break;
            }
            survey.look_at(span)?;
        }
        Ok(())
    };
    run.on_threads(run.threads.survey, span_count, work)?;
    Ok(plan.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Survey<'a> {
    run: &'a Run<'a>,
    reader: ChunkReader,
    check: TargetCheck<'a>,
    plan: &'a Mutex<Plan>,
}

impl Survey<'_> {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at(&mut self, span: usize) -> RestoreResult<()> {
        let entries = self.run.entries(&mut self.reader, span)?;
        let mut offset = self.run.image.root().span_range(span).start;
        let mut wanted = Vec::new();
        for entry in entries {
            if !self.run.goes_on()? {
                return Ok(());
            }
            match &entry {
                PageEntry::Zero { len } => self.zero(offset, *len)?,
                PageEntry::Data { len, .. } => {
                    if self.run.options.delta && self.check.holds_now(&entry, offset)? {
                        let kept = u64::from(*len);
                        self.run.totals.kept_bytes.fetch_add(kept, Ordering::Relaxed);
                        self.run.progress.advance(kept);
                    } else {
                        wanted.push((offset, entry));
                    }
                }
            }
            offset += entry.len();
        }
        self.reserve(&wanted)?;
        for part in wanted.chunks(LOOKUP_LEN) {
            self.add(part)?;
        }
        Ok(())
    }

    /// Lets the target take space for what will be written, neighbours at once.
    fn reserve(&self, wanted: &[(u64, PageEntry)]) -> RestoreResult<()> {
        if self.run.options.delta {
            // What it holds takes the same space.
            return Ok(());
        }
        for run in wanted.chunk_by(|(offset, entry), (next, _)| offset + entry.len() == *next) {
            let len = run.iter().map(|(_, entry)| entry.len()).sum();
            if let Some((offset, _)) = run.first() {
                self.run.target.reserve(*offset, len)?;
            }
        }
        Ok(())
    }

    /// Looks chunks up and adds them to the plan.
    fn add(&self, wanted: &[(u64, PageEntry)]) -> RestoreResult<()> {
        let entries: Vec<PageEntry> = wanted.iter().map(|(_, entry)| *entry).collect();
        // Under the lock of the plan, so that lookups take turns: each has a cache of its own.
        let mut plan = self.plan();
        let locations = locate_entries(self.run.store, &entries)?;
        for ((offset, entry), location) in wanted.iter().zip(locations) {
            if let PageEntry::Data { len, id } = entry {
                plan.add(*id, *len, location, *offset);
            }
        }
        Ok(())
    }

    /// Makes a range read as zeros; in place, only where it does not yet.
    fn zero(&mut self, offset: u64, len: u64) -> RestoreResult<()> {
        self.run.totals.zero_bytes.fetch_add(len, Ordering::Relaxed);
        let end = offset + len;
        let looks_first = self.run.options.delta && !self.run.target.makes_holes();
        let mut place = offset;
        while place < end {
            if !self.run.goes_on()? {
                return Ok(());
            }
            let part = if looks_first { ZERO_LEN.min(end - place) } else { end - place };
            let is_zero =
                looks_first && self.check.holds_now(&PageEntry::Zero { len: part }, place)?;
            if !is_zero {
                self.run.target.zero_at(place, part)?;
                if looks_first {
                    // A hole reads as zeros by what it is; what was written is to be read back.
                    self.plan().add_zeros(place, part);
                }
            }
            place += part;
            self.run.progress.advance(part);
        }
        Ok(())
    }
}
