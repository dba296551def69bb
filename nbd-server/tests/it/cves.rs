//! What went wrong in other servers, each tried on this one. Those about extents, refusals and addresses are unit tests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nbd_server::Limits;
use nbd_server::proto::{
    Headers, NBD_CMD_BLOCK_STATUS, NBD_CMD_READ, NBD_CMD_WRITE, NBD_OPT_EXPORT_NAME, NBD_OPT_GO,
    NBD_OPT_INFO, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK, RequestHeader,
};

use crate::scene::{Client, Scene, disks};
use crate::wire;

fn scene() -> Scene {
    Scene::new(disks(|disk| disk.is_writable = true), Limits::default())
}

const INVALID: u32 = (1 << 31) + 3;
const UNKNOWN: u32 = (1 << 31) + 6;
const TOO_BIG: u32 = (1 << 31) + 9;

/// CVE-2005-3534, CVE-2011-0530 (nbd-server): a request that was longer than a static buffer was written behind it.
#[test]
fn cve_2005_3534_and_2011_0530_long_requests_are_refused() {
    let scene = scene();
    let mut client = scene.transmit(Headers::Simple);
    for len in [(1 << 20) + 1, 1 << 24, (1 << 32) - 1] {
        assert_eq!(client.ask(NBD_CMD_READ, 0, 0, len, &[]).unwrap().error, 22);
    }
    let payload = vec![0x55; 33 << 20];
    assert_eq!(client.ask(NBD_CMD_WRITE, 0, 0, 33 << 20, &payload).unwrap().error, 28);
    assert_eq!(client.ask(NBD_CMD_READ, 0, 0, 4, &[]).unwrap().data, [0; 4]);
    client.send(NBD_CMD_WRITE, 0, 0, (1 << 32) - 1, &[]).unwrap();
    client.assert_closed();
    scene.stop();
}

/// CVE-2013-7441 (nbd-server): a client that left during the negotiation, or asked for an unknown export, ended the server.
#[test]
fn cve_2013_7441_leaving_early_ends_one_connection() {
    let scene = scene();
    let go = wire::option(NBD_OPT_GO, &wire::info(b"disk", &[]));
    let whole = [&[0, 0, 0, 3], &go[..]].concat();
    for len in 0..=whole.len() {
        let mut socket = scene.socket();
        socket.write_all(&whole[..len]).unwrap();
    }
    for name in ["none", "refused", "failed", ""] {
        let mut client = scene.client();
        let go = wire::info(name.as_bytes(), &[]);
        assert_eq!(client.last_reply(NBD_OPT_GO, &go).unwrap() == NBD_REP_ACK, name.is_empty());
    }
    let mut client = scene.client();
    client.stream.write_all(&wire::option(NBD_OPT_EXPORT_NAME, b"none")).unwrap();
    client.assert_closed();
    scene.assert_works();
    scene.stop();
}

/// CVE-2022-26495 (nbd-server): a name of 0xffffffff bytes, and one for its end, took a buffer of no bytes.
#[test]
fn cve_2022_26495_lengths_of_names_do_not_wrap() {
    let scene = scene();
    let mut client = scene.client();
    for option in [NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_LIST_META_CONTEXT] {
        for len in [u32::MAX, u32::MAX - 1, 1 << 31, 4097, 5] {
            let payload = [&len.to_be_bytes()[..], &[0; 6]].concat();
            assert_eq!(client.last_reply(option, &payload).unwrap(), INVALID, "{option} {len}");
        }
    }
    let mut client = scene.client();
    let header = wire::option(NBD_OPT_EXPORT_NAME, &[]);
    let longest = [&header[..12], &[0xff; 4]].concat();
    client.stream.write_all(&longest).unwrap();
    client.assert_closed();
    scene.stop();
}

/// CVE-2022-26496 (nbd-server): NBD_OPT_INFO with a length that does not fit its name was read into a small buffer.
#[test]
fn cve_2022_26496_information_requests_add_up() {
    let scene = scene();
    let mut client = scene.client();
    for payload in [
        [&[0, 0, 0, 4], &b"disk"[..], &[0, 9], &[0; 2000]].concat(),
        [&[0, 0, 0, 4], &b"disk"[..], &[0xff, 0xff], &[0; 2000]].concat(),
        [&[0, 0, 0, 4], &b"disk"[..], &[0, 0], &[0; 60_000]].concat(),
    ] {
        assert_eq!(client.last_reply(NBD_OPT_INFO, &payload).unwrap(), INVALID);
    }
    assert_eq!(client.last_reply(NBD_OPT_GO, &wire::info(b"disk", &[])).unwrap(), NBD_REP_ACK);
    scene.stop();
}

/// CVE-2017-7539 (qemu): bytes that nobody expected during the negotiation met an assertion.
#[test]
fn cve_2017_7539_unexpected_bytes_end_one_connection() {
    let scene = scene();
    for bytes in [&[0; 64][..], &[0xff; 64], b"GET / HTTP/1.1\r\n\r\n", b"NBDMAGICIHAVEOPT\0\0\0\0"]
    {
        let mut socket = scene.socket();
        socket.write_all(bytes).unwrap();
        Client::after_greeting(socket).assert_closed();
    }
    scene.assert_works();
    scene.stop();
}

/// CVE-2017-9524 (qemu): a client that talked before the server was ready ended it.
#[test]
fn cve_2017_9524_a_client_may_talk_first() {
    let scene = scene();
    let go = wire::option(NBD_OPT_GO, &wire::info(b"disk", &[]));
    let read = RequestHeader { flags: 0, command: NBD_CMD_READ, cookie: 7, offset: 4, len: 4 };
    let read = read.encode(Headers::Simple).unwrap();
    let mut socket = scene.socket();
    socket.write_all(&[&[0, 0, 0, 3], &go[..], &read].concat()).unwrap();
    let mut greeting = [0; 18];
    socket.read_exact(&mut greeting).unwrap();
    wire::read_option_replies(&mut socket, NBD_OPT_GO).unwrap();
    let mut answer = [0; 20];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
    drop(socket);
    scene.stop();
}

/// CVE-2017-15118 (qemu): names of up to 4096 bytes are allowed, and were copied into 256 bytes.
#[test]
fn cve_2017_15118_names_of_every_length_are_understood() {
    let scene = scene();
    let mut client = scene.client();
    for (len, expected) in [
        (255, UNKNOWN),
        (256, UNKNOWN),
        (257, UNKNOWN),
        (4095, UNKNOWN),
        (4096, UNKNOWN),
        (4097, INVALID),
        (60_000, INVALID),
    ] {
        let name = vec![b'n'; len];
        for option in [NBD_OPT_INFO, NBD_OPT_GO] {
            let reply = client.last_reply(option, &wire::info(&name, &[])).unwrap();
            assert_eq!(reply, expected, "{len}");
        }
        let reply = client.last_reply(NBD_OPT_LIST_META_CONTEXT, &wire::queries(&name, &[]));
        assert_eq!(reply.unwrap(), expected, "{len}");
    }
    scene.stop();
}

/// CVE-2017-15119 (qemu): a client could keep the server busy with options of 4 GiB each.
#[test]
fn cve_2017_15119_huge_options_are_not_read() {
    let scene = scene();
    for option in [3, 6, 9, 77, u32::MAX] {
        let mut client = scene.client();
        let header = wire::option(option, &[]);
        client.stream.write_all(&[&header[..12], &[0xff; 4]].concat()).unwrap();
        let replies = wire::read_option_replies(&mut client.stream, option).unwrap();
        assert_eq!(replies[0].0, TOO_BIG);
        client.assert_closed();
    }
    scene.stop();
}

/// CVE-2024-7409 (qemu): a client that held its connection open while the server stopped met freed memory; many that never
/// finished the handshake kept everybody else out.
#[test]
fn cve_2024_7409_stopping_with_clients_in_every_state() {
    for _ in 0..20 {
        let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
        let scene = Scene::new(disks(|_| {}), limits);
        let silent: Vec<UnixStream> = (0..10).map(|_| scene.socket()).collect();
        let half: Vec<_> = (0..10).map(|_| scene.client()).collect();
        let mut busy: Vec<_> = (0..10).map(|_| scene.transmit(Headers::Structured)).collect();
        for client in &mut busy {
            for _ in 0..10 {
                client.send(NBD_CMD_READ, 0, 0, 1 << 16, &[]).unwrap();
            }
        }
        let path = scene.path();
        let connecting = std::thread::spawn(move || while UnixStream::connect(&path).is_ok() {});
        scene.stop();
        connecting.join().unwrap();
        drop((silent, half, busy));
    }
}

/// CVE-2019-14850 (nbdkit): the back end was opened for every connection, before the client had asked for anything.
#[test]
fn cve_2019_14850_nothing_is_opened_before_it_is_asked_for() {
    let scene = scene();
    let mut client = scene.client();
    assert_eq!(client.last_reply(8, &[]).unwrap(), NBD_REP_ACK);
    assert_eq!(client.last_reply(3, &[]).unwrap(), NBD_REP_ACK);
    assert!(scene.disks.opened.lock().unwrap().is_empty());
    let go = wire::info(b"disk", &[]);
    assert_eq!(client.last_reply(NBD_OPT_INFO, &go).unwrap(), NBD_REP_ACK);
    assert_eq!(client.last_reply(NBD_OPT_GO, &go).unwrap(), NBD_REP_ACK);
    assert_eq!(*scene.disks.opened.lock().unwrap(), ["disk"]);
    assert!(scene.disks.disks[0].1.calls.lock().unwrap().is_empty(), "and nothing is read");
    scene.stop();
}

/// CVE-2019-14851 (nbdkit): options in an order that nobody had thought of met an assertion.
#[test]
fn cve_2019_14851_options_come_in_any_order() {
    let info = wire::info(b"disk", &[]);
    let queries = wire::queries(b"disk", &["base:allocation"]);
    let options: [(u32, &[u8]); 6] =
        [(3, &[]), (NBD_OPT_INFO, &info), (8, &[]), (9, &queries), (10, &queries), (11, &[])];
    let scene = scene();
    for first in options {
        for second in options {
            for third in options {
                let mut client = scene.client();
                for (option, payload) in [first, second, third] {
                    client.last_reply(option, payload).unwrap();
                }
                let go = wire::info(b"disk", &[]);
                assert_eq!(client.last_reply(NBD_OPT_GO, &go).unwrap(), NBD_REP_ACK);
            }
        }
    }
    let mut client = scene.transmit(Headers::Simple);
    assert_eq!(client.ask(NBD_CMD_BLOCK_STATUS, 0, 0, 512, &[]).unwrap().error, 22);
    drop(client);
    scene.stop();
}

/// nbdkit, commit 9d82aa4f (no CVE): reads in a row and then the end of the connection met an assertion, or wrote to a descriptor
/// that was somebody else's by then.
#[test]
fn nbdkit_9d82aa4f_replies_never_reach_somebody_else() {
    let scene = scene();
    for turn in 0..100_u64 {
        let mut leaving = scene.transmit(Headers::Simple);
        for at in 0..20 {
            leaving.send(NBD_CMD_READ, 0, at * 4096, 4096, &[]).unwrap();
        }
        drop(leaving);
        // Whoever comes next has the descriptor of the one before, and sees nothing but its own replies.
        let mut next = scene.transmit(Headers::Structured);
        let answer = next.ask(NBD_CMD_READ, 0, turn * 4, 4, &[]).unwrap();
        assert_eq!(answer.data, u32::try_from(turn).unwrap().to_be_bytes());
    }
    scene.stop();
}
