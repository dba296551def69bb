//! Death, power cuts and rot, and what they may cost.
//!
//! What rot costs is said here alone: [`Rot`] remembers all chunks of the packs that a byte was changed in. Such a chunk, and
//! what lies below such a page, may be there or not, by what was verified and written again since. Wrong bytes are never
//! read, an error names one of these chunks, and a verification names every revision that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use chunkstore::environment::Environment;
use chunkstore::error::{Error, ObjectName, Result};
use chunkstore::format::{PackFooter, Trust};
use chunkstore::id::{ChunkId, PackId, RevisionId};
use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops::{self, DamagedChunk, ScrubOptions, VerifyOptions};
use chunkstore::progress::NoProgress;
use chunkstore::vfs::read_file;
use chunkstore::vfs::simulated::{CrashMode, FaultPlan};
use support::model_store::{ImageSource, Numbers, SparseImage, try_purge};
use support::simulated_store::files_below;

use super::world::{World, set};
use super::{SOURCES, Victim};

/// What may have rotted.
#[derive(Debug, Default)]
pub(super) struct Rot {
    packs: BTreeSet<PackId>,
    chunks: BTreeSet<ChunkId>,
}

impl Rot {
    pub(super) fn is_there(&self) -> bool {
        !self.packs.is_empty()
    }

    /// Returns whether an error is one that what has rotted may cause.
    pub(super) fn explains(&self, error: &Error) -> bool {
        match error {
            Error::Damaged { object, .. } | Error::Missing { object } => match object {
                ObjectName::Chunk { id, .. } => self.chunks.contains(id),
                ObjectName::Pack(id) => self.packs.contains(id),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns the revisions that damage costs, all of which this rot explains.
    fn named(&self, damaged: &[DamagedChunk], packs: &[(PackId, String)]) -> BTreeSet<RevisionId> {
        for chunk in damaged {
            assert!(self.chunks.contains(&chunk.chunk), "{chunk:?}");
        }
        for pack in packs {
            assert!(self.packs.contains(&pack.0), "{pack:?}");
        }
        damaged.iter().flat_map(|chunk| &chunk.revisions).map(|hit| hit.id).collect()
    }
}

/// As [`support::model_store::assert_reads`], but what cannot be read is an error.
pub(super) fn try_reads(reader: &ImageReader, truth: &SparseImage) -> Result<()> {
    assert_eq!(reader.len(), truth.len());
    for extent in reader.extents(0, truth.len())? {
        match extent {
            Extent::Zero { range } => {
                assert!(truth.is_zero(range.clone()), "{range:?} is not zero");
            }
            Extent::Data { range, .. } => {
                let len = usize::try_from(range.end - range.start).unwrap();
                let (mut found, mut expected) = (vec![0; len], vec![0; len]);
                reader.read_exact_at(&mut found, range.start)?;
                truth.read(range.start, &mut expected);
                assert!(found == expected, "{range:?} differs");
            }
        }
    }
    Ok(())
}

impl World {
    /// Changes a byte of a pack.
    pub(super) fn rot(&mut self, pack: usize, place: u64) {
        let packs = files_below(&self.vfs, "packs");
        let Some(path) = pack.checked_rem(packs.len()).map(|pack| &packs[pack]) else { return };
        let bytes = read_file(&self.vfs, path, 1 << 30).unwrap();
        let id: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        if self.rot.packs.insert(id) {
            let len = bytes.len() as u64;
            let trailer = &bytes[bytes.len() - PackFooter::TRAILER_LEN..];
            let table = PackFooter::table_range(trailer, len).unwrap();
            let table = &bytes[usize::try_from(table.start).unwrap()..];
            let records = PackFooter::decode(table, len).unwrap().records;
            self.rot.chunks.extend(records.iter().map(|record| record.id));
        }
        let mask = 1 << (place % 8);
        self.vfs.flip(path, (place >> 3) % bytes.len() as u64, mask).unwrap();
    }

    pub(super) fn verify(&self, picks: &[usize]) {
        let ids: Vec<RevisionId> = picks.iter().filter_map(|pick| self.pick(*pick)).collect();
        let unreadable: BTreeSet<RevisionId> =
            ids.iter().filter(|id| !self.is_readable(id)).copied().collect();
        let options = VerifyOptions { all_data: true, ..VerifyOptions::default() };
        let stats = ops::verify(&self.store, &ids, &options, &NoProgress).unwrap();
        let named = self.rot.named(&stats.damaged, &stats.damaged_packs);
        assert!(unreadable.is_subset(&named), "{unreadable:?} cannot be read, {named:?} are named");
        for id in ids.iter().filter(|id| !named.contains(id)) {
            assert!(stats.verified.contains(id), "{id} is neither verified nor damaged");
            assert!(self.is_readable(id), "{id} is verified and cannot be read");
        }
    }

    pub(super) fn scrub(&self) {
        let unreadable: Vec<&RevisionId> =
            self.truth.keys().filter(|id| !self.is_readable(id)).collect();
        let stats = ops::scrub(&self.store, &ScrubOptions::default(), &NoProgress).unwrap();
        self.rot.named(&stats.damaged, &stats.damaged_packs);
        for id in unreadable {
            let trust = self.store.revision(id).unwrap().state.trust;
            assert_eq!(trust, Trust::Damaged, "{id} cannot be read: {stats:?}");
        }
    }

    /// Stops an operation at a call, and goes on with what a kill or a power cut leaves behind.
    pub(super) fn kill(&mut self, what: &Victim, call: u64, seed: u64) {
        if let Victim::Backup { source, edits } = what {
            self.edit(*source, edits);
        }
        self.vfs.set_faults(FaultPlan::stop_at_mutation(call));
        // What it was told, a victim that was not hit, or too late, can rely on.
        let done = self.run_victim(what);
        let crashes: Vec<CrashMode> = CrashMode::all().collect();
        let vfs = match Numbers(seed).below(crashes.len() as u64 + 1) {
            0 => self.vfs.kill(),
            number => self.vfs.crash(&crashes[usize::try_from(number).unwrap() - 1], seed),
        };
        self.environment =
            Environment { vfs: std::sync::Arc::new(vfs.clone()), ..self.environment.clone() };
        self.vfs = vfs;
        self.is_tidy = false;
        self.reopen();
        self.take_over(what, done);
    }

    /// Returns the revision that was acknowledged, or that is acknowledged to be gone.
    fn run_victim(&self, what: &Victim) -> Option<RevisionId> {
        match what {
            Victim::Backup { source, .. } => {
                let image = ImageSource::new(&self.images[*source]);
                self.try_back_up(*source, &[], &image).ok().map(|stats| stats.id)
            }
            Victim::Forget { pick } => {
                let id = self.pick(*pick)?;
                ops::forget(&self.store, &[id]).ok().map(|_| id)
            }
            Victim::Verify => {
                let ids: Vec<RevisionId> = self.truth.keys().copied().collect();
                let _stopped =
                    ops::verify(&self.store, &ids, &VerifyOptions::default(), &NoProgress);
                None
            }
            Victim::Purge => {
                let _stopped = try_purge(&self.store, std::time::Duration::ZERO);
                None
            }
            Victim::RebuildIndex => {
                let _stopped = ops::rebuild_index(&self.store, &NoProgress);
                None
            }
        }
    }

    /// Finds out whether the victim had come so far that its work is there.
    fn take_over(&mut self, what: &Victim, done: Option<RevisionId>) {
        let revisions = self.store.history(None).unwrap().revisions;
        let found: BTreeMap<RevisionId, String> = revisions
            .into_iter()
            .map(|revision| (revision.record.id, revision.record.source.to_string()))
            .collect();
        match what {
            Victim::Backup { source, .. } => {
                let new: Vec<&RevisionId> =
                    found.keys().filter(|id| !self.truth.contains_key(id)).collect();
                assert!(
                    done.is_none() || new == done.iter().collect::<Vec<_>>(),
                    "{done:?} is lost"
                );
                assert!(new.len() <= 1, "one backup has made {new:?}");
                if let Some(id) = new.first() {
                    assert_eq!(found[id], SOURCES[*source]);
                    self.remember(*source, **id, set::<&str>(&[]));
                }
            }
            Victim::Forget { pick } => {
                if let Some(id) = self.pick(*pick)
                    && !found.contains_key(&id)
                {
                    assert!(!self.truth[&id].protected, "{id} was protected");
                    self.lose(&id);
                }
                assert!(done.is_none_or(|id| !found.contains_key(&id)), "{done:?} has come back");
            }
            Victim::Verify | Victim::Purge | Victim::RebuildIndex => {}
        }
    }
}
