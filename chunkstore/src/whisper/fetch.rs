//! Reading a stretch of time: which archive answers, and with which points.

use super::file::WhisperFile;

/// What a file says about a stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Time of the first value, seconds since 1970.
    pub from: u64,
    /// Time of the step behind the last value.
    pub until: u64,
    /// Step in seconds.
    pub seconds_per_point: u32,
    /// One value for each step from `from` to before `until`; `None` where nothing is known.
    pub values: Vec<Option<f64>>,
}

/// The steps of one archive that answer for a stretch of time, at most as many as it has slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) archive: usize,
    /// Time of the first step.
    pub(super) from: i64,
    /// Time behind the last step.
    pub(super) until: i64,
    pub(super) step: u32,
}

impl Stretch {
    /// Returns the times of the steps.
    pub(super) fn times(&self) -> impl DoubleEndedIterator<Item = i64> + use<> {
        let step = i64::from(self.step);
        let from = self.from;
        (0..(self.until - from) / step).map(move |index| from + index * step)
    }
}

impl WhisperFile {
    /// Returns what the file says about the time from `from` to `until`, as the Python package does.
    ///
    /// What is before the longest retention or after `now` is cut off. The finest archive that reaches back to `from` answers, with
    /// the steps that begin after `from` and not after `until`; if that is none, with the next one.
    /// `None` if nothing is left: `from` is after `until` or after `now`, or `until` is before the longest retention.
    #[must_use]
    pub fn fetch(&self, from: u32, until: u32, now: u32) -> Option<Series> {
        let stretch = self.stretch(from.into(), until.into(), now.into())?;
        let ring = self.ring(stretch.archive);
        Some(Series {
            from: stretch.from.unsigned_abs(),
            until: stretch.until.unsigned_abs(),
            seconds_per_point: stretch.step,
            values: stretch.times().map(|time| ring.value_at(time)).collect(),
        })
    }

    /// Returns which steps of which archive answer for the time from `from` to `until`.
    pub(super) fn stretch(&self, from: i64, until: i64, now: i64) -> Option<Stretch> {
        let oldest = now - signed(self.header().max_retention());
        if until < from || now < from || until < oldest {
            return None;
        }
        let (from, until) = (from.max(oldest), until.min(now));
        let archives = self.header().archives();
        let reaches = |retention: u64| now - from <= signed(retention);
        let archive = archives.iter().position(|archive| reaches(archive.retention()))?;
        let step = archives[archive].seconds_per_point;
        let seconds = i64::from(step);
        let first = from - from.rem_euclid(seconds) + seconds;
        let last = until - until.rem_euclid(seconds) + seconds;
        let until = if first == last { last + seconds } else { last };
        Some(Stretch { archive, from: first, until, step })
    }
}

/// A number of seconds that fits: retentions are below 2^58.
pub(super) fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).expect("a retention is below 2^58 seconds")
}
