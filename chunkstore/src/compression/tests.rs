//! Tests of compressing and expanding general data.

use super::*;

const LEN: usize = 64 << 10;

fn random(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn text(len: usize) -> Vec<u8> {
    let words = random(len).into_iter().flat_map(|byte| format!("word{byte} ").into_bytes());
    words.take(len).collect()
}

fn header(codec: Codec, plain: &[u8], payload: &[u8]) -> RecordHeader {
    RecordHeader {
        kind: ObjectKind::Data,
        codec,
        id: ObjectKind::Data.chunk_id(plain),
        plain_len: len_of_chunk(plain).unwrap(),
        stored_len: len_of_chunk(payload).unwrap(),
    }
}

fn compress(level: i32, plain: &[u8]) -> (Codec, Vec<u8>) {
    let mut stored = vec![1, 2, 3];
    let id = ObjectKind::Data.chunk_id(plain);
    let mut compressor = Compressor::new(level).unwrap();
    let codec = compressor.compress(ObjectKind::Data, &id, plain, &mut stored).unwrap();
    (codec, stored)
}

/// Expands `payload` as if it were the stored form of `plain`.
fn expand(codec: Codec, plain: &[u8], payload: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut out = vec![0xee; 100_000];
    Expander::new().expand(&header(codec, plain, payload), payload, &mut out).map(|()| out)
}

fn zstd_frame(plain: &[u8]) -> Vec<u8> {
    bulk::compress(plain, 1).unwrap()
}

#[test]
fn chunk_expands_to_what_was_compressed() {
    let mut half = random(LEN);
    half[..LEN / 2].copy_from_slice(&text(LEN / 2));
    let repeated = random(LEN / 2).repeat(2);
    let compressible = [text(LEN), vec![0; LEN], half, repeated, vec![5; 16 << 20]];
    let incompressible = [random(LEN), random(1), random(2), random(255)];
    for level in [-7, 1, 3, 12] {
        for plain in &compressible {
            let (codec, stored) = compress(level, plain);
            // The fastest levels do not even find letters that are frequent.
            assert!(codec == Codec::Zstd || level < 0, "level {level}");
            assert!(codec == Codec::Raw || stored.len() < plain.len());
            assert!(expand(codec, plain, &stored).unwrap() == *plain);
        }
        for plain in &incompressible {
            let (codec, stored) = compress(level, plain);
            assert_eq!(codec, Codec::Raw);
            assert!(stored == *plain);
            assert!(expand(codec, plain, &stored).unwrap() == *plain);
        }
    }
}

#[test]
fn denser_level_is_permitted_and_at_least_the_level() {
    for level in LEVEL_MIN..=LEVEL_MAX {
        let denser = denser_level(level);
        assert!(level <= denser && Compressor::new(denser).is_ok(), "{level}");
    }
    assert_eq!([-1, 0, 1, 2, 3, 12].map(denser_level), [-1, 0, 3, 4, 3, 12]);
}

#[test]
fn level_is_checked_at_its_limits() {
    for level in [LEVEL_MIN, 0, LEVEL_DEFAULT, LEVEL_MAX] {
        assert!(Compressor::new(level).is_ok());
    }
    for level in [LEVEL_MIN - 1, LEVEL_MAX + 1, 22, i32::MIN, i32::MAX] {
        assert!(matches!(Compressor::new(level), Err(CompressionError::Level { .. })));
    }
}

#[test]
fn chunk_that_is_not_what_was_hashed_is_not_stored() {
    let mut compressor = Compressor::new(1).unwrap();
    for plain in [text(LEN), random(LEN)] {
        let mut flipped = plain.clone();
        flipped[1000] ^= 1;
        let id = ObjectKind::Data.chunk_id(&plain);
        let mut out = Vec::new();
        let result = compressor.compress(ObjectKind::Data, &id, &flipped, &mut out);
        assert!(matches!(result, Err(CompressionError::Mismatch { .. })));
        assert!(compressor.compress(ObjectKind::Data, &id, &plain, &mut out).is_ok());
        let result = compressor.compress(ObjectKind::Page, &id, &plain, &mut out);
        assert!(matches!(result, Err(CompressionError::Mismatch { .. })));
    }
}

#[test]
fn frame_is_all_of_the_payload() {
    let plain = text(5000);
    let frame = zstd_frame(&plain);
    assert!(expand(Codec::Zstd, &plain, &frame).unwrap() == plain);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1];
    let trailing = |more: &[u8]| expand(Codec::Zstd, &plain, &[&frame[..], more].concat());
    for more in [&[0][..], &skippable, &frame, &zstd_frame(b"")] {
        let expected =
            FormatError::TrailingBytes { structure: "zstd frame", count: more.len() as u64 };
        assert_eq!(trailing(more), Err(expected));
    }
    let leading = expand(Codec::Zstd, &plain, &[&skippable[..], &frame].concat());
    assert!(matches!(leading, Err(FormatError::Compression { .. })));
    for len in 0..frame.len() {
        assert!(expand(Codec::Zstd, &plain, &frame[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn frame_of_another_length_is_refused() {
    let plain = text(5000);
    for other in [text(4999), text(5001), Vec::new(), vec![0; 64 << 20]] {
        let result = expand(Codec::Zstd, &plain, &zstd_frame(&other));
        assert!(matches!(result, Err(FormatError::Compression { .. })));
    }
    // A frame that says nothing about its length, as a stream encoder writes it.
    let unsized_frame = zstd::stream::encode_all(&plain[..], 1).unwrap();
    let result = expand(Codec::Zstd, &plain, &unsized_frame);
    assert!(matches!(result, Err(FormatError::Compression { .. })));
}

#[test]
fn frame_that_lies_about_its_length_is_refused() {
    let bomb = zstd_frame(&vec![0; 4 << 20]);
    // One byte of descriptor, one for the window, then four bytes of content size.
    assert_eq!((bomb[4], &bomb[6..10]), (0b1000_0000, &(4_u32 << 20).to_le_bytes()[..]));
    let plain = vec![0; 5 << 16];
    let mut lying = bomb;
    lying[6..10].copy_from_slice(&(5_u32 << 16).to_le_bytes());
    let result = expand(Codec::Zstd, &plain, &lying);
    assert!(matches!(result, Err(FormatError::Compression { .. })));
    lying[6..10].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    let result = expand(Codec::Zstd, &vec![0; 16 << 20], &lying);
    assert!(matches!(result, Err(FormatError::Compression { .. })));
}

#[test]
fn frame_that_needs_a_dictionary_is_refused() {
    let plain = text(5000);
    let mut frame = zstd_frame(&plain);
    // Two flag bits of the descriptor say how long the dictionary id is that follows.
    assert_eq!(frame[4] & 0b11, 0);
    frame[4] |= 1;
    frame.insert(5, 77);
    let expected = FormatError::Compression { reason: "it needs a dictionary".to_owned() };
    assert_eq!(expand(Codec::Zstd, &plain, &frame), Err(expected));
}

#[test]
fn flipped_bit_never_gives_other_bytes() {
    let plain = text(2000);
    let frame = zstd_frame(&plain);
    for place in 0..frame.len() {
        for bit in 0..8 {
            let mut flipped = frame.clone();
            flipped[place] ^= 1 << bit;
            if let Ok(out) = expand(Codec::Zstd, &plain, &flipped) {
                assert!(out == plain, "bit {bit} of byte {place}");
            }
        }
    }
    let mut raw = plain.clone();
    raw[7] ^= 1;
    assert!(matches!(expand(Codec::Raw, &plain, &raw), Err(FormatError::WrongHash { .. })));
}

#[test]
fn lengths_are_checked_before_anything_else() {
    let plain = text(100);
    let good = header(Codec::Raw, &plain, &plain);
    let mut out = Vec::new();
    let mut expand =
        |header: RecordHeader, payload: &[u8]| Expander::new().expand(&header, payload, &mut out);
    assert_eq!(expand(good, &plain), Ok(()));
    let result = expand(RecordHeader { plain_len: 0, ..good }, &plain);
    assert!(matches!(result, Err(FormatError::OutOfRange { .. })));
    let result = expand(RecordHeader { plain_len: CHUNK_LEN_MAX + 1, ..good }, &plain);
    assert!(matches!(result, Err(FormatError::OutOfRange { .. })));
    let result = expand(good, &plain[1..]);
    assert!(matches!(result, Err(FormatError::Inconsistent { .. })));
    let result = expand(RecordHeader { plain_len: 99, ..good }, &plain);
    assert!(matches!(result, Err(FormatError::Inconsistent { .. })));
}

fn points(points: impl IntoIterator<Item = (u32, f64)>) -> Vec<u8> {
    points
        .into_iter()
        .flat_map(|(time, value)| [&time.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect()
}

/// Returns points of many kinds: of each the name, the points, and by how much they shrink at least.
fn series() -> Vec<(&'static str, Vec<u8>, usize)> {
    let noise = random(8 * 4096);
    let (numbers, _) = noise.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let regular = |value: &dyn Fn(u32, u64) -> f64| {
        points(
            (0..)
                .zip(&numbers)
                .map(|(slot, number)| (1_700_000_000 + 60 * slot, value(slot, *number))),
        )
    };
    let small = |number: u64| f64::from(number.to_le_bytes()[0]);
    let average = |number: u64| {
        let values = number.to_le_bytes().map(|byte| 40.0 + f64::from(byte % 64) / 100.0);
        values.iter().sum::<f64>() / 6.0
    };
    vec![
        ("constant", regular(&|_, _| 2.5), 200),
        ("counter", regular(&|slot, number| f64::from(slot) * 300.0 + small(number)), 5),
        ("decimals", regular(&|_, number| small(number) / 100.0), 8),
        ("averages", regular(&|_, number| average(number)), 4),
        (
            "doubles",
            regular(&|_, number| 1.0 / (2.0 + small(number) * 1e-9 + small(number >> 9))),
            1,
        ),
        ("zeros", vec![0; 12 * 4096], 500),
        (
            "sparse",
            points((0..).zip(&numbers).map(|(slot, number)| {
                if number % 50 == 0 {
                    (1_700_000_000 + 60 * slot, small(*number))
                } else {
                    (0, 0.0)
                }
            })),
            25,
        ),
        ("one", points([(1_700_000_000, 1.0)]), 1),
    ]
}

fn compress_points(plain: &[u8]) -> (Codec, Vec<u8>) {
    let mut stored = vec![1, 2, 3];
    let id = ObjectKind::Data.chunk_id(plain);
    let mut compressor = Compressor::new(1).unwrap();
    let codec = compressor.compress_points(ObjectKind::Data, &id, plain, &mut stored).unwrap();
    (codec, stored)
}

#[test]
fn points_expand_to_what_was_compressed() {
    for (name, plain, ratio) in series() {
        let (codec, stored) = compress_points(&plain);
        assert!(stored.len() * ratio <= plain.len(), "{name}: {codec:?}, {} bytes", stored.len());
        assert!(expand(codec, &plain, &stored).unwrap() == plain, "{name}");
        let mut out = vec![3; plain.len()];
        let header = header(codec, &plain, &stored);
        Expander::new().expand_into(&header, &stored, &mut out).unwrap();
        assert!(out == plain, "{name}");
    }
}

#[test]
fn what_shrinks_less_as_columns_is_stored_as_it_is() {
    let codec_of = |wanted: &str| {
        let (_, plain, _) = series().into_iter().find(|(name, ..)| *name == wanted).unwrap();
        compress_points(&plain).0
    };
    assert_eq!(["counter", "averages"].map(codec_of), [Codec::Points; 2]);
    assert_eq!(codec_of("sparse"), Codec::Zstd);
    assert_eq!(codec_of("one"), Codec::Raw);
    assert_eq!(compress_points(&random(12 * 500)).0, Codec::Raw);
    assert_eq!(compress_points(&text(12 * 500 + 1)).0, Codec::Zstd);
}

#[test]
fn same_compressor_takes_points_and_general_data_in_turn() {
    let mut compressor = Compressor::new(3).unwrap();
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for (name, plain, _) in series() {
        let id = ObjectKind::Data.chunk_id(&plain);
        let one = compressor.compress_points(ObjectKind::Data, &id, &plain, &mut first).unwrap();
        compressor.compress(ObjectKind::Data, &id, &plain, &mut again).unwrap();
        let two = compressor.compress_points(ObjectKind::Data, &id, &plain, &mut again).unwrap();
        assert_eq!((one, &first), (two, &again), "{name}");
    }
}

#[test]
fn points_that_are_not_what_was_hashed_are_not_stored() {
    let (_, plain, _) = series().remove(1);
    let id = ObjectKind::Data.chunk_id(&plain[12..]);
    let result =
        Compressor::new(1).unwrap().compress_points(ObjectKind::Data, &id, &plain, &mut Vec::new());
    assert!(matches!(result, Err(CompressionError::Mismatch { .. })));
}

#[test]
fn hostile_payload_of_points_is_refused() {
    let (_, plain, _) = series().remove(1);
    let (codec, stored) = compress_points(&plain);
    assert_eq!(codec, Codec::Points);
    for len in 0..stored.len() {
        assert!(expand(codec, &plain, &stored[..len]).is_err(), "{len} bytes");
    }
    for transform in 0..=u8::MAX {
        let changed = [&[transform], &stored[1..]].concat();
        let result = expand(codec, &plain, &changed);
        assert_eq!(result.is_ok(), transform == stored[0], "{transform}");
    }
    let trailing = [&stored[..], &[0]].concat();
    let expected = FormatError::TrailingBytes { structure: "zstd frame", count: 1 };
    assert_eq!(expand(codec, &plain, &trailing), Err(expected));
    let uneven = &plain[..plain.len() - 1];
    let payload = [&[0], &zstd_frame(uneven)[..]].concat();
    assert!(matches!(expand(codec, uneven, &payload), Err(FormatError::Inconsistent { .. })));
    let bomb = [&[0], &zstd_frame(&vec![0; 12 << 20])[..]].concat();
    assert!(matches!(expand(codec, &plain, &bomb), Err(FormatError::Compression { .. })));
}
