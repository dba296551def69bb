//! Logical volumes: a group is activated on the device that is served, and let go before it.

use super::disks::{assert_lists, list, make_ext4, make_tree};
use super::machine::Guest;
use super::server::Server;
use crate::scene::{IMAGE, Scene};
use crate::system::machine::{create_sparse, skip};

/// Makes a group on the device, and a volume with what `file_system` holds.
const MAKE_VOLUME: &str = "pvcreate -y /dev/nbd0 && vgcreate data /dev/nbd0 &&
lvcreate -y -Zn -l 100%FREE -n root data && dd if=/dev/nbd1 of=/dev/data/root bs=1M conv=fsync 2>/dev/null &&
vgchange -an data";

/// Makes a disk with a logical volume: the guest writes it to an overlay, of which a backup is made.
fn back_up_volume(scene: &Scene, guest: &mut Guest) {
    drop(create_sparse(&scene.path(IMAGE), 48 << 20));
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let server = Server::start(scene, &["--overlay", "o"]);
    server.attach(guest, 0);
    let other = scene.path("other").display().to_string();
    let file_system = format!("file:{}", scene.path("ext4").display());
    scene.succeeds(["-b", &other, "backup", "--source", &file_system]);
    let source = Server::start(scene, &["-b", &other]);
    source.attach_as(guest, "/dev/nbd1");
    guest.succeeds(MAKE_VOLUME);
    guest.succeeds("nbd-client -d /dev/nbd0; nbd-client -d /dev/nbd1");
    source.stop();
    server.stop();
    scene.succeeds(["backup", "--from-overlay", "o"]);
}

/// Returns a scene with a revision of such a disk, what is in the volume, and a guest that runs.
fn scene_with_volume() -> Option<(Scene, String, Guest)> {
    let scene = Scene::new();
    let tree = scene.path("tree");
    make_tree(&tree, 9900);
    if let Err(reason) = make_ext4(&scene.path("ext4"), &tree, 32) {
        skip("logical volumes in a virtual machine", &reason);
        return None;
    }
    let mut guest = Guest::start(&scene)?;
    back_up_volume(&scene, &mut guest);
    Some((scene, list(&tree), guest))
}

#[test]
fn logical_volume_is_mounted_as_printed() {
    let Some((scene, expected, mut guest)) = scene_with_volume() else { return };
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 0);
    let [activate] = server.mounts()[..] else { panic!("{:?}", server.mounts()) };
    guest.succeeds(activate);
    guest.succeeds("mount -o ro /dev/data/root /mnt");
    assert_lists(&mut guest, "/mnt", &expected);
    server.detach(&mut guest);
    assert_eq!(guest.succeeds("cat /sys/block/nbd0/size").trim(), "0");
    server.stop();
}

#[test]
fn volume_group_gets_another_name_where_writes_are_forgotten() {
    let Some((scene, expected, mut guest)) = scene_with_volume() else { return };
    let server = Server::start(&scene, &["--writable"]);
    server.attach(&mut guest, 0);
    guest.succeeds("vgimportclone --devices /dev/nbd0 -n restored /dev/nbd0");
    guest.succeeds("vgchange -ay --devices /dev/nbd0 restored");
    guest.succeeds("mount -o rw /dev/restored/root /mnt");
    assert_lists(&mut guest, "/mnt", &expected);
    server.detach(&mut guest);
    server.stop();
    // With the option that older versions know.
    let server = Server::start(&scene, &[]);
    server.attach(&mut guest, 0);
    let filter = "--config 'devices { filter = [ \"a|/dev/nbd0|\", \"r|.*|\" ] }'";
    guest.succeeds(&format!("vgchange -ay {filter} && test -b /dev/data/root"));
    guest.succeeds(&format!("vgchange -an {filter}"));
    server.detach_device(&mut guest);
    server.stop();
}
