//! The steps of a purge: `docs/durability.md`, section "Purge".

use std::collections::{BTreeSet, HashMap};

use super::PurgeOptions;
use super::copy::{Copied, copy};
use super::survey::Survey;
use super::waiting::{Waiting, WaitingSum};
use crate::error::{Error, Result};
use crate::format::CondemnedList;
use crate::id::PackId;
use crate::progress::{Phase, Progress};
use crate::store::Store;

/// What a purge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeStats {
    /// Bytes of packs that were removed.
    pub freed_bytes: u64,
    /// Bytes of new packs with what was still needed of others, which are removed in their turn.
    pub repacked_bytes: u64,
    /// Bytes of packs that revisions or sessions need, new ones included.
    pub kept_bytes: u64,
    /// Bytes of packs that nothing needs and that are not yet to be removed.
    pub deferred_bytes: u64,
    /// What the deferred packs wait for, and who keeps what no revision needs.
    pub waiting: Vec<Waiting>,
    /// Packs that were condemned by this purge.
    pub condemned_packs: u64,
    /// Packs that had been condemned and are needed again.
    pub reprieved_packs: u64,
    /// Packs of which all that is needed was copied.
    pub repacked_packs: u64,
    /// Packs that were removed.
    pub removed_packs: u64,
    /// What was found damaged when it was to be copied: `chunk .. in pack ..`, with the reason. It stays where it is.
    pub damaged: Vec<String>,
}

/// Runs a purge on what was surveyed. Adds to `stats`, which may have figures of an attempt that found no space.
pub(super) fn execute(
    store: &Store,
    options: &PurgeOptions,
    survey: Survey,
    stats: &mut PurgeStats,
    progress: &dyn Progress,
) -> Result<()> {
    let (swept, emptied) = (BTreeSet::new(), BTreeSet::new());
    let mut run = Run { store, options, survey, progress, stats, swept, emptied };
    store.storage().remove_leftovers()?;
    // Left by a purge that was killed: their packs are out of the index already.
    run.stats.freed_bytes += store.storage().empty_trash()?;
    run.remove_dead_sessions()?;
    run.flag_listed()?;
    run.reprieve()?;
    // What takes no space first, and what takes the most last.
    run.sweep_surveyed()?;
    run.condemn_dead()?;
    run.repack()?;
    run.sweep()?;
    run.forget_gone_packs()?;
    run.finish();
    Ok(())
}

/// A purge that is running.
pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a PurgeOptions,
    pub(super) survey: Survey,
    pub(super) progress: &'a dyn Progress,
    pub(super) stats: &'a mut PurgeStats,
    /// Packs that were removed.
    pub(super) swept: BTreeSet<PackId>,
    /// Packs that were needed when the store was surveyed, and of which copies are in the index now.
    pub(super) emptied: BTreeSet<PackId>,
}

impl Run<'_> {
    /// Removes the files of sessions that are over: of readers at once, of writers after their grace.
    fn remove_dead_sessions(&self) -> Result<()> {
        let vfs = self.store.environment().vfs.as_ref();
        for found in &self.survey.sessions {
            if found.is_alive || self.survey.graced.contains_key(&found.id) {
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

    /// Copies what is needed of packs that are mostly dead or small, and condemns them. Nothing relies on that being
    /// right: before they are swept, what the index then leads to is marked.
    fn repack(&mut self) -> Result<()> {
        let chosen = std::mem::take(&mut self.survey.to_repack);
        if chosen.is_empty() {
            return Ok(());
        }
        let total = chosen.iter().map(|candidate| candidate.live.len).sum();
        self.progress.begin(Phase::Repack, Some(total));
        let needs = &self.survey.needs.packs;
        let copied = copy(self.store, self.options, &chosen, needs, self.progress)?;
        self.progress.end();
        let Copied { emptied, packs, damaged } = copied;
        self.stats.repacked_bytes += packs.iter().map(|row| row.file_len).sum::<u64>();
        self.stats.repacked_packs += emptied.len() as u64;
        self.stats.damaged.extend(damaged.iter().map(describe));
        self.stats.damaged.sort();
        self.stats.damaged.dedup();
        self.stats.kept_bytes += packs.iter().map(|row| row.file_len).sum::<u64>();
        self.emptied.extend(&emptied);
        self.condemn(emptied)
    }

    fn finish(self) {
        let listed: HashMap<PackId, &CondemnedList> = self
            .survey
            .condemned
            .lists
            .iter()
            .flat_map(|list| list.packs.iter().map(move |pack| (*pack, list)))
            .collect();
        let mut waiting = WaitingSum::default();
        let (mut kept, mut deferred) = (0, 0);
        for (_, row) in &self.survey.packs {
            if row.is_missing || self.swept.contains(&row.id) {
                continue;
            }
            let Some(list) = listed.get(&row.id) else {
                kept += row.file_len;
                self.survey.add_holders(row, &mut waiting);
                continue;
            };
            deferred += row.file_len;
            let (generation, since) = (list.generation, list.condemned_at);
            for reason in self.survey.reasons_to_wait(generation, since, self.options) {
                waiting.add(reason, row.file_len);
            }
        }
        self.stats.kept_bytes += kept;
        self.stats.deferred_bytes = deferred;
        self.stats.waiting = waiting.finish();
    }
}

/// Returns an error with its cause.
fn describe(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
