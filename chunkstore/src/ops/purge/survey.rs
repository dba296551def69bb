//! What is in the store, what is needed, and who is running: the facts that a purge decides on.
//!
//! The order of reading is the proof: packs, then sessions, then revision records, then pins. A backup that ends between
//! the first two has its revision among the records; a reader that begins after the records were
//! read finds its revision still there, or it is not in the records and the reader gives up.

use std::collections::{BTreeMap, HashSet};

use super::{PurgeOptions, PurgeSummary};
use crate::chunk_reader::to_usize;
use crate::error::Result;
use crate::format::PackHeader;
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::{Condemned, Location, PackRow};
use crate::mark::{Marker, PackNeeds};
use crate::pack::{PackContents, read_contents};
use crate::progress::{NoProgress, Phase, Progress};
use crate::session::{self, FoundSession};
use crate::storage::Storage;
use crate::store::Store;
use crate::time::Timestamp;

/// Chunks that are looked up at once.
const LOOKUP_COUNT: usize = 50_000;

/// The facts.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) now: Timestamp,
    pub(super) packs: Vec<(u32, PackRow)>,
    pub(super) sessions: Vec<FoundSession>,
    pub(super) condemned: Condemned,
    /// Generation of the index.
    pub(super) generation: u64,
    pub(super) needs: BTreeMap<PackId, PackNeeds>,
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
        // Whatever the index said wrongly could make a needed pack look dead.
        if !confirm_index(store)? {
            progress.note("the index is damaged and was rebuilt");
            store.index().rebuild(&NoProgress)?;
        }
        let (packs, generation) =
            store.index().view(|view| Ok((view.packs()?, view.generation()?)))?;
        let sessions = session::list(store.environment(), store.layout())?;
        let condemned = Condemned::read(store.storage())?;
        let now = store.environment().clock.now();
        progress.begin(Phase::Mark, None);
        let mut marker = Marker::new(store, progress);
        mark_all(store, &mut marker)?;
        progress.end();
        // A chunk that no pack has costs its revision, not the others. A page that cannot be read hides what it needs.
        let gaps = std::mem::take(&mut marker.gaps);
        if let Some(gap) = gaps.into_iter().find(|gap| gap.is_list) {
            return Err(gap.error);
        }
        let needs = marker.needs;
        let graced = graced_sessions(&packs, &sessions, now, options);
        Ok(Self { now, packs, sessions, condemned, generation, needs, graced })
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

/// Returns whether the index knows every record of every pack, at a place where a pack has it, and who wrote the pack.
///
/// Nothing less will do. One entry that leads to another chunk's record hides that its own pack is needed, and redb
/// does not notice: it checks no page that it reads.
fn confirm_index(store: &Store) -> Result<bool> {
    let storage: &dyn Storage = store.storage();
    let packs = store.index().view(|view| view.packs())?;
    let mut elsewhere: Option<(PackId, PackContents)> = None;
    for (_, row) in packs.iter().filter(|(_, row)| !row.is_missing) {
        let contents = match read_contents(storage, &row.id) {
            Ok(contents) => contents,
            // A new index does not know a pack that cannot be read, and so it stays.
            Err(error) if error.is_damage() => return Ok(false),
            Err(other) => return Err(other),
        };
        let is_row_right =
            |header: &PackHeader| header.session_id == row.session && header.created == row.created;
        if !contents.header.as_ref().is_none_or(is_row_right) {
            return Ok(false);
        }
        let indices: Vec<usize> = (0..contents.records.len()).collect();
        for batch in indices.chunks(LOOKUP_COUNT) {
            let ids: Vec<ChunkId> = batch.iter().map(|index| contents.records[*index].id).collect();
            let locations = store.index().view(|view| view.locate(&ids))?;
            for (index, location) in batch.iter().zip(locations) {
                let record = &contents.records[*index];
                let Some(location) = location else { return Ok(false) };
                if location.pack == row.id && is_at(&location, &contents, &record.id) {
                    continue;
                }
                // Another copy counts, if it is one.
                if elsewhere.as_ref().is_none_or(|(pack, _)| *pack != location.pack) {
                    match read_contents(storage, &location.pack) {
                        Ok(contents) => elsewhere = Some((location.pack, contents)),
                        Err(error) if error.is_damage() => return Ok(false),
                        Err(other) => return Err(other),
                    }
                }
                let is_copy =
                    |(_, contents): &(PackId, PackContents)| is_at(&location, contents, &record.id);
                if !elsewhere.as_ref().is_some_and(is_copy) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Returns whether the record with this number in the table of a pack is that of chunk `id`.
fn is_at(location: &Location, contents: &PackContents, id: &ChunkId) -> bool {
    let record = contents.records.get(to_usize(location.record_index));
    record.is_some_and(|record| {
        record.id == *id
            && record.offset == location.offset
            && record.stored_len == location.stored_len
            && record.plain_len == location.plain_len
    })
}
