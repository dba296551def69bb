//! Filling of empty slots only. The rules are those of [`Backfill::Safe`](super::Backfill::Safe).

use super::super::aggregation::Aggregator;
use super::super::fetch::signed;
use super::super::file::WhisperFile;
use super::super::header::Header;
use super::super::ring::{Point, Ring};
use super::BackfillStats;

/// Fills empty slots of every archive of the target, the finest archive first.
pub(super) fn fill(source: &WhisperFile, target: &mut WhisperFile, now: u32) -> BackfillStats {
    let supplies = supplies(source, now.into());
    let mut stats = BackfillStats::default();
    let mut finer: Option<Filled> = None;
    for archive in 0..target.header().archives().len() {
        let mut filled = Filled::none_of(target.header(), archive, now.into());
        for index in 0..filled.flags.len() {
            let time = filled.time_of(index);
            if target.ring(archive).is_taken_at(time) {
                continue;
            }
            let step = filled.step;
            let merged = finer.as_ref().and_then(|finer| finer.merge(target, time, step));
            let value = merged.or_else(|| supply(&supplies, target.header(), time, step));
            if let Some(value) = value {
                let time = u32::try_from(time).expect("it is not after now");
                target.write(archive, Point { time, value });
                filled.flags[index] = true;
                stats.filled_points += 1;
            }
        }
        finer = Some(filled);
    }
    stats
}

/// Which steps of an archive of the target were filled.
struct Filled {
    archive: usize,
    step: i64,
    /// Oldest step within the retention.
    first: i64,
    /// One for each step up to the one that `now` is in.
    flags: Vec<bool>,
}

impl Filled {
    fn none_of(header: &Header, archive: usize, now: i64) -> Self {
        let place = &header.archives()[archive];
        let step = i64::from(place.seconds_per_point);
        let last = now - now % step;
        let first = (last + step - signed(place.retention())).max(step);
        let count = usize::try_from((last + step - first) / step).unwrap_or(0);
        Self { archive, step, first, flags: vec![false; count] }
    }

    fn time_of(&self, index: usize) -> i64 {
        self.first + self.step * i64::try_from(index).expect("an archive has at most 2^26 slots")
    }

    /// Returns the aggregate of the points of this archive in a step of a coarser one, if some of them were filled in, some are
    /// the target's own, and all that there could be are still within the retention.
    fn merge(&self, target: &WhisperFile, time: i64, step: i64) -> Option<f64> {
        let first = usize::try_from((time - self.first) / self.step).ok()?;
        if time < self.first {
            return None;
        }
        let slot_count = step / self.step;
        let flags = self.flags.iter().skip(first).take(usize::try_from(slot_count).ok()?);
        if !flags.clone().any(|flag| *flag) {
            return None;
        }
        let ring = target.ring(self.archive);
        let header = target.header();
        let mut aggregator = Aggregator::new(header.aggregation());
        let mut has_own = false;
        for (index, is_filled) in (first..).zip(flags) {
            if let Some(value) = ring.value_at(self.time_of(index)) {
                aggregator.add(value);
                has_own |= !is_filled;
            }
        }
        if !has_own {
            return None;
        }
        aggregator.finish(u32::try_from(slot_count).ok()?, header.x_files_factor())
    }
}

/// An archive of the source that has points.
struct Supply<'a> {
    ring: Ring<'a>,
    /// Oldest step that the ring has room for.
    oldest: i64,
    /// Newest point that is not after now.
    newest: i64,
}

/// Returns the archives of the source that have points, the finest first.
fn supplies(source: &WhisperFile, now: i64) -> Vec<Supply<'_>> {
    let rings = (0..source.header().archives().len()).map(|archive| source.ring(archive));
    let supplies = rings.filter_map(|ring| {
        let newest = ring.newest(now)?;
        let slot_count = i64::try_from(ring.slot_count()).expect("at most 2^26 slots");
        Some(Supply { ring, oldest: newest - (slot_count - 1) * ring.step(), newest })
    });
    supplies.collect()
}

/// Returns what the source says about the step of a target that begins at `time`.
fn supply(supplies: &[Supply<'_>], target: &Header, time: i64, step: i64) -> Option<f64> {
    let coarser = supplies.partition_point(|supply| supply.ring.step() <= step);
    let (not_coarser, coarser) = supplies.split_at(coarser);
    let mut reaching = not_coarser.iter().rev().filter(|supply| supply.oldest <= time).peekable();
    if reaching.peek().is_some() {
        return reaching.find_map(|supply| supply.aggregate(target, time, step));
    }
    let reaching = coarser.iter().find(|supply| supply.oldest <= time)?;
    reaching.aggregate(target, time, step)
}

impl Supply<'_> {
    /// Returns the aggregate of the points that begin in a step of a target; a single one as it is.
    fn aggregate(&self, target: &Header, time: i64, step: i64) -> Option<f64> {
        let own_step = self.ring.step();
        let first = time + (own_step - time % own_step) % own_step;
        let end = time + step;
        if end <= first || self.newest < first {
            return None;
        }
        let slot_count = (end - first + own_step - 1) / own_step;
        if slot_count == 1 {
            return self.ring.value_at(first);
        }
        let mut aggregator = Aggregator::new(target.aggregation());
        let mut next = first;
        while next < end && next <= self.newest {
            if let Some(value) = self.ring.value_at(next) {
                aggregator.add(value);
            }
            next += own_step;
        }
        aggregator.finish(u32::try_from(slot_count).ok()?, target.x_files_factor())
    }
}
