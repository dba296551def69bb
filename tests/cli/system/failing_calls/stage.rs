//! The store that a command is run in, again and again from the same beginning.

use std::fs;
use std::path::{Path, PathBuf};

use crate::scene::{BACKUP_DIR, IMAGE, Scene, files_below, random_bytes};

/// Where the store waits as it was at the beginning.
const TEMPLATE: &str = "template";

/// Directory of the whisper files.
const TREE: &str = "tree";

/// Length of the first image in bytes.
const IMAGE_LEN: usize = 300_000;

/// What is backed up in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing yet.
    Empty,
    Image,
    Tree,
}

/// A command whose calls fail.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) kind: Kind,
    pub(super) arguments: &'static [&'static str],
    /// Whether the oldest revision may be gone afterwards.
    pub(super) removes_first: bool,
    /// Whether it only reads the store: what it finds out is noted there if that is possible.
    pub(super) reads: bool,
    /// Whether it gives space back.
    pub(super) purges: bool,
}

impl Command {
    const fn new(kind: Kind, arguments: &'static [&'static str]) -> Self {
        Self { kind, arguments, removes_first: false, reads: false, purges: false }
    }

    pub(super) const fn init() -> Self {
        Self::new(Kind::Empty, &["init", "file", IMAGE])
    }

    pub(super) const fn writing(arguments: &'static [&'static str]) -> Self {
        Self::new(Kind::Image, arguments)
    }

    pub(super) const fn reading(arguments: &'static [&'static str]) -> Self {
        Self { reads: true, ..Self::new(Kind::Image, arguments) }
    }

    pub(super) const fn removing(arguments: &'static [&'static str]) -> Self {
        Self { removes_first: true, ..Self::new(Kind::Image, arguments) }
    }

    pub(super) const fn purging(arguments: &'static [&'static str]) -> Self {
        Self { purges: true, ..Self::new(Kind::Image, arguments) }
    }

    /// Backs files up, then reads the history of all of them, and purges.
    pub(super) const fn tree_backup(arguments: &'static [&'static str]) -> Self {
        Self { reads: true, purges: true, ..Self::new(Kind::Tree, arguments) }
    }

    pub(super) const fn tree_restore(arguments: &'static [&'static str]) -> Self {
        Self { reads: true, ..Self::new(Kind::Tree, arguments) }
    }
}

/// A scene with a store that has all that commands work on, and what its revisions restore to.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) scene: Scene,
    pub(super) kind: Kind,
    /// Revisions that were acknowledged, oldest first, each with the files that it restores to.
    pub(super) acknowledged: Vec<(String, Content)>,
}

/// Files by their paths from the target of a restore; the path of an image is empty.
pub(super) type Content = Vec<(PathBuf, Vec<u8>)>;

impl Stage {
    pub(super) fn new(command: &Command) -> Self {
        let scene = Scene::new();
        let mut stage = Self { scene, kind: command.kind, acknowledged: Vec::new() };
        match command.kind {
            Kind::Empty => stage.scene.write(IMAGE, random_bytes(IMAGE_LEN, 1)),
            Kind::Image => stage.add_images(),
            Kind::Tree => stage.add_trees(),
        }
        if command.kind != Kind::Empty {
            // Copying it each time would take most of the time. A purge makes it again.
            fs::remove_file(stage.scene.backup_path("ballast")).unwrap();
            fs::rename(stage.scene.path(BACKUP_DIR), stage.scene.path(TEMPLATE)).unwrap();
        }
        stage
    }

    /// Two revisions of an image; a third one that was forgotten, so that there is something to purge; an image that has
    /// changed since, a damaged state for a repair, and a schedule by which the first revision expires.
    fn add_images(&mut self) {
        let scene = &self.scene;
        let mut image = random_bytes(IMAGE_LEN, 1);
        scene.write(IMAGE, &image);
        scene.succeeds(["init", "file", IMAGE]);
        for (number, tag) in (0..).zip(["daily", "manual:x", "manual:forgotten"]) {
            image.extend(random_bytes(150_000, 10 + number));
            scene.write(IMAGE, &image);
            scene.succeeds(["backup", "-f", tag]);
            if number < 2 {
                let id = scene.ids().pop().unwrap();
                self.acknowledged.push((id, vec![(PathBuf::new(), image.clone())]));
            }
        }
        scene.succeeds(["forget", "-r", "tag:manual:forgotten"]);
        image.truncate(IMAGE_LEN + 150_000);
        image.extend(random_bytes(200_000, 20));
        scene.write(IMAGE, &image);
        let config = scene.backup_path("config");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(config, format!("{text}schedule:\n  daily: {{interval: 1d, keep: 1}}\n"))
            .unwrap();
        // Expired by hand: the tag is none of the schedule, as in an older one.
        scene.succeeds(["tags", "set", "-f", "-r", "first", "hourly"]);
    }

    fn add_trees(&mut self) {
        let scene = &self.scene;
        for (number, metric) in (0..).zip(["a/cpu", "a/load", "b/cpu"]) {
            let path = scene.path(TREE).join(format!("{metric}.wsp"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, crate::whisper::trees::content(number)).unwrap();
        }
        scene.succeeds(["whisper", "backup", "-p", TREE]);
        let id = scene.ids().pop().unwrap();
        // Otherwise the next backup leaves of it what no newer one has.
        scene.succeeds(["protect", "-r", &id]);
        self.acknowledged.push((id, content_below(&scene.path(TREE))));
        fs::write(scene.path(TREE).join("a/cpu.wsp"), crate::whisper::trees::content(9)).unwrap();
    }

    /// Makes the scene what it was at the beginning.
    pub(super) fn reset(&self) {
        for directory in [BACKUP_DIR, "out"] {
            remove(&self.scene.path(directory));
        }
        if self.kind != Kind::Empty {
            copy_directory(&self.scene.path(TEMPLATE), &self.scene.path(BACKUP_DIR));
        }
    }

    /// Restores a revision; an error is the exit code and what was said.
    pub(super) fn restore(&self, id: &str) -> Result<Content, (Option<i32>, String)> {
        let target = self.scene.path("restored");
        remove(&target);
        let output = self.scene.run(["restore", "-r", id, "restored"]);
        match output.code {
            Some(0) => Ok(content_below(&target)),
            code => Err((code, output.stderr)),
        }
    }

    /// Runs the next backup, of what is there now.
    pub(super) fn back_up(&self) -> crate::scene::Output {
        match self.kind {
            Kind::Tree => self.scene.run(["whisper", "backup", "-p", TREE]),
            Kind::Image => self.scene.run(["backup", "manual:next"]),
            Kind::Empty => {
                self.scene.run(["backup", "manual:next", "--source", &format!("file:{IMAGE}")])
            }
        }
    }
}

/// Returns all files below a directory, or the one file that it is.
fn content_below(path: &Path) -> Content {
    if path.is_file() {
        return vec![(PathBuf::new(), fs::read(path).unwrap())];
    }
    let mut files = files_below(path);
    files.sort();
    let inside = |file: &PathBuf| file.strip_prefix(path).unwrap().to_owned();
    files.iter().map(|file| (inside(file), fs::read(file).unwrap())).collect()
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
