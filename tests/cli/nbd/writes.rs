//! Writes go to overlays; the revision never changes.

use super::server::{Server, client, nbdsh};
use crate::scene::{IMAGE, IMAGE_LEN, Scene};

/// Writes, zeroes and trims; flushes; reads back; on several connections.
const CHANGE: &str = "
h.connect_uri(uri)
g = nbd.NBD()
g.connect_uri(uri)
assert not h.is_read_only() and h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_fast_zero() and h.can_multi_conn()
h.pwrite(b'A' * 5000, 1000)
g.pwrite(b'B' * 4096, 1 << 20, nbd.CMD_FLAG_FUA)
h.zero(100000, 300000)
h.zero(8192, 2 << 20, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
h.trim(65536, 3 * 65536)
h.flush()
assert g.pread(5000, 1000) == b'A' * 5000
assert h.pread(4096, 1 << 20) == b'B' * 4096
assert g.pread(100000, 300000) == bytes(100000)
try:
    h.set_strict_mode(0)
    h.pwrite(b'x' * 512, h.get_size())
    raise AssertionError('past the end')
except nbd.Error as error:
    assert error.errnum == errno.ENOSPC, error
h.shutdown()
";

/// Returns what the image is after [`CHANGE`].
fn changed(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    image[1000..6000].fill(b'A');
    image[1 << 20..][..4096].fill(b'B');
    image[300_000..400_000].fill(0);
    image[2 << 20..][..8192].fill(0);
    image[3 * 65536..][..65536].fill(0);
    image
}

#[test]
fn throwaway_writes_are_seen_by_all_clients_and_forgotten_at_the_end() {
    let (scene, image) = Scene::with_backup();
    let here = scene.path(".");
    let server = Server::start(&scene, &["--writable"]);
    if nbdsh(&here, &server.uri(""), CHANGE).is_none() {
        return;
    }
    client(&here, "nbdcopy", [server.uri("latest").as_str(), "copy.img"]).unwrap();
    assert!(scene.read("copy.img") == changed(&image));
    server.stop();
    let server = Server::start(&scene, &["--writable"]);
    client(&here, "nbdcopy", [server.uri("").as_str(), "copy.img"]).unwrap();
    assert!(scene.read("copy.img") == image);
}

#[test]
fn a_named_overlay_survives_restarts_and_becomes_a_revision() {
    let (scene, image) = Scene::with_backup();
    let here = scene.path(".");
    let server = Server::start(&scene, &["--overlay", "disk.overlay"]);
    if nbdsh(&here, &server.uri(""), CHANGE).is_none() {
        return;
    }
    // Revisions beside it are read-only.
    let id = &scene.ids()[0];
    client(&here, "nbdcopy", [server.uri(id).as_str(), "copy.img"]).unwrap();
    assert!(scene.read("copy.img") == image);
    // Nobody else can have it meanwhile.
    scene.fails(11, ["nbd-server", "--overlay", "disk.overlay", "--socket", "t"]);
    scene.fails(11, ["backup", "--from-overlay", "disk.overlay"]);
    server.stop();

    // A newer revision does not become its base.
    scene.write_image(IMAGE, IMAGE_LEN, 77);
    scene.succeeds(["backup"]);
    let server = Server::start(&scene, &["--overlay", "disk.overlay"]);
    assert_eq!(server.report["revision"], id.as_str());
    client(&here, "nbdcopy", [server.uri("").as_str(), "copy.img"]).unwrap();
    assert!(scene.read("copy.img") == changed(&image));
    let arguments = ["--json", "--map=qemu:dirty-bitmap:1", &server.uri("")];
    let map = client(&here, "nbdinfo", arguments).unwrap();
    assert!(map.contains("\"type\": 1"), "{map}");
    server.stop();
    scene.fails(9, ["nbd-server", "--overlay", "disk.overlay", "-r", "0", "--socket", "t"]);

    scene.succeeds(["backup", "--from-overlay", "disk.overlay"]);
    scene.succeeds(["restore", "-r", "0", "new.img"]);
    assert!(scene.read("new.img") == changed(&image));
    scene.succeeds(["restore", "-r", id, "old.img"]);
    assert!(scene.read("old.img") == image);
}

#[test]
fn after_a_kill_what_was_flushed_is_there() {
    let (scene, image) = Scene::with_backup();
    let here = scene.path(".");
    let server = Server::start(&scene, &["--overlay", "disk.overlay"]);
    if nbdsh(&here, &server.uri(""), CHANGE).is_none() {
        return;
    }
    server.signal(rustix::process::Signal::KILL);
    drop(server);
    let server = Server::start(&scene, &["--overlay", "disk.overlay"]);
    client(&here, "nbdcopy", [server.uri("").as_str(), "copy.img"]).unwrap();
    assert!(scene.read("copy.img") == changed(&image));
}

#[test]
fn qemu_writes_discards_and_reads_back() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &["--writable"]);
    let uri = server.uri("");
    let commands = [
        "write -P 0x5a 64k 128k",
        "discard 1M 64k",
        "write -z 2M 64k",
        "flush",
        "read -P 0x5a 64k 128k",
        "read -P 0 1M 64k",
        "read -P 0 2M 64k",
    ];
    let words = commands.iter().flat_map(|command| ["-c", command]);
    let words = ["-f", "raw", "-d", "unmap"].into_iter().chain(words).chain([uri.as_str()]);
    let Some(text) = client(&scene.path("."), "qemu-io", words) else { return };
    assert!(!text.contains("failed") && !text.contains("error"), "{text}");
}

#[test]
fn an_overlay_is_no_file_of_the_store_and_not_over_another_one() {
    let (scene, _) = Scene::with_backup();
    scene.fails(9, ["nbd-server", "--overlay", "vm1/store.json", "--socket", "s"]);
    scene.write("precious", "not an overlay");
    scene.fails(4, ["nbd-server", "--overlay", "precious", "--socket", "s"]);
    assert_eq!(scene.read("precious"), b"not an overlay");
    Server::start(&scene, &["--overlay", "o"]).stop();
    let (other, _) = Scene::with_backup();
    std::fs::copy(scene.path("o"), other.path("o")).unwrap();
    let output = other.run(["nbd-server", "--overlay", "o", "--socket", "s"]);
    assert!(output.stderr.contains("belongs to store"), "{}", output.stderr);
    assert_ne!(output.code, Some(0));
}
