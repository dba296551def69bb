//! What is in the store, what is needed, and who is running: the facts that a purge decides on.
//!
//! The order of reading is the proof: packs, then sessions, then revision records, then pins, then records and pins
//! once more. A backup that ends between the first two has its revision among the records; a reader that begins
//! after the records were read finds its revision still there, or it is not in the records and the reader gives up.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{PurgeOptions, PurgeSummary};
use crate::error::{Error, ObjectName, Result};
use crate::format::FooterRecord;
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::{Condemned, PackRow};
use crate::mark::{Gap, Marker, PackNeeds};
use crate::pack::read_contents;
use crate::progress::{NoProgress, Phase, Progress};
use crate::session::{self, FoundSession};
use crate::storage::Storage;
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
    /// Sessions that died or failed, and whose packs still have their grace.
    pub(super) graced: HashSet<SessionId>,
    /// Packs that nothing seems to need, but that may have a chunk which is missing.
    suspects: HashSet<PackId>,
}

/// What revisions and pinned roots need.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) packs: BTreeMap<PackId, PackNeeds>,
    /// Chunks that no pack has.
    pub(super) lost: BTreeSet<ChunkId>,
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
        progress: &dyn Progress,
    ) -> Result<Self> {
        for damage in store.index().reconcile()? {
            progress.note(&damage.to_string());
        }
        let (packs, generation) =
            store.index().view_current(|view| Ok((view.packs()?, view.generation()?)))?;
        let sessions = session::list(store.environment(), store.layout())?;
        let condemned = Condemned::read(store.storage())?;
        condemned.refuse_newer_format()?;
        let now = store.environment().clock.now();
        let needs = find_needs(store, progress, &Needs::default())?;
        let graced = graced_sessions(&packs, &sessions, now, options);
        let suspects = find_suspects(store, packs.iter().map(|(_, row)| row.id), &needs)?;
        Ok(Self { now, packs, sessions, condemned, generation, needs, graced, suspects })
    }

    /// Returns why a pack stays or goes.
    pub(super) fn fate(&self, row: &PackRow) -> Fate {
        if self.needs.packs.contains_key(&row.id) || self.suspects.contains(&row.id) {
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

/// Finds out what is needed. `known` is what was found before: it saves comparisons, and chunks that it has as lost are not
/// looked for again.
///
/// The index is derived and its pages are not checked, so nothing is concluded from it alone: what it says is there is
/// compared with the packs, and before a chunk counts as lost the index is built anew.
pub(super) fn find_needs(store: &Store, progress: &dyn Progress, known: &Needs) -> Result<Needs> {
    let marker = mark_all(store, progress)?;
    let is_news =
        |(chunk, gap): (&ChunkId, &Gap)| gap.has_no_place() && !known.lost.contains(chunk);
    let is_complete = !marker.gaps.iter().any(is_news);
    let marker = if is_complete && fits(store, &marker.needs, known)? {
        marker
    } else {
        store.index().rebuild(&NoProgress)?;
        let marker = mark_all(store, progress)?;
        if !fits(store, &marker.needs, known)? {
            let what = "a new index contradicts the packs that it was built from";
            return Err(Error::Bug { what: what.to_owned() });
        }
        marker
    };
    // A chunk that no pack has costs its revision, not the others. A page that cannot be read hides what it needs.
    let mut lost = known.lost.clone();
    for (chunk, gap) in marker.gaps {
        if gap.is_list {
            return Err(gap.error);
        }
        lost.insert(chunk);
    }
    Ok(Needs { packs: marker.needs, lost })
}

/// Marks what all revisions and all pinned roots need, in this order.
///
/// Twice, because the first round takes long: a backup may commit in it, after the records were read, and
/// end before its pin is looked for, and its parent may have been forgotten before. The second round has next to
/// nothing to mark and finds its record.
fn mark_all<'a>(store: &'a Store, progress: &'a dyn Progress) -> Result<Marker<'a>> {
    let mut marker = Marker::new(store, progress);
    progress.begin(Phase::Mark, None);
    for _ in 0..2 {
        // A record whose removal is not durable yet would come back after a power cut, without its chunks.
        store.storage().sync_revisions()?;
        let history = store.history(None)?;
        let is_record = |damage: &Error| {
            // The revision of a damaged state is among the others.
            !matches!(damage, Error::Damaged { object: ObjectName::State { .. }, .. })
        };
        if let Some(damage) = history.damaged.into_iter().find(is_record) {
            return Err(damage);
        }
        for revision in &history.revisions {
            marker.mark_root(&revision.record.root)?;
        }
        for pin in pinned_roots(store)? {
            marker.mark_root(&pin)?;
        }
    }
    progress.end();
    Ok(marker)
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

/// Returns whether the tables of the packs have the needed records where the index says. What was known already was
/// compared before.
fn fits(store: &Store, needs: &BTreeMap<PackId, PackNeeds>, known: &Needs) -> Result<bool> {
    let storage: &dyn Storage = store.storage();
    for (pack, need) in needs {
        if known.packs.get(pack) == Some(need) {
            continue;
        }
        match read_contents(storage, pack) {
            Ok(contents) if !need.agrees_with(&contents.records) => return Ok(false),
            // A pack that cannot be read is needed all the same, and is kept.
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(other) => return Err(other),
        }
    }
    Ok(true)
}

/// Returns those of `packs` that have another copy of a lost chunk, which the index does not know of, or that may
/// have one behind the damage in their table or in a record's header.
pub(super) fn find_suspects(
    store: &Store,
    packs: impl Iterator<Item = PackId>,
    needs: &Needs,
) -> Result<HashSet<PackId>> {
    let mut suspects = HashSet::new();
    if needs.lost.is_empty() {
        return Ok(suspects);
    }
    for pack in packs.filter(|pack| !needs.packs.contains_key(pack)) {
        let is_lost = |record: &FooterRecord| needs.lost.contains(&record.id);
        match read_contents(store.storage() as &dyn Storage, &pack) {
            Ok(contents) if contents.damage.is_none() && !contents.records.iter().any(is_lost) => {}
            Err(Error::Missing { .. }) => {}
            Err(error) if !error.is_damage() => return Err(error),
            Ok(_) | Err(_) => {
                suspects.insert(pack);
            }
        }
    }
    Ok(suspects)
}
