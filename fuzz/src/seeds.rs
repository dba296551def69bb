//! What seeds are made from: the examples of `docs/format.md`, the golden stores, and small stores made here.
//!
//! All of it was written by encoders of this project.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use chunkstore::compression::Expander;
use chunkstore::format::{ObjectKind, PackFooter, RecordHeader};
use chunkstore::vfs::simulated::SimulatedVfs;
use chunkstore::whisper::{Aggregation, Point, Retention, WhisperFile};
use support::memory_tree::{MemoryTree, backup_tree};
use support::simulated_store::create;

use crate::store::small_store;

const DOCUMENT: &str = include_str!("../../docs/format.md");

/// All files of the stores, by their paths.
static FILES: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let mut files = Vec::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    collect(&golden, &mut files);
    for vfs in [small_store().0, tree_store()] {
        for (path, _) in vfs.all_files() {
            let bytes = vfs.read_all(&path).expect("the file was listed");
            files.push((path, bytes));
        }
    }
    files
});

fn collect(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let entries = fs::read_dir(directory).expect("the golden stores can be listed");
    for entry in entries {
        let path = entry.expect("the golden stores can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let bytes = fs::read(&path).expect("golden files can be read");
            files.push((path, bytes));
        }
    }
}

/// Makes a store with two revisions of a tree.
fn tree_store() -> SimulatedVfs {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 3).expect("a new store");
    let mut tree = MemoryTree::default();
    tree.write("a/b.wsp", whisper_file().bytes());
    tree.write("a/long", &[7; 5000]);
    tree.write("empty", b"");
    backup_tree(&store, "tree", &tree, &["daily"]).expect("a backup");
    tree.write("c", b"some text");
    tree.remove("empty");
    backup_tree(&store, "tree", &tree, &[]).expect("a backup");
    drop(store);
    vfs
}

/// Returns a small file with points in both of its archives.
pub(crate) fn whisper_file() -> WhisperFile {
    let retention = |seconds_per_point, points| Retention { seconds_per_point, points };
    let retentions = [retention(60, 12), retention(300, 10)];
    let mut file = WhisperFile::create(Aggregation::Average, 0.5, &retentions).expect("a schema");
    let now = 1_790_000_000;
    for age in 0..20 {
        let point = Point { time: now - 60 * age, value: f64::from(age % 5) / 4.0 };
        // Some are too old for the file.
        let _is_covered = file.update(point, now).is_ok();
    }
    file
}

/// Returns the bytes of an example of the document of the format.
///
/// # Panics
///
/// If it has none of this name.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let is_marker =
        |line: &str| ["hex", "json"].iter().any(|language| line == format!("```{language} {name}"));
    let mut lines = DOCUMENT.lines().skip_while(|line| !is_marker(line));
    let marker = lines.next().unwrap_or_else(|| panic!("there is no example {name}"));
    let block: Vec<&str> = lines.take_while(|line| *line != "```").collect();
    if marker.starts_with("```json") {
        return format!("{}\n", block.join("\n")).into_bytes();
    }
    block.iter().flat_map(|line| bytes_of_line(line)).collect()
}

/// Returns the bytes of a line: pairs of digits up to two spaces, which begin the explanation. A pair with a count
/// stands for as many.
fn bytes_of_line(line: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).expect("an example is in hexadecimal");
    let (pairs, _) = line.split_once("  ").unwrap_or((line, ""));
    if let Some((pair, count)) = pairs.split_once(" x") {
        return vec![byte(pair); count.parse().expect("a count is a number")];
    }
    pairs.split(' ').map(byte).collect()
}

/// Returns the files of the stores with `part` for a component or extension of their path, and these examples.
pub(crate) fn files(part: &str, examples: &[&str]) -> Vec<Vec<u8>> {
    let is_it = |path: &Path| {
        path.iter().any(|one| one == part) || path.extension().is_some_and(|end| end == part)
    };
    let found = FILES.iter().filter(|(path, bytes)| is_it(path) && !bytes.is_empty());
    let found = found.map(|(_, bytes)| bytes.clone());
    found.chain(examples.iter().map(|name| example(name))).collect()
}

/// Returns whole packs.
pub(crate) fn packs() -> Vec<Vec<u8>> {
    files("packs", &[])
}

/// Returns the footer of a pack.
pub(crate) fn footer(pack: &[u8]) -> &[u8] {
    let trailer = &pack[pack.len() - PackFooter::TRAILER_LEN..];
    let table = PackFooter::table_range(trailer, pack.len() as u64).expect("a sound pack");
    &pack[usize::try_from(table.start).expect("a short pack")..]
}

/// Returns the records of all packs, headers and payloads.
pub(crate) fn records() -> Vec<(RecordHeader, Vec<u8>)> {
    let mut records = Vec::new();
    for pack in packs() {
        let footer = PackFooter::decode(footer(&pack), pack.len() as u64).expect("a sound pack");
        for record in footer.records {
            let start = record.offset.0 as usize + RecordHeader::LEN;
            let payload = pack[start..start + record.stored_len as usize].to_vec();
            records.push((record.header(), payload));
        }
    }
    records
}

fn expanded(kind: impl Fn(ObjectKind) -> bool) -> Vec<Vec<u8>> {
    let mut expander = Expander::new();
    let records = records().into_iter().filter(|(header, _)| kind(header.kind));
    let plain = records.map(|(header, payload)| {
        let mut out = Vec::new();
        expander.expand(&header, &payload, &mut out).expect("a sound record");
        out
    });
    plain.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the lists that `is_it` accepts, without compression.
pub(crate) fn lists(is_it: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut lists = expanded(|kind| kind != ObjectKind::Data);
    lists.retain(|list| is_it(list));
    lists
}

/// Returns chunks of data without compression.
pub(crate) fn plain_chunks() -> Vec<Vec<u8>> {
    expanded(|kind| kind == ObjectKind::Data)
}
