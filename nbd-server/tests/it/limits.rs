//! What clients may not do to a server and to each other: `docs/nbd.md`, section "Limits". No time is measured: a test that
//! waits for what does not come is ended by the limit for all tests.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nbd_server::Limits;
use nbd_server::proto::{Headers, NBD_CMD_READ, NBD_CMD_WRITE, NBD_OPT_LIST, RequestHeader};

use crate::memory::{Call, Memory};
use crate::scene::{Client, Scene, disks, wait_until};
use crate::wire;

const MIB: u64 = 1 << 20;
const SHORT: Duration = Duration::from_millis(300);

/// Lets calls pass when it is opened.
#[derive(Debug, Default)]
struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
    waiting_count: AtomicUsize,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.waiting_count.fetch_add(1, Ordering::SeqCst);
        let mut is_open = self.is_open.lock().unwrap();
        while !*is_open {
            is_open = self.changed.wait(is_open).unwrap();
        }
    }

    /// Makes reads from the second half of the export wait.
    fn hold(gate: &Arc<Self>, disk: &mut Memory) {
        let gate = Arc::clone(gate);
        disk.before = Box::new(move |call, offset, _| {
            if call == Call::Read && MIB / 2 <= offset {
                gate.pass();
            }
            Ok(())
        });
    }
}

fn limits() -> Limits {
    Limits { worker_count: 4, ..Limits::default() }
}

#[test]
fn a_handshake_of_dripping_bytes_ends_at_its_deadline() {
    let scene = Scene::new(disks(|_| {}), Limits { handshake_timeout: SHORT, ..limits() });
    let mut sockets: Vec<_> = (0..3).map(|_| scene.socket()).collect();
    // One says nothing; one drips an option; one drips options that are complete.
    let option = wire::option(99, &[0; 60_000]);
    let options = wire::option(99, &[]).repeat(1000);
    let drips =
        [vec![], [&[0, 0, 0, 3], &option[..]].concat(), [&[0, 0, 0, 3], &options[..]].concat()];
    for (socket, bytes) in sockets.iter_mut().zip(&drips) {
        for byte in bytes {
            thread::sleep(Duration::from_millis(10));
            if socket.write_all(&[*byte]).is_err() {
                break;
            }
        }
    }
    for socket in sockets {
        Client::after_greeting(socket).assert_closed();
    }
    scene.assert_works();
    let events = scene.stop();
    let timeouts = events.iter().filter(|line| line.contains("timed out")).count();
    assert_eq!(timeouts, 3, "{events:?}");
}

#[test]
fn a_client_in_transmission_may_be_idle() {
    let scene = Scene::new(
        disks(|_| {}),
        Limits { handshake_timeout: SHORT, write_timeout: SHORT, ..limits() },
    );
    let mut client = scene.transmit(Headers::Simple);
    // Half a request, and a pause: nothing is held for this client, so it may.
    let header = RequestHeader { flags: 0, command: NBD_CMD_READ, cookie: 1, offset: 0, len: 16 };
    let bytes = header.encode(Headers::Simple).unwrap();
    thread::sleep(2 * SHORT);
    client.stream.write_all(&bytes[..9]).unwrap();
    thread::sleep(2 * SHORT);
    client.stream.write_all(&bytes[9..]).unwrap();
    let mut answer = [0; 32];
    client.stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..8], [0; 4]);
    drop(client);
    scene.stop();
}

#[test]
fn too_many_connections_are_closed_at_once_and_make_no_mess() {
    let scene = Scene::new(disks(|_| {}), Limits { connection_count_max: 3, ..limits() });
    let mut clients: Vec<_> = (0..3).map(|_| scene.transmit(Headers::Simple)).collect();
    for _ in 0..10 {
        Client::after_greeting(scene.socket()).assert_closed();
    }
    for client in &mut clients {
        assert_eq!(client.ask(NBD_CMD_READ, 0, 0, 4, &[]).unwrap().error, 0);
    }
    clients.pop();
    scene.wait_for("disconnected");
    wait_until(|| Client::greet(scene.socket()).is_ok());
    clients.pop();
    wait_until(|| {
        Client::greet(scene.socket()).is_ok_and(|mut one| one.begin(Headers::Simple).is_ok())
    });
    drop(clients);
    let events = scene.stop();
    assert!(events.contains(&"refused too many connections".to_owned()));
}

#[test]
fn a_storm_of_options_ends_the_connection() {
    let scene = Scene::new(disks(|_| {}), limits());
    let mut client = scene.client();
    // It may be closed before everything is sent.
    let _may_be_closed = client.stream.write_all(&wire::option(99, &[7; 1000]).repeat(5000));
    client.assert_closed();
    scene.assert_works();
    scene.stop();
}

#[test]
fn a_list_of_more_than_10000_exports_is_refused() {
    let mut exports = disks(|_| {});
    exports.listed = (0..10_000).map(|number| format!("disk{number}")).collect();
    let scene = Scene::new(exports, limits());
    let mut client = scene.client();
    assert_eq!(client.last_reply(NBD_OPT_LIST, &[]).unwrap(), (1 << 31) + 9);
    client.begin(Headers::Extended).unwrap();
    drop(client);
    scene.stop();
}

#[test]
fn a_payload_of_more_than_64_mib_is_not_read() {
    for is_writable in [false, true] {
        let scene = Scene::new(disks(|disk| disk.is_writable = is_writable), limits());
        let mut client = scene.transmit(Headers::Structured);
        client.send(NBD_CMD_WRITE, 0, 0, 64 * MIB + 1, &[]).unwrap();
        client.assert_closed();
        let mut client = scene.transmit(Headers::Structured);
        let payload = vec![1; 64 << 20];
        let answer = client.ask(NBD_CMD_WRITE, 0, 0, 64 * MIB, &payload).unwrap();
        assert_eq!(answer.error, if is_writable { 28 } else { 1 });
        assert_eq!(client.ask(NBD_CMD_READ, 0, 0, 4, &[]).unwrap().error, 0);
        drop(client);
        scene.stop();
    }
}

#[test]
fn a_client_that_takes_nothing_is_bounded_and_others_are_served() {
    let scene = Scene::new(
        disks(|_| {}),
        Limits { connection_len_max: 4 << 20, server_len_max: 8 << 20, ..limits() },
    );
    let mut greedy = scene.transmit(Headers::Simple);
    // So many fit into the socket, even if the server reads none of them.
    for turn in 0..200 {
        greedy.send(NBD_CMD_READ, 0, turn % 2, MIB / 2, &[]).unwrap();
    }
    let read_count = || scene.disks.disks[0].1.calls.lock().unwrap().len();
    let mut other = scene.transmit(Headers::Structured);
    for _ in 0..100 {
        assert_eq!(other.ask(NBD_CMD_READ, 0, 0, 4, &[]).unwrap().error, 0);
    }
    // 4 MiB for the connection, and what the kernel holds: two buffers of up to 4 MiB.
    assert!(read_count() - 100 < 40, "{}", read_count());
    for _ in 0..200 {
        assert_eq!(greedy.answer().unwrap().error, 0);
    }
    drop((greedy, other));
    scene.stop();
}

#[test]
fn a_client_that_does_not_take_its_replies_is_disconnected() {
    let scene = Scene::new(disks(|_| {}), Limits { write_timeout: SHORT, ..limits() });
    let mut greedy = scene.transmit(Headers::Simple);
    for _ in 0..100 {
        greedy.send(NBD_CMD_READ, 0, 0, MIB, &[]).unwrap();
    }
    scene.wait_for("disconnected timed out");
    scene.assert_works();
    greedy.assert_closed();
    scene.stop();
}

#[test]
fn clients_that_hold_all_memory_make_room_for_who_waits() {
    let limits = Limits {
        connection_len_max: 4 << 20,
        server_len_max: 8 << 20,
        write_timeout: Duration::from_secs(3600),
        contended_timeout: SHORT,
        ..limits()
    };
    let scene = Scene::new(disks(|_| {}), limits);
    let greedy: Vec<_> = (0..4)
        .map(|_| {
            let mut client = scene.transmit(Headers::Simple);
            for _ in 0..100 {
                client.send(NBD_CMD_READ, 0, 0, MIB, &[]).unwrap();
            }
            client
        })
        .collect();
    let mut other = scene.transmit(Headers::Simple);
    for _ in 0..10 {
        assert_eq!(other.ask(NBD_CMD_READ, 0, 0, MIB, &[]).unwrap().error, 0);
    }
    scene.wait_for("disconnected timed out");
    drop((greedy, other));
    scene.stop();
}

#[test]
fn a_client_that_takes_replies_byte_by_byte_is_disconnected() {
    let scene = Scene::new(disks(|_| {}), Limits { write_timeout: SHORT, ..limits() });
    let mut slow = scene.transmit(Headers::Simple);
    for _ in 0..100 {
        slow.send(NBD_CMD_READ, 0, 0, MIB, &[]).unwrap();
    }
    let mut byte = [0];
    while slow.stream.read(&mut byte).is_ok_and(|len| len == 1) {
        thread::sleep(Duration::from_millis(1));
        if scene.events_contain("disconnected") {
            break;
        }
    }
    scene.wait_for("disconnected timed out");
    scene.stop();
}

#[test]
fn a_client_that_does_not_send_its_payload_is_disconnected() {
    let change = |disk: &mut Memory| disk.is_writable = true;
    // In silence, and byte by byte; a payload that is wanted, and one that is not.
    for (drips, len) in [(false, MIB), (true, MIB), (false, 60 * MIB), (true, 60 * MIB)] {
        let scene = Scene::new(disks(change), Limits { write_timeout: SHORT, ..limits() });
        let mut client = scene.transmit(Headers::Simple);
        client.send(NBD_CMD_WRITE, 0, 0, len, b"begin").unwrap();
        while drips && client.stream.write_all(&[7]).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        scene.wait_for("disconnected timed out");
        client.assert_closed();
        assert!(scene.disks.disks[0].1.calls.lock().unwrap().is_empty(), "nothing is written");
        scene.assert_works();
        scene.stop();
    }
}

#[test]
fn stopping_ends_handshakes_that_are_half_done() {
    let scene = Scene::new(disks(|_| {}), limits());
    let silent = scene.socket();
    let greeted = scene.client();
    let mut half = scene.client();
    half.stream.write_all(&wire::option(99, &[0; 100])[..20]).unwrap();
    let mut agreed = scene.client();
    assert_eq!(agreed.last_reply(8, &[]).unwrap(), 1);
    let events = scene.stop();
    assert_eq!(events.iter().filter(|line| line.starts_with("disconnected")).count(), 4);
    for client in [Client::after_greeting(silent), greeted, half, agreed] {
        client.assert_closed();
    }
}

#[test]
fn stopping_finishes_what_has_begun() {
    let gate = Arc::new(Gate::default());
    let scene = Scene::new(disks(|disk| Gate::hold(&gate, disk)), limits());
    let mut client = scene.transmit(Headers::Structured);
    let idle = scene.transmit(Headers::Structured);
    client.send(NBD_CMD_READ, 0, MIB / 2, 512, &[]).unwrap();
    wait_until(|| gate.waiting_count.load(Ordering::SeqCst) == 1);
    let stop = scene.stop_handle();
    stop.stop();
    stop.stop();
    idle.assert_closed();
    gate.open();
    let answer = client.answer().unwrap();
    assert_eq!((answer.error, answer.data.len()), (0, 512));
    client.assert_closed();
    scene.stop();
}

#[test]
fn a_request_that_hangs_does_not_keep_a_server_from_ending() {
    let gate = Arc::new(Gate::default());
    let limits = Limits { drain_timeout: SHORT, ..limits() };
    let scene = Scene::new(disks(|disk| Gate::hold(&gate, disk)), limits);
    let mut client = scene.transmit(Headers::Structured);
    client.send_reads(100, MIB / 2, 512).unwrap();
    wait_until(|| gate.waiting_count.load(Ordering::SeqCst) == 4);
    scene.stop();
    client.assert_closed();
    gate.open();
}

#[test]
fn requests_that_hang_hold_up_their_workers_and_no_connection() {
    let gate = Arc::new(Gate::default());
    let scene = Scene::new(disks(|disk| Gate::hold(&gate, disk)), limits());
    let mut client = scene.transmit(Headers::Structured);
    client.send_reads(3, MIB / 2, 512).unwrap();
    wait_until(|| gate.waiting_count.load(Ordering::SeqCst) == 3);
    scene.assert_works();
    let first = client.send(NBD_CMD_READ, 0, 0, 512, &[]).unwrap();
    assert_eq!(client.answer().unwrap().cookie, first, "the last one overtakes");
    gate.open();
    for _ in 0..3 {
        assert_eq!(client.answer().unwrap().error, 0);
    }
    drop(client);
    scene.stop();
}
