//! Finds out what the revisions need and whether it can be had, and which of their bytes are lost if not.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::memory::Memory;
use super::pack_check::Worker;
use crate::chunk_reader::ChunkReader;
use crate::error::Result;
use crate::format::PageEntry;
use crate::id::{PackId, RevisionId};
use crate::index::PackRow;
use crate::ledger::PackRead;
use crate::mark::{Gap, Marker, PackNeeds, Proof};
use crate::ops::findings::Findings;
use crate::ops::rate_limit::RateLimit;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::quarantine::Copy;
use crate::revision::Revision;
use crate::storage::{ObjectKey, Storage};
use crate::store::Store;

/// What all threads of a verification share.
pub(in crate::ops) struct Run<'a> {
    pub(in crate::ops) store: &'a Store,
    pub(in crate::ops) progress: &'a dyn Progress,
    pub(in crate::ops) memory: Memory,
    /// How fast packs may be read.
    pub(in crate::ops) limit: Option<RateLimit>,
    /// What need not be read again.
    pub(in crate::ops) proof: Proof,
}

/// What was found.
#[derive(Default)]
pub(in crate::ops) struct Checked {
    pub(in crate::ops) chunks: u64,
    pub(in crate::ops) bytes: u64,
    pub(in crate::ops) findings: Findings,
    pub(in crate::ops) damaged_packs: Vec<(PackId, String)>,
    pub(in crate::ops) index_is_wrong: bool,
    /// Where exactly: of a chunk that several packs have, each copy is told apart.
    pub(in crate::ops) damaged_copies: BTreeSet<Copy>,
    /// Chunks that were not read, because of the proof.
    pub(in crate::ops) proven: u64,
    /// Packs that were read as a whole, and those that were found damaged.
    pub(in crate::ops) reads: Vec<PackRead>,
}

impl Checked {
    pub(in crate::ops) fn add(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.proven += other.proven;
        self.findings.merge(other.findings);
        self.damaged_packs.extend(other.damaged_packs);
        self.index_is_wrong |= other.index_is_wrong;
        self.damaged_copies.extend(other.damaged_copies);
        self.reads.extend(other.reads);
    }
}

impl Run<'_> {
    /// Checks all that the revisions need. `None`: the index does not fit to the packs, or lacks something although
    /// it is not new.
    pub(in crate::ops) fn check(
        &self,
        revisions: &[Revision],
        is_new_index: bool,
    ) -> Result<Option<Checked>> {
        let mut marker = Marker::new(self.store, self.progress).with_proof(&self.proof);
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
        let proven = marker.proven_count();
        let needs: Vec<(PackId, PackNeeds)> = marker.needs.into_iter().collect();
        let rows = self.rows(&needs)?;
        let stored_len = rows.values().map(|row| row.file_len).sum();
        self.progress.begin(Phase::Verify, Some(stored_len));
        let next = AtomicUsize::new(0);
        let total = Mutex::new(Checked { findings, proven, ..Checked::default() });
        let work = || -> Result<()> {
            let mut worker = Worker::new(self);
            while let Some((pack, need)) = needs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let record_count = rows.get(pack).map_or(need.count(), |row| row.record_count);
                let is_there = || self.store.storage().object_len(&ObjectKey::Pack(*pack));
                if !is_new_index && is_there()?.is_none() {
                    // It went away after it was looked up: what was needed of it is elsewhere, or nowhere.
                    worker.checked.index_is_wrong = true;
                    continue;
                }
                let _table_memory = self.memory.take_table(record_count);
                worker.check_pack(pack, need)?;
            }
            total.lock().expect("no holder of this lock panics").add(worker.checked);
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
    pub(in crate::ops) fn attribute(
        &self,
        revisions: &[Revision],
        findings: &mut Findings,
    ) -> Result<Vec<RevisionId>> {
        attribute(self.store, revisions, findings)
    }
}

/// Finds out which bytes of which revisions the findings cost, and returns the revisions. Reads their lists.
pub(in crate::ops) fn attribute(
    store: &Store,
    revisions: &[Revision],
    findings: &mut Findings,
) -> Result<Vec<RevisionId>> {
    let mut affected = Vec::new();
    if findings.is_empty() {
        return Ok(affected);
    }
    let mut reader = ChunkReader::new(store);
    for revision in revisions {
        let record = &revision.record;
        let mut hits = Vec::new();
        let root = if findings.contains(&record.root) {
            None
        } else {
            let root = reader.read_list_root(&record.root);
            root.map_or_else(
                |error| findings.add_damage(record.root, error).map(|()| None),
                |root| Ok(Some(root)),
            )?
        };
        if root.is_none() {
            hits.push((record.root, 0, record.size));
        }
        for (kind, page) in
            root.iter().flat_map(|root| root.pages().into_iter().map(|page| (root.kind(), page)))
        {
            let entries = if findings.contains(&page.id) {
                None
            } else {
                let entries = reader.read_list_entries(kind, &page, None);
                entries.map_or_else(
                    |error| findings.add_damage(page.id, error).map(|()| None),
                    |entries| Ok(Some(entries)),
                )?
            };
            let Some(entries) = entries else {
                hits.push((page.id, page.range.start, page.range.end - page.range.start));
                continue;
            };
            let mut offset = page.range.start;
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
