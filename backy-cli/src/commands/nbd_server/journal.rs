//! What happens in the server, told on the thread that prints. Damage is told once, however often a client asks for it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nbd_server::{Event, Monitor};

use crate::human;
use crate::ui::Ui;

/// Lines that wait for being printed. More are counted, and forgotten: nobody waits for a terminal.
const WAITING_COUNT_MAX: usize = 1000;

/// Failures that are remembered so as not to be told again.
const TOLD_COUNT_MAX: usize = 10_000;

/// Refused connections are told once in this time.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);

/// A line, and how much it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Detail(String),
    Warning(String),
}

/// Takes events from the threads of a server.
#[derive(Debug)]
pub(super) struct Journal {
    lines: SyncSender<Line>,
    dropped_count: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: HashSet<String>,
    refused_at: Option<Instant>,
    refused_count: u64,
}

impl Journal {
    pub(super) fn new() -> (Self, Receiver<Line>) {
        let (lines, receiver) = sync_channel(WAITING_COUNT_MAX);
        let dropped_count = AtomicU64::new(0);
        (Self { lines, dropped_count, state: Mutex::default() }, receiver)
    }

    /// Returns how many lines were too many to be told.
    pub(super) fn dropped_count(&self) -> u64 {
        self.dropped_count.load(Ordering::Relaxed)
    }

    fn tell(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.dropped_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_new(&self, failure: &str) -> bool {
        let failure = subject(failure);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.told.len() < TOLD_COUNT_MAX && state.told.insert(failure.to_owned())
    }

    /// Returns how many connections were refused since the last line, if it is time for another.
    fn refused(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refused_count += 1;
        if state.refused_at.is_some_and(|at| at.elapsed() < REFUSED_INTERVAL) {
            return None;
        }
        state.refused_at = Some(Instant::now());
        Some(std::mem::take(&mut state.refused_count))
    }
}

impl Monitor for Journal {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Connected { peer, export } => {
                self.tell(Line::Detail(format!("{peer}: connected to {export}")));
            }
            Event::Disconnected { peer, error: None } => {
                self.tell(Line::Detail(format!("{peer}: disconnected")));
            }
            Event::Disconnected { peer, error: Some(error) } => {
                self.tell(Line::Detail(format!("{peer}: disconnected: {error}")));
            }
            Event::Refused { peer, reason } => {
                let Some(count) = self.refused() else { return };
                let peer = peer.map_or_else(String::new, |peer| format!("{peer}: "));
                let more = match count {
                    1 => String::new(),
                    more => format!(" ({} since the last line)", human::count(more, "connection")),
                };
                self.tell(Line::Warning(format!("{peer}connection refused: {reason}{more}")));
            }
            Event::RequestFailed { peer, export, request, error }
                if self.is_new(&error.message) =>
            {
                let place = error.offset.unwrap_or(request.offset);
                let text = format!(
                    "{peer}: export {export}: cannot serve byte {place}: {}; clients get an I/O error",
                    error.message
                );
                self.tell(Line::Warning(text));
            }
            _ => {}
        }
    }
}

/// Returns what a failure is about, such as "revision R: chunk C in pack P is damaged". How that was noticed follows, and is
/// another thing the next time: then the chunk is in quarantine.
fn subject(failure: &str) -> &str {
    let end = failure.match_indices(": ").nth(1).map_or(failure.len(), |(at, _)| at);
    &failure[..end]
}

/// Prints what comes, until a signal stops the server.
pub(super) fn print_until_stopped(lines: &Receiver<Line>, ui: &Ui) {
    while !ui.stop_wanted() {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => print(line, ui),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Prints what is left.
pub(super) fn print_rest(lines: &Receiver<Line>, ui: &Ui) {
    for line in lines.try_iter() {
        print(line, ui);
    }
}

fn print(line: Line, ui: &Ui) {
    match line {
        Line::Detail(text) => ui.detail(&text),
        Line::Warning(text) => ui.warning(&text),
    }
}
