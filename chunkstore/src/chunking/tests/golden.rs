//! Cuts that must never move: every store rests on them.

use super::{Pieces, cut_span, random_bytes, small_params};
use crate::chunking::ChunkingParams;
use crate::format::PageEntry;

fn cut(params: ChunkingParams, span: &[u8]) -> Vec<PageEntry> {
    cut_span(params, Pieces::new(span, &[100_000], false), &[]).entries
}

fn lens(entries: &[PageEntry]) -> Vec<u64> {
    entries.iter().map(PageEntry::len).collect()
}

/// Digest of the entries as text, one in a line.
fn digest(entries: &[PageEntry]) -> String {
    let line = |entry: &PageEntry| match entry {
        PageEntry::Data { len, id } => format!("data {len} {id}\n"),
        PageEntry::Zero { len } => format!("zero {len}\n"),
    };
    let text: String = entries.iter().map(line).collect();
    blake3::hash(text.as_bytes()).to_string()
}

/// Random bytes, words, zeros that are a run and zeros that are none, one byte over and over, a partial block.
fn mixed() -> Vec<u8> {
    let words = random_bytes(3, 100_000);
    let words = words.iter().flat_map(|byte| format!("word {byte}\n").into_bytes());
    let mut span = random_bytes(2, 300_001);
    span.extend(words);
    span.resize(span.len() + 60_000, 0);
    span.extend(random_bytes(4, 10_000));
    span.resize(span.len() + 200_000, 0);
    span.resize(span.len() + 700_000, 0xff);
    span.resize(span.len() + 80_000, 0);
    span
}

#[test]
fn random_bytes_are_cut_where_they_always_were() {
    let bytes = random_bytes(1, 1 << 20);
    let hash = blake3::hash(&bytes).to_string();
    assert_eq!(hash, "0a0527914d8907d803b24ecb2740fd01d1c5d92278a4d49533ee3f01a3636cc3");
    let entries = cut(ChunkingParams::IMAGE, &bytes);
    assert_eq!(
        lens(&entries),
        [44750, 219962, 100125, 28400, 91429, 28467, 19017, 114735, 88164, 66867, 152283, 94377]
    );
    assert_eq!(
        digest(&entries),
        "cb5d7af1dbf9d7b552d7e560c4c274c7d8638bde40e2b0a58e33fd3eae89bd74"
    );
}

#[test]
fn small_chunks_are_cut_where_they_always_were() {
    let entries = cut(small_params(), &random_bytes(1, 8 << 10));
    assert_eq!(
        lens(&entries),
        [
            632, 102, 78, 265, 340, 296, 198, 327, 414, 103, 294, 130, 71, 393, 299, 248, 176, 314,
            195, 288, 172, 297, 582, 267, 311, 623, 218, 288, 71, 172, 28
        ]
    );
    assert_eq!(
        digest(&entries),
        "b26e5c8b1ba0b6a0d856d58e503a351188d6fa32fabe64ac2e510ac822c13430"
    );
    let whisper = ChunkingParams::new(2 << 10, 8 << 10, 32 << 10).unwrap();
    assert_eq!(
        digest(&cut(whisper, &mixed())),
        "0f16a5b0090a9cfaf171bb3ac6f44d62ac80694bc5e35f5c0836603e38948f82"
    );
}

#[test]
fn mixed_bytes_are_cut_where_they_always_were() {
    let entries = cut(ChunkingParams::IMAGE, &mixed());
    assert_eq!(
        lens(&entries),
        [
            64984, 23400, 69866, 75734, 40841, 76681, 126432, 74440, 69591, 139764, 65869, 68386,
            33094, 74911, 46944, 168059, 9804, 196608, 262144, 262144, 180224, 76971
        ]
    );
    assert_eq!(
        digest(&entries),
        "8163d9b9c19e427cfcc94e2d6f35cd334d2c332fce924daddf2c1b3c781c3313"
    );
    assert_eq!(
        digest(&cut(small_params(), &mixed())),
        "48734d6301e0a8adbc0c2fb5fd79aeaa1203932bc10975c2ca5d0e622070cdc6"
    );
}
