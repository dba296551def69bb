//! What clients get is the image: each of them is compared with the file that was backed up.

use super::server::{Server, client, nbdsh, run_client};
use crate::scene::{IMAGE, IMAGE_LEN, Scene, rewrite};

/// Where the zeros of a scene's image are, in whole pages.
const ZEROS: std::ops::Range<usize> = IMAGE_LEN / 3..IMAGE_LEN / 2;

#[test]
fn nbdinfo_tells_size_flags_and_contexts() {
    let (scene, _) = Scene::with_backups(2);
    let server = Server::start(&scene, &[]);
    let arguments = ["--json", &server.uri("")];
    let Some(text) = client(&scene.path("."), "nbdinfo", arguments) else { return };
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], IMAGE_LEN);
    assert_eq!(info["structured"], true);
    for (flag, value) in [
        ("is_read_only", true),
        ("can_cache", true),
        ("can_df", true),
        ("can_multi_conn", true),
        ("can_flush", false),
        ("can_trim", false),
        ("can_zero", false),
    ] {
        assert_eq!(export[flag], value, "{flag}");
    }
    let ids = scene.ids();
    assert_eq!(export["contexts"][0], "base:allocation");
    assert_eq!(export["contexts"][1], format!("qemu:dirty-bitmap:{}", ids[0]));
    assert_eq!(export["export-name"], ids[1].as_str());
}

#[test]
fn nbdinfo_maps_zeros_and_what_has_changed() {
    let scene = Scene::new();
    let mut image = vec![0; 8 << 20];
    image[1 << 20..2 << 20].copy_from_slice(&crate::scene::random_bytes(1 << 20, 1));
    scene.write(IMAGE, &image);
    scene.succeeds(["backup", "--source", &format!("file:{IMAGE}")]);
    image[5 << 20..6 << 20].copy_from_slice(&crate::scene::random_bytes(1 << 20, 2));
    scene.write(IMAGE, &image);
    scene.succeeds(["backup"]);
    let server = Server::start(&scene, &[]);
    let uri = server.uri("");
    let Some(map) = client(&scene.path("."), "nbdinfo", ["--json", "--map", &uri]) else { return };
    assert_eq!(covered(&map, |kind| kind & 3 == 0), [(1 << 20, 2 << 20), (5 << 20, 6 << 20)]);
    let arguments = ["--json", "--map=qemu:dirty-bitmap:1", &uri];
    let map = client(&scene.path("."), "nbdinfo", arguments).unwrap();
    assert_eq!(covered(&map, |kind| kind == 1), [(5 << 20, 6 << 20)]);
}

/// Returns the ranges of a map of `nbdinfo` whose type is wanted. The map covers the image without gaps.
fn covered(map: &str, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
    let map: serde_json::Value = serde_json::from_str(map).expect("a map is a JSON document");
    let (mut end, mut ranges) = (0, Vec::<(u64, u64)>::new());
    for extent in map.as_array().expect("a map is a list") {
        let [offset, len, kind] = ["offset", "length", "type"]
            .map(|key| extent[key].as_u64().expect("an extent has numbers"));
        assert_eq!(offset, end);
        end = offset + len;
        match ranges.last_mut() {
            _ if !is_wanted(kind) => {}
            Some(last) if last.1 == offset => last.1 = end,
            _ => ranges.push((offset, end)),
        }
    }
    ranges
}

#[test]
fn nbdcopy_with_several_connections_gets_every_byte() {
    let (scene, image) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let arguments = ["--connections=4", "--requests=64", &server.uri(""), "copy.img"];
    let Some(_) = client(&scene.path("."), "nbdcopy", arguments) else { return };
    assert!(scene.read("copy.img") == image);
    // Without block status and structured replies, it reads everything, over TCP.
    let server = Server::start(&scene, &["-H", "127.0.0.1", "-p", "0"]);
    let script = "h.set_request_structured_replies(False); h.connect_uri(uri)
data = b''.join(bytes(h.pread(min(1 << 20, h.get_size() - at), at)) for at in range(0, h.get_size(), 1 << 20))
open('plain.img', 'wb').write(data)";
    nbdsh(&scene.path("."), &server.uri(""), script).unwrap();
    assert!(scene.read("plain.img") == image);
}

#[test]
fn qemu_img_sees_compares_maps_and_converts() {
    let (scene, image) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let (uri, here) = (server.uri(""), scene.path("."));
    let Some(info) = client(&here, "qemu-img", ["info", "--output=json", &uri]) else { return };
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    // It counts in sectors.
    assert_eq!(info["virtual-size"].as_u64().unwrap(), (IMAGE_LEN as u64).next_multiple_of(512));
    client(&here, "qemu-img", ["compare", "-f", "raw", "-F", "raw", IMAGE, &uri]).unwrap();
    let map = client(&here, "qemu-img", ["map", "--output=json", &uri]).unwrap();
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let is_hole = |extent: &serde_json::Value| extent["zero"] == true && extent["data"] == false;
    let hole = map.as_array().unwrap().iter().find(|extent| is_hole(extent)).unwrap();
    let [start, len] = ["start", "length"].map(|key| hole[key].as_u64().unwrap());
    let start = usize::try_from(start).unwrap();
    let end = start + usize::try_from(len).unwrap();
    assert!(ZEROS.start <= start && end <= ZEROS.end && ZEROS.len() / 2 < end - start);
    client(&here, "qemu-img", ["convert", "-W", "-m", "16", "-O", "raw", &uri, "out.img"]).unwrap();
    assert!(scene.read("out.img")[..IMAGE_LEN] == image);
}

#[test]
fn qemu_agrees_on_extended_headers() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let arguments = ["-r", "-f", "raw", "--trace", "nbd_*", "-c", "read 0 64k", &server.uri("")];
    let Some(output) = run_client(&scene.path("."), "qemu-io", arguments) else { return };
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    if !output.stderr.contains("extended headers") {
        let reason = "not possible here: this qemu does not ask for them, or does not say so";
        crate::system::machine::skip("extended headers", reason);
        return;
    }
    let is_agreed = |line: &str| line.contains("(extended headers), type 1 (ack)");
    assert!(output.stderr.lines().any(is_agreed), "{}", output.stderr);
}

#[test]
fn qemu_and_fio_read_with_many_requests_under_way() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let here = scene.path(".");
    let uri = server.uri("");
    let reads = ["read -P 0 1100k 64k", "aio_read 0 64k", "aio_read 1M 1M", "aio_flush"];
    let words = reads.iter().flat_map(|read| ["-c", read]);
    let words = ["-r", "-f", "raw"].into_iter().chain(words).chain([uri.as_str()]);
    let Some(text) = client(&here, "qemu-io", words) else { return };
    assert!(!text.contains("failed"), "{text}");
    let uri = format!("--uri={}", server.uri(""));
    let fio = ["--name=x", "--ioengine=nbd", &uri, "--rw=randread", "--bs=4k", "--iodepth=16"];
    let bounds = ["--size=3m", "--loops=3", "--output-format=json"];
    let Some(engines) = client(&here, "fio", ["--enghelp"]) else { return };
    if !engines.contains("nbd") {
        crate::system::machine::skip("fio", "not possible here: it was built without libnbd");
        return;
    }
    let text = client(&here, "fio", fio.into_iter().chain(bounds)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    assert_eq!(report["jobs"][0]["error"], 0);
    assert!(2000 < report["jobs"][0]["read"]["total_ios"].as_u64().unwrap());
}

#[test]
fn requests_that_make_no_sense_are_errors_and_the_connection_goes_on() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let script = "
h.add_meta_context('base:allocation')
h.set_strict_mode(0)
h.connect_uri(uri)
size = h.get_size()
def fails(number, run):
    try:
        run()
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, number)
    else:
        raise AssertionError('it did not fail')
fails(errno.EINVAL, lambda: h.pread(1, size))
fails(errno.EINVAL, lambda: h.pread(2, size - 1))
fails(errno.EINVAL, lambda: h.pread(512, (1 << 63) - 512))
fails(errno.EPERM, lambda: h.pwrite(b'x' * 512, 0))
fails(errno.EPERM, lambda: h.zero(512, 0))
fails(errno.EPERM, lambda: h.trim(512, 0))
fails(errno.EINVAL, lambda: h.flush())
fails(errno.EINVAL, lambda: h.cache(512, size))
fails(errno.EINVAL, lambda: h.block_status(512, size, lambda *a: 0))
fails(errno.EINVAL, lambda: h.pread(0, 0))
assert len(h.pread(512, 0)) == 512
h.cache(4096, 0)
found = []
h.block_status(size, 0, lambda name, offset, entries, error: found.extend(entries) or 0, nbd.CMD_FLAG_REQ_ONE)
assert len(found) == 2, found
assert len(h.pread_structured(1 << 20, 0, lambda *a: 0, nbd.CMD_FLAG_DF)) == 1 << 20
h.shutdown()
";
    nbdsh(&scene.path("."), &server.uri(""), script);
}

#[test]
fn damage_is_an_error_of_that_read_only_and_told_once() {
    let (scene, image) = Scene::with_backup();
    rewrite(&scene.largest_pack(), |bytes| bytes[100_000] ^= 1);
    let server = Server::start(&scene, &[]);
    let script = "
h.connect_uri(uri)
size, step = h.get_size(), 4096
image = open('disk.img', 'rb').read()
failed = []
for turn in range(2):
    for at in range(0, size, step):
        length = min(step, size - at)
        try:
            data = h.pread(length, at)
        except nbd.Error as error:
            assert error.errnum == errno.EIO, error
            failed.append(at)
        else:
            assert data == image[at:at + length], at
assert failed and len(failed) <= 2 * 256, failed
where = []
def chunk(data, offset, status, error):
    if status == nbd.READ_ERROR: where.append(offset)
    return 0
try:
    h.pread_structured(size, 0, chunk)
except nbd.Error as error:
    assert error.errnum == errno.EIO
assert where and where[0] // step * step == failed[0], (where, failed[0])
print(len(failed))
";
    let is_there = nbdsh(&scene.path("."), &server.uri(""), script).is_some();
    let stderr = server.stop();
    if !is_there {
        return;
    }
    let told: Vec<_> = stderr.lines().filter(|line| line.contains("cannot serve byte")).collect();
    assert_eq!(told.len(), 1, "{stderr}");
    for word in ["revision ", "chunk ", "pack "] {
        assert!(told[0].contains(word), "{word}: {}", told[0]);
    }
    // What can be had is still there, and status tells of the rest.
    assert_eq!(scene.read(IMAGE), image);
    let listed = scene.succeeds(["--json", "status"]).json();
    assert_eq!(listed[0]["trust"], "damaged");
}

#[test]
fn a_client_reads_on_while_its_revision_is_forgotten_and_purged() {
    let (scene, images) = Scene::with_backups(2);
    let server = Server::start(&scene, &["-r", "0"]);
    let script = format!(
        "
import subprocess
h.connect_uri(uri)
first = h.pread(4096, 0)
backy = lambda *words: subprocess.run([{:?}, '-q', '-b', 'vm1', *words], check=True)
backy('forget', '-r', '1')
backy('purge', '--now')
image = open('first.img', 'rb').read()
assert first == image[:4096]
size = h.get_size()
for at in range(0, size, 65536):
    assert h.pread(min(65536, size - at), at) == image[at:at + 65536], at
g = nbd.NBD()
try:
    g.connect_uri(uri)
except nbd.Error as error:
    print('refused')
",
        env!("CARGO_BIN_EXE_backy")
    );
    scene.write("first.img", &images[0]);
    let uri = server.uri("1");
    let Some(text) = nbdsh(&scene.path("."), &uri, &script) else { return };
    assert!(text.ends_with("refused\n"), "{text}");
    server.stop();
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["verify", "-r", "all", "--all-data"]);
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let script = "
import os, socket
h.connect_uri(uri)
before = len(os.listdir('/proc/self/fd'))
for turn in range(50):
    g = nbd.NBD()
    g.connect_uri(uri)
    for at in range(0, 64):
        g.aio_pread(nbd.Buffer(65536), at * 4096)
    del g
h.pread(512, 0)
";
    if nbdsh(&scene.path("."), &server.uri(""), script).is_none() {
        return;
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let idle = Server::start(&scene, &["--socket", "other"]).descriptor_count();
    // Readers keep files of packs open for the next one, a few.
    while idle + 16 < server.descriptor_count() {
        assert!(std::time::Instant::now() < deadline, "{} descriptors", server.descriptor_count());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    server.stop();
}

#[test]
fn a_request_to_stop_lets_clients_finish_and_refuses_new_ones() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let script = "
import os, signal, time
h.connect_uri(uri)
h.pread(512, 0)
print(os.getpid(), flush=True)
try:
    for turn in range(3000):
        h.pread(512, 0)
        time.sleep(0.01)
except nbd.Error as error:
    print('ended')
";
    let uri = server.uri("");
    let directory = scene.path(".");
    let reader = std::thread::spawn({
        let (uri, directory) = (uri.clone(), directory.clone());
        move || nbdsh(&directory, &uri, script)
    });
    std::thread::sleep(std::time::Duration::from_millis(700));
    server.stop();
    let Some(text) = reader.join().unwrap() else { return };
    assert!(text.ends_with("ended\n"), "{text}");
    let late = run_client(&directory, "nbdinfo", ["--size", &uri]).unwrap();
    assert_ne!(late.code, Some(0));
    assert!(!scene.path("s").exists());
}
