//! Throughput of what works on bytes alone, on one processor: cutting, hashing, compressing.

use std::hint::black_box;

use backy_benches::{MIB, compressible_bytes, entries_of, random_bytes};
use chunkstore::chunking::{ChunkingParams, Cutter};
use chunkstore::compression::{Compressor, Expander};
use chunkstore::format::{ObjectKind, RecordHeader};
use divan::Bencher;
use divan::counter::BytesCount;

/// Length of a span in bytes, as in images up to 16 TiB.
const SPAN_LEN: usize = 64 * MIB;

/// Length of a chunk in bytes, an average one.
const CHUNK_LEN: usize = 64 << 10;

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 10)]
fn hash_blake3(bencher: Bencher<'_, '_>) {
    let span = random_bytes(SPAN_LEN, 1);
    bencher.counter(BytesCount::new(SPAN_LEN)).bench_local(|| {
        for piece in span.chunks(CHUNK_LEN) {
            black_box(blake3::hash(piece));
        }
    });
}

/// The cutter alone, without hashes.
#[divan::bench(sample_count = 10)]
fn cut(bencher: Bencher<'_, '_>) {
    let span = random_bytes(SPAN_LEN, 1);
    let cutter = Cutter::new(&ChunkingParams::IMAGE);
    bencher.counter(BytesCount::new(SPAN_LEN)).bench_local(|| {
        let mut rest = span.as_slice();
        while !rest.is_empty() {
            rest = &rest[cutter.cut(rest)..];
        }
    });
}

/// A span that no older revision has: cut and hashed.
#[divan::bench(sample_count = 10)]
fn chunk_new_span(bencher: Bencher<'_, '_>) {
    let span = random_bytes(SPAN_LEN, 1);
    let cutter = Cutter::new(&ChunkingParams::IMAGE);
    bencher
        .counter(BytesCount::new(SPAN_LEN))
        .bench_local(|| entries_of(&cutter, black_box(&span), &[]));
}

/// A span that is as it was: hashed only.
#[divan::bench(sample_count = 10)]
fn chunk_unchanged_span(bencher: Bencher<'_, '_>) {
    let span = random_bytes(SPAN_LEN, 1);
    let cutter = Cutter::new(&ChunkingParams::IMAGE);
    let predicted = entries_of(&cutter, &span, &[]);
    bencher
        .counter(BytesCount::new(SPAN_LEN))
        .bench_local(|| entries_of(&cutter, black_box(&span), &predicted));
}

/// Zeros that are really stored.
#[divan::bench(sample_count = 10)]
fn chunk_zero_span(bencher: Bencher<'_, '_>) {
    let span = vec![0; SPAN_LEN];
    let cutter = Cutter::new(&ChunkingParams::IMAGE);
    bencher
        .counter(BytesCount::new(SPAN_LEN))
        .bench_local(|| entries_of(&cutter, black_box(&span), &[]));
}

/// Chunks as they lie in packs.
fn stored_chunks(plain: &[u8], level: i32) -> Vec<(RecordHeader, Vec<u8>)> {
    let mut compressor = Compressor::new(level).expect("the level is permitted");
    let kind = ObjectKind::Data;
    let store = |chunk: &[u8]| {
        let (id, mut payload) = (kind.chunk_id(chunk), Vec::new());
        let codec = compressor.compress(kind, &id, chunk, &mut payload).expect("zstd works");
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a chunk is short");
        let (plain_len, stored_len) = (len(chunk), len(&payload));
        (RecordHeader { kind, codec, id, plain_len, stored_len }, payload)
    };
    plain.chunks(CHUNK_LEN).map(store).collect()
}

/// With the expansion that checks each result.
#[divan::bench(args = [1, 3], sample_count = 10)]
fn compress(bencher: Bencher<'_, '_>, level: i32) {
    let plain = compressible_bytes(16 * MIB, 1);
    bencher
        .counter(BytesCount::new(plain.len()))
        .bench_local(|| stored_chunks(black_box(&plain), level));
}

/// What turns out not to shrink.
#[divan::bench(args = [1, 3], sample_count = 10)]
fn compress_random(bencher: Bencher<'_, '_>, level: i32) {
    let plain = random_bytes(16 * MIB, 1);
    bencher
        .counter(BytesCount::new(plain.len()))
        .bench_local(|| stored_chunks(black_box(&plain), level));
}

/// With the check of each digest.
#[divan::bench(args = [1, 3], sample_count = 10)]
fn expand(bencher: Bencher<'_, '_>, level: i32) {
    let plain = compressible_bytes(16 * MIB, 1);
    let stored = stored_chunks(&plain, level);
    let (mut expander, mut out) = (Expander::new(), Vec::new());
    bencher.counter(BytesCount::new(plain.len())).bench_local(|| {
        for (header, payload) in &stored {
            expander.expand(header, payload, &mut out).expect("the chunks are sound");
        }
    });
}
