//! What files are refused, and what happens at the edges of archives and of time.

use super::{Aggregation, Backfill, Header, Point, Retention, WhisperError, WhisperFile, backfill};

const NOW: u32 = 1_700_000_000;

fn retention(seconds_per_point: u32, points: u32) -> Retention {
    Retention { seconds_per_point, points }
}

/// A file of 10 s for a minute and 30 s for two, 16 + 24 + 120 bytes.
fn example() -> WhisperFile {
    let retentions = [retention(10, 6), retention(30, 4)];
    WhisperFile::create(Aggregation::Sum, 0.5, &retentions).unwrap()
}

/// The example with a word of its header replaced.
fn altered(place: usize, word: u32) -> Result<WhisperFile, WhisperError> {
    let mut bytes = example().into_bytes();
    bytes[place..place + 4].copy_from_slice(&word.to_be_bytes());
    WhisperFile::decode(bytes)
}

#[test]
fn header_reads_back() {
    let file = example();
    assert_eq!(file.bytes().len(), 160);
    assert_eq!(file.header().file_len(), 160);
    assert_eq!(Header::decode(file.bytes(), 160).as_ref(), Ok(file.header()));
    assert_eq!(Header::decode(&file.bytes()[..40], 160).unwrap().encode(), file.bytes()[..40]);
    for aggregation in Aggregation::ALL {
        assert_eq!(Aggregation::decode(aggregation.encode()), Ok(aggregation));
    }
}

#[test]
fn header_that_is_cut_off_is_refused() {
    let file = example();
    for len in 0..40 {
        let found = Header::decode(&file.bytes()[..len], 160);
        assert_eq!(found, Err(WhisperError::Truncated { len }));
    }
    let found = WhisperFile::decode(file.bytes()[..159].to_vec()).unwrap_err();
    assert!(matches!(found, WhisperError::Misplaced { archive: 1, file_len: 159, .. }), "{found}");
}

#[test]
fn bytes_behind_the_archives_are_kept() {
    let mut bytes = example().into_bytes();
    bytes.push(7);
    assert_eq!(WhisperFile::decode(bytes.clone()).unwrap().into_bytes(), bytes);
}

#[test]
fn fields_of_the_header_are_checked() {
    for found in [0, 9, NOW] {
        let error = altered(0, found).unwrap_err();
        assert_eq!(error, WhisperError::UnknownAggregation { found });
    }
    for factor in [-0.1, 1.1, f32::INFINITY, f32::NAN] {
        let error = altered(8, factor.to_bits()).unwrap_err();
        assert!(matches!(error, WhisperError::XFilesFactor { .. }), "{factor}: {error}");
    }
    for found in [0, 65, u32::MAX] {
        assert_eq!(altered(12, found).unwrap_err(), WhisperError::ArchiveCount { found });
    }
    // Offset 16, step 20, slots 24; the second archive from 28.
    for (place, word) in [(20, 0), (24, 0), (24, (1 << 26) + 1), (32, 0), (36, u32::MAX)] {
        let error = altered(place, word).unwrap_err();
        assert!(matches!(error, WhisperError::OutOfRange { .. }), "{place} {word}: {error}");
    }
    for (place, word) in [(16, 0), (16, 39), (16, 41), (16, 112), (28, 111), (28, 113), (36, 5)] {
        let error = altered(place, word).unwrap_err();
        assert!(matches!(error, WhisperError::Misplaced { .. }), "{place} {word}: {error}");
    }
    for (place, word) in [(20, 30), (20, 40), (20, 7), (32, 10), (32, 45), (36, 2)] {
        let error = altered(place, word).unwrap_err();
        let expected = WhisperError::Schema { archive: 1, what: "" };
        let is_schema = std::mem::discriminant(&error) == std::mem::discriminant(&expected);
        assert!(is_schema, "{place} {word}: {error}");
    }
}

#[test]
fn file_that_an_older_whisper_made_is_read() {
    // One step of the second archive is longer than the first one reaches back; demanded only since 0.9.10.
    let error = WhisperFile::create(Aggregation::Max, 0.0, &[retention(10, 2), retention(30, 4)]);
    assert!(matches!(error, Err(WhisperError::Schema { archive: 1, .. })), "{error:?}");
    let mut file = altered(24, 2).unwrap();
    file.update(Point { time: NOW, value: 1.0 }, NOW).unwrap();
    assert_eq!(file.points(0).count(), 1);
}

#[test]
fn new_files_are_sorted_and_bounded() {
    let file =
        WhisperFile::create(Aggregation::Sum, 0.5, &[retention(30, 4), retention(10, 6)]).unwrap();
    assert_eq!(file.bytes(), example().bytes());
    let none = WhisperFile::create(Aggregation::Sum, 0.5, &[]);
    assert_eq!(none.unwrap_err(), WhisperError::ArchiveCount { found: 0 });
    let long = Header::new(Aggregation::Sum, 0.5, &[retention(1 << 31, 4)]);
    assert_eq!(long.unwrap_err(), WhisperError::TooLong);
}

#[test]
fn reach_is_never_more_than_the_archives_have() {
    let file = altered(4, u32::MAX).unwrap();
    assert_eq!(file.header().max_retention(), 120);
    assert_eq!(file.fetch(0, u32::MAX, NOW).unwrap().values, [None; 4]);
}

#[test]
fn changed_ranges_are_the_slots_that_differ() {
    let mut file = example();
    assert_eq!(file.changed_ranges(), []);
    file.update(Point { time: NOW, value: 1.0 }, NOW).unwrap();
    assert_eq!(file.changed_ranges(), vec![40..52; 1]);
    file.update(Point { time: NOW - 10, value: 2.0 }, NOW).unwrap();
    // The last slot of the first archive, and the first of the second, touch.
    assert_eq!(file.changed_ranges(), [40..52, 100..124]);
    let mut again = WhisperFile::decode(file.into_bytes()).unwrap();
    again.update(Point { time: NOW, value: 1.0 }, NOW).unwrap();
    assert_eq!(again.changed_ranges(), []);
}

#[test]
fn points_of_the_future_do_not_leave_their_archive() {
    let mut file = example();
    let points: Vec<Point> =
        (0..100).map(|index| Point { time: NOW + 10 * index, value: 1.0 }).collect();
    file.update_many(&points, NOW);
    assert_eq!(file.points(0).map(|point| point.time).max(), Some(NOW + 990));
    assert_eq!(file.points(0).count(), 6);
    let error = file.update(points[1], NOW).unwrap_err();
    assert_eq!(error, WhisperError::NotCovered { time: NOW + 10 });
}

#[test]
fn time_zero_is_no_point_and_the_last_second_is() {
    let mut file = example();
    file.update_many(&[Point { time: 9, value: 1.0 }, Point { time: 0, value: 2.0 }], 20);
    assert_eq!(file.bytes(), example().bytes());
    let last = Point { time: u32::MAX, value: 1.0 };
    file.update(last, u32::MAX).unwrap();
    assert_eq!(file.points(0).count(), 1);
    let mut other = example();
    assert_eq!(backfill(&file, &mut other, u32::MAX, Backfill::Safe).filled_points, 1);
    assert_eq!(backfill(&file, &mut example(), 0, Backfill::Safe).filled_points, 0);
    let series = file.fetch(u32::MAX, u32::MAX, u32::MAX).unwrap();
    assert_eq!(series.values, [None]);
    assert!(u64::from(u32::MAX) < series.until);
}

#[test]
fn slots_whose_time_leads_elsewhere_hold_no_points() {
    let mut file = example();
    file.update(Point { time: NOW, value: 1.0 }, NOW).unwrap();
    let mut bytes = file.into_bytes();
    // A time of another slot in slot 1, one between two steps in slot 2, one a lap ago in slot 3.
    for (slot, time) in [(1, NOW + 20), (2, NOW + 21), (3, NOW - 30)] {
        bytes[40 + 12 * slot..][..4].copy_from_slice(&time.to_be_bytes());
    }
    let file = WhisperFile::decode(bytes).unwrap();
    let times: Vec<u32> = file.points(0).map(|point| point.time).collect();
    assert_eq!(times, [NOW, NOW - 30]);
}
