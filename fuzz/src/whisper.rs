//! Whisper files: no panic, no memory that a length field alone asks for, no hang.

use chunkstore::chunking::{PointArchive, point_ranges as ranges};
use chunkstore::format::POINT_LEN;
use chunkstore::whisper::{
    Aggregation, Backfill, BackfillStats, Header, Point, Retention, WhisperFile, backfill,
};

use crate::seeds;

/// Bytes before the file: three numbers.
const HEAD_LEN: usize = 12;

/// Length of the header of a file with two archives.
const HEADER_LEN: usize = 16 + 2 * 12;

/// What decodes encodes back to the same bytes; reading, writing and filling keep the header, and filling twice changes
/// nothing more.
pub(crate) fn file(bytes: &[u8]) -> bool {
    let Some((numbers, bytes)) = bytes.split_first_chunk::<HEAD_LEN>() else { return false };
    let mut numbers = numbers
        .chunks_exact(4)
        .map(|number| u32::from_le_bytes(*number.first_chunk().expect("four bytes")));
    let mut next = || numbers.next().expect("three numbers");
    let (now, time, pick) = (next(), next(), next());
    let is_accepted = check(bytes, now, time, pick);
    // With a header that is right: what is left of the bytes are slots.
    let retention = |seconds_per_point, points| Retention { seconds_per_point, points };
    let retentions = [retention(1 + pick % 60, 20), retention(5 * (1 + pick % 60), 15)];
    let aggregation = Aggregation::ALL[(pick / 64) as usize % 8];
    let file = WhisperFile::create(aggregation, 0.3, &retentions).expect("a schema by the rules");
    let mut whole = file.into_bytes();
    let slots = &mut whole[HEADER_LEN..];
    let len = slots.len().min(bytes.len());
    slots[..len].copy_from_slice(&bytes[..len]);
    check(&whole, now, time, pick);
    is_accepted
}

fn check(bytes: &[u8], now: u32, time: u32, pick: u32) -> bool {
    let Ok(file) = WhisperFile::decode(bytes.to_vec()) else { return false };
    let header_len = file.header().header_len();
    assert_eq!(file.header().encode(), bytes[..header_len]);
    assert_eq!(file.bytes(), bytes);

    if let Some(series) = file.fetch(time.min(now), time.max(now), now) {
        assert!(series.values.len() <= bytes.len() / POINT_LEN);
    }
    let mut other = file.clone();
    let points = [time, time ^ 1, time.wrapping_sub(pick), now, pick];
    let points = points.map(|time| Point { time, value: f64::from(time) });
    for point in points {
        let is_covered =
            point.time <= now && u64::from(now - point.time) < file.header().max_retention();
        assert_eq!(other.update(point, now).is_ok(), is_covered);
    }
    other.update_many(&points, now);
    assert_eq!(other.header(), file.header());

    let retention = |seconds_per_point, points| Retention { seconds_per_point, points };
    let retentions = [retention(10, 12), retention(60, 60), retention(3600, 24)];
    let blank = WhisperFile::create(Aggregation::Sum, 0.5, &retentions).expect("by the rules");
    for (source, target) in [(&file, &other), (&other, &file), (&file, &blank), (&blank, &file)] {
        backfill(source, &mut target.clone(), now, Backfill::Compat);
        let mut target = target.clone();
        backfill(source, &mut target, now, Backfill::Safe);
        let stats = backfill(source, &mut target, now, Backfill::Safe);
        assert_eq!(stats, BackfillStats::default());
    }
    true
}

/// Where a file is cut: at its archives, without gaps, in pieces of whole points.
pub(crate) fn point_ranges(bytes: &[u8]) -> bool {
    let Some((numbers, bytes)) = bytes.split_first_chunk::<HEAD_LEN>() else { return false };
    // A file may be longer than its header says: the length comes from the numbers.
    let extra = u64::from(u16::from_le_bytes([numbers[0], numbers[1]]));
    let file_len = bytes.len() as u64 + extra;
    let Ok(header) = Header::decode(bytes, file_len) else { return false };
    let of = |archive: &chunkstore::whisper::Archive| PointArchive {
        offset: archive.offset.into(),
        point_count: archive.points,
    };
    // The header has them by their step.
    let mut archives: Vec<PointArchive> = header.archives().iter().map(of).collect();
    archives.sort_unstable_by_key(|archive| archive.offset);
    let mut end = 0;
    for range in ranges(file_len, &archives) {
        assert_eq!(range.offset, end);
        assert!(range.len != 0 && range.len <= 1 << 20);
        assert!(!range.has_points || range.len.is_multiple_of(POINT_LEN as u64));
        end += range.len;
    }
    assert_eq!(end, file_len);
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let file = seeds::whisper_file().into_bytes();
    let numbers = [1_790_000_000_u32, 1_789_999_000, 7].map(u32::to_le_bytes).concat();
    let short = file[..HEADER_LEN].to_vec();
    vec![[numbers.clone(), file].concat(), [numbers, short].concat()]
}
