//! Scale: what time, memory and the index cost as chunks, images and revisions grow.
//!
//! How to run and read it: `docs/performance.md`, section "Scale". Each operation runs in a process of its own, so that
//! its peak of memory is its own and nothing is left open by the one before.

mod image;
mod step;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::{Outcome, run, run_median};
use crate::table::{Column, float};

const GIB: u64 = 1 << 30;

/// Bytes of image for each chunk of the smallest chunking, as measured on random bytes.
const BYTES_PER_SMALLEST_CHUNK: u64 = 272;

/// Image whose revisions are counted.
const REVISED_IMAGE_LEN: u64 = 128 << 20;

const USAGE: &str = "usage: scale [chunks[=MILLIONS]] [sparse] [full[=GIB]] [revisions[=COUNT]]
Without arguments all of them, with 20 million chunks, a full image of 256 GiB and 1000 revisions.
Works in BACKY_BENCH_DIR, else in /var/tmp: 20 million chunks need 12 GiB there.";

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == step::STEP) {
        return step::child(&arguments[1..]);
    }
    if arguments.is_empty() {
        arguments = ["chunks", "sparse", "full", "revisions"].map(str::to_owned).to_vec();
    }
    let parent =
        std::env::var_os("BACKY_BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let directory = tempfile::TempDir::with_prefix_in("backy-scale-", &parent)
        .with_context(|| format!("cannot work in {}", parent.display()))?;
    for argument in &arguments {
        let (what, size) = argument.split_once('=').unwrap_or((argument, ""));
        let size = |default: u64| if size.is_empty() { Ok(default) } else { size.parse() };
        let path = directory.path().join(what);
        match what {
            "chunks" => chunks(&path, size(20)?)?,
            "sparse" => sparse(&path)?,
            "full" => full(&path, size(256)?)?,
            "revisions" => revisions(&path, size(1000)?)?,
            _ => bail!("{argument} is nothing to measure\n{USAGE}"),
        }
    }
    Ok(())
}

/// Measures and says on standard error that it has.
fn measured(rows: &mut Vec<(String, Outcome)>, what: &str, outcome: Outcome) -> Result<()> {
    let Outcome { duration, peak_kib, note } = &outcome;
    writeln!(io::stderr(), "{what}: {duration:.3?}, {} MiB {note}", peak_kib >> 10)?;
    rows.push((what.to_owned(), outcome));
    Ok(())
}

/// Measures what reads a store as it is, and the rebuild of its index.
fn measure_readers(store: &Path, rows: &mut Vec<(String, Outcome)>) -> Result<()> {
    for (what, verb) in [
        ("open the store, list its revisions", "history"),
        ("open a revision, read its first and last block", "read ends"),
        ("sizes of the store", "info"),
        ("purge, plan only", "purge plan"),
        ("verify all revisions", "verify"),
        ("restore to nowhere", "restore"),
    ] {
        measured(rows, what, run_median(store, verb, &[])?)?;
    }
    measured(rows, "rebuild the index", run(store, "rebuild index", &[])?)
}

/// Returns what a store is: chunks, packs and sizes.
fn facts(store: &Path) -> Result<(u64, Vec<(String, String)>)> {
    let note = run(store, "info", &[])?.note;
    let numbers: Vec<u64> = note.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [chunks, packs, stored, index] = numbers[..] else { bail!("info printed {note:?}") };
    let facts = [
        ("chunks, with lists", chunks.to_string()),
        ("packs", packs.to_string()),
        ("packs, MiB", (stored >> 20).to_string()),
        ("index, MiB", (index >> 20).to_string()),
        ("index, bytes for each chunk", format!("{:.0}", float(index) / float(chunks.max(1)))),
    ];
    Ok((chunks, facts.map(|(what, fact)| (what.to_owned(), fact)).to_vec()))
}

/// Stores with the smallest chunks there are: a hundredth, a tenth and all of `millions`.
fn chunks(directory: &Path, millions: u64) -> Result<()> {
    let mut columns = Vec::new();
    for parts in [1, 10, 100] {
        let store = directory.join(parts.to_string());
        std::fs::create_dir_all(directory)?;
        run(&store, "create", &["smallest"])?;
        let len = millions * 10_000 * parts * BYTES_PER_SMALLEST_CHUNK;
        let image = format!("unique:{len}:0");
        let mut rows = Vec::new();
        measured(&mut rows, "first backup", run(&store, "backup", &["disk", &image])?)?;
        let (units, mut facts_of_column) = facts(&store)?;
        measured(&mut rows, "unchanged backup", run(&store, "backup", &["disk", &image])?)?;
        let what = "the same bytes as another source";
        measured(&mut rows, what, run(&store, "backup", &["other", &image])?)?;
        measure_readers(&store, &mut rows)?;
        let rebuilt = facts(&store)?.1.split_off(3);
        let rebuilt = rebuilt.into_iter().map(|(what, fact)| (format!("{what}, rebuilt"), fact));
        facts_of_column.extend(rebuilt);
        std::fs::remove_dir_all(&store)?;
        let name = format!("{:.2} M", float(units) / 1e6);
        columns.push(Column { name, units, rows, facts: facts_of_column });
    }
    table::print("By chunks (256 bytes on average)", &columns)
}

/// Images that are nearly empty: 65 MiB of data, spread, the last of it at the end.
fn sparse(directory: &Path) -> Result<()> {
    let sizes = [GIB << 6, GIB << 10, GIB << 14];
    by_image_size(directory, "By image size, sparse", "sparse", &sizes)
}

/// Images without holes, whose spans all have pages of their own although their data repeats.
fn full(directory: &Path, gib: u64) -> Result<()> {
    let sizes = [GIB * (gib / 16).max(1), GIB * (gib / 4).max(1), GIB * gib];
    by_image_size(directory, "By image size, full", "repeating", &sizes)
}

fn by_image_size(directory: &Path, title: &str, kind: &str, sizes: &[u64]) -> Result<()> {
    let mut columns = Vec::new();
    for size in sizes {
        let store = directory.join(size.to_string());
        std::fs::create_dir_all(directory)?;
        run(&store, "create", &["image"])?;
        let image = format!("{kind}:{size}");
        let mut rows = Vec::new();
        measured(&mut rows, "first backup", run(&store, "backup", &["disk", &image])?)?;
        measured(&mut rows, "unchanged backup", run(&store, "backup", &["disk", &image])?)?;
        measure_readers(&store, &mut rows)?;
        let facts = facts(&store)?.1;
        std::fs::remove_dir_all(&store)?;
        columns.push(Column { name: format!("{} GiB", size / GIB), units: *size, rows, facts });
    }
    table::print(title, &columns)
}

/// One store with more and more revisions of one source, each with a change of 64 KiB.
fn revisions(directory: &Path, count: u64) -> Result<()> {
    let mut columns = Vec::new();
    let store = directory.join("store");
    std::fs::create_dir_all(directory)?;
    run(&store, "create", &["image"])?;
    let len = REVISED_IMAGE_LEN.to_string();
    let mut done = 0;
    for units in [count.div_ceil(1000), count.div_ceil(100), count.div_ceil(10), count] {
        let mut rows = Vec::new();
        let (first, last) = ((done + 1).to_string(), units.to_string());
        run(&store, "grow", &[&len, &first, &last])?;
        done = units;
        // The same image once more: revisions that add nothing are few beside the others.
        let image = format!("unique:{len}:{units}");
        let outcome = run_median(&store, "backup", &["disk", &image])?;
        measured(&mut rows, "unchanged backup", outcome)?;
        measure_readers(&store, &mut rows)?;
        columns.push(Column { name: units.to_string(), units, rows, facts: facts(&store)?.1 });
    }
    std::fs::remove_dir_all(&store)?;
    table::print("By revisions", &columns)
}
