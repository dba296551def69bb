//! Stored forms of chunks: any payload is expanded or refused, and what is compressed expands.

use std::cell::RefCell;
use std::collections::BTreeMap;

use chunkstore::compression::columns::{join, split};
use chunkstore::compression::{Compressor, Expander};
use chunkstore::format::{Codec, ObjectKind, POINT_LEN, RecordHeader, Transform};

use crate::memory::{DECODER, Limit};
use crate::seeds;

/// A chunk may ask for 16 MiB, twice if it holds points; what is compressed is expanded again.
pub(crate) const LIMIT: Limit = Limit { base: 40 << 20, ..DECODER };

/// Bytes before the payload: the codec, and the plain length.
const HEAD_LEN: usize = 4;

/// Longest plain length that is asked for with any contents: longer ones only cost time.
const PLAIN_LEN_MAX: usize = 256 << 10;

/// Expands a payload; the first bytes are codec and plain length. What zstd itself makes of a frame decides what must come out.
pub(crate) fn expand(bytes: &[u8]) -> bool {
    let Some(([codec, length @ ..], payload)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        return false;
    };
    let [low, middle, high] = *length;
    let plain_len = u32::from_le_bytes([low, middle, high, codec >> 6]);
    let codec = match codec & 3 {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        _ => Codec::Points,
    };
    let expected = match codec {
        Codec::Raw => Some(payload.to_vec()),
        Codec::Zstd => expanded_by_zstd(payload, plain_len as usize),
        Codec::Points => points_of(payload, plain_len as usize),
    };
    let expected = expected.filter(|plain| plain.len() == plain_len as usize);
    let id = ObjectKind::Data.chunk_id(expected.as_deref().unwrap_or_default());
    let stored_len = u32::try_from(payload.len()).expect("inputs are short");
    let header = RecordHeader { kind: ObjectKind::Data, codec, id, plain_len, stored_len };
    EXPANDER.with_borrow_mut(|expander| check(expander, &header, payload, expected.as_ref()))
}

thread_local! {
    // Contexts of zstd take longer to make than an input to run; a store, too, uses them for chunk after chunk.
    static EXPANDER: RefCell<Expander> = RefCell::new(Expander::new());
    static COMPRESSORS: RefCell<BTreeMap<i32, Compressor>> = const { RefCell::new(BTreeMap::new()) };
}

fn check(
    expander: &mut Expander,
    header: &RecordHeader,
    payload: &[u8],
    expected: Option<&Vec<u8>>,
) -> bool {
    let mut out = Vec::new();
    if expander.expand(header, payload, &mut out).is_err() {
        return false;
    }
    assert!(Some(&out) == expected, "it expands to something else");
    let mut into = vec![0xee; out.len()];
    expander.expand_into(header, payload, &mut into).expect("it was expanded before");
    assert!(into == out, "two ways of expanding give two results");
    let other = RecordHeader { id: ObjectKind::Page.chunk_id(&out), ..*header };
    assert!(expander.expand(&other, payload, &mut out).is_err(), "any id is accepted");
    true
}

/// Expands a frame by zstd alone, which accepts more than a store does: several frames, and skippable ones.
fn expanded_by_zstd(frame: &[u8], plain_len: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(frame, plain_len.min(PLAIN_LEN_MAX)).ok()
}

fn points_of(payload: &[u8], plain_len: usize) -> Option<Vec<u8>> {
    let (transform, frame) = payload.split_first()?;
    let transform = Transform::from_byte(*transform).ok()?;
    let columns = expanded_by_zstd(frame, plain_len)?;
    if !columns.len().is_multiple_of(POINT_LEN) {
        return None;
    }
    let mut points = vec![0; columns.len()];
    join(transform, &columns, &mut points);
    Some(points)
}

pub(crate) fn expand_seeds() -> Vec<Vec<u8>> {
    let of = |(header, payload): (RecordHeader, Vec<u8>)| {
        let [low, middle, high, _] = header.plain_len.to_le_bytes();
        [&[header.codec.to_byte(), low, middle, high][..], &payload].concat()
    };
    let data = |header: &RecordHeader| header.kind == ObjectKind::Data;
    let examples = ["record", "record-of-points"].map(|name| {
        let record = seeds::example(name);
        let (header, payload) = record.split_at(RecordHeader::LEN);
        (RecordHeader::decode(header).expect("the example decodes"), payload.to_vec())
    });
    let records = seeds::records().into_iter().filter(|(header, _)| data(header));
    records.chain(examples).map(of).collect()
}

/// Compresses a chunk at the level of the first byte; the compressor itself expands what it made, and so does a reader.
pub(crate) fn compress(bytes: &[u8]) -> bool {
    let Some((choice, plain)) = bytes.split_first().filter(|(_, plain)| !plain.is_empty()) else {
        return false;
    };
    let level = i32::from(choice % 10) - 4;
    COMPRESSORS.with_borrow_mut(|compressors| {
        let compressor = compressors
            .entry(level)
            .or_insert_with(|| Compressor::new(level).expect("a permitted level"));
        check_compressor(compressor, plain, choice & 128 != 0);
    });
    true
}

fn check_compressor(compressor: &mut Compressor, plain: &[u8], has_points: bool) {
    let id = ObjectKind::Data.chunk_id(plain);
    let mut stored = Vec::new();
    let codec = if has_points {
        compressor.compress_points(ObjectKind::Data, &id, plain, &mut stored)
    } else {
        compressor.compress(ObjectKind::Data, &id, plain, &mut stored)
    };
    let codec = codec.expect("what was made expands");
    assert!(stored.len() < plain.len() || codec == Codec::Raw && stored == plain);
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("inputs are short");
    let (plain_len, stored_len) = (len(plain), len(&stored));
    let header = RecordHeader { kind: ObjectKind::Data, codec, id, plain_len, stored_len };
    let mut out = Vec::new();
    EXPANDER
        .with_borrow_mut(|expander| expander.expand(&header, &stored, &mut out))
        .expect("the compressor has tried it");
    assert!(out == plain);
}

/// Points as columns, by the transform of the first byte: what is split is joined again, and any bytes are columns.
pub(crate) fn points_transform(bytes: &[u8]) -> bool {
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    let Ok(transform) = Transform::from_byte(*choice) else { return false };
    let plain = &bytes[..bytes.len() / POINT_LEN * POINT_LEN];
    let mut columns = Vec::new();
    let mut joined = vec![0; plain.len()];
    let is_exact = split(transform, plain, &mut columns);
    assert_eq!(columns.len(), plain.len());
    join(transform, &columns, &mut joined);
    assert!(joined == plain || !is_exact);
    join(transform, plain, &mut joined);
    is_exact
}

pub(crate) fn points_seeds() -> Vec<Vec<u8>> {
    let file = seeds::whisper_file();
    let slots = &file.bytes()[file.header().header_len()..];
    let of = |transform: Transform| [&[transform.to_byte()][..], slots].concat();
    Transform::all().map(of).collect()
}
