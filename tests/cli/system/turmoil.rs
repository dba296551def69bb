//! All commands at once in one store, by several processes each of which may be killed at any moment.
//!
//! Nobody waits for anybody, and nothing is repaired by hand. What was acknowledged is remembered with the fingerprint of
//! its image; at the end it restores, unless somebody forgot it or it expired, and nothing else is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::compare::{change, fingerprint};
use super::machine::figure;
use super::running::Running;
use crate::scene::{Output, Scene, files_below, random_bytes};

/// Backup directories of one store each, the first of which has it.
const SOURCES: [&str; 3] = ["vm1", "vm2", "vm3"];

const IMAGE_LEN: u64 = 3 << 20;
const PIECE_LEN: usize = 200 << 10;

/// Different pieces that images are made of: few, so that chunks are forgotten and come back.
const PIECE_COUNT: u64 = 12;

/// Revisions below which none is forgotten.
const REVISIONS_MIN: usize = 6;

/// Exit codes: success, no such revision, locked.
const DONE: i32 = 0;
const NOT_FOUND: i32 = 10;
const LOCKED: i32 = 11;

/// A revision that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Made {
    source: usize,
    image: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// Those that nobody was to forget yet.
    revisions: BTreeMap<String, Made>,
    /// Those that somebody forgets; one whose `forget` was killed may be there.
    going: BTreeMap<String, Made>,
    forgotten: BTreeSet<String>,
    /// Those that an expiry says it removed.
    expired: BTreeSet<String>,
    /// Those that somebody was told do not exist.
    not_found: BTreeSet<String>,
    /// Command and exit code, and how often; no code means killed.
    counts: BTreeMap<(String, Option<i32>), u32>,
}

#[derive(Debug)]
struct Turmoil {
    scene: Scene,
    known: Mutex<Known>,
    is_over: AtomicBool,
    end: Instant,
}

/// Numbers of one thread.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

impl Turmoil {
    fn new(duration: Duration) -> Self {
        let scene = Scene::new();
        for (number, source) in SOURCES.into_iter().enumerate() {
            let image = format!("{source}.img");
            scene.write(&image, random_bytes(usize::try_from(IMAGE_LEN).unwrap(), 1));
            let init = match number {
                0 => vec!["init", "file", &image],
                _ => vec!["init", "--store", SOURCES[0], "--name", source, "file", &image],
            };
            let init = scene.command(init).env("BACKY_BACKUP_DIR", source).output().unwrap();
            assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
            let path = format!("{source}/config");
            let config = String::from_utf8(scene.read(&path)).unwrap();
            let rest = config.split("schedule:").next().unwrap().trim_end();
            let schedule = "schedule:\n  fast: {interval: 1s, keep: 2}\n";
            scene.write(&path, format!("{rest}\n{schedule}"));
        }
        let (known, is_over) = (Mutex::default(), AtomicBool::new(false));
        Self { scene, known, is_over, end: Instant::now() + duration }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed) && Instant::now() < self.end
    }

    fn command(&self, source: usize, arguments: &[&str]) -> Command {
        let mut command = self.scene.command(arguments);
        command.env("BACKY_BACKUP_DIR", SOURCES[source]);
        command
    }

    /// Runs a command to its end, which must be one of these.
    #[track_caller]
    fn run(&self, source: usize, arguments: &[&str], codes: &[i32]) -> Output {
        let output = Running::start(&mut self.command(source, arguments)).finish();
        self.judge(arguments, &output, codes);
        output
    }

    /// Runs a command, and kills it at a random moment in one of so many cases; its code is then none.
    #[track_caller]
    fn run_or_kill(
        &self,
        random: &mut Random,
        source: usize,
        arguments: &[&str],
        codes: &[i32],
    ) -> Output {
        if random.below(3) != 0 {
            return self.run(source, arguments, codes);
        }
        let running = Running::start(&mut self.command(source, arguments));
        thread::sleep(Duration::from_millis(random.below(150)));
        let output = running.kill_or_finish();
        if output.code.is_some() {
            self.judge(arguments, &output, codes);
        } else {
            self.count(arguments, None);
        }
        output
    }

    #[track_caller]
    fn judge(&self, arguments: &[&str], output: &Output, codes: &[i32]) {
        let is_allowed = output.code.is_some_and(|code| codes.contains(&code));
        assert!(is_allowed, "{arguments:?}: {:?}: {}", output.code, output.stderr);
        self.count(arguments, output.code);
    }

    fn count(&self, arguments: &[&str], code: Option<i32>) {
        let verb = arguments.iter().find(|word| !word.starts_with('-')).unwrap();
        *self.known().counts.entry(((*verb).to_owned(), code)).or_default() += 1;
    }

    /// Returns one of the revisions that should be there. It may be going at this moment.
    fn pick(&self, random: &mut Random) -> Option<(String, Made)> {
        let known = self.known();
        let there: Vec<_> =
            known.revisions.iter().filter(|(id, _)| !known.expired.contains(*id)).collect();
        let count = u64::try_from(there.len()).unwrap();
        let place = usize::try_from(random.next().checked_rem(count)?).unwrap();
        there.get(place).map(|(id, made)| ((*id).clone(), **made))
    }

    /// Changes an image and backs it up, again and again.
    fn write(&self, source: usize, seed: u64) {
        let mut random = Random(seed);
        let image = self.scene.path(format!("{}.img", SOURCES[source]));
        while self.goes_on() {
            for _ in 0..random.below(5) {
                let place = random.below(IMAGE_LEN - PIECE_LEN as u64) & !0xfff;
                let piece = random_bytes(PIECE_LEN, 100 + random.below(PIECE_COUNT));
                change(&image, place, &piece);
            }
            let present = fingerprint(File::open(&image).unwrap());
            let made = Made { source, image: present };
            let tag = if random.below(3) == 0 { "manual:kept" } else { "fast" };
            let output =
                self.run_or_kill(&mut random, source, &["--json", "backup", tag], &[DONE, LOCKED]);
            match output.code {
                Some(DONE) => {
                    let id = output.json()["id"].as_str().unwrap().to_owned();
                    self.known().revisions.insert(id, made);
                }
                Some(_) => {}
                // It may have been past its commit point.
                None => self.note_new(source, made),
            }
        }
    }

    /// Remembers revisions of a source that are there and not known: nobody else backs it up.
    fn note_new(&self, source: usize, made: Made) {
        let ids = self.ids(source);
        let mut known = self.known();
        for id in ids {
            let is_known = known.going.contains_key(&id) || known.forgotten.contains(&id);
            if !is_known {
                known.revisions.entry(id).or_insert(made);
            }
        }
    }

    fn ids(&self, source: usize) -> Vec<String> {
        let output = self.run(source, &["find", "--uuid", "-r", "all"], &[DONE]);
        output.text().lines().map(str::to_owned).collect()
    }

    fn forget(&self, seed: u64) {
        let mut random = Random(seed);
        while self.goes_on() {
            thread::sleep(Duration::from_millis(random.below(200)));
            let Some((id, made)) = self.pick(&mut random) else { continue };
            let mut known = self.known();
            if known.revisions.len() < REVISIONS_MIN + known.expired.len() {
                continue;
            }
            let going = known.revisions.remove_entry(&id);
            known.going.extend(going);
            drop(known);
            let arguments = ["forget", "-r", &id];
            let codes = [DONE, NOT_FOUND];
            let output = self.run_or_kill(&mut random, made.source, &arguments, &codes);
            let mut known = self.known();
            match output.code {
                Some(DONE) => {
                    known.going.remove(&id);
                    known.forgotten.insert(id);
                }
                // It has expired: the report of that is awaited, and looked for at the end.
                Some(_) => {
                    known.going.remove(&id);
                    known.revisions.insert(id.clone(), made);
                    known.not_found.insert(id);
                }
                None => {}
            }
        }
    }

    fn expire(&self, seed: u64) {
        let mut random = Random(seed);
        while self.goes_on() {
            thread::sleep(Duration::from_millis(random.below(400)));
            let source = usize::try_from(random.below(3)).unwrap();
            let output = self.run(source, &["--json", "expire", "--force"], &[DONE, LOCKED]);
            if output.code == Some(DONE) {
                let report = output.json();
                let removed = report["removed"].as_array().unwrap().iter();
                let removed = removed.map(|id| id.as_str().unwrap().to_owned());
                self.known().expired.extend(removed);
            }
        }
    }

    fn purge(&self, seed: u64) {
        let mut random = Random(seed);
        while self.goes_on() {
            let arguments: &[&str] =
                if random.below(4) == 0 { &["purge"] } else { &["purge", "--now"] };
            self.run_or_kill(&mut random, 0, arguments, &[DONE]);
        }
    }

    /// Reads revisions in all ways, doubts them, and builds the index anew.
    fn read(&self, seed: u64) {
        let mut random = Random(seed);
        while self.goes_on() {
            let Some((id, made)) = self.pick(&mut random) else { continue };
            let arguments: &[&str] = match random.below(10) {
                0..4 => &["restore", "-r", &id, "-"],
                4..6 => &["verify", "-r", &id],
                6 => &["verify", "-r", "all"],
                7 => &["distrust", "-r", &id],
                8 => &["scrub"],
                _ => &["index", "rebuild"],
            };
            let codes = [DONE, NOT_FOUND];
            let output = self.run_or_kill(&mut random, made.source, arguments, &codes);
            match output.code {
                Some(DONE) if arguments[0] == "restore" => {
                    let found = fingerprint(output.stdout.as_slice());
                    assert_eq!(found, made.image, "revision {id} has other bytes");
                }
                Some(NOT_FOUND) if arguments.contains(&id.as_str()) => {
                    self.known().not_found.insert(id);
                }
                _ => {}
            }
        }
    }

    /// Runs something until the end; a panic in it ends the others.
    fn guard(&self, work: impl FnOnce(&Self)) {
        let _ends_the_others = EndOnPanic(&self.is_over);
        work(self);
    }

    /// What must be there is there and right, and nothing else, with no care but a purge.
    fn assert_intact(&self) {
        self.run(0, &["purge", "--now"], &[DONE]);
        for place in ["tmp", "sessions", "trash", "quarantine"] {
            let left = files_below(&self.scene.backup_path(place));
            assert_eq!(left, Vec::<PathBuf>::new(), "{place}");
        }
        let mut found = BTreeMap::new();
        for source in 0..SOURCES.len() {
            found.extend(self.ids(source).into_iter().map(|id| (id, source)));
        }
        let known = std::mem::take(&mut *self.known());
        for id in known.revisions.keys().filter(|id| !known.expired.contains(*id)) {
            assert!(found.contains_key(id), "revision {id} is lost");
        }
        for id in known.forgotten.iter().chain(&known.expired).chain(&known.not_found) {
            assert!(!found.contains_key(id), "revision {id} has come back");
        }
        for (id, source) in &found {
            let made = known.revisions.get(id).or(known.going.get(id));
            let made = made.unwrap_or_else(|| panic!("revision {id} was never made"));
            assert_eq!(made.source, *source);
            let output = self.run(*source, &["restore", "-r", id, "-"], &[DONE]);
            assert_eq!(fingerprint(output.stdout.as_slice()), made.image, "revision {id}");
        }
        fs::remove_file(self.scene.backup_path("index.redb")).unwrap();
        for source in 0..SOURCES.len() {
            self.run(source, &["verify", "-r", "all"], &[DONE]);
        }
        for ((verb, code), count) in &known.counts {
            let end = code.map_or_else(|| "killed".to_owned(), |code| format!("exit {code}"));
            figure(&format!("{count:6} {verb}: {end}"));
        }
        figure(&format!("{} revisions left, {} expired", found.len(), known.expired.len()));
        assert_eq!(self.freed_in_the_end(&found), 0, "bytes that nobody needs are kept");
    }

    /// Forgets everything, and returns what is left in packs.
    fn freed_in_the_end(&self, found: &BTreeMap<String, usize>) -> usize {
        for (id, source) in found {
            self.run(*source, &["forget", "-r", id], &[DONE]);
        }
        self.run(0, &["purge", "--now"], &[DONE]);
        files_below(&self.scene.backup_path("packs")).len()
    }
}

/// Sets a flag if it is dropped by a panic.
struct EndOnPanic<'a>(&'a AtomicBool);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Seconds of every day's run, or minutes with `BACKY_LONG_TESTS=1`.
fn duration() -> Duration {
    let is_long = std::env::var("BACKY_LONG_TESTS").is_ok_and(|value| value == "1");
    Duration::from_secs(if is_long { 300 } else { 15 })
}

#[test]
fn nothing_is_lost_in_a_turmoil_of_processes_that_are_killed() {
    let turmoil = Turmoil::new(duration());
    let seed = u64::from(std::process::id()) << 8;
    figure(&format!("random numbers from {seed}"));
    thread::scope(|scope| {
        let turmoil = &turmoil;
        for source in 0..SOURCES.len() {
            let seed = seed + 1 + u64::try_from(source).unwrap();
            scope.spawn(move || turmoil.guard(|turmoil| turmoil.write(source, seed)));
        }
        scope.spawn(move || turmoil.guard(|turmoil| turmoil.forget(seed + 11)));
        scope.spawn(move || turmoil.guard(|turmoil| turmoil.expire(seed + 12)));
        scope.spawn(move || turmoil.guard(|turmoil| turmoil.purge(seed + 13)));
        scope.spawn(move || turmoil.guard(|turmoil| turmoil.read(seed + 14)));
        scope.spawn(move || turmoil.guard(|turmoil| turmoil.read(seed + 15)));
    });
    turmoil.assert_intact();
}
