//! Ends that nobody has asked the other side for.

use super::disks::scene_with_ext4;
use super::machine::Guest;
use super::server::Server;
use crate::scene::{IMAGE, Scene};
use crate::system::compare::write_random_image;

/// Begins to read the whole device again and again, until an error.
const READ_FOREVER: &str = "(while cat /dev/nbd0 >/dev/null; do
echo 3 >/proc/sys/vm/drop_caches; done; touch /tmp/ended) >/dev/null 2>&1 &";

/// Some MiB were read from the device.
const IS_READING: &str = "[ $(awk '{print $3}' /sys/block/nbd0/stat) -gt 10000 ]";

#[test]
fn guest_gets_errors_when_the_server_is_stopped() {
    let scene = Scene::new();
    write_random_image(&scene.path(IMAGE), 64, 1);
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 0);
    // A request that was sent while the server closed the connection is lost. The kernel waits half a minute for it.
    guest.succeeds("echo 5000 >/sys/block/nbd0/queue/io_timeout");
    guest.succeeds(READ_FOREVER);
    guest.wait_for(IS_READING);
    server.stop();
    guest.wait_for("[ -e /tmp/ended ]");
    guest.fails("dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 iflag=direct");
    // The device can be used again.
    guest.run("nbd-client -d /dev/nbd0");
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 0);
    guest.succeeds("dd if=/dev/nbd0 of=/dev/null bs=4096 count=1 iflag=direct");
    server.detach_device(&mut guest);
    server.stop();
}

#[test]
fn server_goes_on_after_a_guest_was_killed_while_it_wrote() {
    let Some((scene, _)) = scene_with_ext4(48, 9500) else { return };
    let Some(mut guest) = Guest::start(&scene) else { return };
    let server = Server::start(&scene, &["--overlay", "disk.overlay"]);
    server.attach(&mut guest, 0);
    guest.succeeds(server.mounts()[0]);
    let kept = guest.succeeds(
        "cd /mnt && dd if=/dev/urandom of=kept bs=1M count=2 conv=fsync 2>/dev/null && sha256sum kept; cd /",
    );
    guest.succeeds(READ_FOREVER);
    guest.succeeds(
        "(number=0; while :; do number=$((number + 1)); dd if=/dev/urandom of=/mnt/$((number % 5)) bs=1M count=1
done) >/dev/null 2>&1 &",
    );
    guest.wait_for(IS_READING);
    guest.kill();

    let mut guest = Guest::start(&scene).expect("there was one before");
    server.attach(&mut guest, 0);
    guest.succeeds("mount -o rw /dev/nbd0 /mnt");
    assert_eq!(guest.succeeds("cd /mnt && sha256sum kept; cd /"), kept);
    guest.succeeds("umount /mnt && e2fsck -f -n /dev/nbd0");
    server.detach_device(&mut guest);
    server.stop();
}
