//! A store with small chunks on a simulated file system, and the verbs in the form that the tests need.
//!
//! One thread each: the order of calls then hardly varies. What varies still is the order of the two
//! threads that write and seal packs.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chunkstore::chunking::ChunkingParams;
use chunkstore::error::{Error, Result};
use chunkstore::id::RevisionId;
use chunkstore::ops::purge::{self, PurgeOptions, PurgeStats};
use chunkstore::ops::{
    self, BackupError, BackupOptions, BackupStats, RestoreError, RestoreOptions, VerifyOptions,
    VerifyStats,
};
use chunkstore::progress::{NoProgress, Progress};
use chunkstore::store::{Store, StoreOptions};
use chunkstore::vfs::simulated::{Call, SimulatedVfs, environment};

use crate::memory::{MemorySource, MemoryTarget};

/// Where the store lies.
pub const STORE_PATH: &str = "/store";

const ONE_THREAD: Option<NonZero<usize>> = NonZero::new(1);

/// Returns options with chunks of 256 bytes on average.
#[must_use]
pub fn options() -> StoreOptions {
    let chunking = ChunkingParams::new(64, 256, 1024).expect("these are permitted parameters");
    StoreOptions { chunking, ..StoreOptions::default() }
}

/// Creates the store. Environments of one test need different seeds.
///
/// # Errors
///
/// As [`Store::create_in`].
pub fn create(vfs: &SimulatedVfs, seed: u64) -> Result<Store> {
    Store::create_in(environment(vfs.clone(), seed), STORE_PATH, &options())
}

/// Opens the store. Environments of one test need different seeds.
///
/// # Errors
///
/// As [`Store::open_in`].
pub fn open(vfs: &SimulatedVfs, seed: u64) -> Result<Store> {
    Store::open_in(environment(vfs.clone(), seed), STORE_PATH)
}

/// Backs up `bytes` as a revision of `source`.
///
/// # Errors
///
/// As [`ops::backup`].
///
/// # Panics
///
/// If the source is blamed, which cannot fail.
pub fn backup(store: &Store, source: &str, bytes: &[u8]) -> Result<BackupStats> {
    backup_with_tags(store, source, bytes, &[])
}

/// Backs up `bytes` as a revision of `source` with these tags.
///
/// # Errors
///
/// As [`ops::backup`].
///
/// # Panics
///
/// If the source is blamed, which cannot fail.
pub fn backup_with_tags(
    store: &Store,
    source: &str,
    bytes: &[u8],
    tags: &[&str],
) -> Result<BackupStats> {
    let source_name = source.parse().expect("names of tests are valid");
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let options = BackupOptions { threads: ONE_THREAD, tags, ..BackupOptions::new(source_name) };
    match ops::backup(store, &MemorySource::new(bytes), &options, &NoProgress) {
        Ok(stats) => Ok(stats),
        Err(BackupError::Store(error)) => Err(error),
        Err(other) => panic!("the source is blamed for an error of the store: {other:?}"),
    }
}

/// Returns which of the calls of the log gave a revision record its name: their numbers among those that change something, from 0.
#[must_use]
pub fn record_renames(vfs: &SimulatedVfs) -> Vec<u64> {
    let calls = vfs.calls();
    let mutations = (0..).zip(calls.iter().filter(|call| call.kind.is_mutating()));
    let is_record = |call: &Call| {
        call.to.as_ref().is_some_and(|to| to.extension().is_some_and(|end| end == "rev"))
    };
    mutations.filter(|(_, call)| is_record(call)).map(|(number, _)| number).collect()
}

/// Returns the bytes of a revision.
///
/// # Errors
///
/// As [`ops::restore`].
///
/// # Panics
///
/// If the target is blamed, which cannot fail.
pub fn restore(store: &Store, id: &RevisionId) -> Result<Vec<u8>> {
    let target = MemoryTarget::default();
    let options = RestoreOptions { threads: ONE_THREAD, ..RestoreOptions::default() };
    match ops::restore(store, id, &target, &options, &NoProgress) {
        Ok(_) => Ok(target.into_bytes()),
        Err(RestoreError::Store(error)) => Err(error),
        Err(other) => panic!("the target is blamed for an error of the store: {other:?}"),
    }
}

/// Verifies all revisions whose records can be read.
///
/// # Errors
///
/// As [`ops::verify`].
pub fn verify_all(store: &Store) -> Result<VerifyStats> {
    let history = store.history(None)?;
    let ids: Vec<_> = history.revisions.iter().map(|revision| revision.record.id).collect();
    verify(store, &ids, &NoProgress)
}

/// Verifies these revisions, with all their data.
///
/// # Errors
///
/// As [`ops::verify`].
pub fn verify(store: &Store, ids: &[RevisionId], progress: &dyn Progress) -> Result<VerifyStats> {
    let options = VerifyOptions { threads: ONE_THREAD, all_data: true, ..VerifyOptions::default() };
    ops::verify(store, ids, &options, progress)
}

/// Length of the ballast of these small stores.
pub const BALLAST_LEN: u64 = 4096;

/// Purges without grace.
///
/// # Errors
///
/// As [`purge::plan`].
pub fn purge_now(store: &Store) -> Result<PurgeStats> {
    let options =
        PurgeOptions { grace: Duration::ZERO, ballast_len: BALLAST_LEN, ..PurgeOptions::default() };
    purge::plan(store, &options, &NoProgress)?.execute(&NoProgress)
}

/// Returns the files of the store below `directory`, sorted.
#[must_use]
pub fn files_below(vfs: &SimulatedVfs, directory: &str) -> Vec<PathBuf> {
    let root = Path::new(STORE_PATH).join(directory);
    let files = vfs.all_files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.starts_with(&root)).collect()
}

/// Returns an error with its causes, for messages of tests.
#[must_use]
pub fn describe(error: &Error) -> String {
    let mut text = format!("{error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
