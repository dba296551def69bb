//! Purges under a clock that jumps: nothing that is needed is lost, and nothing waits for ever.

use std::sync::Arc;
use std::time::Duration;

use chunkstore::environment::{Clock, Environment};
use chunkstore::ops::purge::PurgeStats;
use chunkstore::ops::{self, BackupError};
use chunkstore::store::{Store, StoreOptions};
use chunkstore::time::Timestamp;
use chunkstore::vfs::simulated::SimulatedClock;
use support::model_store::{
    ImageSource, SparseImage, assert_restores, assert_sound, back_up, random_image, try_backup,
    try_purge,
};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
const GRACE: Duration = Duration::from_secs(24 * 3600);

struct Scene {
    _directory: TempDir,
    store: Store,
    clock: SimulatedClock,
    start: Timestamp,
    kept: SparseImage,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = SimulatedClock::default();
        let start = clock.now();
        let environment = Environment { clock: Arc::new(clock.clone()), ..Environment::system() };
        let path = directory.path().join("store");
        let store = Store::create_in(environment, path, &StoreOptions::default()).unwrap();
        Self { _directory: directory, store, clock, start, kept: random_image(9, MIB) }
    }

    /// Sets the clock to so many milliseconds after the start of the test.
    fn set(&self, milliseconds: i64) {
        self.clock.set(Timestamp(self.start.0 + milliseconds));
    }

    fn purge(&self) -> PurgeStats {
        try_purge(&self.store, GRACE).unwrap()
    }

    /// Makes a revision, and forgets another one with four times as much.
    fn back_up_and_forget(&self) -> chunkstore::id::RevisionId {
        let kept = back_up(&self.store, "kept", &self.kept).id;
        let dead = back_up(&self.store, "dead", &random_image(1, 4 * MIB)).id;
        ops::forget(&self.store, &[dead]).unwrap();
        kept
    }

    fn stored_bytes(&self) -> u64 {
        ops::info(&self.store).unwrap().stored_bytes
    }
}

#[test]
fn condemned_packs_go_after_every_jump_of_the_clock_and_not_before_the_grace() {
    // When it is condemned; then at which times purges run, and whether it is gone after each.
    let cases: [(i64, &[(i64, bool)]); 8] = [
        (0, &[(HOUR, false), (23 * HOUR, false), (25 * HOUR, true)]),
        // The clock was ten years ahead, or jumps ahead.
        (10 * YEAR, &[(0, true)]),
        (0, &[(10 * YEAR, true)]),
        // It was a day ahead, or less: the grace lasts at most twice as long.
        (DAY, &[(0, true)]),
        (DAY - HOUR, &[(0, false), (DAY, false), (2 * DAY, true)]),
        (0, &[(DAY, true)]),
        // It goes back and forth meanwhile.
        (0, &[(-HOUR, false), (HOUR, false), (-10 * HOUR, false), (DAY + HOUR, true)]),
        (0, &[(-10 * YEAR, true)]),
    ];
    for (condemned_at, purges) in cases {
        let scene = Scene::new();
        let id = scene.back_up_and_forget();
        scene.set(condemned_at);
        let stats = scene.purge();
        assert!(0 < stats.condemned_packs && stats.removed_packs == 0, "{stats:?}");
        for (time, is_gone) in purges {
            scene.set(*time);
            let stats = scene.purge();
            let case = format!("condemned at {condemned_at}, purged at {time}: {stats:?}");
            assert_eq!(0 < stats.removed_packs, *is_gone, "{case}");
            assert_eq!(scene.stored_bytes() < 2 * MIB as u64, *is_gone, "{case}");
            assert_restores(&scene.store, &id, &scene.kept);
        }
    }
}

#[test]
fn packs_of_a_dead_backup_from_the_future_do_not_stay_for_ever() {
    for (written_at, purged_at, is_kept) in [
        (0, 23 * HOUR, true),
        (23 * HOUR, 0, true),
        (DAY, 0, false),
        (10 * YEAR, 0, false),
        (0, 10 * YEAR, false),
    ] {
        let scene = Scene::new();
        scene.set(written_at);
        let image = random_image(1, 12 * MIB);
        let failing = ImageSource::new(&image).failing_at(11 * MIB as u64);
        let failed = try_backup(&scene.store, "disk", &failing);
        assert!(matches!(failed, Err(BackupError::Source(_))), "{failed:?}");
        assert!(0 < scene.stored_bytes());
        scene.set(purged_at);
        let stats = scene.purge();
        assert_eq!(stats.condemned_packs == 0, is_kept, "{written_at} {purged_at}: {stats:?}");
        scene.set(purged_at + 2 * DAY);
        scene.purge();
        scene.set(purged_at + 4 * DAY);
        scene.purge();
        assert_eq!(scene.stored_bytes(), 0, "{written_at} {purged_at}");
    }
}

#[test]
fn repacking_and_sweeping_lose_nothing_whatever_the_clock_says() {
    let jumps = [0, 10 * YEAR, -10 * YEAR, DAY, -DAY, 0, 5 * YEAR, 0];
    let scene = Scene::new();
    let mut truth = Vec::new();
    for (number, jump) in (0..).zip(jumps) {
        scene.set(jump);
        // A quarter of each image stays needed.
        let whole = random_image(100 + number, 4 * MIB);
        let whole_id = back_up(&scene.store, &format!("whole{number}"), &whole).id;
        let mut part = whole.clone();
        part.resize(MIB as u64);
        let part_id = back_up(&scene.store, &format!("part{number}"), &part).id;
        ops::forget(&scene.store, &[whole_id]).unwrap();
        truth.push((part_id, part));
        let stats = try_purge(&scene.store, Duration::ZERO).unwrap();
        assert!(0 < stats.repacked_packs && 0 < stats.removed_packs, "{jump}: {stats:?}");
        // The new packs win over the old ones, also in a new index.
        ops::rebuild_index(&scene.store, &chunkstore::progress::NoProgress).unwrap();
        scene.set(-jump);
        let again = try_purge(&scene.store, Duration::ZERO).unwrap();
        assert_eq!((again.repacked_bytes, again.freed_bytes), (0, 0), "{jump}: {again:?}");
        for (id, image) in &truth {
            assert_restores(&scene.store, id, image);
        }
    }
    let ids: Vec<_> = truth.iter().map(|(id, _)| *id).collect();
    assert_sound(&scene.store, &ids);
}
