//! Sweeping: removing condemned packs whose time has come.

use std::collections::{BTreeSet, HashSet};

use super::execute::Run;
use super::needs::{Purpose, find_needs, find_suspects};
use crate::error::{Error, Result};
use crate::format::{CondemnedList, FooterRecord};
use crate::id::PackId;
use crate::index::PackRow;
use crate::pack::read_contents;
use crate::progress::Phase;
use crate::session;
use crate::storage::{ObjectKey, Storage};

/// Records that one transaction takes out of the index at most, unless one pack has more.
const BATCH_RECORD_COUNT: usize = 50_000;

/// Packs that one transaction takes out of the index at most.
const BATCH_PACK_COUNT: usize = 1000;

/// Parts of the index that are looked through in one transaction each for entries that lead nowhere.
const PART_COUNT: u8 = 32;

impl Run<'_> {
    /// Removes the packs of lists that were ripe when the store was surveyed. What the survey marked suffices: a backup that
    /// had relied on such a pack was running then, or its revision was there.
    pub(super) fn sweep_surveyed(&mut self) -> Result<()> {
        let ripe = self.survey.ripe_lists(self.options);
        let packs = self.packs_of_lists(|list| ripe.contains(&list.generation));
        self.sweep_packs(&packs)
    }

    /// Removes the packs of lists that have become ripe since, if there are any.
    pub(super) fn sweep(&mut self) -> Result<()> {
        // Who runs now, first. A writer that ended before has its revision among the records read below.
        self.survey.sessions = session::list(self.store.environment(), self.store.layout())?;
        let (survey, options) = (&self.survey, self.options);
        let ripe = self.packs_of_lists(|list| {
            survey.reasons_to_wait(list.generation, list.condemned_at, options).is_empty()
        });
        if ripe.is_empty() {
            return self.drop_empty_lists();
        }
        let needed = self.mark_again(&ripe)?;
        let reprieved: BTreeSet<PackId> = ripe.intersection(&needed).copied().collect();
        self.take_off_lists(&reprieved)?;
        let to_sweep: BTreeSet<PackId> = ripe.difference(&needed).copied().collect();
        self.sweep_packs(&to_sweep)
    }

    fn packs_of_lists(&self, is_meant: impl Fn(&CondemnedList) -> bool) -> BTreeSet<PackId> {
        let lists = self.survey.condemned.lists.iter().filter(|list| is_meant(list));
        lists.flat_map(|list| list.packs.iter().copied()).collect()
    }

    /// Marks once more what revisions and pins need, from the start: a chunk that two packs hold may have another place in
    /// the index than at the survey, because it was built anew. Returns all packs that are needed, or were then and are
    /// not emptied.
    fn mark_again(&self, ripe: &BTreeSet<PackId>) -> Result<BTreeSet<PackId>> {
        let needs = find_needs(self.store, Purpose::Purge, self.progress, &self.survey.needs)?;
        if needs.has_stray_pin {
            return Ok(ripe.clone());
        }
        let suspects = find_suspects(self.store, ripe.iter().copied(), &needs)?;
        let before = self.survey.needs.packs.keys().copied();
        let before = before.filter(|pack| !self.emptied.contains(pack));
        Ok(needs.packs.into_keys().chain(suspects).chain(before).collect())
    }

    /// Removes condemned packs. Index first, file second: nobody is led to a pack that is gone.
    fn sweep_packs(&mut self, packs: &BTreeSet<PackId>) -> Result<()> {
        if packs.is_empty() {
            return self.drop_empty_lists();
        }
        self.progress.begin(Phase::Sweep, Some(packs.len() as u64));
        let mut batch: Vec<(PackId, Vec<FooterRecord>)> = Vec::new();
        let mut record_count = 0;
        for pack in packs {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let records = match read_contents(self.store.storage() as &dyn Storage, pack) {
                Ok(contents) => contents.records,
                Err(error) if error.is_damage() => Vec::new(),
                Err(other) => return Err(other),
            };
            record_count += records.len();
            batch.push((*pack, records));
            if BATCH_RECORD_COUNT <= record_count || BATCH_PACK_COUNT <= batch.len() {
                self.sweep_batch(&batch)?;
                batch.clear();
                record_count = 0;
            }
        }
        self.sweep_batch(&batch)?;
        self.progress.end();
        self.shorten_lists(packs)?;
        self.drop_empty_lists()
    }

    fn sweep_batch(&mut self, batch: &[(PackId, Vec<FooterRecord>)]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.store.index().change(|change| {
            batch.iter().try_for_each(|(pack, records)| change.remove_pack(pack, records))
        })?;
        let packs: Vec<PackId> = batch.iter().map(|(pack, _)| *pack).collect();
        self.store.storage().trash_packs(&packs)?;
        // At once: what comes next may need the space.
        self.stats.freed_bytes += self.store.storage().empty_trash()?;
        self.stats.removed_packs += packs.len() as u64;
        self.progress.advance(packs.len() as u64);
        self.swept.extend(packs);
        Ok(())
    }

    /// Takes packs out of the index that are gone and that nothing needs: those that somebody adopted
    /// between their leaving the index and the directory, and those that were lost before. As long as the index
    /// knows of a missing pack, backups do not rely on their parent; so one that went away since the survey found that
    /// nothing is lost must stay known.
    pub(super) fn forget_gone_packs(&self) -> Result<()> {
        let nothing_is_lost = self.survey.needs.lost.is_empty();
        let gone_before: HashSet<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| row.is_missing && nothing_is_lost)
            .map(|(_, row)| row.id)
            .collect();
        let is_gone = |row: &PackRow| {
            self.swept.contains(&row.id) || row.is_missing && gone_before.contains(&row.id)
        };
        let known = self.store.index().view_current(|view| view.packs())?;
        if !known.iter().any(|(_, row)| is_gone(row)) {
            return Ok(());
        }
        let storage = self.store.storage();
        let mut gone = Vec::new();
        for (_, row) in known.iter().filter(|(_, row)| is_gone(row)) {
            if storage.object_len(&ObjectKey::Pack(row.id))?.is_none() {
                gone.push(row.id);
            }
        }
        // Part by part, so that nobody waits for all of the index to be read. The packs themselves last: a stop before leaves
        // them known and missing.
        for part in 0..PART_COUNT {
            self.store.index().change(|change| change.forget_chunks_of(&gone, part, PART_COUNT))?;
        }
        self.store.index().change(|change| change.forget_packs(&gone))
    }
}
