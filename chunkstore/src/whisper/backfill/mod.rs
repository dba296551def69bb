//! Filling the gaps of one whisper file with the points of another, as when a backup is restored over a file that Graphite
//! writes to again.
//!
//! The two modes share nothing but the file: [`Backfill::Safe`] is in `safe`, [`Backfill::Compat`] in `compat`.

mod compat;
mod safe;

use super::file::WhisperFile;

/// Which points of the source go into the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backfill {
    /// Only slots of the target that are empty are filled; no point that the target has is changed.
    ///
    /// Each archive of the target is looked at, the finest first, from its oldest step that has not left the retention to
    /// the one that `now` is in. What lies outside is never written. A slot is empty if its point is not there; zero is
    /// a value like others, single gaps and trailing ones count. A slot that has a point of the future is not empty. An
    /// archive of the target that nothing was written to yet is empty throughout.
    ///
    /// The value for an empty step of the target is that of the first rule which gives one:
    ///
    /// 1. *Both files know parts of it.* If the next finer archive of the target has all of the step in its retention, and of its
    ///    points there some are the target's own and some were filled in before: their aggregate, by the aggregation and
    ///    the x-files factor of the target. Neither file could have computed it alone.
    /// 2. *The source has the step, or finer ones.* Of the archives of the source whose step is not longer, and which
    ///    reach back to the beginning of the step, the one whose step is nearest, then the next finer one: the value as it is,
    ///    if one slot of it falls into the step; otherwise the aggregate of its points that begin in the step, by the
    ///    aggregation and the x-files factor of the target. That steps divide each other is not necessary.
    /// 3. *The source is coarser.* If no archive of rule 2 reaches back so far: of those with longer steps the finest that does. Its
    ///    value goes to the step of the target in which its own step begins, so a coarser source gives sparse points. This
    ///    is what tools of Graphite do; sums over longer times come out right.
    ///
    /// An archive of the source *reaches back* to the time for which its ring has room, counted from its newest point that
    /// is not after `now`: so a backup of last week is used as well as it was last week. Points after `now` are not
    /// used, nor are older ones that were not overwritten by chance.
    ///
    /// A second run changes nothing. If the target was empty and has the archives of the source, it ends with all the points
    /// of the source that are within the retention now.
    #[default]
    Safe,
    /// As `whisper-backup` and `whisper-fill.py` of the Python package do it, for those who rely on it.
    ///
    /// Zero counts as missing; single gaps are not filled, nor is a trailing one; the first value behind a gap is
    /// replaced, too; what was filled is propagated, which may replace points of coarser archives.
    Compat,
}

/// What filling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackfillStats {
    /// Points, over all archives, that the target has now and had not before.
    pub filled_points: u64,
    /// Points of the target that have another value now. None with [`Backfill::Safe`].
    pub replaced_points: u64,
}

/// Fills gaps of the target from the source. `now` is the present, in seconds since 1970.
///
/// Takes time and memory in proportion to the two files, and does not fail: where the archives do not go together, less is
/// filled.
pub fn backfill(
    source: &WhisperFile,
    target: &mut WhisperFile,
    now: u32,
    mode: Backfill,
) -> BackfillStats {
    match mode {
        Backfill::Safe => safe::fill(source, target, now),
        Backfill::Compat => {
            let before = target.clone();
            compat::fill(source, target, now.into());
            compare(&before, target)
        }
    }
}

/// Counts what differs between two states of one file.
fn compare(before: &WhisperFile, after: &WhisperFile) -> BackfillStats {
    let mut stats = BackfillStats::default();
    for archive in 0..after.header().archives().len() {
        let (old, new) = (before.ring(archive), after.ring(archive));
        for slot in (0..new.slot_count()).filter(|&slot| !new.has_same_bytes(&old, slot)) {
            match (old.point_in(slot), new.point_in(slot)) {
                (Some(old), Some(new)) if old.time == new.time => stats.replaced_points += 1,
                (_, Some(_)) => stats.filled_points += 1,
                (_, None) => {}
            }
        }
    }
    stats
}
