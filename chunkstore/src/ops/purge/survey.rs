//! What is in the store, what is needed, and who is running: the facts that a purge decides on.
//!
//! The order of reading is the proof: packs, then sessions, then revision records, then pins. A backup that ends between
//! the first two has its revision among the records; a reader that begins after the records were
//! read finds its revision still there, or it is not in the records and the reader gives up.

use std::collections::{BTreeMap, HashSet};

use super::{PurgeOptions, PurgeSummary};
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::{Condemned, PackRow};
use crate::mark::{Gaps, Marker, PackNeeds};
use crate::pack::read_contents;
use crate::progress::{NoProgress, Phase, Progress};
use crate::session::{self, FoundSession};
use crate::storage::Storage;
use crate::store::Store;
use crate::time::Timestamp;

/// How often the marks are taken again because somebody rebuilt the index meanwhile.
pub(super) const MARK_ATTEMPTS: u32 = 100;

/// The facts.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) now: Timestamp,
    pub(super) packs: Vec<(u32, PackRow)>,
    pub(super) sessions: Vec<FoundSession>,
    pub(super) condemned: Condemned,
    /// Generation of the index.
    pub(super) generation: u64,
    /// Index that `packs` and `needs` were taken from.
    pub(super) incarnation: u64,
    pub(super) needs: BTreeMap<PackId, PackNeeds>,
    /// Whether everything that is needed was found.
    pub(super) is_complete: bool,
    /// Sessions that died or failed, and whose packs still have their grace.
    pub(super) graced: HashSet<SessionId>,
}

/// Why a pack stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A revision or a pinned root needs it.
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
        progress: &dyn Progress,
    ) -> Result<Self> {
        for damage in store.index().reconcile()? {
            progress.note(&damage.to_string());
        }
        match Self::try_take(store, options, progress, Gaps::Doubted)? {
            Some(survey) => Ok(survey),
            None => {
                // What the index says does not fit to the packs, or it lacks chunks that a pack may have.
                store.index().rebuild(&NoProgress)?;
                Self::try_take(store, options, progress, Gaps::Certain)?.ok_or_else(|| Error::Bug {
                    what: "a new index contradicts the packs that it was built from".to_owned(),
                })
            }
        }
    }

    /// Returns `None` if the index must be rebuilt first.
    fn try_take(
        store: &Store,
        options: &PurgeOptions,
        progress: &dyn Progress,
        gaps: Gaps,
    ) -> Result<Option<Self>> {
        for _ in 0..MARK_ATTEMPTS {
            let incarnation = store.index().view(|view| view.incarnation())?;
            let survey = Self::look(store, options, progress, gaps, incarnation);
            if store.index().view(|view| view.incarnation())? == incarnation {
                return survey;
            }
        }
        Err(index_keeps_changing())
    }

    fn look(
        store: &Store,
        options: &PurgeOptions,
        progress: &dyn Progress,
        gaps: Gaps,
        incarnation: u64,
    ) -> Result<Option<Self>> {
        let (packs, generation) =
            store.index().view(|view| Ok((view.packs()?, view.generation()?)))?;
        let sessions = session::list(store.environment(), store.layout())?;
        let condemned = Condemned::read(store.storage())?;
        let now = store.environment().clock.now();
        progress.begin(Phase::Mark, None);
        let mut marker = Marker::new(store, progress);
        mark_all(store, &mut marker)?;
        progress.end();
        if !marker.gaps.is_empty() && gaps == Gaps::Doubted {
            return Ok(None);
        }
        // A chunk that no pack has costs its revision, not the others. A page that cannot be read hides what it needs.
        let gaps = std::mem::take(&mut marker.gaps);
        let is_complete = gaps.is_empty();
        if let Some(gap) = gaps.into_iter().find(|gap| gap.is_list) {
            return Err(gap.error);
        }
        let needs = marker.needs;
        if !fits(store, &needs)? {
            return Ok(None);
        }
        let graced = graced_sessions(&packs, &sessions, now, options);
        Ok(Some(Self {
            now,
            packs,
            sessions,
            condemned,
            generation,
            incarnation,
            needs,
            is_complete,
            graced,
        }))
    }

    /// Returns why a pack stays or goes.
    pub(super) fn fate(&self, row: &PackRow) -> Fate {
        if self.needs.contains_key(&row.id) {
            return Fate::Needed;
        }
        let is_running =
            self.sessions.iter().any(|found| found.id == row.session && found.is_alive);
        if is_running || self.graced.contains(&row.session) {
            return Fate::OfSession(row.session);
        }
        Fate::Dead
    }

    /// Returns who keeps packs that were condemned by list `generation` from being swept.
    pub(super) fn older_writers(&self, generation: u64) -> Vec<&FoundSession> {
        older_writers(&self.sessions, generation).collect()
    }

    pub(super) fn summary(&self, options: &PurgeOptions) -> PurgeSummary {
        let mut summary = PurgeSummary::default();
        let listed: BTreeMap<PackId, (u64, Timestamp)> = self
            .condemned
            .lists
            .iter()
            .flat_map(|list| {
                list.packs.iter().map(|pack| (*pack, (list.generation, list.condemned_at)))
            })
            .collect();
        let mut waiting = HashSet::new();
        for (_, row) in self.packs.iter().filter(|(_, row)| !row.is_missing) {
            match self.fate(row) {
                Fate::Needed | Fate::OfSession(_) => summary.keep_bytes += row.file_len,
                Fate::Dead => {
                    let (generation, since) =
                        listed.get(&row.id).copied().unwrap_or((u64::MAX, self.now));
                    let reasons = self.reasons_to_wait(generation, since, options);
                    if reasons.is_empty() {
                        summary.free_bytes += row.file_len;
                    } else {
                        summary.defer_bytes += row.file_len;
                        waiting.extend(reasons);
                    }
                }
            }
        }
        summary.waiting = waiting.into_iter().collect();
        summary.waiting.sort();
        summary
    }

    /// Returns what keeps a list from being swept; nothing if it can be.
    pub(super) fn reasons_to_wait(
        &self,
        generation: u64,
        condemned_at: Timestamp,
        options: &PurgeOptions,
    ) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.older_writers(generation).into_iter().map(describe).collect();
        let grace = u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX);
        let age = self.now.milliseconds_since(condemned_at);
        if age < grace {
            let end = i64::try_from(grace).unwrap_or(i64::MAX).saturating_add(condemned_at.0);
            reasons.push(format!("the grace, until {}", Timestamp(end)));
        }
        reasons
    }
}

/// Says why a purge gives up: it was always overtaken by a rebuild of the index.
pub(super) fn index_keeps_changing() -> Error {
    Error::Locked {
        what: "the index".to_owned(),
        holder: "processes that rebuild it again and again".to_owned(),
    }
}

/// Marks what all revisions and all pinned roots need, in this order.
pub(super) fn mark_all(store: &Store, marker: &mut Marker<'_>) -> Result<()> {
    // A record whose removal is not durable yet would come back after a power cut, without its chunks.
    store.storage().sync_revisions()?;
    let history = store.history(None)?;
    if let Some(damage) = history.damaged.into_iter().next() {
        return Err(damage);
    }
    for revision in &history.revisions {
        marker.mark_root(&revision.record.root)?;
    }
    for pin in pinned_roots(store)? {
        marker.mark_root(&pin)?;
    }
    Ok(())
}

/// Returns the roots that running sessions pin.
fn pinned_roots(store: &Store) -> Result<Vec<ChunkId>> {
    let mut pins = Vec::new();
    for found in session::list(store.environment(), store.layout())? {
        if found.is_alive {
            // A running session whose pins cannot be read stops the purge.
            pins.extend(found.record?.pinned_roots);
        }
    }
    Ok(pins)
}

/// Returns the running writers that began before list `generation`. One that cannot be read counts as old.
pub(super) fn older_writers(
    sessions: &[FoundSession],
    generation: u64,
) -> impl Iterator<Item = &FoundSession> {
    sessions.iter().filter(move |found| {
        found.is_alive
            && found.record.as_ref().map_or(true, |record| {
                record.kind.is_writer() && record.start_generation < generation
            })
    })
}

pub(super) fn describe(found: &FoundSession) -> String {
    match &found.record {
        Ok(record) => format!(
            "the {} of process {} on {} since {}",
            record.kind, record.process, record.host, record.started
        ),
        Err(_) => format!("session {}", found.id),
    }
}

/// Returns the dead writers whose last pack is younger than the grace.
fn graced_sessions(
    packs: &[(u32, PackRow)],
    sessions: &[FoundSession],
    now: Timestamp,
    options: &PurgeOptions,
) -> HashSet<SessionId> {
    let grace = u64::try_from(options.grace.as_millis()).unwrap_or(u64::MAX);
    let is_graced = |found: &&FoundSession| {
        let is_writer = found.record.as_ref().map_or(true, |record| record.kind.is_writer());
        let started = found.record.as_ref().ok().map(|record| record.started);
        let of_session = packs.iter().filter(|(_, row)| row.session == found.id);
        let last = of_session.map(|(_, row)| row.created).chain(started).max();
        !found.is_alive
            && is_writer
            && last.is_some_and(|last| now.milliseconds_since(last) < grace)
    };
    sessions.iter().filter(is_graced).map(|found| found.id).collect()
}

/// Returns whether the tables of the packs have the needed records where the index says.
fn fits(store: &Store, needs: &BTreeMap<PackId, PackNeeds>) -> Result<bool> {
    let storage: &dyn Storage = store.storage();
    for need in needs.values() {
        match read_contents(storage, &need.pack) {
            Ok(contents) if !need.agrees_with(&contents.records) => return Ok(false),
            // A pack that cannot be read is needed all the same, and is kept.
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(other) => return Err(other),
        }
    }
    Ok(true)
}
