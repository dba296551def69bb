//! Sockets and threads around the protocol.
//!
//! A thread accepts; each connection has one that reads and one that writes when the client is slow; a few workers carry
//! requests out, whoever they are from. So a connection can stall or die without anybody else noticing. Memory is granted before it
//! is taken: for each connection and for all of them.

mod budget;
mod connection;
mod listener;
mod monitor;
mod outbox;
mod pace;
mod queue;
mod read_ahead;
mod socket;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustls::ServerConfig;

use self::budget::Budget;
pub use self::listener::{Listener, Peer};
pub use self::monitor::{Event, Monitor};
use self::queue::{Queue, Work};
use self::socket::Stream;
pub use self::tls::{Tls, TlsError};
use crate::export::{Export, Exports};
use crate::limits::Limits;

/// Time to wait when the process has no descriptors or memory for another connection.
const RETRY_DELAY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What clients may ask for.
    pub limits: Limits,
    /// With it, nothing is served without TLS; without it, TLS is not offered.
    pub tls: Option<Tls>,
    /// Who is told what happens.
    pub monitor: Arc<dyn Monitor>,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), tls: None, monitor: Arc::new(()) }
    }
}

/// What all threads of a server share.
#[derive(Debug)]
struct Shared {
    exports: Arc<dyn Exports>,
    limits: Limits,
    tls: Option<Arc<ServerConfig>>,
    monitor: Arc<dyn Monitor>,
    budget: Arc<Budget>,
    queue: Queue,
    is_stopping: AtomicBool,
    stop: OwnedFd,
    connections: Mutex<Connections>,
    /// A connection has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, (Arc<Stream>, Peer)>,
    /// Threads of those that are open.
    threads: HashMap<u64, JoinHandle<()>>,
    /// Threads that are about to end, or have. Each is joined: to detach a thread while it ends is a use of freed memory in glibc
    /// (`pthread_detach` looks at the thread once more after the thread may free itself), which a storm of connections does meet.
    ended: Vec<JoinHandle<()>>,
    /// No more threads come.
    is_over: bool,
}

/// A server that runs until it is stopped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    reaper: Option<JoinHandle<()>>,
}

/// Stops a server, from any thread.
#[derive(Clone, Debug)]
pub struct StopHandle {
    shared: Arc<Shared>,
}

impl Server {
    /// Begins to serve.
    ///
    /// # Errors
    ///
    /// If a socket or thread cannot be had.
    pub fn start(
        listeners: Vec<Listener>,
        exports: Arc<dyn Exports>,
        options: Options,
    ) -> io::Result<Self> {
        let Options { limits, tls, monitor } = options;
        let shared = Arc::new(Shared {
            exports,
            limits,
            tls: tls.as_ref().map(Tls::config),
            monitor,
            budget: Budget::new(usize::MAX, limits.server_len_max),
            queue: Queue::default(),
            is_stopping: AtomicBool::new(false),
            stop: eventfd(0, EventfdFlags::CLOEXEC)?,
            connections: Mutex::default(),
            ended: Condvar::new(),
        });
        let mut server = Self { shared, acceptors: Vec::new(), workers: Vec::new(), reaper: None };
        let reaped = Arc::clone(&server.shared);
        server.reaper = Some(spawn("nbd-reaper", move || reap(&reaped))?);
        for _ in 0..limits.worker_count.max(1) {
            let shared = Arc::clone(&server.shared);
            server.workers.push(spawn("nbd-worker", move || work(&shared))?);
        }
        for listener in listeners {
            listener.set_nonblocking()?;
            let shared = Arc::clone(&server.shared);
            server.acceptors.push(spawn("nbd-accept", move || accept(&listener, &shared))?);
        }
        Ok(server)
    }

    /// Returns what stops the server.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { shared: Arc::clone(&self.shared) }
    }

    /// Waits until the server is stopped and its connections have ended. Requests that have begun by then are carried
    /// out and answered, for as long as [`Limits::drain_timeout`] allows.
    pub fn wait(mut self) {
        for acceptor in self.acceptors.drain(..) {
            // It had a bug; the other threads go on, and end.
            drop(acceptor.join());
        }
        // Dropping does the rest.
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_handle().stop();
        for acceptor in self.acceptors.drain(..) {
            drop(acceptor.join());
        }
        let deadline = Instant::now() + self.shared.limits.drain_timeout;
        if !self.shared.wait_until_ended(deadline) {
            self.shared.shut_down(Shutdown::Both);
            // Now only a request that hangs in its export keeps a thread; nobody waits for that.
            if !self.shared.wait_until_ended(Instant::now() + Duration::from_millis(500)) {
                self.shared.queue.close();
                self.end_reaper();
                return;
            }
        }
        self.shared.queue.close();
        self.end_reaper();
        for worker in self.workers.drain(..) {
            drop(worker.join());
        }
    }
}

impl Server {
    /// Waits for the threads of connections that have ended.
    fn end_reaper(&mut self) {
        self.shared.connections().is_over = true;
        self.shared.ended.notify_all();
        if let Some(reaper) = self.reaper.take() {
            drop(reaper.join());
        }
    }
}

impl StopHandle {
    /// Asks the server to end. Returns at once.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        // Any number but 0 makes it readable, for all who wait; it cannot fail before it has counted to 2^64.
        let _cannot_fail = rustix::io::write(&self.shared.stop, &[1; 8]);
        // Who waits for a request sees the end. Requests that were sent before are still read.
        self.shared.shut_down(Shutdown::Read);
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_down(&self, how: Shutdown) {
        for (stream, _) in self.connections().open.values() {
            stream.socket().shutdown(how);
        }
    }

    fn wait_until_ended(&self, deadline: Instant) -> bool {
        let mut connections = self.connections();
        while !connections.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.ended.wait_timeout(connections, left);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Enters a connection, or says why there may not be one more.
    fn register(&self, stream: &Arc<Stream>, peer: Peer) -> Result<u64, &'static str> {
        let mut connections = self.connections();
        // Under the lock: who stops the server finds every connection or none is added.
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err("the server ends");
        }
        connections.register(stream, peer, &self.limits)
    }
}

impl Connections {
    fn register(
        &mut self,
        stream: &Arc<Stream>,
        peer: Peer,
        limits: &Limits,
    ) -> Result<u64, &'static str> {
        if limits.connection_count_max <= self.open.len() {
            return Err("too many connections");
        }
        let of = |ip: IpAddr| {
            self.open.values().filter(|(_, peer)| peer.remote_ip() == Some(ip)).count()
        };
        if peer.remote_ip().is_some_and(|ip| limits.connection_count_per_peer_max <= of(ip)) {
            return Err("too many connections from this address");
        }
        let number = self.next;
        self.next += 1;
        self.open.insert(number, (Arc::clone(stream), peer));
        Ok(number)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn work(shared: &Shared) {
    while let Some(work) = shared.queue.pop() {
        match work {
            Work::Request(connection, job) => connection.work(job, shared),
            Work::ReadAhead(export, range) => read_ahead(&*export, &range),
        }
        shared.queue.done();
    }
}

/// What fails here fails again when it is asked for, and is told then.
fn read_ahead(export: &dyn Export, range: &Range<u64>) {
    let run = || export.cache(range.start, range.end - range.start);
    drop(catch_unwind(AssertUnwindSafe(run)));
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    while !shared.is_stopping.load(Ordering::Relaxed) {
        let mut ready = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(shared.stop.as_fd(), PollFlags::IN),
        ];
        // If this fails for want of memory, accepting says that there is nothing, and it is tried again.
        let _tried_again = poll(&mut ready, None);
        match listener.accept() {
            Ok((socket, peer)) => begin(Arc::new(Stream::new(socket)), peer, shared),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refuse(None, &error.to_string(), shared);
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                refuse(None, &error.to_string(), shared);
                // Without descriptors or memory the socket stays ready: wait for somebody else to end, or for the stop.
                let mut stop = [PollFd::from_borrowed_fd(shared.stop.as_fd(), PollFlags::IN)];
                let _waited = poll(&mut stop, Some(&RETRY_DELAY));
            }
        }
    }
}

/// Whether the next connection can be accepted at once.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | WouldBlock
    )
}

fn refuse(peer: Option<Peer>, reason: &str, shared: &Shared) {
    shared.monitor.event(&Event::Refused { peer, reason });
}

/// Serves a connection on a thread of its own.
fn begin(stream: Arc<Stream>, peer: Peer, shared: &Arc<Shared>) {
    let number = match shared.register(&stream, peer) {
        Ok(number) => number,
        Err(reason) => return refuse(Some(peer), reason, shared),
    };
    let registration = Registration { shared: Arc::clone(shared), number };
    let spawned = spawn("nbd-connection", move || {
        let shared = &registration.shared;
        // A fault while an export is opened, say: it costs this connection, and its owner hears of it.
        let serve = AssertUnwindSafe(|| connection::serve(&stream, peer, shared));
        let fault = |_| Err(io::Error::other("the server failed; this is a bug in it"));
        let result = catch_unwind(serve).unwrap_or_else(fault);
        stream.close();
        shared.monitor.event(&Event::Disconnected { peer, error: result.as_ref().err() });
        drop(registration);
    });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => return refuse(Some(peer), &error.to_string(), shared),
    };
    let mut connections = shared.connections();
    if connections.open.contains_key(&number) {
        connections.threads.insert(number, thread);
    } else {
        connections.ended.push(thread);
        drop(connections);
        shared.ended.notify_all();
    }
}

/// Joins the threads of connections that end.
fn reap(shared: &Shared) {
    loop {
        let mut connections = shared.connections();
        while connections.ended.is_empty() {
            if connections.is_over {
                return;
            }
            connections = shared.ended.wait(connections).unwrap_or_else(PoisonError::into_inner);
        }
        let ended = std::mem::take(&mut connections.ended);
        drop(connections);
        for thread in ended {
            // It caught its own fault, and told of it.
            drop(thread.join());
        }
    }
}

/// An entry among the connections, for as long as the connection lasts.
#[derive(Debug)]
struct Registration {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        let closed = connections.open.remove(&self.number);
        if let Some(thread) = connections.threads.remove(&self.number) {
            connections.ended.push(thread);
        }
        drop(connections);
        drop(closed);
        self.shared.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::net::UnixStream;

    use super::socket::Socket;
    use super::*;

    fn register(connections: &mut Connections, peer: Peer) -> Result<u64, &'static str> {
        let limits = Limits {
            connection_count_max: 6,
            connection_count_per_peer_max: 2,
            ..Limits::default()
        };
        let (stream, _) = UnixStream::pair().unwrap();
        let stream = Arc::new(Stream::new(Socket::unix(stream).unwrap()));
        connections.register(&stream, peer, &limits)
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(address.parse::<SocketAddr>().unwrap())
    }

    /// CVE-2013-6410 (nbd-server): addresses were compared as text, so that 192.0.2.1 was taken for 192.0.2.10.
    #[test]
    fn cve_2013_6410_addresses_are_counted_as_addresses() {
        let mut connections = Connections::default();
        let mut register = |peer: &str| register(&mut connections, tcp(peer));
        assert!(register("192.0.2.1:1000").is_ok());
        assert!(register("192.0.2.1:1001").is_ok());
        assert_eq!(register("192.0.2.1:1002"), Err("too many connections from this address"));
        assert!(register("192.0.2.10:1000").is_ok());
        assert!(register("[2001:db8::1]:1").is_ok());
        assert!(register("[2001:db8:0::1]:2").is_ok());
        let again = register("[2001:0db8::0:1]:3");
        assert_eq!(again, Err("too many connections from this address"));
    }

    #[test]
    fn this_machine_may_use_all_connections_and_what_ends_makes_room() {
        let mut connections = Connections::default();
        for peer in [Peer::Unix, tcp("127.0.0.1:1"), tcp("[::1]:1")].repeat(2) {
            assert!(register(&mut connections, peer).is_ok());
        }
        for peer in [Peer::Unix, tcp("127.0.0.1:1"), tcp("192.0.2.1:1")] {
            assert_eq!(register(&mut connections, peer), Err("too many connections"));
        }
        drop(connections.open.remove(&3));
        assert_eq!(register(&mut connections, tcp("192.0.2.1:1")), Ok(6));
    }
}
