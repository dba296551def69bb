//! Where a server listens.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use nbd_server::proto::{Headers, NBD_CMD_READ};
use nbd_server::{Limits, Listener, Options, Server};

use crate::scene::{Client, Scene, disks};

#[test]
fn tcp_and_unix_sockets_are_served_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = tcp.tcp_address().unwrap();
    let given = UnixListener::bind(directory.path().join("given")).unwrap();
    let listeners = vec![tcp, Listener::unix(&path).unwrap(), Listener::from_unix(given)];
    let server = Server::start(listeners, Arc::new(disks(|_| {})), Options::default()).unwrap();
    let mut client = Client::greet(TcpStream::connect(address).unwrap()).unwrap();
    client.begin(Headers::Extended).unwrap();
    assert_eq!(client.ask(NBD_CMD_READ, 0, 4, 4, &[]).unwrap().data, [0, 0, 0, 1]);
    for name in ["socket", "given"] {
        let socket = std::os::unix::net::UnixStream::connect(directory.path().join(name)).unwrap();
        let mut client = Client::greet(socket).unwrap();
        client.begin(Headers::Simple).unwrap();
        assert_eq!(client.ask(NBD_CMD_READ, 0, 4, 4, &[]).unwrap().data, [0, 0, 0, 1]);
    }
    server.stop_handle().stop();
    server.wait();
    client.assert_closed();
    assert!(!path.exists(), "its own socket is removed");
    assert!(directory.path().join("given").exists(), "that of somebody else is not");
}

#[test]
fn a_unix_socket_is_private_and_replaces_only_a_dead_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // What a crash leaves behind: a socket without a server, and a directory.
    drop(UnixListener::bind(&path).unwrap());
    fs::create_dir(directory.path().join(format!(".nbd-{}-0", std::process::id()))).unwrap();
    let first = Listener::unix(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Listener::unix(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    // Somebody else's socket under the same name is left alone.
    fs::remove_file(&path).unwrap();
    let second = Listener::unix(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
    fs::write(&path, b"precious").unwrap();
    assert_eq!(Listener::unix(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_server_that_is_dropped_is_stopped() {
    let scene = Scene::new(disks(|_| {}), Limits::default());
    let path = scene.path();
    let client = scene.transmit(Headers::Simple);
    drop(scene.server);
    client.assert_closed();
    assert!(!path.exists());
}
