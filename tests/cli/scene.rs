//! A directory with images and a backup directory, and the binary that is run in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chunkstore::format::{decode_document, encode_document};
use tempfile::TempDir;

/// Name of the backup directory in a scene.
pub(crate) const BACKUP_DIR: &str = "vm1";

/// Name of the image in a scene that has one.
pub(crate) const IMAGE: &str = "disk.img";

/// Length of that image in bytes: not a multiple of anything.
pub(crate) const IMAGE_LEN: usize = (3 << 20) + 1234;

/// A directory in which commands are run.
#[derive(Debug)]
pub(crate) struct Scene {
    directory: TempDir,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Scene {
    /// Returns an empty scene.
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory can be made") }
    }

    /// Returns a scene with an image and an initialised backup directory.
    pub(crate) fn with_init() -> Self {
        let scene = Self::new();
        scene.write_image(IMAGE, IMAGE_LEN, 1);
        scene.succeeds(["init", "file", IMAGE]);
        scene
    }

    /// Returns a scene with one revision, and its image.
    pub(crate) fn with_backup() -> (Self, Vec<u8>) {
        let scene = Self::with_init();
        scene.succeeds(["backup"]);
        let image = scene.read(IMAGE);
        (scene, image)
    }

    /// Returns a scene with revisions of these images, oldest first, with the tag `manual:N` each.
    pub(crate) fn with_backups(count: u64) -> (Self, Vec<Vec<u8>>) {
        let scene = Self::with_init();
        let backup = |number| {
            scene.write_image(IMAGE, IMAGE_LEN, number + 1);
            scene.succeeds(["backup", &format!("manual:{number}")]);
            scene.read(IMAGE)
        };
        let images = (0..count).map(backup).collect();
        (scene, images)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the directory of the scene, without symbolic links, as the kernel names it.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().expect("the directory is there")
    }

    /// Returns the path of something in the backup directory.
    pub(crate) fn backup_path(&self, name: &str) -> PathBuf {
        self.path(BACKUP_DIR).join(name)
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("a file of the scene can be written");
    }

    /// Writes an image of random bytes with zeros in its middle.
    pub(crate) fn write_image(&self, name: &str, len: usize, seed: u64) {
        let mut bytes = random_bytes(len, seed);
        bytes[len / 3..len / 2].fill(0);
        self.write(name, bytes);
    }

    /// Returns a command that is run in the scene, with the scene's backup directory.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backy"));
        command
            .current_dir(self.directory.path())
            .env("BACKY_BACKUP_DIR", BACKUP_DIR)
            .env("TZ", "UTC")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        let output = self.command(arguments).output().expect("the binary can be run");
        let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
        assert!(!stderr.contains("panicked"), "{stderr}");
        Output { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub(crate) fn succeeds<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Output {
        let output = self.run(arguments);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output
    }

    /// Runs a command that must end with this code, and with one line that begins with `error: `.
    #[track_caller]
    pub(crate) fn fails<S: AsRef<OsStr>>(
        &self,
        code: i32,
        arguments: impl IntoIterator<Item = S>,
    ) -> Output {
        let output = self.run(arguments);
        assert_eq!(output.code, Some(code), "{}", output.stderr);
        let errors = output.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", output.stderr);
        output
    }

    /// Returns how many revisions `status` lists.
    #[track_caller]
    pub(crate) fn revision_count(&self) -> usize {
        self.succeeds(["find", "--uuid", "-r", "all"]).text().lines().count()
    }

    /// Returns the ids of all revisions, oldest first.
    #[track_caller]
    pub(crate) fn ids(&self) -> Vec<String> {
        let output = self.succeeds(["find", "--uuid", "-r", "all"]);
        output.text().lines().map(str::to_owned).collect()
    }

    /// Returns the tags of revisions, with commas between those of one.
    #[track_caller]
    pub(crate) fn tags(&self, spec: &str) -> Vec<String> {
        let listed = self.succeeds(["--json", "status", "-r", spec]).json();
        let revisions = listed.as_array().expect("status lists revisions").iter();
        let join = |one: &serde_json::Value| {
            let tags = one["tags"].as_array().expect("tags are a list").iter();
            tags.filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(",")
        };
        revisions.map(join).collect()
    }

    /// Returns the path of the largest pack: one with data.
    pub(crate) fn largest_pack(&self) -> PathBuf {
        let packs = files_below(&self.backup_path("packs"));
        let len = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.len()).ok();
        packs.into_iter().max_by_key(len).expect("there is a pack")
    }
}

impl Output {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("results are UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).expect("stdout is one JSON document")
    }

    /// Returns the JSON object of the error on stderr.
    pub(crate) fn json_error(&self) -> serde_json::Value {
        let line = self.stderr.lines().last().expect("there is a message on stderr");
        serde_json::from_str(line).expect("the last line on stderr is a JSON object")
    }
}

/// Returns a prefix of an id that names it: decimal digits alone would be a number in the history.
pub(crate) fn prefix_of(id: &str) -> &str {
    let letter = id.find(|c: char| c.is_ascii_alphabetic()).expect("not all 32 are decimal");
    &id[..=letter.max(7)]
}

/// Returns all files below a directory.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("a directory can be listed").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Replaces the bytes of a file, whatever its permissions.
pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file can be read");
    change(&mut bytes);
    fs::remove_file(path).expect("the file can be removed");
    fs::write(path, bytes).expect("the file can be written");
}

/// Returns the configuration of a store as a newer program would write it.
pub(crate) fn newer_config(config: &[u8]) -> Vec<u8> {
    const MAGIC: &str = "chunkstore store";
    let body: serde_json::Value = decode_document(MAGIC, 1, config).expect("it is of version 1");
    encode_document(MAGIC, 2, &body)
}

/// Returns bytes that do not compress.
pub(crate) fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(len);
    bytes
}
