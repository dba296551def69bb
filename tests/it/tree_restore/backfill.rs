//! Gaps of files that exist, filled from the backup: the values that users of other tools know, and what must not be touched.

use std::fs;

use chunkstore::whisper::backfill;

use super::*;

/// Backs a file up, restores it over another one, and returns what that holds in the end, the oldest value first.
fn fill(
    way: Existing,
    retentions: &[(u32, u32)],
    source: &[(u32, f64)],
    target: &[(u32, f64)],
) -> (WhisperFile, TreeRestoreStats) {
    let scene = Scene::new();
    scene.add("a/x.wsp", &file_with(retentions, source));
    let id = scene.back_up();
    write(&scene.target(), "a/x.wsp", file_with(retentions, target).bytes());
    let stats = scene.restore(&id, &existing(way));
    assert_eq!(names_of(&scene.target()), ["a/x.wsp"]);
    (WhisperFile::decode(fs::read(scene.target().join("a/x.wsp")).unwrap()).unwrap(), stats)
}

/// Returns the values of the last 20 seconds, the oldest first.
fn last_values(file: &WhisperFile) -> Vec<Option<f64>> {
    file.fetch(NOW - 20, NOW, NOW).unwrap().values
}

/// Ages and values of 20 seconds, the oldest first, of which some are missing.
fn numbers(first: f64, missing: &[usize]) -> Vec<(u32, f64)> {
    let all = (0..20_u32).map(|index| (19 - index, first + f64::from(index)));
    all.enumerate().filter(|(index, _)| !missing.contains(index)).map(|(_, point)| point).collect()
}

#[test]
fn compat_fills_as_other_tools_do() {
    let retentions = [(1, 20)];
    let source = numbers(100.0, &[]);
    let fill_gaps = |missing: &[usize]| {
        let target = numbers(0.5, missing);
        let (file, stats) = fill(COMPAT, &retentions, &source, &target);
        let own: Vec<usize> = last_values(&file)
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_some_and(|value| value < 100.0))
            .map(|(index, _)| index)
            .collect();
        let missing: Vec<usize> = last_values(&file)
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_none())
            .map(|(index, _)| index)
            .collect();
        (own, missing, stats.filled_points, stats.replaced_points)
    };
    let all_but = |taken: &[usize]| (0..20).filter(|it| !taken.contains(it)).collect::<Vec<_>>();
    // The first value behind a gap is replaced, too.
    assert_eq!(fill_gaps(&[2, 3]), (all_but(&[2, 3, 4]), vec![], 2, 1));
    // Single gaps stay.
    assert_eq!(fill_gaps(&[5]), (all_but(&[5]), vec![5], 0, 0));
    assert_eq!(fill_gaps(&[19]), (all_but(&[19]), vec![19], 0, 0));
}

#[test]
fn compat_takes_zeros_for_gaps() {
    let mut target = numbers(0.5, &[]);
    for index in [8, 9] {
        target[index].1 = 0.0;
    }
    let (file, stats) = fill(COMPAT, &[(1, 20)], &numbers(100.0, &[]), &target);
    let values = last_values(&file);
    assert_eq!(values[7..12], [Some(7.5), Some(108.0), Some(109.0), Some(110.0), Some(11.5)]);
    assert_eq!((stats.filled_points, stats.replaced_points), (0, 3));
}

#[test]
fn safe_fills_what_is_empty_and_nothing_else() {
    let mut target = numbers(0.5, &[2, 3, 5, 19]);
    target[0].1 = 0.0;
    let (file, stats) = fill(SAFE, &[(1, 20)], &numbers(100.0, &[7]), &target);
    let values = last_values(&file);
    for (index, value) in values.iter().enumerate() {
        let expected = match index {
            0 => 0.0,
            2 | 3 | 5 | 19 => 100.0 + f64::from(u32::try_from(index).unwrap()),
            _ => 0.5 + f64::from(u32::try_from(index).unwrap()),
        };
        assert_eq!(*value, Some(expected), "{index}");
    }
    assert_eq!((stats.backfilled, stats.filled_points, stats.replaced_points), (1, 4, 0));
    assert_eq!(stats.filled_bytes, 4 * 12);
}

#[test]
fn empty_file_gets_everything_in_all_archives() {
    let retentions = [(1, 60), (10, 60)];
    let source: Vec<(u32, f64)> = (0..60).map(|age| (age, f64::from(age) + 1.0)).collect();
    let (file, stats) = fill(SAFE, &retentions, &source, &[]);
    let expected = file_with(&retentions, &source);
    for age in [60, 600] {
        let fetch = |file: &WhisperFile| file.fetch(NOW - age, NOW, NOW).unwrap();
        assert_eq!(fetch(&file), fetch(&expected));
    }
    assert!(60 < stats.filled_points && stats.replaced_points == 0, "{stats:?}");
}

#[test]
fn file_holds_what_filling_in_memory_gives() {
    let retentions = [(1, 60), (10, 60), (60, 100)];
    let source: Vec<(u32, f64)> =
        (0..60).chain((60..600).step_by(10)).map(|age| (age, f64::from(age) + 1.0)).collect();
    let target: Vec<(u32, f64)> = (5..50).step_by(3).map(|age| (age, -1.0)).collect();
    for mode in [Backfill::Safe, Backfill::Compat] {
        for target in [&[][..], &target] {
            let (file, stats) = fill(Existing::Backfill(mode), &retentions, &source, target);
            let mut expected = file_with(&retentions, target);
            let counts = backfill(&file_with(&retentions, &source), &mut expected, NOW, mode);
            assert!(file.bytes() == expected.bytes(), "{mode:?}");
            assert_eq!(stats.filled_points, counts.filled_points);
            assert_eq!(stats.replaced_points, counts.replaced_points);
        }
    }
}

#[test]
fn file_with_nothing_to_fill_is_not_written() {
    let scene = Scene::new();
    scene.add("x.wsp", &file_with(&[(1, 20)], &[(5, 1.0)]));
    let id = scene.back_up();
    write(&scene.target(), "x.wsp", full_file(3, 20).bytes());
    let path = scene.target().join("x.wsp");
    let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let stats = scene.restore(&id, &options());
    assert_eq!((stats.unchanged, stats.backfilled, stats.filled_bytes), (1, 0, 0));
    assert_eq!(
        (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()),
        before
    );
}

#[test]
fn backup_of_the_past_fills_what_its_retention_still_reaches() {
    let scene = Scene::new();
    scene.add("x.wsp", &full_file(1, 100));
    let id = scene.back_up();
    write(&scene.target(), "x.wsp", file_with(&[(1, 100)], &[]).bytes());
    let later =
        TreeRestoreOptions { now: Some(Timestamp((i64::from(NOW) + 30) * 1000)), ..options() };
    assert_eq!(scene.restore(&id, &later).filled_points, 70);
    assert_eq!(scene.restore(&id, &later).unchanged, 1, "a second run changes nothing");
}
