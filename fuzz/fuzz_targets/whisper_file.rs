//! Whisper file: no panic, no memory that a length field alone asks for, no hang. What decodes encodes back to the same bytes; reading, writing
//! and filling keep the header, and filling twice changes nothing more.

#![no_main]

use chunkstore::whisper::{
    Aggregation, Backfill, BackfillStats, Point, Retention, WhisperFile, backfill,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, u32, u32, &[u8])| {
    let (now, time, pick, bytes) = input;
    check(bytes, now, time, pick);
    // With a header that is right: what is left of the bytes are slots.
    let retention = |seconds_per_point, points| Retention { seconds_per_point, points };
    let retentions = [retention(1 + pick % 60, 20), retention(5 * (1 + pick % 60), 15)];
    let aggregation = Aggregation::ALL[(pick / 64) as usize % 8];
    let file = WhisperFile::create(aggregation, 0.3, &retentions).expect("a schema by the rules");
    let mut whole = file.into_bytes();
    let slots = &mut whole[16 + 2 * 12..];
    let len = slots.len().min(bytes.len());
    slots[..len].copy_from_slice(&bytes[..len]);
    check(&whole, now, time, pick);
});

fn check(bytes: &[u8], now: u32, time: u32, pick: u32) {
    let Ok(file) = WhisperFile::decode(bytes.to_vec()) else { return };
    let header_len = file.header().header_len();
    assert_eq!(file.header().encode(), bytes[..header_len]);
    assert_eq!(file.bytes(), bytes);

    if let Some(series) = file.fetch(time.min(now), time.max(now), now) {
        assert!(series.values.len() <= bytes.len() / 12);
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
}
