//! One connection: its thread does the handshake, then reads requests. What the export has at hand it answers itself; the
//! rest is for the workers.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::budget::{Budget, Permit};
use super::listener::Peer;
use super::monitor::Event;
use super::outbox::{Outbox, Outgoing};
use super::pace::{Pace, Patience};
use super::queue::Queue;
use super::read_ahead::{PIECE_LEN, ReadAhead};
use super::socket::Stream;
use crate::execute::{error_reply, execute, execute_immediately, memory_len_max};
use crate::export::ExportError;
use crate::handshake::{Encryption, Handshake, Step};
use crate::proto::{ErrorCode, RequestHeader};
use crate::reply::{Reply, ReplyTo};
use crate::session::Session;
use crate::transmission::{Action, Command, Request, Transmission};

/// Requests under way from which on a client needs no reading ahead: it has asked for enough itself.
const AHEAD_REQUEST_COUNT_MAX: usize = 8;

/// A request that is not longer, and the only one, is carried out by the thread that has read it.
const ALONE_LEN_MAX: u64 = 128 << 10;

/// Bytes of requests that are read at once.
const INPUT_LEN: usize = 64 << 10;

/// What the workers need to know of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    session: Session,
    peer: Peer,
    stream: Arc<Stream>,
    outbox: Arc<Outbox>,
    waiting: Mutex<VecDeque<Job>>,
}

/// A request that waits for a worker.
#[derive(Debug)]
pub(crate) struct Job {
    request: Request,
    payload: Vec<u8>,
    permits: [Permit; 2],
}

impl Connection {
    pub(crate) fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a request out. A fault of the export is an error of this request.
    pub(crate) fn work(&self, job: Job, shared: &Shared) {
        let Job { request, payload, permits } = job;
        let run = || execute(&self.session, &request, &payload);
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            Err(ExportError::new(ErrorCode::Io, "the server failed; this is a bug in it"))
        });
        drop(payload);
        let reply = result.unwrap_or_else(|error| {
            let export = &self.session.name;
            let event = Event::RequestFailed { peer: self.peer, export, request, error: &error };
            shared.monitor.event(&event);
            error_reply(&self.session, &request, &error)
        });
        self.outbox.push(Outgoing::new(reply, permits));
        self.outbox.send(&self.stream);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// Serves a connection until it ends.
///
/// # Errors
///
/// Why it ended otherwise than by the client's wish.
pub(crate) fn serve(stream: &Arc<Stream>, peer: Peer, shared: &Shared) -> io::Result<()> {
    let Some(session) = shake_hands(stream, shared)? else { return Ok(()) };
    shared.monitor.event(&Event::Connected { peer, export: &session.name });
    stream.socket().set_read_timeout(None)?;
    let patience = Patience::new(&shared.limits, &shared.budget);
    stream.socket().set_write_timeout(Some(patience.tick()))?;
    let transmission = Transmission::new(&session);
    let outbox = Arc::new(Outbox::default());
    let connection = Connection {
        session,
        peer,
        stream: Arc::clone(stream),
        outbox: Arc::clone(&outbox),
        waiting: Mutex::default(),
    };
    let connection = Arc::new(connection);
    thread::scope(|scope| {
        let writer = thread::Builder::new().name("nbd-writer".to_owned());
        let writer = writer.spawn_scoped(scope, || outbox.send_stalled(stream, patience))?;
        let received = Requests::new(transmission, &connection, shared).receive();
        connection.outbox.send(stream);
        // What has begun is finished: the outbox is closed when the last request lets go of the connection.
        drop(connection);
        let sent = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer failed")));
        received.and(sent)
    })
}

/// Returns what was agreed on, or `None` if the client ended the handshake.
fn shake_hands(stream: &Stream, shared: &Shared) -> io::Result<Option<Session>> {
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    let encryption = if shared.tls.is_some() { Encryption::Required } else { Encryption::Off };
    let mut handshake = Handshake::new(Arc::clone(&shared.exports), encryption);
    let mut output = Handshake::GREETING.to_vec();
    let mut input = Vec::new();
    loop {
        stream.send_until(&output, deadline)?;
        output.clear();
        input.resize(handshake.wants(), 0);
        if !read_until(stream, &mut input, deadline)? {
            return Ok(None);
        }
        match handshake.receive(&input, &mut output) {
            Step::Continue => {}
            Step::StartTls => {
                stream.send_until(&output, deadline)?;
                output.clear();
                let tls = shared.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                stream.start_tls(Arc::clone(tls), deadline)?;
            }
            Step::Transmit(session) => {
                stream.send_until(&output, deadline)?;
                return Ok(Some(session));
            }
            Step::Close => {
                stream.send_until(&output, deadline)?;
                return Ok(None);
            }
        }
    }
}

/// Fills the buffer; `false` if the client closed the connection before its first byte.
fn read_until(stream: &Stream, buffer: &mut [u8], deadline: Instant) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        match stream.read_until(&mut buffer[done..], deadline) {
            Ok(0) if done == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The requests of a connection, as they come in.
#[derive(Debug)]
struct Requests<'a> {
    reader: BufReader<StreamReader<'a>>,
    transmission: Transmission,
    connection: &'a Arc<Connection>,
    shared: &'a Shared,
    budget: Arc<Budget>,
    read_ahead: Option<ReadAhead>,
}

impl<'a> Requests<'a> {
    fn new(
        transmission: Transmission,
        connection: &'a Arc<Connection>,
        shared: &'a Shared,
    ) -> Self {
        let last_wait = Duration::MAX;
        let input = StreamReader { stream: &connection.stream, queue: &shared.queue, last_wait };
        let reader = BufReader::with_capacity(INPUT_LEN, input);
        let limits = &shared.limits;
        let budget = Budget::new(limits.request_count_max, limits.connection_len_max);
        let read_ahead = connection.session.export.can_cache().then(ReadAhead::default);
        Self { reader, transmission, connection, shared, budget, read_ahead }
    }

    /// Reads requests until the client is done or breaks a rule.
    fn receive(&mut self) -> io::Result<()> {
        let header_len = self.transmission.headers().request_len();
        let mut header = [0; RequestHeader::LEN_MAX];
        let header = &mut header[..header_len];
        loop {
            if self.reader.buffer().len() < header_len {
                // Before waiting for more, what is there goes out: many requests at once, many replies at once.
                self.send();
                if self.reader.fill_buf()?.is_empty() {
                    return Ok(());
                }
            }
            self.reader.read_exact(header)?;
            match self.transmission.receive(header) {
                Action::Execute(request) => self.execute(request)?,
                Action::Refuse { payload_len, error } => {
                    let permits = self.permits(0);
                    self.skip(payload_len)?;
                    let to = ReplyTo {
                        headers: self.transmission.headers(),
                        cookie: error.cookie,
                        offset: error.offset,
                    };
                    self.push(Reply::error(to, error.code, error.message, None), permits);
                }
                Action::Disconnect => return Ok(()),
                Action::Close(reason) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
        }
    }

    fn execute(&mut self, request: Request) -> io::Result<()> {
        let session = &self.connection.session;
        // Memory is taken after it was granted, for errors too: a client may send many requests and read no reply.
        let permits = self.permits(memory_len_max(session, &request));
        let mut payload = Vec::new();
        if matches!(request.command, Command::Write { .. }) {
            payload = vec![0; usize::try_from(request.len).unwrap_or(usize::MAX)];
            self.read_payload(&mut payload)?;
        }
        if self.shared.is_stopping.load(Ordering::Relaxed) {
            let error = ExportError::new(ErrorCode::Shutdown, "the server ends");
            self.push(error_reply(session, &request, &error), permits);
            return Ok(());
        }
        if matches!(request.command, Command::Read { .. }) {
            self.note_read(&request);
        }
        let immediate = AssertUnwindSafe(|| execute_immediately(session, &request));
        // A fault here is one there too, and is told there.
        if let Some(reply) = catch_unwind(immediate).unwrap_or_default() {
            self.push(reply, permits);
            return Ok(());
        }
        let job = Job { request, payload, permits };
        let is_alone = self.reader.buffer().is_empty() && self.budget.count() == 1;
        if is_alone && request.len <= ALONE_LEN_MAX && self.shared.queue.begin_if_idle() {
            // Nobody else has work for this thread, and to wake another one would take longer than what it could do meanwhile.
            self.connection.work(job, self.shared);
            self.shared.queue.done();
        } else {
            self.shared.queue.push(self.connection, job);
        }
        Ok(())
    }

    /// Reads ahead for a client that reads in order, but has asked for little yet.
    fn note_read(&mut self, request: &Request) {
        let Some(read_ahead) = &mut self.read_ahead else { return };
        let size = self.connection.session.export.size();
        let next = read_ahead.read(request.offset..request.offset + request.len, size);
        if next.is_empty() || AHEAD_REQUEST_COUNT_MAX < self.budget.count() {
            return;
        }
        let mut start = next.start;
        while start < next.end {
            let end = (start + PIECE_LEN).min(next.end);
            self.shared.queue.push_ahead(&self.connection.session.export, start..end);
            start = end;
        }
    }

    fn permits(&self, len: usize) -> [Permit; 2] {
        [&self.budget, &self.shared.budget].map(|budget| {
            budget.try_take(len).unwrap_or_else(|| {
                // Replies that wait here may be what has to leave first.
                self.send();
                budget.take(len)
            })
        })
    }

    fn push(&self, reply: Reply, permits: [Permit; 2]) {
        self.connection.outbox.push(Outgoing::new(reply, permits));
    }

    fn send(&self) {
        self.connection.outbox.send(&self.connection.stream);
    }

    /// Reads and forgets.
    fn skip(&mut self, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; INPUT_LEN];
        let mut left = len;
        while 0 < left {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.read_payload(&mut buffer[..len])?;
            left -= u64::try_from(len).unwrap_or(left);
        }
        Ok(())
    }

    /// Reads a payload that memory was taken for; a client that stalls does not keep it.
    fn read_payload(&mut self, payload: &mut [u8]) -> io::Result<()> {
        let buffered = self.reader.buffer().len().min(payload.len());
        self.reader.read_exact(&mut payload[..buffered])?;
        let mut rest = &mut payload[buffered..];
        if rest.is_empty() {
            return Ok(());
        }
        self.send();
        let patience = Patience::new(&self.shared.limits, &self.shared.budget);
        let socket = self.connection.stream.socket();
        socket.set_read_timeout(Some(patience.tick()))?;
        let mut pace = Pace::new(patience);
        while !rest.is_empty() {
            match self.reader.read(rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    rest = &mut rest[len..];
                    pace.advance(len)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pace.advance(0)?,
                Err(error) => return Err(error),
            }
        }
        socket.set_read_timeout(None)
    }
}

/// Time to look for the next request before the thread sleeps, if the last one came as soon. To sleep and to be woken takes as
/// long as to serve a short read, and a client that waits for each reply would pay for it every time (the same reason and remedy as
/// in Linux, Documentation/virt/kvm/halt-polling.rst).
const POLL_DURATION: Duration = Duration::from_micros(100);

#[derive(Debug)]
struct StreamReader<'a> {
    stream: &'a Stream,
    queue: &'a Queue,
    last_wait: Duration,
}

impl Read for StreamReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let may_poll = self.last_wait < POLL_DURATION && self.queue.begin_polling();
        let result = if may_poll {
            let result = self.stream.read_polling(buffer, POLL_DURATION);
            self.queue.end_polling();
            result
        } else {
            self.stream.read(buffer)
        };
        self.last_wait = start.elapsed();
        result
    }
}
