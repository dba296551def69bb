//! Random schemas and histories of whisper files, and comparison of files.

use chunkstore::whisper::{Aggregation, Point, Retention, WhisperFile};
use proptest::prelude::*;

/// A time that all histories are near to. It is no multiple of any step.
pub(super) const START: u32 = 1_700_000_123;

/// What a file is made with.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    pub(super) aggregation: Aggregation,
    pub(super) x_files_factor: f32,
    pub(super) retentions: Vec<Retention>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Update { now: u32, point: Point },
    UpdateMany { now: u32, points: Vec<Point> },
    Fetch { now: u32, from: u32, until: u32 },
}

/// A file and what happens to it.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) schema: Schema,
    pub(super) steps: Vec<Step>,
    /// After the last step.
    pub(super) now: u32,
}

/// What a step of a history is made from, before the schema and the present are known.
#[derive(Clone, Debug)]
struct Draft {
    kind: u8,
    /// Seconds since the step before.
    pause: u32,
    /// Age of each point in thousandths of the retention of one of the archives, and its value.
    points: Vec<(u32, usize, f64)>,
    /// Seconds that the points are in the future.
    lead: u32,
}

impl Schema {
    pub(super) fn create(&self) -> WhisperFile {
        WhisperFile::create(self.aggregation, self.x_files_factor, &self.retentions).unwrap()
    }

    /// Returns how far an archive reaches back.
    fn retention(&self, archive: usize) -> u32 {
        let archive = self.retentions[archive % self.retentions.len()];
        archive.seconds_per_point * archive.points
    }

    fn longest(&self) -> u32 {
        self.retention(self.retentions.len() - 1)
    }
}

impl History {
    fn new(schema: Schema, drafts: Vec<Draft>, end: u32) -> Self {
        let mut now = START;
        let mut steps = Vec::new();
        for draft in drafts {
            now += draft.pause % (schema.longest() + 2);
            steps.push(draft.step(&schema, now));
        }
        let now = now + end % (schema.longest() + 2);
        Self { schema, steps, now }
    }

    /// Returns the file after all steps.
    pub(super) fn live(&self) -> WhisperFile {
        let mut file = self.schema.create();
        for step in &self.steps {
            match step {
                // A point that is too old is part of a history, too.
                Step::Update { now, point } => drop(file.update(*point, *now)),
                Step::UpdateMany { now, points } => file.update_many(points, *now),
                Step::Fetch { .. } => {}
            }
        }
        file
    }
}

impl Draft {
    fn step(self, schema: &Schema, now: u32) -> Step {
        let finest = schema.retentions[0];
        // The package writes past the end of an archive if a run of points is longer than it. Only
        // points of the future make such a run.
        let safe_age = schema.retention(0).saturating_sub(self.lead + finest.seconds_per_point);
        let points = self.points.into_iter().filter_map(|(share, archive, value)| {
            let age = u64::from(share) * u64::from(schema.retention(archive)) / 1000;
            let age = u32::try_from(age).unwrap();
            let is_safe = self.lead == 0 || age < safe_age || schema.retention(0) < age;
            is_safe.then_some(Point { time: now + self.lead - age, value })
        });
        let points: Vec<Point> = points.collect();
        match (self.kind, &points[..]) {
            (0, [point, ..]) => Step::Update { now, point: *point },
            (1, [left, .., right]) => Step::Fetch { now, from: left.time, until: right.time },
            _ => Step::UpdateMany { now, points },
        }
    }
}

/// Values that meet in aggregates: plain, zeros of both signs, and what is no number.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-50..50_i32).prop_map(f64::from),
        8 => -1e3..1e3_f64,
        4 => Just(0.0),
        1 => Just(-0.0),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN)],
        1 => Just(1e308),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let pause = prop_oneof![4 => 0..5_u32, 4 => 0..200_u32, 1 => 0..100_000_u32];
    let share = prop_oneof![4 => 0..200_u32, 4 => 0..1001_u32, 1 => 0..1200_u32];
    let points = prop::collection::vec((share, 0..4_usize, value()), 0..60);
    let lead = prop_oneof![8 => Just(0), 1 => 1..4_u32];
    (0..6_u8, pause, points, lead).prop_map(|(kind, pause, points, lead)| Draft {
        kind,
        pause,
        points,
        lead,
    })
}

/// Schemas by the rules for new files: up to four archives of up to 60 slots.
pub(super) fn schema() -> impl Strategy<Value = Schema> {
    let aggregation = prop::sample::select(super::oracle::AGGREGATIONS.to_vec());
    let factor = prop_oneof![Just(0.0), Just(0.5), Just(1.0), 0.0..1.0_f32];
    let first = (prop::sample::select(vec![1_u32, 2, 5, 10, 60]), 1..50_u32);
    let coarser = prop::collection::vec((2..9_u32, 0..12_u32), 0..4);
    (aggregation, factor, first, coarser).prop_map(
        |(aggregation, x_files_factor, (seconds_per_point, points), coarser)| {
            let mut retentions = vec![Retention { seconds_per_point, points }];
            for (ratio, more) in coarser {
                let last = retentions[retentions.len() - 1];
                let ratio = ratio.min(last.points);
                if ratio == 1 {
                    break;
                }
                let seconds_per_point = last.seconds_per_point * ratio;
                let points = last.points / ratio + 1 + more;
                retentions.push(Retention { seconds_per_point, points });
            }
            Schema { aggregation, x_files_factor, retentions }
        },
    )
}

pub(super) fn history_of(schema: impl Strategy<Value = Schema>) -> impl Strategy<Value = History> {
    let end = prop_oneof![3 => 0..3_u32, 3 => 0..100_u32, 1 => any::<u32>()];
    (schema, prop::collection::vec(draft(), 0..8), end)
        .prop_map(|(schema, drafts, end)| History::new(schema, drafts, end))
}

/// Two files that are written at about the same time: of the same schema, or of two.
pub(super) fn pair() -> impl Strategy<Value = (History, History)> {
    let of_one = schema()
        .prop_flat_map(|schema| (history_of(Just(schema.clone())), history_of(Just(schema))));
    prop_oneof![2 => of_one, 1 => (history_of(schema()), history_of(schema()))]
}

/// Returns all points of each archive, sorted by time, with NaN as one value.
pub(super) fn points(file: &WhisperFile) -> Vec<Vec<(u32, u64)>> {
    let archives = 0..file.header().archives().len();
    let archives = archives.map(|archive| {
        let bits = |value: f64| if value.is_nan() { u64::MAX } else { value.to_bits() };
        let points = file.points(archive).map(|point| (point.time, bits(point.value)));
        let mut points: Vec<_> = points.collect();
        points.sort_unstable();
        points
    });
    archives.collect()
}
