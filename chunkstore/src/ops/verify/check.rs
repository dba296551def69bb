//! Finds out what the revisions need and whether it can be had, and which of their bytes are lost if not.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::memory::Memory;
use super::pack_check::Worker;
use crate::chunk_reader::ChunkReader;
use crate::error::Result;
use crate::format::{PageEntry, SpanRef};
use crate::id::{PackId, RevisionId};
use crate::index::PackRow;
use crate::mark::{Gap, Marker, PackNeeds};
use crate::ops::findings::Findings;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::revision::Revision;
use crate::store::Store;

/// What all threads of a verification share.
pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) progress: &'a dyn Progress,
    pub(super) memory: Memory,
}

/// What was found.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    pub(super) findings: Findings,
    pub(super) damaged_packs: Vec<(PackId, String)>,
    pub(super) index_is_wrong: bool,
}

impl Run<'_> {
    /// Checks all that the revisions need. `None`: the index does not fit to the packs, or lacks something although
    /// it is not new.
    pub(super) fn check(
        &self,
        revisions: &[Revision],
        is_new_index: bool,
    ) -> Result<Option<Checked>> {
        let mut marker = Marker::new(self.store, self.progress);
        for revision in revisions {
            marker.mark_root(&revision.record.root)?;
        }
        if !is_new_index && marker.gaps.values().any(Gap::has_no_place) {
            return Ok(None);
        }
        let mut findings = Findings::default();
        for (chunk, gap) in &marker.gaps {
            findings.add(*chunk, &gap.error);
        }
        let needs: Vec<(PackId, PackNeeds)> = marker.needs.into_iter().collect();
        let rows = self.rows(&needs)?;
        let stored_len = rows.values().map(|row| row.file_len).sum();
        self.progress.begin(Phase::Verify, Some(stored_len));
        let next = AtomicUsize::new(0);
        let total = Mutex::new(Checked { findings, ..Checked::default() });
        let work = || -> Result<()> {
            let mut worker = Worker::new(self);
            while let Some((pack, need)) = needs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let record_count = rows.get(pack).map_or(need.count(), |row| row.record_count);
                let _table_memory = self.memory.take_table(record_count);
                worker.check_pack(pack, need)?;
            }
            let mut total = total.lock().expect("no holder of this lock panics");
            total.chunks += worker.checked.chunks;
            total.bytes += worker.checked.bytes;
            total.findings.merge(worker.checked.findings);
            total.damaged_packs.append(&mut worker.checked.damaged_packs);
            total.index_is_wrong |= worker.checked.index_is_wrong;
            Ok(())
        };
        on_threads(Some(self.memory.threads), needs.len(), work)
            .into_iter()
            .collect::<Result<()>>()?;
        self.progress.end();
        let mut checked = total.into_inner().expect("no holder of this lock panics");
        checked.damaged_packs.sort();
        Ok((!checked.index_is_wrong).then_some(checked))
    }

    /// Returns what the index says of the needed packs.
    fn rows(&self, needs: &[(PackId, PackNeeds)]) -> Result<HashMap<PackId, PackRow>> {
        let wanted: HashSet<PackId> = needs.iter().map(|(pack, _)| *pack).collect();
        let packs = self.store.index().view(|view| view.packs())?;
        let rows = packs.into_iter().map(|(_, row)| (row.id, row));
        Ok(rows.filter(|(id, _)| wanted.contains(id)).collect())
    }

    /// Finds out which bytes of which revisions the findings cost, and returns the revisions.
    pub(super) fn attribute(
        &self,
        revisions: &[Revision],
        findings: &mut Findings,
    ) -> Result<Vec<RevisionId>> {
        let mut affected = Vec::new();
        if findings.is_empty() {
            return Ok(affected);
        }
        let mut reader = ChunkReader::new(self.store);
        for revision in revisions {
            let record = &revision.record;
            let mut hits = Vec::new();
            let root = if findings.contains(&record.root) {
                None
            } else {
                let root = reader.read_root(&record.root);
                root.map_or_else(
                    |error| findings.add_damage(record.root, error).map(|()| None),
                    |root| Ok(Some(root)),
                )?
            };
            if root.is_none() {
                hits.push((record.root, 0, record.size));
            }
            for (span, reference) in root.iter().flat_map(|root| root.spans.iter().enumerate()) {
                let (SpanRef::Page(id), Some(root)) = (reference, &root) else { continue };
                let range = root.span_range(span);
                let len = range.end - range.start;
                let entries = if findings.contains(id) {
                    None
                } else {
                    let page = reader.read_page(id, None, len);
                    page.map_or_else(
                        |error| findings.add_damage(*id, error).map(|()| None),
                        |page| Ok(Some(page.entries)),
                    )?
                };
                let Some(entries) = entries else {
                    hits.push((*id, range.start, len));
                    continue;
                };
                let mut offset = range.start;
                for entry in &entries {
                    if let PageEntry::Data { id, len } = entry
                        && findings.contains(id)
                    {
                        hits.push((*id, offset, u64::from(*len)));
                    }
                    offset += entry.len();
                }
            }
            if !hits.is_empty() {
                affected.push(record.id);
            }
            for (chunk, offset, len) in hits {
                findings.add_range(&chunk, record.id, offset, len);
            }
        }
        Ok(affected)
    }
}
