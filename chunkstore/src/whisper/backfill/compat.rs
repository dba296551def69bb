//! Filling as `whisper-backup` does it: the algorithm of `whisper-fill.py` in the Python package `whisper` 1.1.10, whose fetches
//! and updates are those of this module. Its peculiarities are kept: users chose this mode for them.

use super::super::fetch::signed;
use super::super::file::WhisperFile;
use super::super::ring::Point;

/// Looks for gaps in every archive of the target, each in the time that finer ones do not reach, and fills them.
pub(super) fn fill(source: &WhisperFile, target: &mut WhisperFile, now: i64) {
    let mut gap = Gap { source, points: Vec::new(), now };
    let mut until = now;
    for archive in 0..target.header().archives().len() {
        let from = now - signed(target.header().archives()[archive].retention());
        if until <= from {
            continue;
        }
        let Some(stretch) = target.stretch(from, until, now) else { continue };
        let ring = target.ring(stretch.archive);
        // Filling changes the archive that is looked at.
        let values: Vec<_> = stretch.times().map(|time| ring.value_at(time)).collect();
        let step = i64::from(stretch.step);
        let mut gap_start = None;
        for (time, value) in stretch.times().zip(values) {
            let is_missing = value.is_none_or(|value| value == 0.0);
            match gap_start {
                None if is_missing => gap_start = Some(time),
                None => {}
                Some(start) if !is_missing => {
                    if step < time - start {
                        gap.fill(target, start - step, time);
                    }
                    gap_start = None;
                }
                Some(start) if time == stretch.until - step => {
                    gap.fill(target, start - step, time);
                }
                Some(_) => {}
            }
        }
        until = from;
    }
}

/// What fills a gap.
struct Gap<'a> {
    source: &'a WhisperFile,
    /// Space for the points of one archive, used again for every gap.
    points: Vec<Point>,
    now: i64,
}

impl Gap<'_> {
    /// Writes what the source has between two times: of each time what its finest archive says, the newest first.
    fn fill(&mut self, target: &mut WhisperFile, from: i64, until: i64) {
        let source = self.source;
        if until < self.now - signed(source.header().max_retention()) {
            return;
        }
        let mut until = until;
        for archive in source.header().archives() {
            let reach = self.now - signed(archive.retention());
            if until <= reach {
                continue;
            }
            let from_here = reach.max(from);
            self.points.clear();
            if let Some(stretch) = source.stretch(from_here, until, self.now) {
                let ring = source.ring(stretch.archive);
                self.points.extend(stretch.times().rev().filter_map(|time| {
                    let value = ring.value_at(time)?;
                    Some(Point { time: u32::try_from(time).ok()?, value })
                }));
            }
            target.update_sorted(&self.points, self.now);
            until = from_here;
            if until == from {
                return;
            }
        }
    }
}
