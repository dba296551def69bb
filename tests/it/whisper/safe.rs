//! What filling in the safe mode promises, for random files.

use std::collections::BTreeMap;

use chunkstore::whisper::{Archive, Backfill, BackfillStats, WhisperFile, backfill};

use super::cases::{history_of, pair, points, schema};
use super::run_cases;

/// Points of one archive: time to bits of the value.
type Points = BTreeMap<u32, u64>;

fn archive_points(file: &WhisperFile, archive: usize) -> Points {
    file.points(archive).map(|point| (point.time, point.value.to_bits())).collect()
}

/// Returns the oldest and the newest time within the retention.
fn window(archive: &Archive, now: u32) -> (u32, u32) {
    let newest = now - now % archive.seconds_per_point;
    (newest - (archive.points - 1) * archive.seconds_per_point, newest)
}

/// A target before and after, and what filled it.
struct Filling {
    source: WhisperFile,
    before: WhisperFile,
    after: WhisperFile,
    stats: BackfillStats,
    now: u32,
}

impl Filling {
    fn run(source: WhisperFile, before: WhisperFile, now: u32) -> Self {
        let mut after = WhisperFile::decode(before.bytes().to_vec()).unwrap();
        let stats = backfill(&source, &mut after, now, Backfill::Safe);
        Self { source, before, after, stats, now }
    }

    fn archives(&self) -> impl Iterator<Item = (usize, &Archive, Points, Points)> {
        self.after.header().archives().iter().enumerate().map(|(index, archive)| {
            let before = archive_points(&self.before, index);
            (index, archive, before, archive_points(&self.after, index))
        })
    }

    /// No point that the target had is gone or different, but those that were too old to be read.
    fn check_own_points(&self) {
        for (_, archive, before, after) in self.archives() {
            let (oldest, _) = window(archive, self.now);
            for (time, value) in before.range(oldest..) {
                assert_eq!(after.get(time), Some(value), "{time} of {archive:?}");
            }
        }
    }

    /// What was written is within the retention, and counted; nothing else was written.
    fn check_new_points(&self) {
        let mut count = 0;
        for (_, archive, before, after) in self.archives() {
            let (oldest, newest) = window(archive, self.now);
            for time in after.keys().filter(|time| !before.contains_key(time)) {
                assert!((oldest..=newest).contains(time), "{time} of {archive:?}");
                count += 1;
            }
        }
        assert_eq!(self.stats, BackfillStats { filled_points: count, replaced_points: 0 });
        let mut patched = self.before.bytes().to_vec();
        let mut changed_count = 0;
        for range in self.after.changed_ranges() {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            changed_count += range.len() / 12;
            patched[range.clone()].copy_from_slice(&self.after.bytes()[range]);
        }
        assert!(patched == self.after.bytes(), "a change is not in the changed ranges");
        assert_eq!(changed_count as u64, count);
    }

    /// Where both have an archive of this step, the target has all that the source can have now.
    fn check_nothing_is_left_out(&self) {
        for (index, archive, before, after) in self.archives() {
            let same_step = |other: &Archive| other.seconds_per_point == archive.seconds_per_point;
            let sources = self.source.header().archives();
            let Some(other) = sources.iter().position(same_step) else { continue };
            let offered = archive_points(&self.source, other);
            let Some((&latest, _)) = offered.range(..=self.now).next_back() else { continue };
            let room = (sources[other].points - 1) * archive.seconds_per_point;
            let (oldest, newest) = window(archive, self.now);
            let lap = archive.points * archive.seconds_per_point;
            for (time, value) in offered.range(oldest.max(latest - room)..=newest) {
                let is_taken = before.range(time + 1..).any(|(later, _)| (later - time) % lap == 0);
                if before.contains_key(time) || is_taken {
                    continue;
                }
                let found = after.get(time);
                let is_mixed = 0 < index && self.mixed_below(index, *time).is_some();
                assert!(is_mixed || found == Some(value), "{time} of {archive:?}");
                assert!(found.is_some());
            }
        }
    }

    /// Returns the known values below a step of a coarser archive, if both files have given some.
    fn mixed_below(&self, index: usize, time: u32) -> Option<Vec<f64>> {
        let (finer, coarser) =
            (self.after.header().archives()[index - 1], self.after.header().archives()[index]);
        let (oldest, newest) = window(&finer, self.now);
        if time < oldest {
            return None;
        }
        let (before, after) =
            (archive_points(&self.before, index - 1), archive_points(&self.after, index - 1));
        let end = (time + coarser.seconds_per_point).min(newest + 1);
        let times: Vec<u32> = after.range(time..end.max(time)).map(|(time, _)| *time).collect();
        let own_count = times.iter().filter(|time| before.contains_key(time)).count();
        let is_mixed = 0 < own_count && own_count < times.len();
        is_mixed.then(|| times.iter().map(|time| f64::from_bits(after[time])).collect())
    }

    /// An aggregate that was filled in over points of both files is the aggregate of them.
    fn check_aggregates(&self) -> usize {
        let header = self.after.header();
        let mut count = 0;
        for (index, archive, before, after) in self.archives().skip(1) {
            let finer = header.archives()[index - 1];
            let ratio = archive.seconds_per_point / finer.seconds_per_point;
            for (time, value) in after.iter().filter(|(time, _)| !before.contains_key(time)) {
                let Some(known) = self.mixed_below(index, *time) else { continue };
                if known.iter().any(|value| value.is_nan()) {
                    continue;
                }
                let known_count = u32::try_from(known.len()).unwrap();
                let share = f64::from(known_count) / f64::from(ratio);
                if share < f64::from(header.x_files_factor()) {
                    continue;
                }
                let expected = aggregate(header.aggregation().name(), &known, f64::from(ratio));
                let value = f64::from_bits(*value);
                let is_equal = expected == value || expected.is_nan() && value.is_nan();
                assert!(is_equal, "{time} of {archive:?}: {value} instead of {expected}");
                count += 1;
            }
        }
        count
    }
}

/// Aggregates by the words of the definition. Comparisons with NaN are left to the comparison with Python.
fn aggregate(name: &str, known: &[f64], slot_count: f64) -> f64 {
    let sum: f64 = known.iter().sum();
    let by_key = |key: fn(f64) -> f64| {
        known.iter().copied().reduce(|best, next| if key(best) < key(next) { next } else { best })
    };
    match name {
        "average" => sum / f64::from(u32::try_from(known.len()).unwrap()),
        "sum" => sum,
        "last" => known[known.len() - 1],
        "max" => by_key(|value| value).unwrap(),
        "min" => by_key(|value| -value).unwrap(),
        "avg_zero" => sum / slot_count,
        "absmax" => by_key(f64::abs).unwrap(),
        "absmin" => by_key(|value| -value.abs()).unwrap(),
        _ => panic!("{name}"),
    }
}

#[test]
fn safe_fill_adds_what_is_missing_and_changes_nothing() {
    let aggregates = std::cell::Cell::new(0);
    run_cases(5000, pair(), |(source, target)| {
        let now = source.now.max(target.now);
        let filling = Filling::run(source.live(), target.live(), now);
        filling.check_own_points();
        filling.check_new_points();
        filling.check_nothing_is_left_out();
        aggregates.set(aggregates.get() + filling.check_aggregates());
    });
    assert!(0 < aggregates.get(), "no case had an aggregate over points of both files");
}

#[test]
fn second_safe_fill_changes_nothing() {
    run_cases(5000, pair(), |(source, target)| {
        let now = source.now.max(target.now);
        let (source, mut target) = (source.live(), target.live());
        backfill(&source, &mut target, now, Backfill::Safe);
        let once = target.bytes().to_vec();
        let stats = backfill(&source, &mut target, now, Backfill::Safe);
        assert_eq!(stats, BackfillStats::default());
        assert!(target.bytes() == once);
    });
}

#[test]
fn safe_fill_of_an_empty_file_of_the_same_schema_makes_it_equal() {
    run_cases(5000, history_of(schema()), |history| {
        let source = history.live();
        let mut target = history.schema.create();
        backfill(&source, &mut target, history.now, Backfill::Safe);
        let archives = source.header().archives();
        for ((archive, expected), found) in
            archives.iter().zip(points(&source)).zip(points(&target))
        {
            let (oldest, newest) = window(archive, history.now);
            for point in expected.iter().filter(|(time, _)| (oldest..=newest).contains(time)) {
                assert!(found.contains(point), "{point:?} of {archive:?}");
            }
        }
    });
}
