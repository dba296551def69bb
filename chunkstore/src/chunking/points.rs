//! Where a whisper file is cut: at its archives, and in each of them every so many points.
//!
//! Document: `docs/format.md`, section "Whisper files". The slots of an archive are written in place, so nothing ever
//! shifts and no cutter needs to look at the bytes: the ranges follow from the header alone. Pure. Invariants: the ranges follow each
//! other without gap from the start of the file to its end, none is empty or longer than 1 MiB; a range that touches an
//! archive lies in it, begins with a point and holds whole ones.

use crate::format::POINT_LEN;

/// Length in bytes of the longest range that does not hold points.
const OTHER_LEN_MAX: u64 = 64 << 10;

/// Bounds of the longest range, in points.
const BLOCK_POINTS_MIN: u32 = 1 << 9;
const BLOCK_POINTS_MAX: u32 = 1 << 16;

const POINT_LEN_U64: u64 = POINT_LEN as u64;

/// An archive of a whisper file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointArchive {
    /// First byte of the file that holds a point of it.
    pub offset: u64,
    /// Points that it has room for.
    pub point_count: u32,
}

impl PointArchive {
    fn len(&self) -> u64 {
        u64::from(self.point_count) * POINT_LEN_U64
    }
}

/// A piece of a whisper file that is one chunk, or, if it is all zeros, part of a zero entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointRange {
    /// First byte of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether it is a whole number of points.
    pub has_points: bool,
}

/// Returns how many points of an archive with this many are one range; the last one may have fewer. As many ranges as are needed
/// with eight times the square root in each are made equally long, so that there is no short one to pay for.
#[must_use]
pub const fn block_points(point_count: u32) -> u32 {
    let mut longest = 8 * point_count.isqrt();
    if longest < BLOCK_POINTS_MIN {
        longest = BLOCK_POINTS_MIN;
    } else if longest > BLOCK_POINTS_MAX {
        longest = BLOCK_POINTS_MAX;
    }
    if point_count <= longest {
        return longest;
    }
    point_count.div_ceil(point_count.div_ceil(longest))
}

/// Returns the ranges of a file, in their order. The archives are in ascending order, do not overlap, and end within the file.
///
/// # Panics
///
/// If they are not.
pub fn point_ranges(
    file_len: u64,
    archives: &[PointArchive],
) -> impl Iterator<Item = PointRange> + '_ {
    point_ranges_by(file_len, archives, block_points)
}

/// Returns the ranges as [`point_ranges`] does, with another rule in place of [`block_points`]: to measure what rules cost.
///
/// # Panics
///
/// As [`point_ranges`], and if the rule returns 0.
pub fn point_ranges_by<R: Fn(u32) -> u32>(
    file_len: u64,
    archives: &[PointArchive],
    rule: R,
) -> impl Iterator<Item = PointRange> + use<'_, R> {
    let mut archives = archives.iter();
    let mut next = archives.next();
    let mut offset = 0;
    std::iter::from_fn(move || {
        while let Some(archive) = next.filter(|archive| archive.offset + archive.len() <= offset) {
            assert!(
                archive.offset + archive.len() == offset || archive.len() == 0,
                "archives overlap"
            );
            next = archives.next();
        }
        let end = next.map_or(file_len, |archive| archive.offset);
        let range = match next {
            Some(archive) if archive.offset <= offset => {
                let len = u64::from(rule(archive.point_count)) * POINT_LEN_U64;
                let left = archive.offset + archive.len() - offset;
                PointRange { offset, len: len.min(left), has_points: true }
            }
            _ => PointRange { offset, len: (end - offset).min(OTHER_LEN_MAX), has_points: false },
        };
        offset += range.len;
        assert!(offset <= file_len, "an archive ends behind the file");
        (range.len > 0).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(file_len: u64, archives: &[(u64, u32)]) -> Vec<(u64, u64, bool)> {
        let archive = |(offset, point_count): &(u64, u32)| PointArchive {
            offset: *offset,
            point_count: *point_count,
        };
        let archives: Vec<_> = archives.iter().map(archive).collect();
        point_ranges(file_len, &archives)
            .map(|range| (range.offset, range.len, range.has_points))
            .collect()
    }

    /// These lengths are part of the format.
    #[test]
    fn points_of_a_range_follow_from_those_of_the_archive() {
        let expected = [
            (0, 512),
            (1, 512),
            (512, 512),
            (513, 257),
            (576, 288),
            (672, 336),
            (1024, 512),
            (1440, 480),
            (4096, 512),
            (4225, 470),
            (8640, 720),
            (8760, 730),
            (20160, 1120),
            (43200, 1600),
            (65536, 2048),
            (525600, 5776),
            (1048576, 8192),
            (16777216, 32768),
            (67108863, 65473),
            (67108864, 65536),
            (1073741824, 65536),
            (4294967295, 65536),
        ];
        for (point_count, block) in expected {
            assert_eq!(block_points(point_count), block, "{point_count}");
        }
    }

    /// These cuts are part of the format.
    #[test]
    fn file_is_cut_at_its_archives_and_every_so_many_points() {
        assert_eq!(
            ranges(52 + 12 * (2500 + 1024 + 3), &[(52, 2500), (30_052, 1024), (42_340, 3)]),
            [
                (0, 52, false),
                (52, 6000, true),
                (6052, 6000, true),
                (12052, 6000, true),
                (18052, 6000, true),
                (24052, 6000, true),
                (30052, 6144, true),
                (36196, 6144, true),
                (42340, 36, true),
            ]
        );
        assert_eq!(
            ranges(200_000, &[(100, 1), (150, 0), (200, 2)]),
            [
                (0, 100, false),
                (100, 12, true),
                (112, 38, false),
                (150, 50, false),
                (200, 24, true),
                (224, 65_536, false),
                (65_760, 65_536, false),
                (131_296, 65_536, false),
                (196_832, 3168, false),
            ]
        );
        assert_eq!(ranges(0, &[]), []);
    }

    proptest! {
        #[test]
        fn ranges_cover_the_file(
            parts in prop::collection::vec((0_u64..200_000, 0_u32..200_000), 0..6),
            tail in 0_u64..200_000,
        ) {
            let mut end = 0;
            let mut archives = Vec::new();
            for (gap, point_count) in parts {
                archives.push((end + gap, point_count));
                end += gap + u64::from(point_count) * POINT_LEN_U64;
            }
            let mut offset = 0;
            for (start, len, has_points) in ranges(end + tail, &archives) {
                prop_assert_eq!(start, offset);
                prop_assert!(0 < len && len <= 1 << 20);
                offset += len;
                let inside = archives.iter().find(|(first, point_count)| {
                    *first <= start && offset <= first + u64::from(*point_count) * POINT_LEN_U64
                });
                prop_assert_eq!(inside.is_some(), has_points);
                if let Some((first, _)) = inside {
                    prop_assert!(len % 12 == 0 && (start - first) % 12 == 0);
                }
            }
            prop_assert_eq!(offset, end + tail);
        }
    }
}
