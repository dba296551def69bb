//! What the guest reads is what was backed up.

use std::fs;
use std::path::Path;

use super::disks::{
    PartitionedDisk, assert_lists, copy_tree, list, make_btrfs, make_ext4, make_tree, make_xfs,
    scene_with_ext4,
};
use super::machine::Guest;
use super::server::Server;
use crate::scene::{IMAGE, Scene, random_bytes, rewrite};
use crate::system::machine::{Mount, run_tool, skip};

/// Makes and backs up a disk with three file systems, and returns what is in each of them. The disk is gone then.
fn back_up_three_file_systems(scene: &Scene) -> Result<Vec<String>, String> {
    let trees = ["ext4", "xfs", "btrfs"].map(|name| scene.path(format!("{name}.tree")));
    for (tree, seed) in trees.iter().zip([1000, 2000, 3000]) {
        make_tree(tree, seed);
    }
    let images = ["ext4", "xfs", "btrfs"].map(|name| scene.path(name));
    make_ext4(&images[0], &trees[0], 64)?;
    make_xfs(scene, &images[1], &trees[1])?;
    make_btrfs(&images[2], &trees[2])?;
    let mut disk = PartitionedDisk::new(scene);
    images.iter().for_each(|image| disk.append(image));
    disk.finish(scene)?;
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    fs::remove_file(scene.path(IMAGE)).unwrap();
    Ok(trees.iter().map(|tree| list(tree)).collect())
}

#[test]
fn every_file_of_three_file_systems_is_right_when_mounted_as_printed() {
    let scene = Scene::new();
    let expected = match back_up_three_file_systems(&scene) {
        Ok(expected) => expected,
        Err(reason) => return skip("file systems in a virtual machine", &reason),
    };
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 3);
    let mounts = server.mounts();
    assert_eq!(mounts.len(), 3, "{mounts:?}");
    for (mount, expected) in mounts.into_iter().zip(&expected) {
        guest.succeeds(mount);
        assert_lists(&mut guest, "/mnt", expected);
        guest.fails("touch /mnt/new");
        guest.succeeds("umount /mnt");
    }
    guest.fails("dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1 oflag=direct");
    guest.succeeds(server.mounts()[0]);
    server.detach(&mut guest);
    assert_eq!(guest.succeeds("cat /sys/block/nbd0/size").trim(), "0");
    let stderr = server.stop();
    assert!(!stderr.contains("warning"), "{stderr}");
}

/// Appends to a disk a file system as it is while mounted: with files that only its journal knows.
fn append_unfinished(
    disk: &mut PartitionedDisk,
    scene: &Scene,
    image: &Path,
    new: &Path,
) -> Result<(), String> {
    let mount = Mount::image(scene, image)?;
    let target = mount.point.join("new");
    fs::create_dir(&target).unwrap();
    copy_tree(new, &target)?;
    let mut files = crate::scene::files_below(&target);
    files.push(target);
    run_tool("sync", files.iter().filter(|path| !path.is_symlink()))?;
    disk.append(image);
    Ok(())
}

/// What lies in an ext4 and in an XFS whose journals are unfinished.
struct Unfinished {
    old: String,
    new: String,
}

fn back_up_unfinished_journals(scene: &Scene) -> Result<Unfinished, String> {
    let (old, new) = (scene.path("trees/old"), scene.path("new"));
    make_tree(&old, 5000);
    make_tree(&new, 6000);
    let images = [scene.path("ext4"), scene.path("xfs")];
    make_ext4(&images[0], &scene.path("trees"), 64)?;
    make_xfs(scene, &images[1], &scene.path("trees"))?;
    let mut disk = PartitionedDisk::new(scene);
    for image in &images {
        append_unfinished(&mut disk, scene, image, &new)?;
    }
    disk.finish(scene)?;
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    Ok(Unfinished { old: list(&old), new: list(&new) })
}

#[test]
fn unfinished_journals_are_passed_over_when_mounted_as_printed() {
    let scene = Scene::new();
    let expected = match back_up_unfinished_journals(&scene) {
        Ok(expected) => expected,
        Err(reason) => return skip("journals in a virtual machine", &reason),
    };
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 2);
    // They are unfinished: without the options that the server prints nothing can be mounted.
    guest.fails("mount -o ro /dev/nbd0p1 /mnt");
    guest.fails("mount -o ro,nouuid /dev/nbd0p2 /mnt");
    let mounts = server.mounts();
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    for mount in mounts {
        guest.succeeds(mount);
        assert_lists(&mut guest, "/mnt/old", &expected.old);
        guest.succeeds("umount /mnt");
    }
    server.stop();
}

#[test]
fn unfinished_journals_are_replayed_where_writes_are_forgotten() {
    let scene = Scene::new();
    let expected = match back_up_unfinished_journals(&scene) {
        Ok(expected) => expected,
        Err(reason) => return skip("journals in a virtual machine", &reason),
    };
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &["--writable"]);
    server.attach(&mut guest, 2);
    let mounts = server.mounts();
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    for mount in mounts {
        guest.succeeds(mount);
        assert_lists(&mut guest, "/mnt/old", &expected.old);
        assert_lists(&mut guest, "/mnt/new", &expected.new);
        guest.succeeds("umount /mnt");
    }
    guest.succeeds("e2fsck -f -n /dev/nbd0p1");
    guest.succeeds("xfs_repair -n /dev/nbd0p2");
    server.stop();
    scene.succeeds(["restore", "restored.img"]);
    crate::system::compare::assert_same(&scene.path("restored.img"), &scene.path(IMAGE));
}

#[test]
fn mounted_revision_is_read_to_its_end_after_it_was_purged() {
    let Some((scene, expected)) = scene_with_ext4(48, 7000) else { return };
    // A later revision shares nothing with it, so that all its packs are to go.
    scene.write(IMAGE, random_bytes(4 << 20, 1));
    scene.succeeds(["backup"]);
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &["-r", "1"]);
    server.attach(&mut guest, 0);
    guest.succeeds(server.mounts()[0]);
    scene.succeeds(["forget", "-r", "1"]);
    scene.succeeds(["purge", "--now"]);
    assert_lists(&mut guest, "/mnt", &expected);
    server.detach(&mut guest);
    server.stop();
    let freed = scene.succeeds(["--json", "purge", "--now"]).json();
    assert!(3_000_000 < freed["freed_bytes"].as_u64().unwrap(), "{freed}");
    scene.succeeds(["verify", "-r", "all", "--all-data"]);
}

/// Blocks in which the guest reads the file with the damage.
const BLOCK_LEN: usize = 64 << 10;

#[test]
fn damaged_chunk_is_an_error_in_one_file_and_never_other_bytes() {
    let scene = Scene::new();
    let (tree, content) = (scene.path("tree"), random_bytes(6 << 20, 99));
    make_tree(&tree.join("others"), 8000);
    fs::write(tree.join("large"), &content).unwrap();
    if let Err(reason) = make_ext4(&scene.path(IMAGE), &tree, 48) {
        return skip("file system in a virtual machine", &reason);
    }
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    // A byte in a stored chunk of this file, found by its content: random bytes are stored as they are.
    let needle = &content[3 << 20..(3 << 20) + 64];
    let pack = crate::scene::files_below(&scene.backup_path("packs"))
        .into_iter()
        .find(|pack| fs::read(pack).unwrap().windows(needle.len()).any(|bytes| bytes == needle));
    rewrite(&pack.expect("the content is in a pack"), |bytes| {
        let mut windows = bytes.windows(needle.len());
        let place = windows.position(|bytes| bytes == needle).unwrap();
        bytes[place] ^= 1;
    });
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 0);
    guest.succeeds(server.mounts()[0]);
    assert_lists(&mut guest, "/mnt/others", &list(&tree.join("others")));
    let large = guest.fails("cat /mnt/large >/dev/null");
    assert!(large.contains("I/O error") || large.contains("Input/output error"), "{large}");
    assert_blocks(&mut guest, &scene, &content);
    server.detach(&mut guest);
    let stderr = server.stop();
    let told: Vec<_> = stderr.lines().filter(|line| line.contains("cannot serve")).collect();
    assert_eq!(told.len(), 1, "{stderr}");
    for word in ["chunk ", &format!("revision {}", scene.ids()[0])] {
        assert!(told[0].contains(word), "{word}: {}", told[0]);
    }
}

/// Reads the large file block by block: each is right as far as it can be read.
fn assert_blocks(guest: &mut Guest, scene: &Scene, content: &[u8]) {
    let count = content.len() / BLOCK_LEN;
    let script = format!(
        "block=0; while [ $block -lt {count} ]; do
dd if=/mnt/large of=/tmp/block bs={BLOCK_LEN} skip=$block count=1 2>/dev/null
echo $(wc -c </tmp/block) $(sha256sum </tmp/block)
block=$((block + 1)); done"
    );
    let found = guest.succeeds(&script);
    assert_eq!(found.trim().lines().count(), count, "{found:?}");
    let mut cut_blocks = Vec::new();
    for (index, (line, block)) in found.lines().zip(content.chunks(BLOCK_LEN)).enumerate() {
        let (len, sum) = line.trim_end_matches(" -").split_once(' ').unwrap();
        let len: usize = len.parse().unwrap();
        scene.write("block", &block[..len]);
        let expected = run_tool("sha256sum", [scene.path("block")]).unwrap();
        assert!(expected.starts_with(sum), "other bytes in block {index}: {line}");
        if len < block.len() {
            cut_blocks.push(index);
        }
    }
    // The place that was damaged is in one of them; a chunk has at most 512 KiB as a rule.
    assert!(cut_blocks.contains(&(count / 2)), "{cut_blocks:?}");
    assert!(cut_blocks.len() <= 10, "{cut_blocks:?}");
}
