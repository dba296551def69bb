//! Progress: what a long operation tells its caller. The library itself prints nothing.

/// What an operation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Reading a source and storing what is new.
    Backup,
    /// Reading a sample of a backup back and comparing it with the source.
    Sample,
    /// Writing a revision to a target.
    Restore,
    /// Reading back what was written to a target.
    ReadBack,
    /// Re-hashing chunks.
    Verify,
    /// Comparing two revisions.
    Diff,
    /// Finding out what revisions need.
    Mark,
    /// Copying what is needed of packs that are mostly not.
    Repack,
    /// Finding out which files of which revisions are kept.
    Thin,
    /// Removing what nothing needs.
    Sweep,
    /// Reading the footers of all packs.
    RebuildIndex,
}

/// Receives what a long operation reports, and can ask it to stop.
///
/// Called from several threads. Every method has an empty default.
pub trait Progress: Send + Sync {
    /// A phase begins; `total` is its length in bytes, or in packs for
    /// [`Phase::RebuildIndex`] and [`Phase::Sweep`], or in files for [`Phase::Thin`], where it is known.
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let (_, _) = (phase, total);
    }

    /// `count` more units of the current phase are done.
    fn advance(&self, count: u64) {
        let _ = count;
    }

    /// The current phase is over.
    fn end(&self) {}

    /// Something that the caller may want to tell a person, and that is not an error.
    fn note(&self, message: &str) {
        let _ = message;
    }

    /// Returns whether the operation shall stop at the next chunk boundary with
    /// an error that says so.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
