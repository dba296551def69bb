//! What is in the store, what is needed, and who is running: the facts that a purge decides on.
//!
//! The order of reading is the proof: packs and their flags, then sessions, then what revisions and pins need. A backup that ends
//! between the last two has its revision among the records; a reader that begins after the records were read finds
//! its revision still there, or it is not in the records and the reader gives up.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::needs::{Needs, Purpose, find_needs, find_suspects};
use super::repack::{self, Candidate, Forecast};
use super::waiting::{WaitReason, WaitingSum, grace_end};
use super::{PurgeOptions, PurgeSummary};
use crate::error::{Error, Result};
use crate::format::CondemnedList;
use crate::id::{PackId, SessionId};
use crate::index::{Condemned, PackRow};
use crate::progress::Progress;
use crate::session::{self, FoundSession};
use crate::store::Store;
use crate::time::Timestamp;

/// The facts.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) now: Timestamp,
    pub(super) packs: Vec<(u32, PackRow)>,
    pub(super) sessions: Vec<FoundSession>,
    pub(super) condemned: Condemned,
    /// Generation of the index.
    pub(super) generation: u64,
    pub(super) needs: Needs,
    /// Sessions that died or failed, and whose packs still have their grace, with its end.
    pub(super) graced: HashMap<SessionId, Timestamp>,
    /// Packs that are worth to be repacked.
    pub(super) to_repack: Vec<Candidate>,
    /// Packs that nothing seems to need, but that may have a chunk which is missing.
    suspects: HashSet<PackId>,
}

/// Why a pack stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A revision or a pinned root needs it, or may need it.
    Needed,
    /// A running backup, or one that died a short time ago, has written it.
    OfSession(SessionId),
    /// Nothing needs it.
    Dead,
}

impl Survey {
    pub(super) fn take(
        store: &Store,
        options: &PurgeOptions,
        purpose: Purpose,
        progress: &dyn Progress,
    ) -> Result<Self> {
        for damage in store.index().reconcile()? {
            progress.note(&damage.to_string());
        }
        let index = store.index();
        let (packs, generation) = match purpose {
            Purpose::Purge => index.view_current(|view| Ok((view.packs()?, view.generation()?)))?,
            Purpose::Preview => index.view(|view| Ok((view.packs()?, view.generation()?)))?,
        };
        let sessions = session::list(store.environment(), store.layout())?;
        let condemned = Condemned::read(store.storage())?;
        condemned.refuse_newer_format()?;
        let now = store.environment().clock.now();
        let needs = find_needs(store, purpose, progress, &Needs::default())?;
        let graced = graced_sessions(&packs, &sessions, now, options);
        let suspects = find_suspects(store, packs.iter().map(|(_, row)| row.id), &needs)?;
        let to_repack = Vec::new();
        let mut survey = Self {
            now,
            packs,
            sessions,
            condemned,
            generation,
            needs,
            graced,
            to_repack,
            suspects,
        };
        survey.to_repack = survey.choose_packs(store, options)?;
        Ok(survey)
    }

    /// Returns the packs that are worth to be repacked, as far as there is room for what is written.
    fn choose_packs(&self, store: &Store, options: &PurgeOptions) -> Result<Vec<Candidate>> {
        if self.needs.has_stray_pin {
            return Ok(Vec::new());
        }
        let path = store.path();
        let free = store.environment().vfs.free_space(path);
        let free = free.map_err(Error::storage("stat", path))?;
        let room = free.map(|free| free.saturating_sub(options.ballast_len));
        let in_use =
            |session: &SessionId| self.is_running(session) || self.graced.contains_key(session);
        // A condemned pack that is needed again is reprieved first.
        let is_eligible = |row: &PackRow| row.accepts_new_references() && !in_use(&row.session);
        let candidates: Vec<Candidate> = self
            .packs
            .iter()
            .filter(|(_, row)| is_eligible(row))
            .filter_map(|(_, row)| {
                self.needs.live.get(&row.id).map(|live| Candidate::new(row, *live))
            })
            .collect();
        Ok(repack::choose(&candidates, room))
    }

    fn is_running(&self, session: &SessionId) -> bool {
        self.sessions.iter().any(|found| found.id == *session && found.is_alive)
    }

    /// Returns why a pack stays or goes.
    pub(super) fn fate(&self, row: &PackRow) -> Fate {
        let is_marked = self.needs.packs.contains_key(&row.id) || self.suspects.contains(&row.id);
        if is_marked || self.needs.has_stray_pin {
            return Fate::Needed;
        }
        if self.is_running(&row.session) || self.graced.contains_key(&row.session) {
            return Fate::OfSession(row.session);
        }
        Fate::Dead
    }

    /// Returns the condemned lists that what was surveyed suffices to sweep: nothing has come to rely on their packs
    /// since, because all of them had their flags before the sessions were read.
    pub(super) fn ripe_lists(&self, options: &PurgeOptions) -> HashSet<u64> {
        let unflagged: HashSet<PackId> = self
            .packs
            .iter()
            .filter(|(_, row)| row.condemned == 0)
            .map(|(_, row)| row.id)
            .collect();
        let is_ripe = |list: &&CondemnedList| {
            list.generation <= self.generation
                && !list.packs.iter().any(|pack| unflagged.contains(pack))
                && self.reasons_to_wait(list.generation, list.condemned_at, options).is_empty()
        };
        self.condemned.lists.iter().filter(is_ripe).map(|list| list.generation).collect()
    }

    /// Returns what the purge would do, which also has to read the tables of the packs that would be repacked.
    pub(super) fn summary(&self, store: &Store, options: &PurgeOptions) -> Result<PurgeSummary> {
        let Forecast { written_bytes } =
            repack::forecast(store, &self.to_repack, &self.needs.packs)?;
        let mut summary = PurgeSummary {
            repack_bytes: written_bytes,
            keep_bytes: written_bytes,
            ..PurgeSummary::default()
        };
        let listed: BTreeMap<PackId, (u64, Timestamp)> = self
            .condemned
            .lists
            .iter()
            .flat_map(|list| {
                list.packs.iter().map(|pack| (*pack, (list.generation, list.condemned_at)))
            })
            .collect();
        let emptied: HashSet<PackId> =
            self.to_repack.iter().map(|candidate| candidate.id).collect();
        let mut waiting = WaitingSum::default();
        for (_, row) in self.packs.iter().filter(|(_, row)| !row.is_missing) {
            if !emptied.contains(&row.id) && self.fate(row) != Fate::Dead {
                summary.keep_bytes += row.file_len;
                self.add_holders(row, &mut waiting);
                continue;
            }
            let (generation, since) = listed.get(&row.id).copied().unwrap_or((u64::MAX, self.now));
            let reasons = self.reasons_to_wait(generation, since, options);
            if reasons.is_empty() {
                summary.free_bytes += row.file_len;
            } else {
                summary.defer_bytes += row.file_len;
                reasons.into_iter().for_each(|reason| waiting.add(reason, row.file_len));
            }
        }
        summary.waiting = waiting.finish();
        Ok(summary)
    }

    /// Adds the sessions for which alone a pack is kept.
    pub(super) fn add_holders(&self, row: &PackRow, waiting: &mut WaitingSum) {
        for (session, packs) in &self.needs.pinned {
            if packs.contains(&row.id) {
                waiting.add(WaitReason::InUse(Box::new(session.clone())), row.file_len);
            }
        }
        let Fate::OfSession(id) = self.fate(row) else { return };
        let Some(found) = self.sessions.iter().find(|found| found.id == id) else { return };
        let reason = match (&found.record, self.graced.get(&id)) {
            (Ok(record), None) => WaitReason::InUse(Box::new(record.clone())),
            (Ok(record), Some(until)) => {
                WaitReason::Unfinished { session: Box::new(record.clone()), until: *until }
            }
            (Err(_), _) => WaitReason::UnknownSession(id),
        };
        waiting.add(reason, row.file_len);
    }

    /// Returns what keeps a list from being swept; nothing if it can be.
    pub(super) fn reasons_to_wait(
        &self,
        generation: u64,
        condemned_at: Timestamp,
        options: &PurgeOptions,
    ) -> Vec<WaitReason> {
        let older = self.sessions.iter().filter(|found| keeps_packs(found, generation));
        let grace = grace_end(condemned_at, self.now, options);
        older.map(WaitReason::older).chain(grace.map(|until| WaitReason::Grace { until })).collect()
    }
}

/// Returns whether a session keeps packs that list `generation` condemned from being swept: it is running, began before, and
/// relies on packs that it has looked up. One that cannot be read counts as such.
fn keeps_packs(found: &FoundSession, generation: u64) -> bool {
    found.is_alive
        && found.record.as_ref().map_or(true, |record| {
            record.kind.relies_on_places() && record.start_generation < generation
        })
}

/// Returns the dead writers whose last pack is younger than the grace, with the end of that.
fn graced_sessions(
    packs: &[(u32, PackRow)],
    sessions: &[FoundSession],
    now: Timestamp,
    options: &PurgeOptions,
) -> HashMap<SessionId, Timestamp> {
    let end = |found: &FoundSession| {
        let is_writer = found.record.as_ref().map_or(true, |record| record.kind.is_writer());
        if found.is_alive || !is_writer {
            return None;
        }
        let started = found.record.as_ref().ok().map(|record| record.started);
        let of_session = packs.iter().filter(|(_, row)| row.session == found.id);
        let times = of_session.map(|(_, row)| row.created).chain(started);
        times.filter_map(|since| grace_end(since, now, options)).max()
    };
    sessions.iter().filter_map(|found| end(found).map(|end| (found.id, end))).collect()
}
