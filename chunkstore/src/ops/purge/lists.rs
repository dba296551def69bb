//! Condemned lists and the flags in the index that go with them.
//!
//! The list is the cause and durable first; the flag follows. Taking a pack off goes the same way: the list first, so that
//! no new backup relies on a pack which a list still names.

use std::collections::{BTreeSet, HashSet};

use super::execute::Run;
use super::survey::Fate;
use crate::error::{Error, ObjectName, Result};
use crate::format::{CondemnedList, FormatError};
use crate::id::PackId;
use crate::storage::{Existing, ObjectKey, Storage};

impl Run<'_> {
    /// Brings the flags of the index in step with the lists: a crash may have come between the two.
    pub(super) fn flag_listed(&mut self) -> Result<()> {
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
    pub(super) fn reprieve(&mut self) -> Result<()> {
        let needed: BTreeSet<PackId> = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| self.survey.fate(row) != Fate::Dead)
            .map(|(_, row)| row.id)
            .collect();
        self.take_off_lists(&needed)
    }

    pub(super) fn take_off_lists(&mut self, packs: &BTreeSet<PackId>) -> Result<()> {
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

    /// Condemns what nothing needs.
    pub(super) fn condemn_dead(&mut self) -> Result<()> {
        let listed = self.survey.condemned.packs();
        let packs = self
            .survey
            .packs
            .iter()
            .filter(|(_, row)| {
                !row.is_missing && !listed.contains(&row.id) && self.survey.fate(row) == Fate::Dead
            })
            .map(|(_, row)| row.id)
            .collect();
        self.condemn(packs)
    }

    /// Condemns packs: list, then index. From then on no new session relies on them.
    pub(super) fn condemn(&mut self, mut packs: Vec<PackId>) -> Result<()> {
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
        self.stats.condemned_packs += list.packs.len() as u64;
        self.survey.generation = list.generation;
        self.survey.condemned.lists.push(list);
        Ok(())
    }

    /// Takes packs that are gone off their lists. Only after they have moved: an index that is rebuilt meanwhile must find
    /// them condemned.
    pub(super) fn shorten_lists(&mut self, gone: &BTreeSet<PackId>) -> Result<()> {
        for index in 0..self.survey.condemned.lists.len() {
            let list = &mut self.survey.condemned.lists[index];
            let before = list.packs.len();
            list.packs.retain(|pack| !gone.contains(pack));
            if list.packs.len() < before {
                let list = list.clone();
                self.put_list(&list, Existing::Replace)?;
            }
        }
        Ok(())
    }

    /// Removes lists that name nothing any more, but never the newest.
    pub(super) fn drop_empty_lists(&mut self) -> Result<()> {
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
}
