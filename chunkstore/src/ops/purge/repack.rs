//! Which packs are worth to be repacked, and what that comes to.
//!
//! Two rules. A pack is *mostly dead* if what is needed of it is less than half of its records: its live records are copied, and more than
//! is written comes free. Packs are *small* if they are shorter than a quarter of a full one; [`SMALL_COUNT_MIN`] of
//! one kind are merged. What comes out is full packs and at most one that is not, for each kind; so a
//! second purge finds nothing to do, and of what was merged before at most one small pack is written once more.
//!
//! Packs of data and packs of lists are never mixed.

use std::collections::BTreeMap;

use super::needs::Live;
use crate::error::Result;
use crate::format::{FooterRecord, PackFooter, PackHeader, PackKind};
use crate::id::PackId;
use crate::index::PackRow;
use crate::mark::PackNeeds;
use crate::pack::{PACK_LEN_TARGET, PACK_RECORD_COUNT_TARGET, read_contents};
use crate::storage::Storage;
use crate::store::Store;
use crate::time::Timestamp;

/// Bytes of a pack that hold no records. They come again with each new pack.
const FRAME_LEN: u64 = (PackHeader::LEN + PackFooter::TRAILER_LEN) as u64;

/// A pack below this length is small, unless it has many records.
const SMALL_LEN: u64 = PACK_LEN_TARGET / 4;

/// A pack with as many records is not small.
const SMALL_RECORD_COUNT: u64 = PACK_RECORD_COUNT_TARGET as u64 / 4;

/// So many small packs of one kind are merged.
const SMALL_COUNT_MIN: usize = 8;

/// A pack of which something is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: PackId,
    pub(super) kind: PackKind,
    pub(super) created: Timestamp,
    pub(super) file_len: u64,
    pub(super) record_count: u32,
    pub(super) live: Live,
}

impl Candidate {
    pub(super) const fn new(row: &PackRow, live: Live) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            created: row.created,
            file_len: row.file_len,
            record_count: row.record_count,
            live,
        }
    }

    /// Returns the bytes that the needed records take in a pack, their rows in its table included.
    const fn live_len(&self) -> u64 {
        self.live.len + self.live.count as u64 * FooterRecord::LEN as u64
    }

    fn is_mostly_dead(&self) -> bool {
        self.live_len() < self.file_len.saturating_sub(FRAME_LEN) / 2
    }

    fn is_small(&self) -> bool {
        self.file_len < SMALL_LEN && u64::from(self.record_count) < SMALL_RECORD_COUNT
    }
}

/// Returns those that are worth to be repacked, in the order in which they are: those first that were made first. Where
/// `room` does not suffice for all, those are taken that cost the least for what they give back.
pub(super) fn choose(candidates: &[Candidate], room: Option<u64>) -> Vec<Candidate> {
    let mut chosen = Vec::new();
    for kind in [PackKind::Data, PackKind::List] {
        let of_kind = candidates.iter().filter(|candidate| candidate.kind == kind);
        let (dead, rest): (Vec<Candidate>, Vec<Candidate>) =
            of_kind.copied().partition(Candidate::is_mostly_dead);
        let small: Vec<Candidate> = rest.into_iter().filter(Candidate::is_small).collect();
        // What is left of the mostly dead ones ends in a small pack too.
        if SMALL_COUNT_MIN <= small.len() + usize::from(!dead.is_empty()) {
            chosen.extend(small);
        }
        chosen.extend(dead);
    }
    if let Some(room) = room {
        chosen.sort_by(|left, right| {
            let cost = |this: &Candidate, other: &Candidate| {
                u128::from(this.live_len()) * u128::from(other.file_len)
            };
            cost(left, right).cmp(&cost(right, left)).then(left.id.cmp(&right.id))
        });
        let mut needed = 0;
        chosen.retain(|candidate| {
            let with_this = needed + candidate.live_len();
            let fits = with_this <= room;
            needed = if fits { with_this } else { needed };
            fits
        });
    }
    chosen.sort_by_key(|candidate| (candidate.kind, candidate.created, candidate.id));
    chosen
}

/// What repacking comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forecast {
    /// Bytes of the new packs.
    pub(super) written_bytes: u64,
}

/// Returns what repacking comes to, if nothing is damaged.
pub(super) fn forecast(
    store: &Store,
    chosen: &[Candidate],
    needs: &BTreeMap<PackId, PackNeeds>,
) -> Result<Forecast> {
    let mut forecast = Forecast::default();
    for packs in chosen.chunk_by(|left, right| left.kind == right.kind) {
        let mut open: Option<Shape> = None;
        for candidate in packs {
            let contents = match read_contents(store.storage() as &dyn Storage, &candidate.id) {
                Err(error) if error.is_damage() => continue,
                other => other?,
            };
            let Some(need) = needs.get(&candidate.id) else { continue };
            let records = contents.records.iter().enumerate();
            for (_, record) in records.filter(|(index, _)| need.contains(*index)) {
                if open.is_some_and(|shape| shape.is_full()) {
                    forecast.written_bytes += open.take().map_or(0, |shape| shape.file_len());
                }
                let shape = open.get_or_insert_with(Shape::default);
                shape.records_len += u64::from(record.len_in_pack());
                shape.record_count += 1;
            }
        }
        forecast.written_bytes += open.map_or(0, |shape| shape.file_len());
    }
    Ok(forecast)
}

/// How long a pack is that is not written.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    records_len: u64,
    record_count: usize,
}

impl Shape {
    const fn file_len(self) -> u64 {
        let table_len = self.record_count * FooterRecord::LEN;
        FRAME_LEN + table_len as u64 + self.records_len
    }

    /// As the writer of packs has it. A chunk after which a pack would be too long to be one is far longer than any other.
    const fn is_full(self) -> bool {
        PACK_LEN_TARGET <= self.file_len() || PACK_RECORD_COUNT_TARGET <= self.record_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn candidate(number: u8, kind: PackKind, file_len: u64, live_len: u64) -> Candidate {
        Candidate {
            id: PackId::from_bytes([number; 32]),
            kind,
            created: Timestamp(i64::from(number)),
            file_len,
            record_count: 10,
            live: Live { len: live_len, count: 1 },
        }
    }

    fn numbers(chosen: &[Candidate]) -> Vec<u8> {
        chosen.iter().map(|candidate| candidate.id.as_bytes()[0]).collect()
    }

    #[test]
    fn pack_is_repacked_when_less_than_half_of_it_is_needed() {
        let row = FooterRecord::LEN as u64;
        for (live_len, is_chosen) in
            [(0, true), (32 * MIB - row - 1, true), (32 * MIB - row, false), (63 * MIB, false)]
        {
            let packs = vec![candidate(1, PackKind::Data, FRAME_LEN + 64 * MIB, live_len)];
            assert_eq!(choose(&packs, None).len(), usize::from(is_chosen), "{live_len}");
        }
        // A pack of one needed record that is shorter than what frames it.
        let packs = vec![candidate(1, PackKind::List, FRAME_LEN + 60 + row, 60)];
        assert!(choose(&packs, None).is_empty());
    }

    #[test]
    fn small_packs_are_merged_when_there_are_enough_of_one_kind() {
        let packs = |count, kind, first: u8| {
            (first..first + count).map(move |number| candidate(number, kind, MIB, MIB - 100))
        };
        let seven: Vec<Candidate> = packs(7, PackKind::Data, 1).collect();
        let other_kind = packs(7, PackKind::List, 20);
        let both: Vec<Candidate> = seven.iter().copied().chain(other_kind).collect();
        assert!(choose(&both, None).is_empty());
        let eighth = candidate(8, PackKind::Data, SMALL_LEN - 1, SMALL_LEN - 100);
        let long = candidate(9, PackKind::Data, SMALL_LEN, SMALL_LEN - 100);
        let many_records =
            Candidate { record_count: 8192, ..candidate(10, PackKind::Data, MIB, MIB) };
        let with = |more: Candidate| choose(&[&seven[..], &[more]].concat(), None);
        assert_eq!(numbers(&with(eighth)), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(with(long).is_empty());
        assert!(with(many_records).is_empty());
        // What is left of one that is mostly dead would be the eighth after this purge.
        let dead = candidate(11, PackKind::Data, 64 * MIB, MIB);
        assert_eq!(numbers(&with(dead)), [1, 2, 3, 4, 5, 6, 7, 11]);
    }

    #[test]
    fn what_gives_back_the_most_comes_first_where_room_is_short() {
        let packs = vec![
            candidate(1, PackKind::Data, 64 * MIB, 30 * MIB),
            candidate(2, PackKind::Data, 64 * MIB, 10 * MIB),
            candidate(3, PackKind::List, 64 * MIB, 20 * MIB),
        ];
        let with_room = |room: u64| numbers(&choose(&packs, Some(room)));
        assert!(with_room(10 * MIB).is_empty());
        assert_eq!(with_room(11 * MIB), [2]);
        assert_eq!(with_room(31 * MIB), [2, 3]);
        assert_eq!(with_room(61 * MIB), [1, 2, 3]);
    }
}
