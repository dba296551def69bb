//! What revisions and running sessions need.
//!
//! The order of reading is the proof: revision records, then pins, then both once more (`docs/concurrency.md`, section
//! "Why it is safe"). Nothing is concluded from the index alone: what it says is there is compared with the tables
//! of the packs, and before a chunk counts as lost the index is built anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::{Error, ObjectName, Result};
use crate::format::{FooterRecord, SessionRecord};
use crate::id::{ChunkId, PackId};
use crate::mark::{Gap, Marker, PackNeeds};
use crate::pack::read_contents;
use crate::planted::{Bug, has};
use crate::progress::{NoProgress, Phase, Progress};
use crate::session;
use crate::storage::Storage;
use crate::store::Store;

/// What a survey is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To remove what is not needed.
    Purge,
    /// To say what would be removed. Works where nothing can be written.
    Preview,
}

/// What revisions and pinned roots need.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) packs: BTreeMap<PackId, PackNeeds>,
    /// How much of each pack is needed, of those that can be read and were not compared before.
    pub(super) live: BTreeMap<PackId, Live>,
    /// Chunks that no pack has.
    pub(super) lost: BTreeSet<ChunkId>,
    /// A running session pins what no pack has. It came too late and is about to give up; nothing goes until then.
    pub(super) has_stray_pin: bool,
    /// Sessions with the packs that nothing else seems to need.
    pub(super) pinned: Vec<(SessionRecord, HashSet<PackId>)>,
}

/// How much of a pack is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Bytes of the records, with their headers.
    pub(super) len: u64,
    /// Number of the records.
    pub(super) count: u32,
}

/// Finds out what is needed. `known` is what was found before: it saves comparisons, and chunks that it has as lost are not
/// looked for again.
pub(super) fn find_needs(
    store: &Store,
    purpose: Purpose,
    progress: &dyn Progress,
    known: &Needs,
) -> Result<Needs> {
    let marked = mark_all(store, purpose, progress)?;
    let is_news = |(chunk, gap): (&ChunkId, &Gap)| {
        (gap.has_no_place() || gap.is_list && gap.is_only_pinned) && !known.lost.contains(chunk)
    };
    let is_complete = !marked.marker.gaps.iter().any(is_news);
    let live = if is_complete { compare(store, &marked.marker.needs, known)? } else { None };
    let (marked, live) = match live {
        Some(live) => (marked, live),
        None => {
            match purpose {
                Purpose::Purge => drop(store.index().rebuild(&NoProgress)?),
                Purpose::Preview => store.index().renew()?,
            }
            let marked = mark_all(store, purpose, progress)?;
            let live = compare(store, &marked.marker.needs, known)?.ok_or_else(|| Error::Bug {
                what: "a new index contradicts the packs that it was built from".to_owned(),
            })?;
            (marked, live)
        }
    };
    // A chunk that no pack has costs its revision, not the others. A page that cannot be read hides what it needs. One that
    // only a pin leads to may have been swept before the pin was there, which is no damage.
    let (mut lost, mut has_stray_pin) = (known.lost.clone(), false);
    let given_up = store.given_up()?;
    for (chunk, gap) in marked.marker.gaps {
        if gap.is_list && gap.is_only_pinned && gap.has_no_place() {
            has_stray_pin = true;
            continue;
        }
        // What only such a list leads to can be reached by nobody (`docs/concurrency.md`, section "Repair").
        if gap.is_list && !(gap.is_unserved() && given_up.contains(&chunk)) {
            return Err(gap.error);
        }
        lost.insert(chunk);
    }
    if has_stray_pin {
        progress.note(
            "a session that has just begun pins what is gone: nothing is removed until it is over",
        );
    }
    Ok(Needs { packs: marked.marker.needs, live, lost, has_stray_pin, pinned: marked.pinned })
}

struct Marked<'a> {
    marker: Marker<'a>,
    pinned: Vec<(SessionRecord, HashSet<PackId>)>,
}

/// Marks what all revisions and all pinned roots need, in this order.
///
/// Twice, because the first round takes long: a backup may commit in it, after the records were read, and
/// end before its pin is looked for, and its parent may have been forgotten before. The second round has next to
/// nothing to mark and finds its record.
fn mark_all<'a>(
    store: &'a Store,
    purpose: Purpose,
    progress: &'a dyn Progress,
) -> Result<Marked<'a>> {
    let mut marker = Marker::new(store, progress);
    let mut pinned = Vec::new();
    progress.begin(Phase::Mark, None);
    for _ in 0..2 {
        match purpose {
            // A record whose removal is not durable yet would come back after a power cut, without its chunks.
            Purpose::Purge => store.storage().sync_revisions()?,
            Purpose::Preview => drop(store.storage().check_revisions()?),
        }
        let history = store.history(None)?;
        let is_record = |damage: &Error| {
            // The revision of a damaged state is among the others.
            !matches!(damage, Error::Damaged { object: ObjectName::State { .. }, .. })
        };
        if let Some(damage) = history.damaged.into_iter().find(is_record) {
            return Err(damage);
        }
        for revision in history.revisions.iter().skip(usize::from(has(Bug::RevisionUnmarked))) {
            marker.mark_root(&revision.record.root)?;
        }
        for session in running_sessions(store)? {
            let before: HashSet<PackId> = marker.needs.keys().copied().collect();
            for pin in &session.pinned_roots {
                marker.mark_pin(pin)?;
            }
            let is_new = |pack: &&PackId| !before.contains(*pack);
            let new: HashSet<PackId> = marker.needs.keys().filter(is_new).copied().collect();
            if !new.is_empty() {
                pinned.push((session, new));
            }
        }
    }
    progress.end();
    Ok(Marked { marker, pinned })
}

/// Returns the running sessions. One whose pins cannot be read stops the purge.
fn running_sessions(store: &Store) -> Result<Vec<SessionRecord>> {
    let found = session::list(store.environment(), store.layout())?;
    found.into_iter().filter(|found| found.is_alive).map(|found| found.record).collect()
}

/// Compares what is needed with the tables of the packs and returns how much that is; `None` if a table does not have the
/// needed records where the index says. What was known already was compared before.
fn compare(
    store: &Store,
    needs: &BTreeMap<PackId, PackNeeds>,
    known: &Needs,
) -> Result<Option<BTreeMap<PackId, Live>>> {
    let storage: &dyn Storage = store.storage();
    let mut live = BTreeMap::new();
    for (pack, need) in needs {
        if known.packs.get(pack) == Some(need) {
            continue;
        }
        match read_contents(storage, pack) {
            Ok(contents) if !need.agrees_with(&contents.records) => return Ok(None),
            Ok(contents) => {
                let sum = Live::of(&contents.records, need);
                // Of a damaged pack nobody knows how much there is.
                live.extend(contents.damage.is_none().then_some((*pack, sum)));
            }
            // A pack that cannot be read is needed all the same, and is kept.
            Err(error) if error.is_damage() => {}
            Err(other) => return Err(other),
        }
    }
    Ok(Some(live))
}

impl Live {
    fn of(records: &[FooterRecord], need: &PackNeeds) -> Self {
        let mut live = Self::default();
        for (_, record) in records.iter().enumerate().filter(|(index, _)| need.contains(*index)) {
            live.len += u64::from(record.len_in_pack());
            live.count += 1;
        }
        live
    }
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
