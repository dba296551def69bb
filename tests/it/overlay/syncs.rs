//! Each sync of an overlay lies once: the loss of every one that matters is noticed, and what the others are for is written down.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use chunkstore::vfs::simulated::{
    Call, CallKind, Counter, CrashMode, Effect, FaultPlan, SimulatedVfs,
};
use chunkstore::{ImageReader, Overlay};
use support::attempt::panic_of;
use support::documents::table_rows;
use support::long_tests::choose;
use support::simulated_store;

use super::crash::{History, image, run};
use super::{DATA_START, MAP_START, PATH, Scene, read_all};

/// Calls of a client to an overlay.
const CALLS: usize = 12;

/// Start of the directory in the file: behind the header.
const DIRECTORY_START: u64 = 4096;

/// Syncs whose loss costs the overlay, or what was flushed.
const NEEDED: [&str; 4] = ["header", "name", "data", "map"];

/// Syncs whose loss costs nothing, each with the reason. `docs/reliability.md` shows the same table.
const HARMLESS: [(&str, &str); 3] = [
    (
        "space and first directory",
        "the sync of the header makes both durable, and nobody is told before",
    ),
    ("directory", "a page of the map that can be read counts, whatever the directory says"),
    ("good order", "without it the overlay is looked through for torn pages"),
];

/// What an overlay was told and acknowledged until everything stopped, and what is left then.
struct Run {
    vfs: SimulatedVfs,
    /// `None` if it was not created.
    history: Option<History>,
    /// How many syncs there were before it was closed.
    before_closing: usize,
}

impl Run {
    /// Creates an overlay, works with it, and closes it.
    fn new(scene: &Scene, seed: u64, plan: FaultPlan) -> Self {
        let vfs = scene.vfs.snapshot();
        let store = simulated_store::open(&vfs, 5).unwrap();
        let id = scene.revision.revision().record.id;
        let revision = Arc::new(ImageReader::open(&store, &id).unwrap());
        vfs.set_faults(plan);
        let Ok(overlay) = Overlay::create(Path::new(PATH), revision) else {
            return Self { vfs, history: None, before_closing: 0 };
        };
        let mut history = History::new(&scene.image);
        let mut before_closing = 0;
        if run(&overlay, &mut history, seed, CALLS).is_ok() && overlay.flush().is_ok() {
            history.flushed();
            before_closing = syncs_of(&vfs.calls()).count();
            let _may_have_stopped = overlay.close();
        }
        drop(overlay);
        Self { vfs, history: Some(history), before_closing }
    }

    /// Returns whether something that was acknowledged is not there after a power cut.
    fn is_wrong(&self) -> bool {
        let Some(history) = &self.history else { return false };
        (0..).zip(CrashMode::all()).any(|(seed, mode)| {
            let look = || {
                let store = simulated_store::open(&self.vfs.crash(&mode, seed), 6).unwrap();
                history.check(&read_all(&Overlay::open(Path::new(PATH), &store).unwrap()));
            };
            panic_of(look).is_some()
        })
    }
}

/// Returns the places of all syncs among the calls.
fn syncs_of(calls: &[Call]) -> impl Iterator<Item = usize> {
    calls.iter().enumerate().filter(|(_, call)| call.kind.is_sync()).map(|(place, _)| place)
}

/// Returns what each sync is for, by the parts of the file that were written since the one before.
fn purposes(calls: &[Call], before_closing: usize) -> Vec<&'static str> {
    let mut start = 0;
    let purpose_of = |(number, end): (usize, usize)| {
        let written = &calls[std::mem::replace(&mut start, end)..end];
        let has = |part: Range<u64>| {
            let is_in = |call: &&Call| call.kind.is_mutating() && part.contains(&call.offset);
            written.iter().filter(is_in).any(|call| call.path == Path::new(PATH))
        };
        match number {
            0 => "space and first directory",
            _ if calls[end].kind == CallKind::SyncDir => "name",
            _ if has(DATA_START..u64::MAX) => "data",
            _ if has(MAP_START..DATA_START) => "map",
            _ if before_closing <= number => "good order",
            _ if has(DIRECTORY_START..MAP_START) => "directory",
            _ => "header",
        }
    };
    syncs_of(calls).enumerate().map(purpose_of).collect()
}

/// Returns whether the loss of a sync shows, if everything stops at one of the calls up to the second sync after it.
fn is_noticed(scene: &Scene, seed: u64, calls: &[Call], sync: usize) -> bool {
    let places: Vec<usize> = syncs_of(calls).collect();
    let end = places.get(sync + 2).copied().unwrap_or(calls.len());
    let mutations =
        |place: usize| calls[..place].iter().filter(|call| call.kind.is_mutating()).count();
    (mutations(places[sync]) + 1..=mutations(end)).any(|stop| {
        let lie = FaultPlan::drop_sync(sync as u64);
        Run::new(scene, seed, lie.and(Counter::Mutations, stop as u64, Effect::Stop)).is_wrong()
    })
}

#[test]
fn loss_of_each_sync_of_an_overlay_that_matters_is_noticed() {
    let scene = Scene::new(&image());
    let mut tallies: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for seed in 0..choose(4, 40) {
        let whole = Run::new(&scene, seed, FaultPlan::none());
        assert!(!whole.is_wrong());
        let calls = whole.vfs.calls();
        for (sync, purpose) in purposes(&calls, whole.before_closing).into_iter().enumerate() {
            let (tried, noticed) = tallies.entry(purpose).or_default();
            *tried += 1;
            *noticed += usize::from(is_noticed(&scene, seed, &calls, sync));
        }
    }
    for (purpose, (tried, noticed)) in &tallies {
        println!("sync of an overlay, {purpose}: {tried} lost, {noticed} noticed");
    }
    for (purpose, (_, noticed)) in &tallies {
        if NEEDED.contains(purpose) {
            assert_ne!(*noticed, 0, "{purpose}: lost, and not noticed");
        } else {
            let is_harmless = HARMLESS.iter().any(|(harmless, _)| harmless == purpose);
            assert!(is_harmless, "{purpose} is neither among the needed nor the harmless");
            assert_eq!(*noticed, 0, "{purpose}: not as harmless as the table says");
        }
    }
    for purpose in NEEDED.into_iter().chain(HARMLESS.map(|(purpose, _)| purpose)) {
        assert!(tallies.contains_key(purpose), "no overlay ever syncs its {purpose}");
    }
}

#[test]
fn document_shows_the_harmless_syncs_of_an_overlay_with_their_reasons() {
    let expected: Vec<String> =
        HARMLESS.iter().map(|(purpose, reason)| format!("| {purpose} | {reason} |")).collect();
    assert_eq!(table_rows("reliability.md", "| sync of an overlay |"), expected);
}
