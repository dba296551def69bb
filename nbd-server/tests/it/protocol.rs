//! A session from the greeting to the end, in each form of messages.

use nbd_server::proto::{
    Headers, NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_DISC, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FUA,
    NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES,
};
use nbd_server::{ErrorCode, ExportError, Limits};

use crate::memory::Call;
use crate::scene::{Scene, disks};

const FORMS: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

#[test]
fn what_is_written_is_read() {
    for headers in FORMS {
        let scene = Scene::new(
            disks(|disk| {
                disk.is_writable = true;
                disk.can_cache = true;
            }),
            Limits::default(),
        );
        let mut client = scene.transmit(headers);
        let mut other = scene.transmit(headers);
        let mut ask = |command, flags, offset, len, payload: &[u8]| {
            let answer = client.ask(command, flags, offset, len, payload).unwrap();
            assert_eq!(answer.error, 0, "{command}");
            answer
        };
        ask(NBD_CMD_WRITE, 0, 3, 5, b"hello");
        ask(NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 8192, 5, b"again");
        ask(NBD_CMD_WRITE_ZEROES, 0, 4096, 4096, &[]);
        ask(NBD_CMD_TRIM, 0, 12288, 4096, &[]);
        ask(NBD_CMD_FLUSH, 0, 0, 0, &[]);
        ask(NBD_CMD_CACHE, 0, 0, 4096, &[]);
        let flags = if headers.are_structured() { NBD_CMD_FLAG_DF } else { 0 };
        for flags in [0, flags] {
            let data = ask(NBD_CMD_READ, flags, 0, 65536, &[]).data;
            assert_eq!(data, scene.disks.disks[0].1.lock()[..65536]);
            assert_eq!(other.ask(NBD_CMD_READ, flags, 0, 65536, &[]).unwrap().data, data);
            assert_eq!(data[3..8], *b"hello");
        }
        if headers.are_structured() {
            let status = ask(NBD_CMD_BLOCK_STATUS, 0, 0, 16384, &[]).status;
            assert_eq!(status, [(1, vec![(4096, 0), (4096, 3), (4096, 0), (4096, 3)])]);
        }
        let count = scene.disks.disks[0]
            .1
            .calls
            .lock()
            .unwrap()
            .iter()
            .filter(|call| call.0 == Call::Flush)
            .count();
        assert_eq!(count, 2, "one flush, one durable write");
        client.send(NBD_CMD_DISC, 0, 0, 0, &[]).unwrap();
        client.assert_closed();
        drop(other);
        let events = scene.stop();
        assert!(events.iter().all(|line| line == "connected disk" || line == "disconnected "));
    }
}

#[test]
fn requests_after_a_refused_one_are_understood() {
    for headers in FORMS {
        let scene = Scene::new(disks(|_| {}), Limits::default());
        let mut client = scene.transmit(headers);
        let payload = vec![7; 100_000];
        let refused = |answer: crate::wire::Answer| answer.error;
        assert_eq!(refused(client.ask(NBD_CMD_WRITE, 0, 0, 100_000, &payload).unwrap()), 1);
        assert_eq!(refused(client.ask(99, 0, 0, 512, &[]).unwrap()), 22);
        assert_eq!(refused(client.ask(NBD_CMD_READ, 0, 1 << 20, 1, &[]).unwrap()), 22);
        assert_eq!(refused(client.ask(NBD_CMD_READ, 0, u64::MAX, 1, &[]).unwrap()), 22);
        assert_eq!(client.ask(NBD_CMD_READ, 0, 4, 4, &[]).unwrap().data, [0, 0, 0, 1]);
        drop(client);
        scene.stop();
    }
}

#[test]
fn many_requests_at_once_are_answered_each() {
    for headers in FORMS {
        let scene = Scene::new(disks(|_| {}), Limits::default());
        let mut client = scene.transmit(headers);
        let mut places = std::collections::HashMap::new();
        for turn in 0..300_u64 {
            let place = turn * 37 % 1000 * 1024;
            let len = 512 + turn * 7;
            places.insert(client.send(NBD_CMD_READ, 0, place, len, &[]).unwrap(), (place, len));
        }
        for _ in 0..300 {
            let answer = client.answer().unwrap();
            let (place, len) = places.remove(&answer.cookie).unwrap();
            let place = usize::try_from(place).unwrap();
            let len = usize::try_from(len).unwrap();
            assert_eq!(answer.data, scene.disks.disks[0].1.lock()[place..place + len]);
        }
        drop(client);
        scene.stop();
    }
}

/// A fault in an export is an error of one request, and is told to the owner.
#[test]
fn a_request_that_panics_is_an_error_and_is_logged() {
    let change = |disk: &mut crate::memory::Memory| {
        disk.before = Box::new(|call, offset, _| match (call, offset) {
            (Call::Read, 512) => panic!("wanted by the test"),
            (Call::Read, 1024) => Err(ExportError::new(ErrorCode::Io, "damaged").at(1030)),
            _ => Ok(()),
        });
    };
    for is_at_hand in [false, true] {
        let scene = Scene::new(
            disks(|disk| {
                change(disk);
                disk.is_at_hand = is_at_hand;
            }),
            Limits::default(),
        );
        let mut client = scene.transmit(Headers::Structured);
        assert_eq!(client.ask(NBD_CMD_READ, 0, 512, 512, &[]).unwrap().error, 5);
        assert_eq!(client.ask(NBD_CMD_READ, 0, 1024, 512, &[]).unwrap().error, 5);
        assert_eq!(client.ask(NBD_CMD_READ, 0, 0, 512, &[]).unwrap().error, 0);
        drop(client);
        let events = scene.stop();
        assert!(events.contains(&"failed disk damaged".to_owned()), "{events:?}");
        let bug = "failed disk the server failed; this is a bug in it".to_owned();
        assert!(events.contains(&bug), "{events:?}");
    }
}

/// A fault while an export is opened costs this connection, and is told to the owner.
#[test]
fn opening_that_panics_ends_one_connection() {
    let scene = Scene::new(disks(|_| {}), Limits::default());
    let mut client = scene.client();
    let go = crate::wire::option(nbd_server::proto::NBD_OPT_GO, &crate::wire::info(b"panics", &[]));
    std::io::Write::write_all(&mut client.stream, &go).unwrap();
    client.assert_closed();
    scene.assert_works();
    let events = scene.stop();
    assert!(events.iter().any(|line| line.contains("this is a bug")), "{events:?}");
}
