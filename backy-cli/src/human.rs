//! Sizes, durations and times as people read and write them.

use std::time::Duration;

use chunkstore::time::Timestamp;
use jiff::tz::TimeZone;

const UNITS: [(&str, u32); 7] =
    [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50), ("EiB", 60)];

/// Returns a size in binary units: "512 B", "4.0 MiB".
pub(crate) fn size(bytes: u64) -> String {
    let (unit, shift) = UNITS
        .into_iter()
        .rev()
        .find(|(_, shift)| *shift == 0 || 1 << shift <= bytes)
        .unwrap_or(("B", 0));
    if shift == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Reads a size: "64KiB", "4 MiB", "512", "1M". All units are binary.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let is_unit = |name: &str| unit.eq_ignore_ascii_case(name);
    let (_, shift) = UNITS.into_iter().find(|(name, _)| {
        is_unit(name) || (*name == "B" && unit.is_empty()) || is_unit(name.trim_end_matches("iB"))
    })?;
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Returns a duration: "0.3 s", "2 min 5 s", "3 h 4 min".
pub(crate) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Returns a duration in seconds, for machines.
pub(crate) fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

/// Returns a time in a zone, with its distance from UTC.
pub(crate) fn time(timestamp: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_millisecond(timestamp.0) {
        Ok(instant) => instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        Err(_) => timestamp.to_string(),
    }
}

/// Returns the name of a zone: "Europe/Berlin", or its distance from UTC where it has no name.
pub(crate) fn zone_name(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some(name) => name.to_owned(),
        None => jiff::Timestamp::now().to_zoned(zone.clone()).strftime("%Z").to_string(),
    }
}

/// Returns a count and its noun: "1 chunk", "2 chunks".
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_in_binary_units() {
        let texts = [0, 1023, 1024, 4 << 20, (4 << 20) + (1 << 19), u64::MAX].map(size);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "4.0 MiB", "4.5 MiB", "16.0 EiB"]);
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, expected) in [
            ("64KiB", Some(64 << 10)),
            ("4 MiB", Some(4 << 20)),
            ("512", Some(512)),
            ("512 B", Some(512)),
            ("1m", Some(1 << 20)),
            (" 2G ", Some(2 << 30)),
            ("", None),
            ("KiB", None),
            ("1.5M", None),
            ("-1", None),
            ("1 XB", None),
            ("16EiB", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_and_times_are_short() {
        assert_eq!([340, 125_000, 11_050_000].map(duration), ["0.3 s", "2 min 5 s", "3 h 4 min"]);
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time(Timestamp(1_790_000_000_123), &zone), "2026-09-21 16:13:20 +02:00");
    }
}
