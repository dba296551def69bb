//! Scrub and the ledger: what is read, in which order, and what is remembered of it.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chunkstore::environment::{Clock, Environment};
use chunkstore::error::Error;
use chunkstore::format::{PackFooter, RecordHeader, Trust};
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, ScrubOptions, ScrubStats};
use chunkstore::progress::{NoProgress, Progress};
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{
    CallKind, Counter, Effect, FaultKind, FaultPlan, SimulatedClock, SimulatedVfs, environment,
};
use support::images;
use support::simulated_store::{
    STORE_PATH, backup, create, describe, files_below, purge_now, restore, verify_all,
};

const LEDGER: &str = "/store/ledger";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Returns a store with revisions of these images, of one source each, and the clock of those who open it with [`open`].
fn scene(images: &[Vec<u8>]) -> (SimulatedVfs, SimulatedClock, Vec<RevisionId>) {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let ids = (0..).zip(images);
    let ids = ids.map(|(number, image)| backup(&store, &format!("s{number}"), image).unwrap().id);
    let ids = ids.collect();
    drop(store);
    let clock = SimulatedClock::default();
    clock.advance(DAY);
    (vfs, clock, ids)
}

fn open(vfs: &SimulatedVfs, clock: &SimulatedClock, seed: u64) -> Store {
    let clock = Arc::new(clock.clone());
    let environment = Environment { clock, ..environment(vfs.clone(), seed) };
    Store::open_in(environment, STORE_PATH).unwrap()
}

/// One thread, so that packs are read in order.
fn options() -> ScrubOptions {
    ScrubOptions { threads: NonZero::new(1), ..ScrubOptions::default() }
}

fn scrub(store: &Store) -> ScrubStats {
    ops::scrub(store, &options(), &NoProgress).unwrap()
}

/// Calls a function each time that a pack was read, and asks to stop after so many.
struct Watcher<F> {
    stop_after: u64,
    read: Mutex<u64>,
    notes: Mutex<Vec<String>>,
    hook: F,
}

impl<F: Fn(u64)> Watcher<F> {
    fn new(stop_after: u64, hook: F) -> Self {
        Self { stop_after, read: Mutex::new(0), notes: Mutex::default(), hook }
    }

    fn notes(&self) -> String {
        self.notes.lock().unwrap().join("\n")
    }
}

impl<F: Fn(u64) + Send + Sync> Progress for Watcher<F> {
    fn advance(&self, _count: u64) {
        let mut read = self.read.lock().unwrap();
        *read += 1;
        (self.hook)(*read);
    }

    fn is_cancelled(&self) -> bool {
        self.stop_after <= *self.read.lock().unwrap()
    }

    fn note(&self, message: &str) {
        self.notes.lock().unwrap().push(message.to_owned());
    }
}

/// Returns the packs from which an operation read something, in the order of the first reads.
fn packs_read_by(vfs: &SimulatedVfs, operation: impl FnOnce()) -> Vec<PathBuf> {
    vfs.set_faults(FaultPlan::none());
    operation();
    let mut packs = Vec::new();
    for call in vfs.calls() {
        let is_pack = call.kind == CallKind::ReadExactAt && call.path.starts_with("/store/packs");
        if is_pack && !packs.contains(&call.path) {
            packs.push(call.path);
        }
    }
    packs
}

fn several_images() -> Vec<Vec<u8>> {
    (1..5).map(|seed| images::image(seed, 8000)).collect()
}

/// Flips a bit in the payload of the first record of a pack.
fn damage(vfs: &SimulatedVfs, pack: &Path) {
    vfs.flip(pack, 80 + RecordHeader::LEN as u64 + 5, 1).unwrap();
}

/// Returns the largest pack: one with data.
fn data_pack(vfs: &SimulatedVfs) -> PathBuf {
    let packs = files_below(vfs, "packs").into_iter();
    packs.max_by_key(|path| vfs.read_all(path).unwrap().len()).unwrap()
}

#[test]
fn scrub_reads_every_record_of_every_pack_and_enters_them() {
    let (vfs, clock, ids) = scene(&several_images());
    let store = open(&vfs, &clock, 2);
    let before = ops::coverage(&store).unwrap();
    assert_eq!((before.packs, before.read_packs, before.stalest), (8, 0, None));
    let began = clock.now();
    let stats = scrub(&store);
    assert!(stats.is_sound(), "{stats:?}");
    let records: usize = files_below(&vfs, "packs")
        .iter()
        .map(|path| {
            let bytes = vfs.read_all(path).unwrap();
            let trailer = &bytes[bytes.len() - PackFooter::TRAILER_LEN..];
            let table = PackFooter::table_range(trailer, bytes.len() as u64).unwrap();
            let table = &bytes[usize::try_from(table.start).unwrap()..];
            PackFooter::decode(table, bytes.len() as u64).unwrap().records.len()
        })
        .sum();
    assert_eq!((stats.checked_packs, stats.checked_chunks), (8, records as u64));
    let after = ops::coverage(&store).unwrap();
    assert_eq!((after.read_packs, after.read_bytes), (8, after.pack_bytes));
    assert!(after.stalest.is_some_and(|stalest| began <= stalest), "{after:?}");
    // It is no verification of a revision: what that needs may be missing altogether.
    assert!(ids.iter().all(|id| store.revision(id).unwrap().state.trust == Trust::Trusted));
}

#[test]
fn only_what_is_old_enough_is_read_and_the_stalest_first() {
    let (vfs, clock, _) = scene(&several_images());
    let store = open(&vfs, &clock, 2);
    let first = packs_read_by(&vfs, || drop(scrub(&store)));
    assert_eq!(first.len(), 8);
    clock.advance(10 * DAY);
    backup(&store, "new", &images::image(9, 8000)).unwrap();
    let young = ScrubOptions { older_than: Some(11 * DAY), ..options() };
    let second = packs_read_by(&vfs, || {
        let stats = ops::scrub(&store, &young, &NoProgress).unwrap();
        assert_eq!(stats.checked_packs, 2, "those that were never read");
    });
    assert!(second.iter().filter(|pack| first.contains(pack)).count() == 0, "{second:?}");
    clock.advance(2 * DAY);
    let third = packs_read_by(&vfs, || {
        assert_eq!(ops::scrub(&store, &young, &NoProgress).unwrap().checked_packs, 8);
    });
    assert_eq!(third.len(), 8);
    let fourth = packs_read_by(&vfs, || drop(scrub(&store)));
    assert_eq!(fourth[..2].iter().filter(|pack| second.contains(pack)).count(), 2);
    // A clock that was wrong: nobody knows when they were read.
    clock.set(chunkstore::time::Timestamp(0));
    assert_eq!(ops::scrub(&store, &young, &NoProgress).unwrap().checked_packs, 10);
}

#[test]
fn scrub_that_was_stopped_goes_on_where_it_was() {
    let (vfs, clock, _) = scene(&several_images());
    let store = open(&vfs, &clock, 2);
    let watcher = Watcher::new(3, |_| ());
    let first = packs_read_by(&vfs, || {
        let error = ops::scrub(&store, &options(), &watcher).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{}", describe(&error));
    });
    assert_eq!(ops::coverage(&store).unwrap().read_packs, 3);
    let rest = packs_read_by(&vfs, || drop(scrub(&store)));
    assert_eq!(rest[5..].iter().filter(|pack| first.contains(pack)).count(), 3, "{rest:?}");
}

#[test]
fn kill_at_any_call_loses_little_and_the_ledger_is_whole() {
    let (vfs, clock, _) = scene(&several_images());
    let eager = ScrubOptions { save_interval: Duration::ZERO, ..options() };
    let mut progress_made = 0;
    for stop in 0.. {
        let vfs = vfs.kill();
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let store = open(&vfs, &clock, 2);
        let watcher = Watcher::new(u64::MAX, |_| ());
        let result = ops::scrub(&store, &eager, &watcher);
        let is_over = !vfs.is_stopped();
        let read = *watcher.read.lock().unwrap();
        let vfs = vfs.crash(&chunkstore::vfs::simulated::CrashMode::all().next().unwrap(), stop);
        let store = open(&vfs, &clock, 3);
        let coverage = ops::coverage(&store).unwrap();
        assert_eq!(coverage.ledger_damage, None);
        assert!(coverage.read_packs <= read, "stop {stop}: {coverage:?}");
        assert!(progress_made <= coverage.read_packs, "stop {stop}: {coverage:?}");
        progress_made = coverage.read_packs;
        assert!(scrub(&store).is_sound());
        assert_eq!(ops::coverage(&store).unwrap().read_packs, 8);
        if is_over {
            assert!(result.is_ok());
            break;
        }
    }
    assert_eq!(progress_made, 8);
}

#[test]
fn damage_marks_the_revisions_that_need_it_and_is_told_until_it_is_healed() {
    let images = several_images();
    let (vfs, clock, ids) = scene(&images);
    let pack = data_pack(&vfs);
    damage(&vfs, &pack);
    let store = open(&vfs, &clock, 2);
    for read_packs in [7, 8] {
        let recent = ScrubOptions { older_than: Some(DAY), ..options() };
        let stats = ops::scrub(&store, &recent, &NoProgress).unwrap();
        let [damaged] = &stats.damaged[..] else { panic!("{stats:?}") };
        let [hit] = &damaged.revisions[..] else { panic!("{stats:?}") };
        assert!(pack.ends_with(damaged.pack.unwrap().to_string()));
        assert_eq!(stats.damaged_revisions, [hit.id]);
        for id in &ids {
            let is_damaged = store.revision(id).unwrap().state.trust == Trust::Damaged;
            assert_eq!(is_damaged, *id == hit.id);
        }
        // The rest of the pack is sound: that is found out when the damaged record is set aside.
        assert_eq!(ops::coverage(&store).unwrap().read_packs, read_packs);
    }
    // The next backup writes the chunk again. The old copy is still there, and costs nothing.
    let stats = scrub(&store);
    let place = ids.iter().position(|id| *id == stats.damaged_revisions[0]).unwrap();
    backup(&store, &format!("s{place}"), &images[place]).unwrap();
    let stats = scrub(&store);
    assert!(stats.is_sound() && stats.damaged_revisions.is_empty(), "{stats:?}");
    assert_eq!(store.revision(&ids[place]).unwrap().state.trust, Trust::Trusted);
    assert_eq!(restore(&store, &ids[place]).unwrap(), images[place]);
}

#[test]
fn damage_of_all_copies_of_a_chunk_is_no_matter_of_which_one_is_read_first() {
    for seed in 0..4 {
        let image = images::image(seed, 8000);
        let (vfs, clock, ids) = scene(std::slice::from_ref(&image));
        let old = data_pack(&vfs);
        damage(&vfs, &old);
        let store = open(&vfs, &clock, 2);
        assert!(!scrub(&store).is_sound());
        backup(&store, "s0", &image).unwrap();
        assert!(scrub(&store).damaged_revisions.is_empty());
        let packs = files_below(&vfs, "packs").into_iter().filter(|path| *path != old);
        let new = packs.max_by_key(|path| vfs.read_all(path).unwrap().len()).unwrap();
        damage(&vfs, &new);
        let stats = scrub(&open(&vfs, &clock, 3));
        assert!(stats.damaged_revisions.contains(&ids[0]), "seed {seed}: {stats:?}");
    }
}

#[test]
fn damage_that_nothing_needs_is_reported_without_a_revision() {
    let (vfs, clock, ids) = scene(&several_images());
    let pack = data_pack(&vfs);
    let store = open(&vfs, &clock, 2);
    ops::forget(&store, &ids).unwrap();
    damage(&vfs, &pack);
    let stats = scrub(&open(&vfs, &clock, 3));
    assert_eq!((stats.damaged.len(), stats.damaged[0].revisions.len()), (1, 0), "{stats:?}");
    assert!(!stats.is_sound());
}

#[test]
fn pack_that_is_cut_or_missing_is_reported_with_the_revision_that_is_hit() {
    for is_missing in [false, true] {
        let (vfs, clock, _) = scene(&several_images());
        let pack = data_pack(&vfs);
        if is_missing {
            vfs.remove(&pack).unwrap();
        } else {
            let bytes = vfs.read_all(&pack).unwrap();
            vfs.write_raw(&pack, bytes[..50].to_vec()).unwrap();
        }
        let store = open(&vfs, &clock, 2);
        let stats = scrub(&store);
        assert_eq!(stats.damaged_packs.len(), usize::from(!is_missing), "{stats:?}");
        assert_eq!(stats.damaged_revisions.len(), 1, "{stats:?}");
        assert!(stats.damaged.iter().all(|damaged| damaged.revisions.len() == 1), "{stats:?}");
        assert_eq!(ops::coverage(&store).unwrap().read_packs, 7);
    }
}

#[test]
fn verify_enters_packs_all_of_whose_records_it_read() {
    let common = images::image(1, 8000);
    let own = [images::image(2, 8000), common.clone()].concat();
    let (vfs, clock, ids) = scene(&[own, common]);
    let store = open(&vfs, &clock, 2);
    // The second revision shares chunks with the pack of the first one, and needs only a part of it.
    ops::verify(&store, &ids[1..], &ops::VerifyOptions::default(), &NoProgress).unwrap();
    let second = ops::coverage(&store).unwrap();
    assert!((1..second.packs).contains(&second.read_packs), "{second:?}");
    verify_all(&store).unwrap();
    let all = ops::coverage(&store).unwrap();
    assert_eq!(all.read_packs, all.packs);
    damage(&vfs, &data_pack(&vfs));
    let store = open(&vfs, &clock, 3);
    verify_all(&store).unwrap();
    assert_eq!(ops::coverage(&store).unwrap().read_packs, all.packs - 1);
}

#[test]
fn ledger_that_is_damaged_or_gone_means_never_read() {
    let (vfs, clock, _) = scene(&several_images());
    scrub(&open(&vfs, &clock, 2));
    for change in ["flipped", "empty", "gone"] {
        match change {
            "flipped" => vfs.flip(LEDGER, 30, 4).unwrap(),
            "empty" => vfs.write_raw(LEDGER, Vec::new()).unwrap(),
            _ => vfs.remove(LEDGER).unwrap(),
        }
        let store = open(&vfs, &clock, 3);
        let coverage = ops::coverage(&store).unwrap();
        assert_eq!((coverage.read_packs, coverage.ledger_damage.is_none()), (0, change == "gone"));
        let watcher = Watcher::new(u64::MAX, |_| ());
        let recent = ScrubOptions { older_than: Some(DAY), ..options() };
        let stats = ops::scrub(&store, &recent, &watcher).unwrap();
        assert_eq!(stats.checked_packs, 8);
        assert_eq!(watcher.notes().contains("ledger"), change != "gone", "{}", watcher.notes());
        assert_eq!(ops::coverage(&store).unwrap().read_packs, 8);
    }
}

#[test]
fn ledger_of_a_newer_program_is_left_alone() {
    let (vfs, clock, _) = scene(&several_images());
    scrub(&open(&vfs, &clock, 2));
    let mut bytes = vfs.read_all(LEDGER).unwrap();
    let covered = bytes.len() - 32;
    bytes[8] = 2;
    let checksum = blake3::hash(&bytes[..covered]);
    bytes[covered..].copy_from_slice(checksum.as_bytes());
    vfs.write_raw(LEDGER, bytes.clone()).unwrap();
    let store = open(&vfs, &clock, 3);
    let error = ops::scrub(&store, &options(), &NoProgress).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { found: 2, .. }), "{}", describe(&error));
    let coverage = ops::coverage(&store).unwrap();
    assert!(coverage.read_packs == 0 && coverage.ledger_damage.is_some(), "{coverage:?}");
    assert!(verify_all(&store).unwrap().is_sound());
    assert_eq!(vfs.read_all(LEDGER).unwrap(), bytes);
}

#[test]
fn packs_that_a_purge_removes_meanwhile_are_passed_over() {
    let (vfs, clock, ids) = scene(&several_images());
    let store = open(&vfs, &clock, 2);
    let purger = open(&vfs, &clock, 3);
    let watcher = Watcher::new(u64::MAX, |read| {
        if read == 1 {
            ops::forget(&purger, &ids).unwrap();
            purge_now(&purger).unwrap();
        }
    });
    let stats = ops::scrub(&store, &options(), &watcher).unwrap();
    assert!(stats.is_sound(), "{stats:?}");
    let coverage = ops::coverage(&store).unwrap();
    assert_eq!((coverage.packs, coverage.read_packs), (0, 0));
    // Entries of packs that are gone do not stay.
    assert_eq!(vfs.read_all(LEDGER).unwrap().len(), 48);
}

#[test]
fn store_that_cannot_be_written_is_scrubbed_and_says_that_nothing_is_entered() {
    let (vfs, clock, _) = scene(&several_images());
    damage(&vfs, &data_pack(&vfs));
    let plan = (0..4000).fold(FaultPlan::none(), |plan, call| {
        plan.and(Counter::Mutations, call, Effect::Fail(FaultKind::ReadOnly))
    });
    vfs.set_faults(plan);
    let store = open(&vfs, &clock, 2);
    let watcher = Watcher::new(u64::MAX, |_| ());
    let stats = ops::scrub(&store, &options(), &watcher).unwrap();
    assert_eq!((stats.checked_packs, stats.damaged.len()), (8, 1));
    assert!(watcher.notes().contains("not entered in the ledger"), "{}", watcher.notes());
}

#[test]
fn limit_makes_the_scrub_wait() {
    let (vfs, clock, _) = scene(&several_images());
    let store = open(&vfs, &clock, 2);
    let bytes = ops::coverage(&store).unwrap().pack_bytes;
    for (bytes_per_second, is_slow) in [(1000, true), (1 << 30, false)] {
        let limit = NonZero::new(bytes_per_second);
        let began = clock.monotonic();
        let options = ScrubOptions { bytes_per_second: limit, ..options() };
        ops::scrub(&store, &options, &NoProgress).unwrap();
        // The clock is a simulated one: it passes when somebody waits. The last pack need not be paid for.
        let passed = clock.monotonic() - began;
        let least = Duration::from_secs(bytes / 2 / bytes_per_second);
        assert!(least <= passed, "{passed:?}, at least {least:?}");
        assert_eq!(is_slow, Duration::from_secs(5) < passed, "{passed:?}");
    }
}
