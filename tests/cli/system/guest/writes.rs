//! What the guest writes to an overlay is there the next time, and nowhere else.

use std::fs;

use super::disks::{assert_lists, scene_with_ext4};
use super::machine::Guest;
use super::server::Server;
use crate::scene::{IMAGE, Scene, random_bytes};
use crate::system::compare::assert_same;
use crate::system::machine::run_tool;

const OVERLAY: &str = "disk.overlay";

#[test]
fn overlay_keeps_what_was_written_until_it_is_a_revision() {
    let Some((scene, expected)) = scene_with_ext4(48, 9000) else { return };
    // Behind the file system there is something to be discarded.
    let mut disk = scene.read(IMAGE);
    disk.extend(random_bytes(1 << 20, 12));
    scene.write(IMAGE, &disk);
    scene.succeeds(["backup"]);
    let Some(mut guest) = Guest::start(&scene) else { return };

    let server = Server::start(&scene, &["--overlay", OVERLAY]);
    server.attach(&mut guest, 0);
    guest.succeeds(server.mounts()[0]);
    let before = guest.succeeds(
        "cd /mnt && mkdir new && dd if=/dev/urandom of=new/written bs=1M count=3 conv=fsync 2>/dev/null &&
rm -r small && echo changed >sparse && fstrim /mnt && sha256sum new/written sparse; cd /",
    );
    server.detach(&mut guest);
    server.attach(&mut guest, 0);
    guest.succeeds(&format!("blkdiscard -o {} -l {} /dev/nbd0", 48 << 20, 1 << 20));
    server.detach_device(&mut guest);
    server.stop();

    let server = Server::start(&scene, &["--overlay", OVERLAY]);
    server.attach(&mut guest, 0);
    guest.succeeds("e2fsck -f -n /dev/nbd0");
    guest.succeeds(server.mounts()[0]);
    let after = guest.succeeds("cd /mnt && sha256sum new/written sparse; cd /");
    assert_eq!(after, before);
    guest.fails("test -e /mnt/small");
    let tail = guest.succeeds("dd if=/dev/nbd0 bs=1M skip=48 2>/dev/null | tr -d '\\0' | wc -c");
    assert_eq!(tail.trim(), "0");
    server.detach(&mut guest);
    server.stop();

    assert_revision_is_untouched(&scene, &mut guest, &expected);
    let base = scene.ids().pop().unwrap();
    scene.succeeds(["backup", "--from-overlay", OVERLAY]);
    fs::remove_file(scene.path(OVERLAY)).unwrap();
    scene.succeeds(["restore", "-r", &base, "base.img"]);
    assert_same(&scene.path("base.img"), &scene.path(IMAGE));
    scene.succeeds(["restore", "new.img"]);
    let place = scene.path("new.img").display().to_string();
    run_tool("e2fsck", ["-f", "-n", &place]).unwrap();
    let dump = format!("dump new/written {}", scene.path("written").display());
    run_tool("debugfs", ["-R", &dump, &place]).unwrap();
    let sum = run_tool("sha256sum", [scene.path("written")]).unwrap();
    let sum = sum.split_once(' ').unwrap().0;
    assert!(before.starts_with(sum), "{sum} is not in {before}");
}

/// What the overlay lies over is what it was.
#[track_caller]
fn assert_revision_is_untouched(scene: &Scene, guest: &mut Guest, expected: &str) {
    let server = Server::start(scene, &[]);
    server.attach(guest, 0);
    guest.succeeds(server.mounts()[0]);
    assert_lists(guest, "/mnt", expected);
    server.detach(guest);
    server.stop();
}
