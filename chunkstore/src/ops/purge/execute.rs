//! The steps of a purge: `docs/durability.md`, section "Purge".

use std::collections::{BTreeSet, HashMap, HashSet};

use super::PurgeOptions;
use super::survey::{Fate, Survey, find_needs, find_suspects};
use crate::error::{Error, ObjectName, Result};
use crate::format::{CondemnedList, FormatError};
use crate::id::PackId;
use crate::index::PackRow;
use crate::pack::read_contents;
use crate::progress::{Phase, Progress};
use crate::session;
use crate::storage::{Existing, ObjectKey, Storage};
use crate::store::Store;

/// What a purge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeStats {
    /// Bytes of packs that were removed.
    pub freed_bytes: u64,
    /// Bytes that were rewritten to get rid of dead chunks. Always 0: packs are kept whole.
    pub repacked_bytes: u64,
    /// Bytes of packs that revisions or sessions need.
    pub kept_bytes: u64,
    /// Bytes of packs that nothing needs and that are not yet to be removed.
    pub deferred_bytes: u64,
    /// What the deferred packs wait for.
    pub waiting: Vec<String>,
    /// Packs that were condemned by this purge.
    pub condemned_packs: u64,
    /// Packs that had been condemned and are needed again.
    pub reprieved_packs: u64,
    /// Packs that were removed.
    pub removed_packs: u64,
}

pub(super) fn execute(
    store: &Store,
    options: &PurgeOptions,
    survey: Survey,
    progress: &dyn Progress,
) -> Result<PurgeStats> {
    let mut run = Run { store, options, survey, progress, stats: PurgeStats::default() };
    store.storage().remove_leftovers()?;
    // Left by a purge that was killed: their packs are out of the index already.
    run.stats.freed_bytes += store.storage().empty_trash()?;
    run.remove_dead_sessions()?;
    run.flag_listed()?;
    run.reprieve()?;
    run.condemn()?;
    let swept = run.sweep()?;
    run.forget_gone_packs(&swept)?;
    run.stats.freed_bytes += store.storage().empty_trash()?;
    run.finish(&swept)
}

struct Run<'a> {
    store: &'a Store,
    options: &'a PurgeOptions,
    survey: Survey,
    progress: &'a dyn Progress,
    stats: PurgeStats,
}

impl Run<'_> {
    /// Removes the files of sessions that are over: of readers at once, of writers after their grace.
    fn remove_dead_sessions(&self) -> Result<()> {
        let vfs = self.store.environment().vfs.as_ref();
        for found in &self.survey.sessions {
            if found.is_alive || self.survey.graced.contains(&found.id) {
                continue;
            }
            let path = self.store.layout().session(&found.id);
            match vfs.remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(Error::storage("remove", path))?,
            }
        }
        Ok(())
    }

    /// Brings the flags of the index in step with the lists: a crash may have come between the two.
    fn flag_listed(&mut self) -> Result<()> {
        let listed = self.survey.condemned.packs();
        let not_flagged: HashSet<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| row.condemned == 0)
            .map(|(_, row)| row.id)
            .collect();
        let unflagged = |list: &CondemnedList| {
            self.survey.generation < list.generation
                || list.packs.iter().any(|pack| not_flagged.contains(pack))
        };
        let to_flag: Vec<(u64, Vec<PackId>)> = self
            .survey
            .condemned
            .lists
            .iter()
            .filter(|list| unflagged(list))
            .map(|list| (list.generation, list.packs.clone()))
            .collect();
        // A list that cannot be read is replaced by what this purge finds out itself.
        let to_clear: HashSet<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| row.condemned != 0 && !listed.contains(&row.id))
            .map(|(_, row)| row.id)
            .collect();
        if !self.survey.condemned.damaged.is_empty() {
            self.set_damaged_lists_aside()?;
        }
        if to_flag.is_empty() && to_clear.is_empty() {
            return Ok(());
        }
        self.store.index().change(|change| {
            for (generation, packs) in &to_flag {
                change.condemn(packs, *generation)?;
            }
            for pack in &to_clear {
                change.reprieve(pack)?;
            }
            Ok(())
        })?;
        for (_, row) in &mut self.survey.packs {
            if to_clear.contains(&row.id) {
                row.condemned = 0;
            }
        }
        Ok(())
    }

    /// Moves lists that cannot be read to `quarantine/`, after an empty list has taken over the counter.
    fn set_damaged_lists_aside(&mut self) -> Result<()> {
        let counter = CondemnedList {
            generation: self.next_generation()?,
            condemned_at: self.survey.now,
            packs: Vec::new(),
        };
        self.put_list(&counter, Existing::Refuse)?;
        self.survey.condemned.lists.push(counter);
        for (generation, error) in std::mem::take(&mut self.survey.condemned.damaged) {
            self.progress.note(&error.to_string());
            self.store.storage().quarantine_condemned(generation)?;
        }
        Ok(())
    }

    /// Takes packs that are needed again off their lists. The list first: as long as it names a pack, no new
    /// backup may rely on it.
    fn reprieve(&mut self) -> Result<()> {
        let needed: BTreeSet<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| self.survey.fate(row) != Fate::Dead)
            .map(|(_, row)| row.id)
            .collect();
        self.take_off_lists(&needed)
    }

    fn take_off_lists(&mut self, packs: &BTreeSet<PackId>) -> Result<()> {
        let mut reprieved = Vec::new();
        for index in 0..self.survey.condemned.lists.len() {
            let list = &mut self.survey.condemned.lists[index];
            let before = list.packs.len();
            let (off, on) = list.packs.iter().copied().partition(|pack| packs.contains(pack));
            list.packs = on;
            if list.packs.len() < before {
                reprieved.extend::<Vec<PackId>>(off);
                let list = list.clone();
                self.put_list(&list, Existing::Replace)?;
            }
        }
        if reprieved.is_empty() {
            return Ok(());
        }
        self.stats.reprieved_packs += reprieved.len() as u64;
        self.store
            .index()
            .change(|change| reprieved.iter().try_for_each(|pack| change.reprieve(pack)))
    }

    /// Condemns what nothing needs: list, then index. From then on no new session relies on it.
    fn condemn(&mut self) -> Result<()> {
        let listed = self.survey.condemned.packs();
        let mut packs: Vec<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| {
                !row.is_missing && !listed.contains(&row.id) && self.survey.fate(row) == Fate::Dead
            })
            .map(|(_, row)| row.id)
            .collect();
        if packs.is_empty() {
            return Ok(());
        }
        packs.sort();
        let list = CondemnedList {
            generation: self.next_generation()?,
            condemned_at: self.survey.now,
            packs,
        };
        self.put_list(&list, Existing::Refuse)?;
        self.store.index().change(|change| change.condemn(&list.packs, list.generation))?;
        self.stats.condemned_packs = list.packs.len() as u64;
        self.survey.generation = list.generation;
        self.survey.condemned.lists.push(list);
        Ok(())
    }

    /// Removes condemned packs whose time has come, and returns them.
    fn sweep(&mut self) -> Result<BTreeSet<PackId>> {
        // Who runs now, first. A writer that ended before has its revision among the records read below.
        self.survey.sessions = session::list(self.store.environment(), self.store.layout())?;
        let is_ripe = |list: &&CondemnedList| {
            self.survey.reasons_to_wait(list.generation, list.condemned_at, self.options).is_empty()
        };
        let ripe: BTreeSet<PackId> = self
            .survey
            .condemned
            .lists
            .iter()
            .filter(is_ripe)
            .flat_map(|list| list.packs.iter().copied())
            .collect();
        if ripe.is_empty() {
            self.drop_empty_lists()?;
            return Ok(ripe);
        }
        let needed = self.mark_again(&ripe)?;
        let reprieved: BTreeSet<PackId> = ripe.intersection(&needed).copied().collect();
        self.take_off_lists(&reprieved)?;
        let to_sweep: BTreeSet<PackId> = ripe.difference(&needed).copied().collect();
        self.progress.begin(Phase::Sweep, Some(to_sweep.len() as u64));
        for pack in &to_sweep {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.sweep_pack(pack)?;
            self.progress.advance(1);
        }
        self.progress.end();
        // Only now may the lists forget them: an index that is rebuilt meanwhile must find them condemned.
        for index in 0..self.survey.condemned.lists.len() {
            let list = &mut self.survey.condemned.lists[index];
            let before = list.packs.len();
            list.packs.retain(|pack| !to_sweep.contains(pack));
            if list.packs.len() < before {
                let list = list.clone();
                self.put_list(&list, Existing::Replace)?;
            }
        }
        self.drop_empty_lists()?;
        self.stats.removed_packs = to_sweep.len() as u64;
        Ok(to_sweep)
    }

    /// Marks once more what revisions and pins need, from the start: a chunk that two packs hold may have another place in
    /// the index than at the survey, because it was built anew. Returns all packs that are needed, or were then.
    fn mark_again(&self, ripe: &BTreeSet<PackId>) -> Result<BTreeSet<PackId>> {
        let needs = find_needs(self.store, self.progress, &self.survey.needs)?;
        let suspects = find_suspects(self.store, ripe.iter().copied(), &needs)?;
        let before = self.survey.needs.packs.keys().copied();
        Ok(needs.packs.into_keys().chain(suspects).chain(before).collect())
    }

    /// Index first, file second: nobody is led to a pack that is gone.
    fn sweep_pack(&self, pack: &PackId) -> Result<()> {
        let storage: &dyn Storage = self.store.storage();
        let records = match read_contents(storage, pack) {
            Ok(contents) => contents.records,
            Err(error) if error.is_damage() => Vec::new(),
            Err(other) => return Err(other),
        };
        self.store.index().change(|change| change.remove_pack(pack, &records))?;
        self.store.storage().trash_pack(pack)
    }

    /// Takes packs out of the index that are gone and that nothing needs: those that somebody adopted
    /// between their leaving the index and the directory, and those that were lost before. As long as the index
    /// knows of a missing pack, backups do not rely on their parent; so one that went away since the survey found that
    /// nothing is lost must stay known.
    fn forget_gone_packs(&self, swept: &BTreeSet<PackId>) -> Result<()> {
        let nothing_is_lost = self.survey.needs.lost.is_empty();
        let gone_before: HashSet<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| row.is_missing && nothing_is_lost)
            .map(|(_, row)| row.id)
            .collect();
        let is_gone = |row: &PackRow| {
            swept.contains(&row.id) || row.is_missing && gone_before.contains(&row.id)
        };
        let known = self.store.index().view_current(|view| view.packs())?;
        if !known.iter().any(|(_, row)| is_gone(row)) {
            return Ok(());
        }
        self.store.index().change(|change| {
            let mut gone = Vec::new();
            for (_, row) in known.iter().filter(|(_, row)| is_gone(row)) {
                if self.store.storage().object_len(&ObjectKey::Pack(row.id))?.is_none() {
                    gone.push(row.id);
                }
            }
            change.forget_packs(&gone)
        })
    }

    /// Removes lists that name nothing any more, but never the newest.
    fn drop_empty_lists(&mut self) -> Result<()> {
        let newest = self.survey.condemned.newest_generation();
        for list in &self.survey.condemned.lists {
            if list.packs.is_empty() && list.generation < newest {
                self.store.storage().delete(&ObjectKey::Condemned(list.generation))?;
            }
        }
        self.survey
            .condemned
            .lists
            .retain(|list| !list.packs.is_empty() || list.generation == newest);
        Ok(())
    }

    fn put_list(&self, list: &CondemnedList, existing: Existing) -> Result<()> {
        let key = ObjectKey::Condemned(list.generation);
        self.store.storage().put(&key, &list.encode(), existing)
    }

    fn next_generation(&self) -> Result<u64> {
        let sessions = self.survey.sessions.iter().filter_map(|found| found.record.as_ref().ok());
        let started = sessions.map(|record| record.start_generation).max().unwrap_or(0);
        let last =
            self.survey.condemned.newest_generation().max(self.survey.generation).max(started);
        // Nobody counts that far: the name of a list or a session is not ours.
        last.checked_add(1).ok_or(Error::Damaged {
            object: ObjectName::Condemned { generation: last },
            source: FormatError::Inconsistent { what: "no generation can follow it" },
        })
    }

    fn finish(mut self, swept: &BTreeSet<PackId>) -> Result<PurgeStats> {
        let listed: HashMap<PackId, &CondemnedList> = self
            .survey
            .condemned
            .lists
            .iter()
            .flat_map(|list| list.packs.iter().map(move |pack| (*pack, list)))
            .collect();
        let mut waiting = BTreeSet::new();
        for (_, row) in &self.survey.packs {
            if row.is_missing || swept.contains(&row.id) {
                continue;
            }
            match listed.get(&row.id) {
                None => self.stats.kept_bytes += row.file_len,
                Some(list) => {
                    self.stats.deferred_bytes += row.file_len;
                    waiting.extend(self.survey.reasons_to_wait(
                        list.generation,
                        list.condemned_at,
                        self.options,
                    ));
                }
            }
        }
        self.stats.waiting = waiting.into_iter().collect();
        Ok(self.stats)
    }
}
