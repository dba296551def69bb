//! A stream as a target: standard output, a pipe, a socket.
//!
//! Invariant: the bytes that were written are a prefix of the image, and `finish` succeeds only if they are
//! all of it.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Target, TargetError};

/// Zeros to write from.
pub(super) static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A stream that takes an image from its first byte to its last.
pub struct StreamTarget {
    name: String,
    state: Mutex<State>,
}

struct State {
    writer: Box<dyn Write + Send>,
    /// Bytes that were written.
    position: u64,
    /// Length of the image in bytes.
    len: u64,
}

impl StreamTarget {
    /// Returns a target that writes to `writer`; `name` is for messages.
    #[must_use]
    pub fn new(name: String, writer: Box<dyn Write + Send>) -> Self {
        Self { name, state: Mutex::new(State { writer, position: 0, len: 0 }) }
    }

    /// A writer that panicked has left the stream at an unknown place, which `position` then lags behind; but
    /// the panic itself ends the restore.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> TargetError {
        TargetError::Io { action, name: self.name.clone(), source }
    }

    fn check_order(&self, state: &State, offset: u64) -> Result<(), TargetError> {
        if state.position == offset {
            return Ok(());
        }
        let reason = format!("byte {offset} comes after byte {}", state.position);
        Err(self.io_error("write in order to", io::Error::new(io::ErrorKind::InvalidInput, reason)))
    }
}

impl State {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

impl Target for StreamTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn prepare(&self, len: u64) -> Result<(), TargetError> {
        self.state().len = len;
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        let mut state = self.state();
        self.check_order(&state, offset)?;
        state.write(bytes).map_err(|source| self.io_error("write", source))
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        let mut state = self.state();
        self.check_order(&state, offset)?;
        let mut rest = len;
        while rest != 0 {
            let part = first_zeros(rest);
            state.write(part).map_err(|source| self.io_error("write", source))?;
            rest -= part.len() as u64;
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), TargetError> {
        let mut state = self.state();
        self.check_order(&state, state.len)?;
        state.writer.flush().map_err(|source| self.io_error("write", source))
    }

    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<(), TargetError> {
        Err(TargetError::NotReadable { name: self.name.clone() })
    }
}

impl fmt::Debug for StreamTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StreamTarget({:?})", self.name)
    }
}

/// Returns `len` zeros, or as many as there are at once.
pub(super) fn first_zeros(len: u64) -> &'static [u8] {
    usize::try_from(len).ok().and_then(|len| ZEROS.get(..len)).unwrap_or(&ZEROS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A pipe takes what it has room for.
            let len = bytes.len().min(100_000);
            self.0.lock().unwrap().write(&bytes[..len])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stream() -> (Shared, StreamTarget) {
        let shared = Shared::default();
        (shared.clone(), StreamTarget::new("a pipe".to_owned(), Box::new(shared)))
    }

    #[test]
    fn image_is_written_in_order() {
        let (shared, target) = stream();
        let zeros_len = (5 << 20) + 3;
        target.prepare(zeros_len + 6).unwrap();
        target.write_all_at(b"abc", 0).unwrap();
        target.zero_at(3, zeros_len).unwrap();
        target.write_all_at(b"def", 3 + zeros_len).unwrap();
        target.finish().unwrap();
        let mut expected = b"abc".to_vec();
        expected.resize(3 + usize::try_from(zeros_len).unwrap(), 0);
        expected.extend_from_slice(b"def");
        assert!(*shared.0.lock().unwrap() == expected);
    }

    #[test]
    fn gap_and_missing_end_are_errors() {
        let (shared, target) = stream();
        target.prepare(10).unwrap();
        assert!(target.is_sequential());
        assert!(matches!(target.write_all_at(b"x", 1), Err(TargetError::Io { .. })));
        assert!(matches!(target.zero_at(1, 5), Err(TargetError::Io { .. })));
        assert!(shared.0.lock().unwrap().is_empty());
        target.zero_at(0, 9).unwrap();
        assert!(matches!(target.finish(), Err(TargetError::Io { .. })));
        target.zero_at(9, 1).unwrap();
        target.finish().unwrap();
    }

    #[test]
    fn stream_is_not_read_back() {
        let (_, target) = stream();
        let result = target.read_exact_at(&mut [0], 0);
        assert!(matches!(result, Err(TargetError::NotReadable { .. })));
    }
}
