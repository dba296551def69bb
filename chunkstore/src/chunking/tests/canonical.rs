//! All ways to cut the same bytes give the same entries.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::Config;
use proptest::{prop_assert, prop_assert_eq, proptest};
use rayon::prelude::{IntoParallelIterator, ParallelIterator};

use super::{BLOCK_LEN, Pieces, ZERO_RUN_LEN, cut_span, random_bytes, reference, small_params};
use crate::chunking::{ChunkingParams, spans_to_read};
use crate::format::PageEntry;
use crate::id::ChunkId;

const SPAN_LEN: usize = 128 << 10;

/// Part of an image.
#[derive(Clone, Debug)]
enum Part {
    Random { seed: u64, len: usize },
    Constant { byte: u8, len: usize },
}

/// What happens to an image from one revision to the next.
#[derive(Clone, Debug)]
enum Change {
    /// Flips a bit of the byte that is this far from the end of a chunk; 0 is the byte behind it.
    FlipNearCut {
        chunk: usize,
        distance: isize,
    },
    Flip {
        place: usize,
    },
    InsertBlocks {
        block: usize,
        count: usize,
        seed: u64,
    },
    RemoveBlocks {
        block: usize,
        count: usize,
    },
    Zero {
        place: usize,
        len: usize,
    },
    Append(Part),
    Truncate {
        len: usize,
    },
}

fn any_len() -> impl Strategy<Value = usize> {
    let near_zero_run = (14..=18_usize, -1..=1_isize)
        .prop_map(|(blocks, more)| (blocks * BLOCK_LEN).saturating_add_signed(more));
    prop_oneof![
        3 => near_zero_run,
        2 => (0..=5_usize).prop_map(|blocks| blocks * BLOCK_LEN),
        3 => 1..20_000_usize,
        1 => 1..5_usize,
    ]
}

fn any_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => (any::<u64>(), any_len()).prop_map(|(seed, len)| Part::Random { seed, len }),
        4 => any_len().prop_map(|len| Part::Constant { byte: 0, len }),
        1 => (any::<u8>(), any_len()).prop_map(|(byte, len)| Part::Constant { byte, len }),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let distance = prop_oneof![Just(0_isize), -65..=65_isize];
    let [place, count] = [0..1 << 20, 1..20_usize];
    let block = 0..200_usize;
    prop_oneof![
        4 => (any::<usize>(), distance)
            .prop_map(|(chunk, distance)| Change::FlipNearCut { chunk, distance }),
        1 => place.clone().prop_map(|place| Change::Flip { place }),
        1 => (block.clone(), count.clone(), any::<u64>())
            .prop_map(|(block, count, seed)| Change::InsertBlocks { block, count, seed }),
        1 => (block, count).prop_map(|(block, count)| Change::RemoveBlocks { block, count }),
        1 => (place.clone(), any_len()).prop_map(|(place, len)| Change::Zero { place, len }),
        1 => any_part().prop_map(Change::Append),
        1 => place.prop_map(|len| Change::Truncate { len }),
    ]
}

/// Lengths of pieces, of which at least one is not 0.
fn any_piece_lens() -> impl Strategy<Value = Vec<usize>> {
    let piece_len = prop_oneof![0..100_usize, 0..10_000_usize, 0..200_000_usize];
    (vec(piece_len, 0..6), 1..100_000_usize).prop_map(|(mut lens, last)| {
        lens.push(last);
        lens
    })
}

fn any_params() -> impl Strategy<Value = ChunkingParams> {
    let larger = ChunkingParams::new(1 << 10, 4 << 10, 16 << 10).unwrap();
    prop_oneof![3 => Just(small_params()), 1 => Just(larger), 1 => Just(ChunkingParams::IMAGE)]
}

fn append(image: &mut Vec<u8>, part: &Part) {
    match *part {
        Part::Random { seed, len } => image.extend(random_bytes(seed, len)),
        Part::Constant { byte, len } => image.resize(image.len() + len, byte),
    }
}

fn build(parts: &[Part]) -> Vec<u8> {
    let mut image = Vec::new();
    parts.iter().for_each(|part| append(&mut image, part));
    image
}

fn change(image: &mut Vec<u8>, change: &Change, old_cuts: &[usize]) {
    match change {
        Change::FlipNearCut { chunk, distance } => {
            let cut = old_cuts.get(chunk % old_cuts.len().max(1)).copied().unwrap_or_default();
            if let Some(byte) = image.get_mut(cut.saturating_add_signed(*distance)) {
                *byte ^= 0x10;
            }
        }
        Change::Flip { place } => {
            let len = image.len().max(1);
            if let Some(byte) = image.get_mut(place % len) {
                *byte ^= 0x10;
            }
        }
        Change::InsertBlocks { block, count, seed } => {
            let place = (block * BLOCK_LEN).min(image.len());
            image.splice(place..place, random_bytes(*seed, count * BLOCK_LEN));
        }
        Change::RemoveBlocks { block, count } => {
            let place = (block * BLOCK_LEN).min(image.len());
            image.drain(place..(place + count * BLOCK_LEN).min(image.len()));
        }
        Change::Zero { place, len } => {
            let start = place % image.len().max(1);
            let end = (start + len).min(image.len());
            image[start..end].fill(0);
        }
        Change::Append(part) => append(image, part),
        Change::Truncate { len } => image.truncate(len % image.len().max(1)),
    }
}

fn ends(entries: &[PageEntry]) -> Vec<usize> {
    let mut end = 0;
    let mut next_end = |entry: &PageEntry| {
        end += usize::try_from(entry.len()).unwrap();
        end
    };
    entries.iter().map(&mut next_end).collect()
}

/// Entries that have nothing to do with any image, but for lengths that do occur.
fn garbage(entries: &[PageEntry], seed: u64) -> Vec<PageEntry> {
    let rubbish = |(index, entry): (usize, &PageEntry)| {
        let bytes = random_bytes(seed ^ index as u64, 40);
        let id = ChunkId::from_bytes(bytes[..32].try_into().unwrap());
        let len = u32::from_le_bytes(bytes[32..36].try_into().unwrap());
        match (bytes[36] % 8, entry) {
            (0, _) => PageEntry::Data { len, id },
            (1, _) => PageEntry::Data { len: len % 2000, id },
            (2, _) => PageEntry::Zero { len: u64::MAX },
            (3, PageEntry::Data { len, .. }) => PageEntry::Zero { len: (*len).into() },
            (_, PageEntry::Data { len, .. }) => PageEntry::Data { len: *len, id },
            (_, PageEntry::Zero { len }) => PageEntry::Zero { len: *len },
        }
    };
    entries.iter().enumerate().map(rubbish).collect()
}

/// Byte ranges in which two images differ, block by block.
fn differences(old: &[u8], new: &[u8]) -> Vec<std::ops::Range<u64>> {
    let blocks = old.chunks(BLOCK_LEN).zip(new.chunks(BLOCK_LEN)).enumerate();
    let range = |index: usize| {
        let start = (index * BLOCK_LEN) as u64;
        start..start + BLOCK_LEN as u64
    };
    blocks.filter(|(_, (old, new))| old != new).map(|(index, _)| range(index)).collect()
}

proptest! {
    #![proptest_config(Config { cases: 300, max_shrink_time: 20_000, ..Config::default() })]

    #[test]
    fn pieces_and_holes_do_not_matter(
        params in any_params(), parts in vec(any_part(), 0..12), lens in any_piece_lens(),
    ) {
        let span = build(&parts);
        let expected = reference(params, &span);
        for holes in [false, true] {
            for lens in [&lens[..], &[1 << 20]] {
                let cut = cut_span(params, Pieces::new(&span, lens, holes), &[]);
                prop_assert_eq!(&cut.entries, &expected);
                prop_assert!(!cut.predicted.contains(&true));
            }
        }
    }

    #[test]
    fn prediction_does_not_matter(
        params in any_params(), parts in vec(any_part(), 0..12), lens in any_piece_lens(),
        changes in vec(any_change(), 0..4), holes in any::<bool>(), seed in any::<u64>(),
    ) {
        let old_span = build(&parts);
        let old = reference(params, &old_span);
        let mut span = old_span.clone();
        changes.iter().for_each(|one| change(&mut span, one, &ends(&old)));
        let expected = reference(params, &span);

        let cut = cut_span(params, Pieces::new(&span, &lens, holes), &old);
        prop_assert_eq!(&cut.entries, &expected);
        let old_places: Vec<_> = ends(&old).into_iter().zip(&old).collect();
        for ((end, entry), predicted) in ends(&expected).into_iter().zip(&expected).zip(cut.predicted) {
            let is_data = matches!(entry, PageEntry::Data { .. });
            prop_assert_eq!(predicted, is_data && old_places.contains(&(end, entry)));
        }

        let cut = cut_span(params, Pieces::new(&span, &lens, holes), &garbage(&expected, seed));
        prop_assert_eq!(&cut.entries, &expected);
        let moved = [&[PageEntry::Zero { len: 1 + seed % 5000 }], &old[..]].concat();
        let cut = cut_span(params, Pieces::new(&span, &lens, holes), &moved);
        prop_assert_eq!(&cut.entries, &expected);
    }

    #[test]
    fn threads_and_splicing_do_not_matter(
        params in any_params(), parts in vec(any_part(), 0..24), changes in vec(any_change(), 0..3),
    ) {
        let pages = |image: &[u8]| -> Vec<Vec<PageEntry>> {
            image.chunks(SPAN_LEN).map(|span| reference(params, span)).collect()
        };
        let old_image = build(&parts);
        let old_pages = pages(&old_image);
        let mut image = old_image.clone();
        changes.iter().for_each(|one| change(&mut image, one, &ends(&old_pages.concat())));
        let expected = pages(&image);

        let cut_one = |index: usize| {
            let span = &image[index * SPAN_LEN..image.len().min((index + 1) * SPAN_LEN)];
            let predicted = old_pages.get(index).map_or(&[][..], Vec::as_slice);
            cut_span(params, Pieces::new(span, &[30_000], true), predicted).entries
        };
        let parallel: Vec<_> = (0..expected.len()).into_par_iter().map(cut_one).collect();
        prop_assert_eq!(&parallel, &expected);

        let [span_len, len, old_len] = [SPAN_LEN, image.len(), old_image.len()].map(|len| len as u64);
        let to_read = spans_to_read(span_len, len, old_len, &differences(&old_image, &image));
        let reuse_or_cut = |index: usize| {
            if to_read.contains(&(index as u64)) { cut_one(index) } else { old_pages[index].clone() }
        };
        let spliced: Vec<_> = (0..expected.len()).map(reuse_or_cut).collect();
        prop_assert_eq!(&spliced, &expected);
    }
}

#[test]
fn zero_run_of_exactly_the_least_length_is_one() {
    let entries = |zeros_len: usize, tail: &[u8]| {
        let span = [&[1; BLOCK_LEN], &vec![0; zeros_len][..], tail].concat();
        let entries = reference(ChunkingParams::IMAGE, &span);
        for holes in [false, true] {
            let pieces = Pieces::new(&span, &[5000], holes);
            assert_eq!(cut_span(ChunkingParams::IMAGE, pieces, &[]).entries, entries);
        }
        entries
    };
    let zero = |len: usize| PageEntry::Zero { len: len as u64 };
    assert_eq!(entries(ZERO_RUN_LEN, b"x")[1], zero(ZERO_RUN_LEN));
    assert_eq!(entries(ZERO_RUN_LEN, b"").last(), Some(&zero(ZERO_RUN_LEN)));
    // The image's last block is partial, and counts as far as it goes.
    assert_eq!(entries(ZERO_RUN_LEN + 1, b"").last(), Some(&zero(ZERO_RUN_LEN + 1)));
    for zeros_len in [ZERO_RUN_LEN - 1, ZERO_RUN_LEN - BLOCK_LEN] {
        for tail in [&b"x"[..], b""] {
            let entries = entries(zeros_len, tail);
            assert!(entries.iter().all(|entry| matches!(entry, PageEntry::Data { .. })));
        }
    }
}

/// A cut depends on the first byte behind the chunk, which the id of the chunk does not cover.
#[test]
fn flipped_byte_behind_each_chunk_moves_its_cut_and_is_noticed() {
    let params = small_params();
    let span = random_bytes(1, 100_000);
    let old = reference(params, &span);
    let mut moved_count = 0;
    let mut all_flipped = span.clone();
    for (end, entry) in ends(&old).into_iter().zip(&old) {
        let Some(byte) = span.get(end) else { continue };
        let mut flipped = span.clone();
        flipped[end] = byte ^ 0x10;
        all_flipped[end] ^= 0x10;
        let expected = reference(params, &flipped);
        let cut = cut_span(params, Pieces::new(&flipped, &[7000], false), &old);
        assert_eq!(cut.entries, expected, "flipped byte {end}");
        moved_count += usize::from(!expected.contains(entry));
    }
    assert!(moved_count * 10 > old.len() * 8, "{moved_count} of {}", old.len());
    let cut = cut_span(params, Pieces::new(&all_flipped, &[7000], false), &old);
    assert_eq!(cut.entries, reference(params, &all_flipped));
}

/// A run of odd length ends with a byte that has no partner and is not judged. It is when the run gets longer.
#[test]
fn odd_end_of_a_run_that_grew_is_judged_again() {
    let params = small_params();
    let mut moved_count = 0;
    for seed in 0..3000 {
        let span = random_bytes(seed, 400);
        let old_len = 65 + usize::try_from(seed).unwrap() % 100 * 2;
        let old = reference(params, &span[..old_len]);
        let expected = reference(params, &span);
        let cut = cut_span(params, Pieces::new(&span, &[400], false), &old);
        assert_eq!(cut.entries, expected, "seed {seed}");
        moved_count += usize::from(old.len() == 1 && ends(&expected)[0] == old_len - 1);
    }
    assert_ne!(moved_count, 0);
}
