//! What the guest writes to an overlay is there the next time, and nowhere else.

use std::fs;

use super::disks::{assert_lists, scene_with_ext4};
use super::machine::Guest;
use super::server::Server;
use crate::scene::{IMAGE, random_bytes};
use crate::system::compare::assert_same;

const OVERLAY: &str = "disk.overlay";

#[test]
fn overlay_keeps_what_was_written_until_the_next_server() {
    let Some((scene, expected)) = scene_with_ext4(48, 9000) else { return };
    // Behind the file system there is something to be discarded.
    let mut disk = scene.read(IMAGE);
    disk.extend(random_bytes(1 << 20, 12));
    scene.write(IMAGE, &disk);
    scene.succeeds(["backup"]);
    let Some(mut guest) = Guest::boot(&scene) else { return };

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

    // The revision is what it was.
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 0);
    guest.succeeds(server.mounts()[0]);
    assert_lists(&mut guest, "/mnt", &expected);
    server.detach(&mut guest);
    server.stop();
    scene.succeeds(["restore", "restored.img"]);
    assert_same(&scene.path("restored.img"), &scene.path(IMAGE));
    fs::remove_file(scene.path(OVERLAY)).unwrap();
}
