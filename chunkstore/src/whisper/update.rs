//! Writing points, and their propagation to the coarser archives.

use std::cmp::Reverse;

use super::aggregation::Aggregator;
use super::fetch::signed;
use super::file::WhisperFile;
use super::ring::Point;
use super::whisper_error::WhisperError;

impl WhisperFile {
    /// Writes one point into the finest archive that reaches back to it, and propagates it.
    ///
    /// # Errors
    ///
    /// - [`WhisperError::NotCovered`] if the point is in the future, or as old as the longest retention.
    pub fn update(&mut self, point: Point, now: u32) -> Result<(), WhisperError> {
        let not_covered = WhisperError::NotCovered { time: point.time };
        let age = now.checked_sub(point.time).ok_or_else(|| not_covered.clone())?;
        if self.header().max_retention() <= age.into() {
            return Err(not_covered);
        }
        let archives = self.header().archives();
        let reaches = archives.iter().position(|archive| u64::from(age) <= archive.retention());
        let archive = reaches.ok_or(not_covered)?;
        let time = aligned(point.time, archives[archive].seconds_per_point);
        self.write(archive, Point { time, value: point.value });
        let mut finer = archive;
        for coarser in archive + 1..self.header().archives().len() {
            if !self.propagate(time, finer, coarser) {
                break;
            }
            finer = coarser;
        }
        Ok(())
    }

    /// Writes points in any order, each into the finest archive that reaches back to it, and propagates them.
    ///
    /// Points older than the longest retention are left out; points in the future go to the finest archive. Of points in one
    /// step the newest counts; of those with equal times the first that was given.
    pub fn update_many(&mut self, points: &[Point], now: u32) {
        let mut newest_first = points.to_vec();
        newest_first.sort_by_key(|point| Reverse(point.time));
        self.update_sorted(&newest_first, now.into());
    }

    /// Writes points that are sorted, the newest first.
    pub(super) fn update_sorted(&mut self, newest_first: &[Point], now: i64) {
        let mut rest = newest_first;
        for archive in 0..self.header().archives().len() {
            let retention = signed(self.header().archives()[archive].retention());
            let count = rest.partition_point(|point| now - i64::from(point.time) <= retention);
            let (batch, older) = rest.split_at(count);
            self.write_batch(archive, batch);
            rest = older;
        }
    }

    /// Writes points into one archive, oldest first, and propagates them.
    fn write_batch(&mut self, archive: usize, newest_first: &[Point]) {
        let step = self.header().archives()[archive].seconds_per_point;
        let mut oldest_first = newest_first.iter().rev().peekable();
        while let Some(point) = oldest_first.next() {
            let time = aligned(point.time, step);
            if oldest_first.peek().is_none_or(|next| aligned(next.time, step) != time) {
                self.write(archive, Point { time, value: point.value });
            }
        }
        let mut finer = archive;
        for coarser in archive + 1..self.header().archives().len() {
            let coarser_step = self.header().archives()[coarser].seconds_per_point;
            let mut is_propagated = false;
            let mut previous = None;
            for point in newest_first.iter().rev() {
                let time = aligned(point.time, coarser_step);
                if previous != Some(time) {
                    is_propagated |= self.propagate(time, finer, coarser);
                    previous = Some(time);
                }
            }
            if !is_propagated {
                break;
            }
            finer = coarser;
        }
    }

    /// Aggregates the points of the finer archive in one step of the coarser one, and writes the result there. Returns
    /// whether enough of them were known.
    fn propagate(&mut self, time: u32, finer: usize, coarser: usize) -> bool {
        let archives = self.header().archives();
        let (finer_archive, coarser_step) = (archives[finer], archives[coarser].seconds_per_point);
        let time = aligned(time, coarser_step);
        let ratio = coarser_step / finer_archive.seconds_per_point;
        // A ring that is shorter than one coarser step is read as the Python package does.
        let slot_count = match ratio % finer_archive.points {
            0 => finer_archive.points,
            remainder => remainder,
        };
        let ring = self.ring(finer);
        let mut aggregator = Aggregator::new(self.header().aggregation());
        for index in 0..slot_count {
            if let Some(value) = ring.value_at(i64::from(time) + i64::from(index) * ring.step()) {
                aggregator.add(value);
            }
        }
        let Some(value) = aggregator.finish(slot_count, self.header().x_files_factor()) else {
            return false;
        };
        self.write(coarser, Point { time, value });
        true
    }
}

/// Returns the beginning of the step that a time is in.
pub(super) fn aligned(time: u32, step: u32) -> u32 {
    time - time % step
}
