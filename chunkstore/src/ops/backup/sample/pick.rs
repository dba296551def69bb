//! Chooses what of an image is compared.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Run;
use crate::chunk_reader::ChunkReader;
use crate::error::Result;
use crate::format::{PageEntry, Root, SpanRef};
use crate::id::ChunkId;
use crate::index::Location;

/// Bytes of a zero entry that are compared, unless all is.
const ZERO_LEN: u64 = 64 << 10;

/// Zero spans of which a piece is compared.
const ZERO_SPAN_COUNT: usize = 8;

/// A part of the image and what the store has there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) offset: u64,
    pub(super) entry: PageEntry,
}

/// Which entries of the pages are taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    /// So many, in spans that are chosen at random; where these have not enough, in others.
    Count(u64),
    /// Each one, of zeros a piece.
    EveryOne,
    /// Each with this probability in percent; with 100 all zeros are compared too.
    Percent(u8),
}

/// Returns the spans that are looked at, and how often each was chosen if that is what the choice says: then the others follow, for
/// what the chosen ones do not have.
pub(super) fn choose_spans(run: &Run<'_>, root: &Root, choice: Choice) -> Vec<(usize, u64)> {
    if matches!(choice, Choice::Percent(_)) {
        return (0..root.spans.len()).map(|span| (span, 0)).collect();
    }
    let (pages, zeros): (Vec<usize>, Vec<usize>) =
        (0..root.spans.len()).partition(|span| page_id(root, *span).is_some());
    let mut chosen: BTreeMap<usize, u64> = BTreeMap::new();
    let mut others = Vec::new();
    match choice {
        Choice::Count(count) if !pages.is_empty() => {
            for _ in 0..count {
                *chosen.entry(pages[run.random_below(pages.len())]).or_default() += 1;
            }
            others.extend(pages.into_iter().filter(|page| !chosen.contains_key(page)));
        }
        _ => chosen.extend(pages.into_iter().map(|span| (span, 0))),
    }
    for _ in 0..ZERO_SPAN_COUNT.min(zeros.len()) {
        chosen.insert(zeros[run.random_below(zeros.len())], 1);
    }
    chosen.into_iter().chain(others.into_iter().map(|span| (span, 0))).collect()
}

/// Reads the page of a span back from the store, and adds what is chosen of it.
pub(super) fn pick(
    run: &Run<'_>,
    reader: &mut ChunkReader,
    (root, span): (&Root, usize),
    location: Option<Location>,
    (choice, count): (Choice, u64),
    picks: &mut Vec<Pick>,
) -> Result<()> {
    let range = root.span_range(span);
    let len = range.end - range.start;
    let entries = match page_id(root, span) {
        None => vec![PageEntry::Zero { len }],
        Some(id) => reader.read_page(&id, location, len)?.entries,
    };
    let mut chosen = choose_entries(run, entries.len(), choice, count).into_iter().peekable();
    let mut offset = range.start;
    for (index, entry) in entries.iter().enumerate() {
        if chosen.next_if_eq(&index).is_some() {
            picks.push(piece(run, Pick { offset, entry: *entry }, choice));
        }
        offset += entry.len();
    }
    Ok(())
}

pub(super) fn page_id(root: &Root, span: usize) -> Option<ChunkId> {
    match root.spans[span] {
        SpanRef::Page(id) => Some(id),
        SpanRef::Zero => None,
    }
}

/// Returns the places of the chosen entries of a page, ascending.
fn choose_entries(run: &Run<'_>, entries: usize, choice: Choice, count: u64) -> Vec<usize> {
    match choice {
        Choice::Percent(percent) => (0..entries)
            .filter(|_| 100 <= percent || run.random_below(100) < usize::from(percent))
            .collect(),
        Choice::EveryOne => (0..entries).collect(),
        Choice::Count(_) => distinct(run, entries, count),
    }
}

/// Returns `count` different numbers below `end`, ascending, each set of them as likely as any other; all if there are not as many.
///
/// Robert Floyd's algorithm: Bentley, "Programming Pearls: A Sample of Brilliance", Communications of the ACM 30 (9), 1987.
fn distinct(run: &Run<'_>, end: usize, count: u64) -> Vec<usize> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(end);
    let mut chosen = BTreeSet::new();
    for last in end - count..end {
        if !chosen.insert(run.random_below(last + 1)) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

/// Takes only a piece of a long zero entry, unless everything is compared.
fn piece(run: &Run<'_>, pick: Pick, choice: Choice) -> Pick {
    match pick.entry {
        PageEntry::Zero { len } if ZERO_LEN < len && !matches!(choice, Choice::Percent(100)) => {
            let pieces = usize::try_from(len / ZERO_LEN).unwrap_or(usize::MAX);
            let offset = pick.offset + run.random_below(pieces) as u64 * ZERO_LEN;
            Pick { offset, entry: PageEntry::Zero { len: ZERO_LEN } }
        }
        _ => pick,
    }
}
