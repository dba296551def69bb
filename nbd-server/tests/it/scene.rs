//! A server on a Unix socket in a directory of its own, and clients that speak bytes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nbd_server::handshake::Handshake;
use nbd_server::proto::{
    Headers, NBD_CMD_READ, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_SET_META_CONTEXT,
    NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, RequestHeader,
};
use nbd_server::{Event, Limits, Listener, Monitor, Options, Server, StopHandle, Tls};
use tempfile::TempDir;

use crate::memory::{Disks, Memory, note};
use crate::wire::{self, Answer};

/// After so long without a byte a test fails: what it waits for never comes.
const PATIENCE: Duration = Duration::from_secs(50);

/// Takes down what happens.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<String>>);

impl Monitor for Events {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Connected { export, .. } => format!("connected {export}"),
            Event::Disconnected { error, .. } => {
                format!("disconnected {}", error.map_or_else(String::new, ToString::to_string))
            }
            Event::Refused { reason, .. } => format!("refused {reason}"),
            Event::RequestFailed { export, error, .. } => format!("failed {export} {error}"),
            _ => "unknown".to_owned(),
        };
        note(&self.0, line);
    }
}

#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) disks: Arc<Disks>,
    pub(crate) events: Arc<Events>,
    directory: TempDir,
}

impl Scene {
    pub(crate) fn new(disks: Disks, limits: Limits) -> Self {
        Self::with_tls(disks, limits, None)
    }

    pub(crate) fn with_tls(disks: Disks, limits: Limits, tls: Option<Tls>) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = Listener::unix(&directory.path().join("socket")).unwrap();
        let (disks, events) = (Arc::new(disks), Arc::<Events>::default());
        let options = Options { limits, tls, monitor: Arc::<Events>::clone(&events) };
        let exports = Arc::<Disks>::clone(&disks);
        let server = Server::start(vec![listener], exports, options).unwrap();
        Self { server, disks, events, directory }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Connects, and has not read anything yet.
    pub(crate) fn socket(&self) -> UnixStream {
        let socket = UnixStream::connect(self.path()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Connects and exchanges flags.
    pub(crate) fn client(&self) -> Client<UnixStream> {
        Client::greet(self.socket()).unwrap()
    }

    /// Connects and chooses the first export.
    pub(crate) fn transmit(&self, headers: Headers) -> Client<UnixStream> {
        let mut client = self.client();
        client.begin(headers).unwrap();
        client
    }

    /// Asserts that the server works: a new client reads.
    pub(crate) fn assert_works(&self) {
        let mut client = self.transmit(Headers::Structured);
        assert_eq!(client.ask(0, 0, 0, 16, &[]).unwrap().data.len(), 16);
    }

    /// Waits until no connection is left, and forgets what happened.
    pub(crate) fn forget(&self) {
        wait_until(|| {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            // A thread may end between the two.
            let names =
                tasks.flat_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
            !names.into_iter().any(|name| ["nbd-connection\n", "nbd-writer\n"].contains(&&*name))
        });
        *self.events.0.lock().unwrap() = Vec::new();
        for (_, disk) in &self.disks.disks {
            *disk.calls.lock().unwrap() = Vec::new();
        }
        *self.disks.opened.lock().unwrap() = Vec::new();
    }

    pub(crate) fn stop_handle(&self) -> StopHandle {
        self.server.stop_handle()
    }

    /// Stops the server and waits for its end.
    pub(crate) fn stop(self) -> Vec<String> {
        self.server.stop_handle().stop();
        self.server.wait();
        self.events.0.lock().unwrap().clone()
    }

    /// Waits until something happened.
    pub(crate) fn wait_for(&self, event: &str) {
        wait_until(|| self.events_contain(event));
    }

    pub(crate) fn events_contain(&self, event: &str) -> bool {
        self.events.0.lock().unwrap().iter().any(|line| line.contains(event))
    }
}

/// Waits for a condition. That it never comes true is found out by the time limit for tests.
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns one export of a MiB with content that tells the place.
pub(crate) fn disks(change: impl FnOnce(&mut Memory)) -> Disks {
    let bytes = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let mut disk = Memory::new(bytes);
    change(&mut disk);
    Disks::new(vec![("disk", disk)])
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    pub(crate) headers: Headers,
    cookie: u64,
    sent: HashMap<u64, RequestHeader>,
}

impl<S: Read + Write> Client<S> {
    /// Exchanges flags.
    pub(crate) fn greet(mut stream: S) -> io::Result<Self> {
        let mut greeting = Handshake::GREETING;
        stream.read_exact(&mut greeting)?;
        assert_eq!(greeting, Handshake::GREETING);
        stream.write_all(&[0, 0, 0, 3])?;
        Ok(Self::after_greeting(stream))
    }

    /// Takes a connection on which flags were exchanged before.
    pub(crate) fn after_greeting(stream: S) -> Self {
        Self { stream, headers: Headers::Simple, cookie: 0, sent: HashMap::new() }
    }

    /// Sends an option and reads what is answered, up to the last.
    pub(crate) fn option(
        &mut self,
        option: u32,
        payload: &[u8],
    ) -> io::Result<Vec<(u32, Vec<u8>)>> {
        self.stream.write_all(&wire::option(option, payload))?;
        wire::read_option_replies(&mut self.stream, option)
    }

    /// Sends an option and reads the last answer.
    pub(crate) fn last_reply(&mut self, option: u32, payload: &[u8]) -> io::Result<u32> {
        Ok(self.option(option, payload)?.last().expect("there is one").0)
    }

    /// Chooses the first export.
    pub(crate) fn begin(&mut self, headers: Headers) -> io::Result<()> {
        self.headers = headers;
        let number = match headers {
            Headers::Simple => None,
            Headers::Structured => Some(NBD_OPT_STRUCTURED_REPLY),
            Headers::Extended => Some(NBD_OPT_EXTENDED_HEADERS),
        };
        if let Some(number) = number {
            assert_eq!(self.last_reply(number, &[])?, NBD_REP_ACK);
            let queries = wire::queries(b"disk", &["base:allocation"]);
            assert_eq!(self.last_reply(NBD_OPT_SET_META_CONTEXT, &queries)?, NBD_REP_ACK);
        }
        assert_eq!(self.last_reply(NBD_OPT_GO, &wire::info(b"disk", &[]))?, NBD_REP_ACK);
        Ok(())
    }

    /// Sends a request, and returns its cookie.
    pub(crate) fn send(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u64,
        payload: &[u8],
    ) -> io::Result<u64> {
        self.cookie += 1;
        let header = RequestHeader { command, flags, cookie: self.cookie, offset, len };
        let bytes = header.encode(self.headers).expect("the length fits");
        self.sent.insert(self.cookie, header);
        self.stream.write_all(&[&bytes, payload].concat())?;
        Ok(self.cookie)
    }

    /// Sends so many reads at once, so that none of them is alone.
    pub(crate) fn send_reads(&mut self, count: u64, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            self.cookie += 1;
            let (flags, command, cookie) = (0, NBD_CMD_READ, self.cookie);
            let header = RequestHeader { flags, command, cookie, offset, len };
            self.sent.insert(cookie, header);
            bytes.extend(header.encode(self.headers).expect("the length fits"));
        }
        self.stream.write_all(&bytes)
    }

    /// Reads the answer to whichever request.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let sent = &mut self.sent;
        wire::read_answer(&mut self.stream, self.headers, |cookie| {
            sent.remove(&cookie).expect("the cookie of a request that was not answered yet")
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u64,
        payload: &[u8],
    ) -> io::Result<Answer> {
        let cookie = self.send(command, flags, offset, len, payload)?;
        let answer = self.answer()?;
        assert_eq!(answer.cookie, cookie);
        Ok(answer)
    }

    /// Asserts that the server closes the connection, whatever it sends before.
    pub(crate) fn assert_closed(mut self) {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::UnexpectedEof
                ),
                "{error}"
            ),
        }
    }
}
