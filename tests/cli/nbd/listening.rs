//! Where the server listens, who may connect, and what it prints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use super::server::{Server, client, nbdsh};
use crate::scene::{IMAGE_LEN, Scene};

#[test]
fn the_socket_is_private_and_goes_with_the_server() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &[]);
    let mode = fs::metadata(scene.path("s")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let output = scene.fails(11, ["nbd-server", "--socket", "s"]);
    assert!(output.stderr.contains("another server listens there"), "{}", output.stderr);
    server.stop();
    assert!(!scene.path("s").exists());
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced_and_a_file_is_not() {
    let (scene, _) = Scene::with_backup();
    drop(UnixListener::bind(scene.path("s")).unwrap());
    Server::start(&scene, &[]).stop();
    scene.write("s", "precious");
    let output = scene.fails(9, ["nbd-server", "--socket", "s"]);
    assert!(output.stderr.contains("not a socket"), "{}", output.stderr);
    assert_eq!(scene.read("s"), b"precious");
}

#[test]
fn addresses_that_others_reach_need_tls_or_the_word() {
    let (scene, _) = Scene::with_backup();
    for host in ["0.0.0.0", "::"] {
        let output = scene.fails(9, ["nbd-server", "-H", host, "-p", "0"]);
        assert!(output.stderr.contains("hint: use --tls-certificate"), "{}", output.stderr);
    }
    scene.fails(2, ["nbd-server", "-H", "no.such.host.invalid", "-p", "1"]);
    scene.fails(2, ["nbd-server", "-p", "70000"]);
    scene.fails(2, ["nbd-server", "--socket", "s", "-p", "1"]);
    scene.fails(2, ["nbd-server", "--writable", "--overlay", "o"]);
    scene.fails(2, ["nbd-server", "--tls-key", "k"]);
    scene.fails(2, ["nbd-server", "--cache", "1"]);
}

#[test]
fn tcp_listens_on_loopback_and_two_servers_do_not_share_a_port() {
    let (scene, _) = Scene::with_backup();
    let server = Server::start(&scene, &["-p", "0"]);
    let uri = server.report["uris"][0].as_str().unwrap().to_owned();
    let address: std::net::SocketAddr = uri.strip_prefix("nbd://").unwrap().parse().unwrap();
    assert!(address.ip().is_loopback(), "{uri}");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    scene.fails(11, ["nbd-server", "-H", &host, "-p", &port]);
    if let Some(size) = client(&scene.path("."), "nbdinfo", ["--size", &uri]) {
        assert_eq!(size, format!("{IMAGE_LEN}\n"));
    }
}

#[test]
fn systemd_socket_activation_is_understood() {
    let (scene, image) = Scene::with_backup();
    let script = format!(
        "
import os
os.environ['BACKY_BACKUP_DIR'] = 'vm1'
h.connect_systemd_socket_activation([{:?}, '-q', 'nbd-server'])
data = h.pread(4096, 4096)
open('part', 'wb').write(data)
",
        env!("CARGO_BIN_EXE_backy")
    );
    if nbdsh(&scene.path("."), "", &script).is_some() {
        assert_eq!(scene.read("part"), image[4096..8192]);
    }
}

#[test]
fn tls_is_forced_and_asks_for_certificates() {
    let (scene, image) = Scene::with_backup();
    if !make_certificates(&scene) {
        return;
    }
    let words = ["-p", "0", "--tls-certificate", "pki/server-cert.pem"];
    let keys = ["--tls-key", "pki/server-key.pem", "--tls-client-ca", "pki/ca-cert.pem"];
    let server = Server::start(&scene, &words.into_iter().chain(keys).collect::<Vec<_>>());
    let uri = server.report["uris"][0].as_str().unwrap();
    assert!(uri.starts_with("nbds://"), "{uri}");
    let script = "
certificates = uri + '?tls-certificates=' + __import__('os').getcwd() + '/pki'
h.set_tls_verify_peer(False)
h.set_uri_allow_local_file(True)
h.connect_uri(certificates)
assert h.get_tls_negotiated()
image = b''.join(bytes(h.pread(min(1 << 20, h.get_size() - at), at)) for at in range(0, h.get_size(), 1 << 20))
open('copy.img', 'wb').write(image)
for plain in (uri.replace('nbds:', 'nbd:'), uri):
    g = nbd.NBD()
    g.set_tls_verify_peer(False)
    try:
        g.connect_uri(plain)
        g.pread(512, 0)
    except nbd.Error as error:
        pass
    else:
        raise AssertionError(plain)
";
    if nbdsh(&scene.path("."), uri, script).is_some() {
        assert!(scene.read("copy.img") == image);
    }
    server.stop();
    let output = scene.fails(
        2,
        ["nbd-server", "-p", "0", "--tls-certificate", "disk.img"].into_iter().chain(keys),
    );
    assert!(output.stderr.contains("server certificate"), "{}", output.stderr);
}

/// Makes an authority and certificates of a server and a client; says so if that cannot be done.
fn make_certificates(scene: &Scene) -> bool {
    fs::create_dir(scene.path("pki")).expect("a directory can be made");
    let template = "organization = backy\ncn = localhost\nexpiration_days = 2\nsigning_key\n";
    scene.write("pki/ca.cfg", format!("{template}ca\ncert_signing_key\n"));
    scene.write("pki/server.cfg", format!("{template}tls_www_server\ndns_name = localhost\n"));
    scene.write("pki/client.cfg", format!("{template}tls_www_client\n"));
    let here = scene.path("pki");
    let run = |words: &[&str]| client(&here, "certtool", words).is_some();
    for name in ["ca", "server", "client"] {
        let key = format!("{name}-key.pem");
        if !run(&["--generate-privkey", "--key-type=rsa", "--bits=2048", "--outfile", &key]) {
            return false;
        }
    }
    let ca = ["--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem"];
    run(&[
        "--generate-self-signed",
        "--load-privkey",
        "ca-key.pem",
        "--template",
        "ca.cfg",
        "--outfile",
        "ca-cert.pem",
    ]);
    for name in ["server", "client"] {
        let [key, template, out] =
            ["-key.pem", ".cfg", "-cert.pem"].map(|end| format!("{name}{end}"));
        let words = ["--generate-certificate", "--load-privkey", &key, "--template", &template];
        run(&[&words[..], &ca, &["--outfile", &out]].concat());
    }
    true
}

#[test]
fn what_is_printed_can_be_copied() {
    let (scene, _) = Scene::with_backup();
    let mut child = scene
        .command(["nbd-server", "--socket", "s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    while !text.contains("no root") {
        assert_ne!(std::io::BufRead::read_line(&mut lines, &mut text).unwrap(), 0, "{text}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let socket = scene.path("s");
    let socket = socket.display();
    for line in [
        format!("nbd-client -C 4 -unix {socket} /dev/nbd0"),
        format!("--read-only --format=raw 'nbd+unix:///?socket={socket}'"),
        format!("mkdir -p ~/nbd; nbdfuse -r ~/nbd/disk.img 'nbd+unix:///?socket={socket}'"),
        "umount /mnt; nbd-client -d /dev/nbd0".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
}
