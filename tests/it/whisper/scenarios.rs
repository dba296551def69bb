//! What filling does, by example: files of 20 slots of one second, in which the source has 100 to 119.

use chunkstore::whisper::{Aggregation, Backfill, Point, Retention, WhisperFile, backfill};

/// Time of the first slot; a multiple of all steps.
const FIRST: u32 = 1_700_000_000 - 1_700_000_000 % 3600;
const NOW: u32 = FIRST + 19;

fn file_of(retentions: &[(u32, u32)], points: &[(u32, f64)]) -> WhisperFile {
    let retentions: Vec<Retention> = retentions
        .iter()
        .map(|&(seconds_per_point, points)| Retention { seconds_per_point, points })
        .collect();
    let mut file = WhisperFile::create(Aggregation::Average, 0.5, &retentions).unwrap();
    let points: Vec<Point> =
        points.iter().map(|&(index, value)| Point { time: FIRST + index, value }).collect();
    file.update_many(&points, NOW);
    file
}

const SECONDS: [(u32, u32); 1] = [(1, 20)];

/// Returns 20 values from `first` on, without those at some indexes.
fn values(first: u32, missing: &[u32]) -> Vec<(u32, f64)> {
    let all = (0..20).filter(|index| !missing.contains(index));
    all.map(|index| (index, f64::from(first + index))).collect()
}

fn source() -> WhisperFile {
    file_of(&SECONDS, &values(100, &[]))
}

/// Returns which indexes of an archive have a value after filling, and the values.
fn filled(
    source: &WhisperFile,
    mut target: WhisperFile,
    mode: Backfill,
    archive: usize,
) -> Vec<(u32, f64)> {
    backfill(source, &mut target, NOW, mode);
    let mut found: Vec<_> =
        target.points(archive).map(|point| (point.time - FIRST, point.value)).collect();
    found.sort_by_key(|(index, _)| *index);
    found
}

/// Returns values 0 to 19, those at some indexes replaced by the source's.
fn with_source_at(indexes: &[u32]) -> Vec<(u32, f64)> {
    let value = |index| f64::from(index + if indexes.contains(&index) { 100 } else { 0 });
    (0..20).map(|index| (index, value(index))).collect()
}

#[test]
fn compat_fills_a_gap_of_two_and_replaces_the_value_behind_it() {
    let target = file_of(&SECONDS, &values(0, &[2, 3]));
    let after = filled(&source(), target, Backfill::Compat, 0);
    // Zero at index 0 is a gap of one, which stays.
    assert_eq!(after, with_source_at(&[2, 3, 4]));
}

#[test]
fn compat_leaves_a_single_gap_and_a_single_trailing_one() {
    let after = filled(&source(), file_of(&SECONDS, &values(1, &[7, 19])), Backfill::Compat, 0);
    assert_eq!(after, values(1, &[7, 19]));
}

#[test]
fn compat_replaces_runs_of_zeros() {
    let mut own = values(0, &[]);
    own[5].1 = 0.0;
    own[6].1 = 0.0;
    let after = filled(&source(), file_of(&SECONDS, &own), Backfill::Compat, 0);
    assert_eq!(after, with_source_at(&[5, 6, 7]));
}

#[test]
fn compat_fills_an_empty_target() {
    let after = filled(&source(), file_of(&SECONDS, &[]), Backfill::Compat, 0);
    assert_eq!(after, values(100, &[]));
}

#[test]
fn compat_gets_sparse_points_from_a_coarser_source() {
    let coarse = file_of(&[(5, 20)], &[(0, 1.0), (5, 2.0), (10, 3.0), (15, 4.0)]);
    let after = filled(&coarse, file_of(&SECONDS, &[]), Backfill::Compat, 0);
    assert_eq!(after, [(0, 1.0), (5, 2.0), (10, 3.0), (15, 4.0)]);
}

#[test]
fn compat_replaces_aggregates_of_what_it_fills_and_safe_does_not() {
    let schema = [(1, 20), (5, 20)];
    let source = file_of(&schema, &values(100, &[]));
    let target = file_of(&schema, &values(0, &[6, 7]));
    let before: Vec<(u32, f64)> = vec![(0, 2.0), (5, 22.0 / 3.0), (10, 12.0), (15, 17.0)];
    let safe = filled(&source, target.clone(), Backfill::Safe, 1);
    assert_eq!(safe, before);
    // 5, 106, 107, 108 and 9.
    let compat = filled(&source, target, Backfill::Compat, 1);
    assert_eq!(compat, [(0, 2.0), (5, 67.0), (10, 12.0), (15, 17.0)]);
}

#[test]
fn safe_fills_gaps_of_any_length_and_nothing_else() {
    let missing = [2, 3, 7, 10, 18, 19];
    let target = file_of(&SECONDS, &values(0, &missing));
    let after = filled(&source(), target.clone(), Backfill::Safe, 0);
    assert_eq!(after, with_source_at(&missing));
    let single = file_of(&SECONDS, &values(0, &[19]));
    assert_eq!(filled(&source(), single, Backfill::Safe, 0), with_source_at(&[19]));
}

#[test]
fn safe_keeps_zeros() {
    let own: Vec<(u32, f64)> = (0..20).map(|index| (index, 0.0)).collect();
    let after = filled(&source(), file_of(&SECONDS, &own), Backfill::Safe, 0);
    assert_eq!(after, own);
}

#[test]
fn safe_fill_of_an_empty_target_is_the_source() {
    let schema = [(1, 20), (5, 20), (20, 20)];
    let source = file_of(&schema, &values(100, &[3, 4, 5, 11]));
    for archive in 0..3 {
        let after = filled(&source, file_of(&schema, &[]), Backfill::Safe, archive);
        assert_eq!(after, filled(&source, source.clone(), Backfill::Safe, archive));
        assert!(!after.is_empty());
    }
}

#[test]
fn safe_fills_nothing_after_now_and_nothing_that_left_the_retention() {
    let mut target = file_of(&SECONDS, &[]);
    let stats = backfill(&source(), &mut target, FIRST + 9, Backfill::Safe);
    assert_eq!(stats.filled_points, 10);
    let mut target = file_of(&SECONDS, &[]);
    let stats = backfill(&source(), &mut target, NOW + 15, Backfill::Safe);
    assert_eq!(stats.filled_points, 5);
    assert_eq!(backfill(&source(), &mut target, NOW + 20, Backfill::Safe).filled_points, 0);
}

#[test]
fn safe_does_not_touch_points_of_the_future() {
    // The clock went back: the target has points where older ones would go.
    let mut target = file_of(&SECONDS, &[]);
    target.update_many(&[Point { time: NOW + 1, value: 7.0 }], NOW);
    let before = target.bytes().to_vec();
    let stats = backfill(&source(), &mut target, NOW, Backfill::Safe);
    assert_eq!(stats.filled_points, 19);
    let future = target.points(0).find(|point| point.time == NOW + 1);
    assert_eq!(future, Some(Point { time: NOW + 1, value: 7.0 }), "{before:?}");
}

#[test]
fn safe_gets_sparse_points_from_a_coarser_source_where_no_finer_archive_reaches() {
    let coarse = file_of(&[(5, 20)], &[(0, 1.0), (5, 2.0), (10, 3.0), (15, 4.0)]);
    let after = filled(&coarse, file_of(&SECONDS, &[]), Backfill::Safe, 0);
    assert_eq!(after, [(0, 1.0), (5, 2.0), (10, 3.0), (15, 4.0)]);
    // Of the last 10 seconds the finer archive tells what is there and what is not. Before, the coarser one has the
    // newest point of each step.
    let mixed = file_of(&[(1, 10), (5, 20)], &values(100, &[15]));
    let after = filled(&mixed, file_of(&SECONDS, &[]), Backfill::Safe, 0);
    let expected: Vec<(u32, f64)> =
        [(0, 104.0), (5, 108.0)].into_iter().chain(values(100, &[15]).split_off(10)).collect();
    assert_eq!(after, expected);
}

#[test]
fn safe_aggregates_a_finer_source_if_enough_is_known() {
    // 5 s from 1 s, with one, two and three of five missing; and 20 s, of which 14 are known.
    let source = file_of(&SECONDS, &values(100, &[0, 5, 6, 10, 11, 12]));
    let target = file_of(&[(5, 20), (20, 20)], &[]);
    let after = filled(&source, target.clone(), Backfill::Safe, 0);
    assert_eq!(after, [(0, 102.5), (5, 108.0), (15, 117.0)]);
    let total: f64 = values(100, &[0, 5, 6, 10, 11, 12]).iter().map(|(_, value)| value).sum();
    assert_eq!(filled(&source, target, Backfill::Safe, 1), [(0, total / 14.0)]);
}

#[test]
fn safe_aggregates_steps_that_do_not_divide_each_other() {
    // From 2 s to 3 s: a step has one or two of the source's.
    let source = file_of(&[(2, 20)], &[(0, 1.0), (2, 3.0), (4, 5.0), (6, 7.0), (8, 9.0)]);
    let after = filled(&source, file_of(&[(3, 20)], &[]), Backfill::Safe, 0);
    assert_eq!(after, [(0, 2.0), (3, 5.0), (6, 8.0)]);
}

#[test]
fn safe_aggregates_anew_what_neither_file_knew_enough_of() {
    let schema = [(1, 20), (5, 20)];
    let source = file_of(&schema, &[(5, 10.0), (6, 20.0)]);
    let target = file_of(&schema, &[(8, 30.0), (9, 40.0)]);
    for file in [&source, &target] {
        assert_eq!(file.points(1).count(), 0);
    }
    assert_eq!(filled(&source, target, Backfill::Safe, 1), [(5, 25.0)]);
}
