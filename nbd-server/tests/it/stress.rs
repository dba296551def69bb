//! Many clients that come, read, write and vanish at any moment.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nbd_server::Limits;
use nbd_server::proto::{
    Headers, NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC, NBD_CMD_FLAG_FUA, NBD_CMD_READ, NBD_CMD_WRITE,
};

use crate::own_process::{Holdings, run_child, seconds};
use crate::scene::{Client, Scene, disks};

const CLIENT_COUNT: u64 = 100;
const KIB: u64 = 1 << 10;

/// Memory of all connections; one request of this length fits only if nothing else holds any.
const SERVER_LEN_MAX: usize = 1 << 20;

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let is_long = std::env::var("BACKY_LONG_TESTS").is_ok_and(|value| value == "1");
    run_child("stress::storm", if is_long { 600 } else { 5 });
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn storm() {
    let Some(seconds) = seconds() else { return };
    let limits = Limits {
        connection_count_max: 90,
        server_len_max: SERVER_LEN_MAX,
        connection_len_max: SERVER_LEN_MAX / 2,
        ..Limits::default()
    };
    let scene = Scene::new(disks(|disk| disk.is_writable = true), limits);
    scene.assert_works();
    // The first rounds fill the allocator's pools.
    rounds(&scene, Instant::now() + Duration::from_secs(1));
    scene.forget();
    let before = Holdings::now();
    let count = rounds(&scene, Instant::now() + Duration::from_secs(seconds));
    println!("{count} connections in {seconds} s");
    scene.forget();
    before.assert_given_back(128 << 10);
    // All permits are back: this request needs them all.
    let mut client = scene.transmit(Headers::Structured);
    let len = u64::try_from(SERVER_LEN_MAX).unwrap();
    for _ in 0..3 {
        assert_eq!(client.ask(NBD_CMD_READ, 0, 0, len, &[]).unwrap().error, 0);
    }
    drop(client);
    scene.stop();
}

/// Lets all clients come and go until then. Returns how often one was let in.
fn rounds(scene: &Scene, deadline: Instant) -> u64 {
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENT_COUNT {
            let count = &count;
            scope.spawn(move || {
                let mut random = Random(number + 1);
                while Instant::now() < deadline {
                    // Whatever fails, fails because somebody has vanished, or because there were too many.
                    let is_in = visit(scene, number, &mut random).is_some();
                    count.fetch_add(u64::from(is_in), Ordering::Relaxed);
                }
            });
        }
    });
    count.into_inner()
}

/// One connection, up to a random point. Returns `None` if it was not let in.
fn visit(scene: &Scene, number: u64, random: &mut Random) -> Option<()> {
    let socket = scene.socket();
    if random.below(10) == 0 {
        return None;
    }
    let mut client = Client::greet(socket).ok()?;
    let forms = [Headers::Simple, Headers::Structured, Headers::Extended];
    let headers = forms[usize::try_from(random.below(3)).unwrap()];
    if random.below(10) == 0 {
        // Half an option.
        client.stream.write_all(&[0x49, 0x48, 0x41]).ok()?;
        return None;
    }
    client.begin(headers).ok()?;
    // Each client has a part of the export of its own.
    let start = number * 10 * KIB;
    let mut pending = 0;
    for _ in 0..random.below(40) {
        let len = 1 + random.below(9 * KIB);
        match random.below(12) {
            0 => return Some(()),
            1 => {
                // A payload that does not come.
                client.send(NBD_CMD_WRITE, 0, start, len + 1, &[7]).ok()?;
                return Some(());
            }
            2 => {
                client.stream.shutdown(Shutdown::Write).ok()?;
                return Some(());
            }
            3 => {
                client.send(NBD_CMD_DISC, 0, 0, 0, &[]).ok()?;
                client.assert_closed();
                return Some(());
            }
            4 if headers.are_structured() => {
                client.send(NBD_CMD_BLOCK_STATUS, 0, start, len, &[]).ok()?;
                pending += 1;
            }
            5 => {
                client.send(NBD_CMD_READ, 0, 0, 256 * KIB, &[]).ok()?;
                pending += 1;
            }
            6 | 7 => {
                while 0 < pending {
                    client.answer().ok()?;
                    pending -= 1;
                }
                let fill = u8::try_from(random.below(256)).unwrap();
                let payload = vec![fill; usize::try_from(len).unwrap()];
                let written =
                    client.ask(NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, start, len, &payload).ok()?;
                assert_eq!(written.error, 0);
                let read = client.ask(NBD_CMD_READ, 0, start, len, &[]).ok()?;
                assert_eq!(read.data, payload, "nobody else writes here");
            }
            _ => {
                client.send(NBD_CMD_READ, 0, start, len, &[]).ok()?;
                pending += 1;
            }
        }
    }
    Some(())
}

/// Numbers that look random (Marsaglia, "Xorshift RNGs", 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
