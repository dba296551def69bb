//! One connection as bytes, plain or through TLS.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg, sockopt};
use rustls::{ServerConfig, ServerConnection};

/// Time without a sign of life before the kernel asks whether the other end is still there, between such questions, and how
/// many of them may stay without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// What the kernel shall hold for a client, if it allows that: a reply to a read of usual length.
const SEND_BUFFER_LEN: usize = 2 << 20;

/// Bytes that are read from the socket at once for TLS.
const CIPHERTEXT_LEN: usize = 64 << 10;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    pub(crate) fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_LEN)?;
        Ok(Self::Unix(stream))
    }

    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        // Replies are written whole: nothing is won by waiting for more.
        stream.set_nodelay(true)?;
        let (idle, interval, count) = KEEPALIVE;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, idle)?;
        sockopt::set_tcp_keepintvl(&stream, interval)?;
        sockopt::set_tcp_keepcnt(&stream, count)?;
        Ok(Self::Tcp(stream))
    }

    /// Ends reading or everything. What is closed already stays so.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        // The only failure is a socket that is not connected any more, which is what is wanted.
        drop(match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        });
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(timeout),
            Self::Tcp(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Reads what is there without waiting; `WouldBlock` if there is nothing.
    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self, buffer, RecvFlags::DONTWAIT)?.0)
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).read(buffer),
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
        }
    }

    /// Sends some of the bytes. Without waiting: `WouldBlock` if none can be sent at once.
    fn send(&self, slices: &[IoSlice<'_>], wait: Wait) -> io::Result<usize> {
        let flags = match wait {
            Wait::Never => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            Wait::UntilTimeout => SendFlags::NOSIGNAL,
        };
        let sent = sendmsg(self, slices, &mut SendAncillaryBuffer::default(), flags)?;
        if sent == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(sent) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Whether sending waits for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Never,
    UntilTimeout,
}

/// A connection that is read by one thread, and written by one thread at a time.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    tls: OnceLock<Mutex<ServerConnection>>,
    /// What was read for TLS and not taken by it yet. Only the thread that reads locks it.
    input: Mutex<Ciphertext>,
}

#[derive(Debug, Default)]
struct Ciphertext {
    bytes: Vec<u8>,
    taken_len: usize,
}

impl Stream {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, tls: OnceLock::new(), input: Mutex::default() }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Does the handshake of TLS. Bytes that came before it are taken for a part of it, and end it.
    pub(crate) fn start_tls(&self, config: Arc<ServerConfig>, deadline: Instant) -> io::Result<()> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut socket = Deadline { socket: &self.socket, at: deadline };
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let is_first = self.tls.set(Mutex::new(connection)).is_ok();
        if is_first { Ok(()) } else { Err(io::Error::other("TLS is on already")) }
    }

    /// Reads what there is, waiting for the first byte; 0 at the end.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_through(buffer, |bytes| self.socket.read(bytes))
    }

    /// As [`Self::read`], but looks for bytes again and again for a while, before it sleeps.
    pub(crate) fn read_polling(&self, buffer: &mut [u8], duration: Duration) -> io::Result<usize> {
        let start = Instant::now();
        self.read_through(buffer, |bytes| {
            loop {
                match self.socket.read_now(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if duration <= start.elapsed() {
                            return self.socket.read(bytes);
                        }
                        std::hint::spin_loop();
                    }
                    result => return result,
                }
            }
        })
    }

    /// As [`Self::read`], but not after the deadline.
    pub(crate) fn read_until(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let mut socket = Deadline { socket: &self.socket, at: deadline };
        self.read_through(buffer, |bytes| socket.read(bytes))
    }

    fn read_through(
        &self,
        buffer: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(tls) = self.tls.get() else { return receive(buffer) };
        let mut input = lock(&self.input);
        loop {
            let mut connection = lock(tls);
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if input.taken_len == input.bytes.len() {
                // The lock is free while this waits, so that replies can be sent.
                drop(connection);
                input.bytes.resize(CIPHERTEXT_LEN, 0);
                input.taken_len = CIPHERTEXT_LEN;
                let len = receive(&mut input.bytes)?;
                input.bytes.truncate(len);
                input.taken_len = 0;
                connection = lock(tls);
            }
            // A record at a time: TLS takes no more while it holds plain bytes that nobody has read.
            input.taken_len += connection.read_tls(&mut &input.bytes[input.taken_len..])?;
            connection.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Sends some of the plain bytes, or appends what they become to `ciphertext`, which the caller sends with
    /// [`Self::send_ciphertext`] before anything else. Returns how many of them are taken care of.
    pub(crate) fn send(
        &self,
        slices: &[IoSlice<'_>],
        ciphertext: &mut Vec<u8>,
        wait: Wait,
    ) -> io::Result<usize> {
        let Some(tls) = self.tls.get() else { return self.socket.send(slices, wait) };
        let mut connection = lock(tls);
        let taken = io::Write::write_vectored(&mut connection.writer(), slices)?;
        while connection.wants_write() {
            connection.write_tls(ciphertext)?;
        }
        if taken == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(taken) }
    }

    pub(crate) fn send_ciphertext(&self, bytes: &[u8], wait: Wait) -> io::Result<usize> {
        self.socket.send(&[IoSlice::new(bytes)], wait)
    }

    /// Sends all bytes, waiting until the deadline.
    pub(crate) fn send_until(&self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let mut socket = Deadline { socket: &self.socket, at: deadline };
        let Some(tls) = self.tls.get() else { return io::Write::write_all(&mut socket, bytes) };
        let mut ciphertext = Vec::new();
        let mut connection = lock(tls);
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = io::Write::write(&mut connection.writer(), rest)?;
            rest = &rest[taken..];
            while connection.wants_write() {
                connection.write_tls(&mut ciphertext)?;
            }
        }
        drop(connection);
        io::Write::write_all(&mut socket, &ciphertext)
    }

    /// Tells the client that nothing more comes, and ends the connection.
    pub(crate) fn close(&self) {
        if let Some(tls) = self.tls.get() {
            let mut ciphertext = Vec::new();
            let mut connection = lock(tls);
            connection.send_close_notify();
            while connection.wants_write() && connection.write_tls(&mut ciphertext).is_ok() {}
            // A client that does not take it any more has no use for it.
            drop(self.socket.send(&[IoSlice::new(&ciphertext)], Wait::Never));
        }
        self.socket.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket for as long as there is time. One deadline holds for many reads, however slowly bytes drip.
#[derive(Debug)]
struct Deadline<'a> {
    socket: &'a Socket,
    at: Instant,
}

impl Deadline<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Deadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(buffer)
    }
}

impl io::Write for Deadline<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.send(&[IoSlice::new(bytes)], Wait::UntilTimeout)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
