//! Sends the replies of one connection, in whole and one after the other.
//!
//! Whoever has a reply sends it, with those of others that wait meanwhile, but never waits for the client: if the socket
//! takes no more, the rest is left to the thread of [`Outbox::send_stalled`]. So a client that does not read holds up nobody
//! but itself, and a client that does costs no change of threads. What waits is bounded by the permits that each
//! reply holds until it is sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::budget::Permit;
use super::pace::{Pace, Patience};
use super::socket::{Stream, Wait};
use crate::reply::Reply;

/// Replies that are sent in one call, if they are ready.
const BATCH_COUNT_MAX: usize = 32;

/// Bytes of one call that waits. A client that stalls is noticed between calls.
const WAITING_LEN_MAX: usize = 256 << 10;

/// Batches that one thread sends in a row before it goes back to its own work.
const TURN_COUNT_MAX: usize = 8;

/// A reply, and the memory that it takes up until it is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    reply: Reply,
    /// Given back when the reply is dropped.
    _permits: [Permit; 2],
}

impl Outgoing {
    pub(crate) fn new(reply: Reply, permits: [Permit; 2]) -> Self {
        Self { reply, _permits: permits }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    stalled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Outgoing>,
    /// Somebody sends, or a batch is stalled: nobody else may.
    is_sending: bool,
    stalled: Option<Batch>,
    is_closed: bool,
    failure: Option<io::Error>,
    has_failed: bool,
}

impl Outbox {
    /// Adds a reply; [`Self::send`] sends it.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let mut state = self.lock();
        if state.has_failed {
            drop(state);
            drop(outgoing);
            return;
        }
        state.waiting.push_back(outgoing);
    }

    /// Sends what waits, as far as the client takes it at once.
    pub(crate) fn send(&self, stream: &Stream) {
        let mut state = self.lock();
        if state.is_sending {
            return;
        }
        for turn in 0.. {
            let mut batch = Batch::take(&mut state.waiting);
            if batch.replies.is_empty() {
                state.is_sending = false;
                return;
            }
            state.is_sending = true;
            if turn == TURN_COUNT_MAX {
                state.stalled = Some(batch);
                self.stalled.notify_one();
                return;
            }
            drop(state);
            let sent = batch.send_at_once(stream);
            if let Ok(true) = sent {
                drop(batch);
                state = self.lock();
                continue;
            }
            let mut state = self.lock();
            match sent {
                Ok(_) => {
                    state.stalled = Some(batch);
                    self.stalled.notify_one();
                }
                Err(error) => self.fail(state, stream, error),
            }
            return;
        }
    }

    /// Sends what others could not send at once. Ends when the outbox is closed and everything is sent.
    ///
    /// # Errors
    ///
    /// Why sending failed, in whatever thread. The connection is over then.
    pub(crate) fn send_stalled(&self, stream: &Stream, patience: Patience<'_>) -> io::Result<()> {
        loop {
            let mut state = self.lock();
            while state.stalled.is_none() && !state.is_over() {
                state = self.stalled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(mut batch) = state.stalled.take() else {
                return state.failure.take().map_or(Ok(()), Err);
            };
            while !batch.replies.is_empty() {
                drop(state);
                let sent = batch.send_all(stream, patience);
                drop(batch);
                state = self.lock();
                if let Err(error) = sent {
                    self.fail(state, stream, error);
                    state = self.lock();
                    break;
                }
                batch = Batch::take(&mut state.waiting);
                state.is_sending = !batch.replies.is_empty();
            }
            drop(state);
        }
    }

    /// Says that no reply comes any more.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.stalled.notify_one();
    }

    fn fail(&self, mut state: MutexGuard<'_, State>, stream: &Stream, error: io::Error) {
        state.has_failed = true;
        state.is_sending = false;
        state.failure = Some(error);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        // The reader notices, and ends the connection.
        stream.socket().shutdown(Shutdown::Both);
        self.stalled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.is_closed && !self.is_sending && (self.has_failed || self.waiting.is_empty())
    }
}

/// Replies that are sent together, and how far that got.
#[derive(Debug, Default)]
struct Batch {
    replies: Vec<Outgoing>,
    /// The reply that is sent next, and how many of its bytes are sent.
    next: usize,
    sent: usize,
    /// What TLS made of bytes that count as sent.
    ciphertext: Vec<u8>,
    ciphertext_sent: usize,
}

impl Batch {
    fn take(waiting: &mut VecDeque<Outgoing>) -> Self {
        let count = waiting.len().min(BATCH_COUNT_MAX);
        Self { replies: waiting.drain(..count).collect(), ..Self::default() }
    }

    /// Returns whether everything was sent.
    fn send_at_once(&mut self, stream: &Stream) -> io::Result<bool> {
        loop {
            match self.advance(stream, Wait::Never) {
                Ok(None) => return Ok(true),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn send_all(&mut self, stream: &Stream, patience: Patience<'_>) -> io::Result<()> {
        let mut pace = Pace::new(patience);
        loop {
            match self.advance(stream, Wait::UntilTimeout) {
                Ok(None) => return Ok(()),
                Ok(Some(len)) => pace.advance(len)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pace.advance(0)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Does one call. Returns how many bytes left, or `None` if there are none.
    fn advance(&mut self, stream: &Stream, wait: Wait) -> io::Result<Option<usize>> {
        if self.ciphertext_sent < self.ciphertext.len() {
            let len = stream.send_ciphertext(&self.ciphertext[self.ciphertext_sent..], wait)?;
            self.ciphertext_sent += len;
            return Ok(Some(len));
        }
        self.ciphertext.clear();
        self.ciphertext_sent = 0;
        if self.next == self.replies.len() {
            return Ok(None);
        }
        let len_max = match wait {
            Wait::Never => usize::MAX,
            Wait::UntilTimeout => WAITING_LEN_MAX,
        };
        let mut slices = [IoSlice::new(&[]); BATCH_COUNT_MAX];
        let (mut count, mut len, mut start) = (0, 0, self.sent);
        for outgoing in &self.replies[self.next..] {
            let bytes = &outgoing.reply.as_bytes()[start..];
            let bytes = &bytes[..bytes.len().min(len_max - len)];
            slices[count] = IoSlice::new(bytes);
            (count, len, start) = (count + 1, len + bytes.len(), 0);
            if len == len_max {
                break;
            }
        }
        let sent = stream.send(&slices[..count], &mut self.ciphertext, wait)?;
        self.sent += sent;
        while let Some(outgoing) = self.replies.get(self.next)
            && outgoing.reply.as_bytes().len() <= self.sent
        {
            self.sent -= outgoing.reply.as_bytes().len();
            self.next += 1;
        }
        Ok(Some(sent))
    }
}
