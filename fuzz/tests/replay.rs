//! Gives every target its corpus and its seeds, with the compiler and the profile of all other tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use backy_fuzz::memory::{Limit, bounded};
use backy_fuzz::{TARGETS, corpus, target};

/// Inputs of slow targets that are tried: as many as take a second or two. `make fuzz-smoke` tries all.
const SLOW_INPUT_COUNT_MAX: usize = 60;

/// Runs the corpus and the seeds of a target.
fn replay(name: &str) {
    let target = target(name);
    let inputs = corpus::read(&corpus::file(name)).expect("the corpus can be read");
    let seeds = target.seeds();
    let all: BTreeSet<Vec<u8>> = inputs.into_iter().chain(seeds).collect();
    let step = if target.is_slow() { all.len().div_ceil(SLOW_INPUT_COUNT_MAX) } else { 1 };
    let (mut accepted, mut refused) = (0, 0);
    for input in all.iter().step_by(step) {
        // A failed one is named by its digits, which `scripts/fuzz-corpus` and `fuzz-smoke` read.
        let report = Report(input);
        if target.run(input) {
            accepted += 1;
        } else {
            refused += 1;
        }
        std::mem::forget(report);
    }
    println!("{name}: {accepted} inputs accepted, {refused} refused");
    assert!(accepted != 0, "nothing is accepted: what is behind the first check is not tried");
}

/// Prints the input when it is dropped, which it is if the target panics.
struct Report<'a>(&'a [u8]);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        println!("failed with the input {}", corpus::hex(self.0));
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        /// The targets that have a test here.
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays! {
    compress condemned_list config expand export_name given_up glob ledger mismatch_report names
    nbd_message nbd_session overlay_header overlay_map pack_footer pack_header page point_ranges
    points_transform quarantined record_header revision_record revision_spec revision_state root
    schedule session_record store_bytes store_config store_index store_operations store_overlay store_pack tree_page
    tree_root whisper_file
}

fn target_names() -> BTreeSet<String> {
    TARGETS.iter().map(|target| target.name.to_owned()).collect()
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the names of the files of a directory, without this end.
fn files(directory: PathBuf, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("the directory can be listed");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("an ASCII name");
    let names = entries.map(|entry| name(entry.expect("the directory can be listed")));
    names.map(|name| name.strip_suffix(end).expect("a file of this kind").to_owned()).collect()
}

#[test]
fn every_target_has_a_program_a_corpus_and_a_test_and_nothing_else_has() {
    let names = target_names();
    assert_eq!(names.len(), TARGETS.len(), "two targets of one name");
    assert!(TARGETS.is_sorted_by_key(|target| target.name));
    let replayed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(replayed, names);
    assert_eq!(files(corpus::directory(), ".txt"), names);
    assert_eq!(files(package().join("fuzz_targets"), ".rs"), names);
    let manifest = fs::read_to_string(package().join("Cargo.toml")).expect("there is a manifest");
    let bins = manifest.split("[[bin]]").skip(1);
    let bins = bins.filter_map(|bin| bin.split("name = \"").nth(1)?.split('"').next());
    assert_eq!(bins.map(str::to_owned).collect::<BTreeSet<String>>(), names);
}

#[test]
fn every_corpus_is_tidy() {
    let mut total = 0;
    for target in TARGETS {
        let path = corpus::file(target.name);
        let text = fs::read_to_string(&path).expect("the corpus can be read");
        let inputs = corpus::read(&path).expect("the corpus can be read");
        let (expected, left_out) = corpus::text(&inputs.into_iter().collect());
        assert!(left_out == 0, "{}: longer than it may be", target.name);
        assert!(text == expected, "{}: run scripts/fuzz-corpus tidy", target.name);
        total += text.len();
    }
    assert!(total <= 2 << 20, "the corpora have {total} bytes together");
}

#[test]
fn allocation_beyond_the_limit_fails() {
    const MIB: usize = 1 << 20;
    let limit = Limit { base: MIB, factor: 100, most: usize::MAX };
    let reserve = |len| Vec::<u8>::new().try_reserve_exact(len).is_ok();
    let within = |input_len, len| bounded(limit, input_len, || reserve(len));
    assert!(within(0, MIB) && !within(0, MIB + 1));
    assert!(within(10, MIB + 1000) && !within(10, MIB + 1001));
    // Many small ones count together, and what is freed does not count.
    let small = |frees: bool| {
        bounded(limit, 0, || {
            let mut kept: Vec<Vec<u8>> = Vec::with_capacity(20);
            (0..20).all(|_| {
                let mut bytes = Vec::new();
                let fits = bytes.try_reserve_exact(MIB / 10).is_ok();
                if !frees {
                    kept.push(bytes);
                }
                fits
            })
        })
    };
    assert!(small(true) && !small(false));
    assert!(reserve(2 * MIB), "the limit ends with the work");
}
