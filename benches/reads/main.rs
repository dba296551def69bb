//! Reads through `ImageReader`: random blocks that are not cached, cached ones, and the whole image in order.
//!
//! How to run and read it: `docs/performance.md`, section "Reads".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chunkstore::image_reader::{ChunkCache, Extent, ImageReader};
use chunkstore::ops::{self, BackupOptions};
use chunkstore::progress::NoProgress;
use chunkstore::source::FileSource;
use chunkstore::store::{Store, StoreOptions};

const BLOCK_LEN: usize = 4096;

/// Reads of each measurement of random blocks.
const READ_COUNT: u64 = 20_000;

/// Reads of each thread of blocks that are at hand.
const QUICK_COUNT: u64 = 1_000_000;

/// Bytes of the part that is read again and again.
const HOT_LEN: u64 = 8 << 20;

const USAGE: &str = "usage: reads IMAGE [STORE]
Backs IMAGE up, unless STORE is there already, and reads its revision.";

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (image, store) = match &arguments[..] {
        [image] => (image, None),
        [image, store] => (image, Some(store.clone())),
        _ => anyhow::bail!("{USAGE}"),
    };
    let scratch = backy_benches::scratch_directory();
    let store = store.unwrap_or_else(|| scratch.path().join("store"));
    let store = open_or_make(&store, image)?;
    let id = store.history(None)?.revisions.pop().context("there is no revision")?.record.id;
    let started = Instant::now();
    let reader = ImageReader::open(&store, &id)?;
    let opened = started.elapsed();
    let blocks = data_blocks(&reader)?;
    ensure!(!blocks.is_empty(), "the image has no data");
    let reader = ImageReader::open(&store, &id)?;
    let first = Instant::now();
    reader.read_exact_at(&mut [0; BLOCK_LEN], blocks[blocks.len() / 2])?;
    row("open", opened, 1);
    row("first read", first.elapsed(), 1);
    for threads in [1, 2] {
        let reader = ImageReader::open(&store, &id)?;
        let name = format!("random, {threads} threads");
        row(&format!("{name}, first"), random(&reader, &blocks, threads, 1)?, READ_COUNT);
        row(&format!("{name}, then"), random(&reader, &blocks, threads, 2)?, READ_COUNT);
    }
    let reader = ImageReader::open(&store, &id)?;
    let hot_count = usize::try_from(HOT_LEN)? / BLOCK_LEN;
    let hot = &blocks[blocks.len() / 2..][..hot_count.min(blocks.len() / 2)];
    random(&reader, hot, 1, 3)?;
    for threads in [1, 2] {
        let name = format!("cached, {threads} threads");
        row(&name, random(&reader, hot, threads, 4)?, READ_COUNT);
        row(&format!("{name}, quick"), quick(&reader, hot, threads)?, threads * QUICK_COUNT);
    }
    // Pages are not kept: as on an image that is much larger than what the cache has room for.
    let cache = Arc::new(ChunkCache::new(1));
    let reader = ImageReader::open_with_cache(&store, &id, cache)?;
    row("random, nothing kept", random(&reader, &blocks, 1, 5)?, READ_COUNT);
    let reader = ImageReader::open(&store, &id)?;
    let started = Instant::now();
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    for block in &blocks {
        if block.is_multiple_of(buffer.len() as u64) && block + buffer.len() as u64 <= reader.len()
        {
            reader.read_exact_at(&mut buffer, *block)?;
            count += 1;
        }
    }
    row("in order, 256 KiB", started.elapsed(), count);
    Ok(())
}

fn open_or_make(path: &Path, image: &Path) -> Result<Store> {
    if path.exists() {
        return Ok(Store::open(path)?);
    }
    let store = Store::create(path, &StoreOptions::default())?;
    let options = BackupOptions::new("image".parse()?);
    ops::backup(&store, &FileSource::open(image)?, &options, &NoProgress)?;
    Ok(store)
}

/// Returns the blocks that are not zeros.
fn data_blocks(reader: &ImageReader) -> Result<Vec<u64>> {
    let mut blocks: Vec<u64> = Vec::new();
    for extent in reader.extents(0, reader.len())? {
        let Extent::Data { range, .. } = extent else { continue };
        let first = range.start.next_multiple_of(BLOCK_LEN as u64);
        blocks.extend((first..).step_by(BLOCK_LEN).take_while(|block| block + 4096 <= range.end));
    }
    Ok(blocks)
}

/// Reads random blocks on several threads and returns how long that took.
fn random(reader: &ImageReader, blocks: &[u64], threads: u64, seed: u64) -> Result<Duration> {
    let next = AtomicU64::new(0);
    let started = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut buffer = [0; BLOCK_LEN];
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if READ_COUNT <= number {
                            return Ok(());
                        }
                        let index = mix(seed << 32 | number) % blocks.len() as u64;
                        reader.read_exact_at(&mut buffer, blocks[usize::try_from(index)?])?;
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a read does not panic"))
    })?;
    Ok(started.elapsed())
}

/// Reads random blocks that are at hand, on several threads.
fn quick(reader: &ImageReader, blocks: &[u64], threads: u64) -> Result<Duration> {
    let started = Instant::now();
    thread::scope(|scope| {
        let read = |seed: u64| -> Result<()> {
            let mut buffer = [0; BLOCK_LEN];
            for number in 0..QUICK_COUNT {
                let index = mix(seed << 32 | number) % blocks.len() as u64;
                let offset = blocks[usize::try_from(index)?];
                ensure!(reader.try_read_at(&mut buffer, offset)?, "byte {offset} is not at hand");
            }
            Ok(())
        };
        let threads: Vec<_> = (0..threads).map(|seed| scope.spawn(move || read(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a read does not panic"))
    })?;
    // What one thread needs for one read, if they do not hinder each other.
    Ok(started.elapsed() * u32::try_from(threads)?)
}

/// Returns a number that looks random (the finalizer of SplitMix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn row(what: &str, duration: Duration, count: u64) {
    let micros = duration.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    println!("{what:30} {micros:10.2} us each");
}
