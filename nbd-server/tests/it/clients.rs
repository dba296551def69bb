//! Clients that others wrote. Those that read a store are tests of `backy`; here it is the server alone.

use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use nbd::client::{NbdClient, handshake};
use nbd_server::Limits;

use crate::scene::{Scene, disks};

/// The crate `nbd` knows the old way only: `NBD_OPT_EXPORT_NAME` with padding, simple replies.
#[test]
fn the_crate_nbd_reads_and_writes() {
    let scene = Scene::new(disks(|disk| disk.is_writable = true), Limits::default());
    let mut socket = scene.socket();
    let export = handshake(&mut socket, b"disk").unwrap();
    assert_eq!((export.size, export.readonly, export.send_flush), (1 << 20, false, true));
    let mut client = NbdClient::new(&mut socket, &export);
    for turn in 0..50_u64 {
        let place = turn * 19_997;
        let written: Vec<u8> = (0..5000_u64).map(|at| (at * turn % 251) as u8).collect();
        client.seek(SeekFrom::Start(place)).unwrap();
        client.write_all(&written).unwrap();
        client.seek(SeekFrom::Start(place)).unwrap();
        let mut read = vec![0; written.len()];
        client.read_exact(&mut read).unwrap();
        assert_eq!(read, written);
        let place = usize::try_from(place).unwrap();
        assert_eq!(scene.disks.disks[0].1.lock()[place..place + 5000], written);
    }
    client.seek(SeekFrom::Start(0)).unwrap();
    let mut whole = Vec::new();
    client.take(1 << 20).read_to_end(&mut whole).unwrap();
    assert!(whole == *scene.disks.disks[0].1.lock());
    assert!(handshake(scene.socket(), b"none").is_err());
    drop(socket);
    scene.stop();
}

/// Runs a program; `None`, and a line that says so, if it is not there.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        println!("SKIPPED nbd-clients: {program} is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    Some(text)
}

#[test]
fn libnbd_and_qemu_read_and_write() {
    let scene = Scene::new(
        disks(|disk| {
            disk.is_writable = true;
            disk.lock()[64 << 10..512 << 10].fill(0);
        }),
        Limits::default(),
    );
    let disk = &scene.disks.disks[0].1;
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    let (uri, copy) =
        (format!("nbd+unix:///disk?socket={}", scene.path().display()), copy.to_str().unwrap());
    if let Some(text) = run("nbdinfo", &["--map", &uri]) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let expected = "0 65536 0 data 65536 458752 3 hole,zero 524288 524288 0 data";
        assert_eq!(words.join(" "), expected);
        run("nbdcopy", &[&uri, copy]);
        assert!(std::fs::read(copy).unwrap() == *disk.lock());
        let bytes: Vec<u8> = (0..1_u32 << 18).flat_map(|at| (at * 5).to_be_bytes()).collect();
        std::fs::write(copy, &bytes).unwrap();
        run("nbdcopy", &["--flush", copy, &uri]);
        assert!(bytes == *disk.lock());
    }
    let commands = [
        "write -P 5 512 1024",
        "write -f -P 6 8k 4k",
        "write -z 16k 4k",
        "discard 32k 4k",
        "flush",
        "read -P 5 512 1024",
        "read -P 0 16k 4k",
    ];
    let mut arguments = vec!["-f", "raw", &uri];
    arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
    if let Some(text) = run("qemu-io", &arguments) {
        assert!(!text.contains("failed"), "{text}");
        assert_eq!(disk.lock()[8192..12288], [6; 4096]);
        std::fs::remove_file(copy).ok();
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, copy]);
        assert!(std::fs::read(copy).unwrap() == *disk.lock());
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, copy]);
    }
    scene.stop();
}
