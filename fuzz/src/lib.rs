//! Fuzz targets: functions that take any bytes, and panic if what must hold of them does not.
//!
//! Each one has a name, a program of that name for libFuzzer (`fuzz_targets`), a corpus (`corpus`) and seeds, which are
//! made by the encoders of this project. `cargo +nightly fuzz run --features libfuzzer NAME` runs one; the tests of this
//! package give every target its corpus, and need neither libFuzzer nor a nightly compiler.
//!
//! A fuzzer does not guess checksums. A target whose bytes have one therefore tries them twice: as they are, and with
//! checksums that match, so that the checks behind them are reached.

mod compressed;
pub mod corpus;
mod documents;
pub mod memory;
mod nbd;
mod seeds;
mod store;
mod structures;
mod texts;
mod whisper;

use crate::memory::{DECODER, Limit};

/// What is done with bytes from a fuzzer, from the corpus, or from anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    check: fn(&[u8]) -> bool,
    seeds: fn() -> Vec<Vec<u8>>,
    limit: Limit,
}

impl Target {
    /// Gives it bytes, and returns whether they were accepted. What they ask for must not take more memory than
    /// its limit: the process ends where it is exceeded.
    ///
    /// # Panics
    ///
    /// If anything does not hold that must.
    pub fn run(&self, bytes: &[u8]) -> bool {
        memory::bounded(self.limit, bytes.len(), || (self.check)(bytes))
    }

    /// Returns inputs to begin with, each of them once.
    ///
    /// # Panics
    ///
    /// If a file that they are made from cannot be read.
    #[must_use]
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds = (self.seeds)();
        seeds.retain(|seed| seed.len() <= corpus::INPUT_LEN_MAX);
        seeds.sort();
        seeds.dedup();
        seeds
    }

    /// Returns whether a run takes milliseconds: then it is given time, and no number of runs.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.limit == store::LIMIT
    }
}

const fn decoder(
    name: &'static str,
    check: fn(&[u8]) -> bool,
    seeds: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target { name, check, seeds, limit: DECODER }
}

const fn limited(limit: Limit, target: Target) -> Target {
    Target { limit, ..target }
}

/// All targets, by name.
pub const TARGETS: [Target; 36] = [
    limited(compressed::LIMIT, decoder("compress", compressed::compress, seeds::plain_chunks)),
    decoder("condemned_list", structures::condemned_list, structures::condemned_list_seeds),
    limited(texts::LIMIT, decoder("config", texts::config, texts::config_seeds)),
    limited(compressed::LIMIT, decoder("expand", compressed::expand, compressed::expand_seeds)),
    decoder("export_name", nbd::export_name, texts::revision_spec_seeds),
    decoder("given_up", documents::given_up, documents::given_up_seeds),
    decoder("glob", texts::glob, texts::glob_seeds),
    decoder("ledger", structures::ledger, structures::ledger_seeds),
    decoder("mismatch_report", documents::mismatch_report, documents::mismatch_report_seeds),
    decoder("names", texts::names, texts::names_seeds),
    decoder("nbd_message", nbd::message, nbd::message_seeds),
    limited(nbd::LIMIT, decoder("nbd_session", nbd::session, nbd::session_seeds)),
    decoder("overlay_header", structures::overlay_header, structures::overlay_header_seeds),
    decoder("overlay_map", structures::overlay_map, structures::overlay_map_seeds),
    decoder("pack_footer", structures::pack_footer, structures::pack_footer_seeds),
    decoder("pack_header", structures::pack_header, structures::pack_header_seeds),
    decoder("page", structures::page, structures::page_seeds),
    decoder("point_ranges", whisper::point_ranges, whisper::seeds),
    limited(
        compressed::LIMIT,
        decoder("points_transform", compressed::points_transform, compressed::points_seeds),
    ),
    decoder("quarantined", structures::quarantined, structures::quarantined_seeds),
    decoder("record_header", structures::record_header, structures::record_header_seeds),
    decoder("revision_record", documents::revision_record, documents::revision_record_seeds),
    decoder("revision_spec", texts::revision_spec, texts::revision_spec_seeds),
    decoder("revision_state", documents::revision_state, documents::revision_state_seeds),
    decoder("root", structures::root, structures::root_seeds),
    limited(texts::LIMIT, decoder("schedule", texts::schedule, texts::schedule_seeds)),
    decoder("session_record", documents::session_record, documents::session_record_seeds),
    limited(store::LIMIT, decoder("store_bytes", store::bytes, store::bytes_seeds)),
    decoder("store_config", documents::store_config, documents::store_config_seeds),
    limited(store::LIMIT, decoder("store_index", store::index, store::index_seeds)),
    limited(store::LIMIT, decoder("store_operations", store::operations, store::operations_seeds)),
    limited(store::LIMIT, decoder("store_overlay", store::overlay, store::overlay_seeds)),
    limited(store::LIMIT, decoder("store_pack", store::pack, store::pack_seeds)),
    decoder("tree_page", structures::tree_page, structures::tree_page_seeds),
    decoder("tree_root", structures::tree_root, structures::tree_root_seeds),
    decoder("whisper_file", whisper::file, whisper::seeds),
];

/// Returns the target of this name.
///
/// # Panics
///
/// If there is none; in a constant, the compiler then says so.
#[must_use]
pub const fn target(name: &str) -> Target {
    let mut index = 0;
    while index < TARGETS.len() {
        if is_equal(TARGETS[index].name.as_bytes(), name.as_bytes()) {
            return TARGETS[index];
        }
        index += 1;
    }
    panic!("there is no such target")
}

const fn is_equal(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([first, rest @ ..], [of_other, rest_of_other @ ..]) = (one, other) {
        if *first != *of_other {
            return false;
        }
        (one, other) = (rest, rest_of_other);
    }
    one.is_empty() && other.is_empty()
}
