//! Disks with file systems in which files lie whose sums are known.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Stdio;

use super::machine::Guest;
use crate::scene::{IMAGE, Scene, random_bytes};
use crate::system::machine::{Mount, create_sparse, run_tool, tool};

const MIB: u64 = 1 << 20;

/// Prints all files of the working directory with their sums, links, and what is attached to a file.
const LIST: &str = "find . -type f -exec sha256sum {} + | sort
find . -type l | sort | while read -r link; do readlink $link; done
getfattr --only-values -n user.note random";

/// Makes a tree of files: random ones, many small ones, a sparse one, links, and an attribute.
pub(super) fn make_tree(directory: &Path, seed: u64) {
    fs::create_dir_all(directory.join("small/deep")).unwrap();
    fs::write(directory.join("random"), random_bytes(3_000_001, seed)).unwrap();
    rustix::fs::setxattr(
        directory.join("random"),
        "user.note",
        b"kept",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    for number in 0..150 {
        let place = if number % 3 == 0 { "small" } else { "small/deep" };
        let len = usize::try_from(number * 61).unwrap();
        let path = directory.join(place).join(number.to_string());
        fs::write(path, random_bytes(len, seed + number + 1)).unwrap();
    }
    let sparse = File::create(directory.join("sparse")).unwrap();
    sparse.write_all_at(&random_bytes(70_000, seed + 200), 5 * MIB + 123).unwrap();
    sparse.set_len(12 * MIB).unwrap();
    symlink("small/deep/4", directory.join("link")).unwrap();
    symlink("/nowhere", directory.join("dangling")).unwrap();
}

/// Returns what the guest must find in a directory.
pub(super) fn list(directory: &Path) -> String {
    let output = tool("sh").args(["-c", LIST]).current_dir(directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.ends_with("kept"), "{text}");
    text
}

/// Compares a directory in the guest with the list of its original. What the guest had read is forgotten before.
#[track_caller]
pub(super) fn assert_lists(guest: &mut Guest, directory: &str, expected: &str) {
    let script = format!("echo 3 >/proc/sys/vm/drop_caches; cd {directory} && {{ {LIST}\n}}; cd /");
    let found = guest.succeeds(&script);
    assert_eq!(found.trim_end(), expected.trim_end());
}

/// Makes an ext4 of such a length with a directory in it.
pub(super) fn make_ext4(image: &Path, content: &Path, mib: u64) -> Result<(), String> {
    let (image, content) = (image.to_str().unwrap(), content.to_str().unwrap());
    run_tool("mkfs.ext4", ["-q", "-F", "-d", content, image, &format!("{mib}M")]).map(drop)
}

pub(super) fn make_btrfs(image: &Path, content: &Path) -> Result<(), String> {
    drop(create_sparse(image, 160 * MIB));
    let (image, content) = (image.to_str().unwrap(), content.to_str().unwrap());
    run_tool("mkfs.btrfs", ["-q", "--rootdir", content, image]).map(drop)
}

/// Makes an XFS with a directory in it.
pub(super) fn make_xfs(scene: &Scene, image: &Path, content: &Path) -> Result<(), String> {
    drop(create_sparse(image, 300 * MIB));
    run_tool("mkfs.xfs", ["-q", image.to_str().unwrap()])?;
    let mount = Mount::image(scene, image)?;
    copy_tree(content, &mount.point)
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    let from = from.join(".");
    run_tool("cp", ["-a", from.to_str().unwrap(), to.to_str().unwrap()]).map(drop)
}

/// A disk that gets partitions, one for each file system.
#[derive(Debug)]
pub(super) struct PartitionedDisk {
    image: File,
    end: u64,
    table: String,
}

impl PartitionedDisk {
    /// Begins the disk that the scene backs up.
    pub(super) fn new(scene: &Scene) -> Self {
        let image = File::create(scene.path(IMAGE)).unwrap();
        Self { image, end: MIB, table: "label: gpt\n".to_owned() }
    }

    /// Appends a partition with what is in a file now. Zeros take no space.
    pub(super) fn append(&mut self, file_system: &Path) {
        let mut file = File::open(file_system).unwrap();
        let len = file.metadata().unwrap().len();
        let mut block = vec![0; 1 << 16];
        for offset in (0..len).step_by(block.len()) {
            file.read_exact(&mut block).unwrap();
            if block.iter().any(|byte| *byte != 0) {
                self.image.write_all_at(&block, self.end + offset).unwrap();
            }
        }
        self.table += &format!("start={}, size={}, type=linux\n", self.end / 512, len / 512);
        self.end += len;
    }

    /// Writes the table, with room for the second one at the end.
    pub(super) fn finish(self, scene: &Scene) -> Result<(), String> {
        self.image.set_len(self.end + MIB).unwrap();
        let mut sfdisk = tool("sfdisk");
        sfdisk.args(["-q", "--no-reread", "--no-tell-kernel"]).arg(scene.path(IMAGE));
        let sfdisk = sfdisk.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut sfdisk = sfdisk.map_err(|error| format!("sfdisk: {error}"))?;
        sfdisk.stdin.take().unwrap().write_all(self.table.as_bytes()).unwrap();
        let output = sfdisk.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("sfdisk: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

/// Returns a scene with a revision of a disk without partitions: an ext4 of such a length with the tree. `None` says
/// that it was skipped.
pub(super) fn scene_with_ext4(mib: u64, seed: u64) -> Option<(Scene, String)> {
    let scene = Scene::new();
    let tree = scene.path("tree");
    make_tree(&tree, seed);
    if let Err(reason) = make_ext4(&scene.path(IMAGE), &tree, mib) {
        crate::system::machine::skip("file system in a virtual machine", &reason);
        return None;
    }
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let expected = list(&tree);
    Some((scene, expected))
}
