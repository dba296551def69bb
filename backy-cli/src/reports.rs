//! Documents that `--json` prints. Keys are stable: they are added to, never changed.

mod expire;

use std::path::Path;

use chunkstore::Revision;
use chunkstore::chunking::ChunkingParams;
use chunkstore::format::{RevisionKind, SessionKind, Trust};
use chunkstore::id::{ChunkId, PackId, RevisionId, SourceName, StoreId};
use chunkstore::ops::purge::{WaitReason, Waiting};
use chunkstore::ops::{
    BackupStats, Coverage, DamagedChunk, Recheck, RestoreStats, RevisionSpace, ScrubStats,
    StoreInfo, TagChange, VerifyStats,
};
use chunkstore::time::Timestamp;
use serde::Serialize;

pub(crate) use self::expire::{ExpireReport, ThinReport};
use crate::human;

/// What `nbd-server` serves, and where.
#[derive(Debug, Serialize)]
pub(crate) struct NbdServerReport<'a> {
    pub(crate) uris: &'a [String],
    pub(crate) revision: RevisionId,
    pub(crate) size: u64,
    pub(crate) writable: bool,
    pub(crate) overlay: Option<&'a Path>,
}

/// One revision, as `status` lists it.
#[derive(Debug, Serialize)]
pub(crate) struct RevisionReport<'a> {
    id: RevisionId,
    source: &'a SourceName,
    time: Timestamp,
    size: u64,
    new_bytes: u64,
    stored_bytes: u64,
    duration_seconds: f64,
    tags: &'a [String],
    trust: Trust,
    protected: bool,
    complete: bool,
    kind: RevisionKind,
    /// Files that the complete revision had, if this one is what thinning left of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinned_from: Option<u64>,
    parent: Option<RevisionId>,
    #[serde(flatten)]
    space: Option<SpaceReport>,
}

/// What a revision needs of the store, as `status --space` tells it.
#[derive(Clone, Copy, Debug, Serialize)]
struct SpaceReport {
    shared_bytes: u64,
    exclusive_bytes: u64,
}

impl RevisionReport<'_> {
    /// Adds the space, if it was found out.
    pub(crate) fn with_space(mut self, space: Option<&RevisionSpace>) -> Self {
        self.space = space.map(|space| SpaceReport {
            shared_bytes: space.shared_bytes,
            exclusive_bytes: space.exclusive_bytes,
        });
        self
    }
}

impl<'a> From<&'a Revision> for RevisionReport<'a> {
    fn from(Revision { record, state }: &'a Revision) -> Self {
        Self {
            id: record.id,
            source: &record.source,
            time: record.time,
            size: record.size,
            new_bytes: record.statistics.new_bytes,
            stored_bytes: record.statistics.stored_bytes,
            duration_seconds: human::seconds(record.statistics.duration_milliseconds),
            tags: &state.tags,
            trust: state.trust,
            protected: state.protected,
            // Only a complete backup becomes a revision.
            complete: true,
            kind: record.kind,
            thinned_from: record.thinned.map(|thinned| thinned.complete_entries),
            parent: record.parent,
            space: None,
        }
    }
}

/// One revision with the keys that the ancestor's `status --yaml` had.
#[derive(Debug, Serialize)]
pub(crate) struct AncestorRevisionReport<'a> {
    uuid: RevisionId,
    source: &'a SourceName,
    timestamp: Timestamp,
    parent: String,
    stats: AncestorStatistics,
    trust: Trust,
    tags: &'a [String],
}

#[derive(Debug, Serialize)]
struct AncestorStatistics {
    bytes_written: u64,
    duration: f64,
}

impl<'a> From<&'a Revision> for AncestorRevisionReport<'a> {
    fn from(Revision { record, state }: &'a Revision) -> Self {
        Self {
            uuid: record.id,
            source: &record.source,
            timestamp: record.time,
            parent: record.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            stats: AncestorStatistics {
                bytes_written: record.size,
                duration: human::seconds(record.statistics.duration_milliseconds),
            },
            trust: state.trust,
            tags: &state.tags,
        }
    }
}

/// What `init` made.
#[derive(Debug, Serialize)]
pub(crate) struct InitReport<'a> {
    pub(crate) backup_dir: &'a Path,
    pub(crate) store: &'a Path,
    pub(crate) store_id: StoreId,
    pub(crate) name: &'a SourceName,
    pub(crate) source: &'a Path,
}

/// What `backup` did.
#[derive(Debug, Serialize)]
pub(crate) struct BackupReport<'a> {
    id: RevisionId,
    source: &'a SourceName,
    parent: Option<RevisionId>,
    size: u64,
    read_bytes: u64,
    hole_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    reused_bytes: u64,
    reused_chunks: u64,
    new_chunks: u64,
    sampled_count: u64,
    sampled_bytes: u64,
    duration_seconds: f64,
    tags: &'a [String],
    warnings: &'a [String],
    rechecked: Option<RecheckReport>,
    healed: &'a [RevisionId],
}

/// What became of a distrusted revision.
#[derive(Debug, Serialize)]
struct RecheckReport {
    id: RevisionId,
    sound: bool,
}

impl From<Recheck> for RecheckReport {
    fn from(Recheck { id, is_sound }: Recheck) -> Self {
        Self { id, sound: is_sound }
    }
}

impl<'a> BackupReport<'a> {
    pub(crate) fn new(stats: &'a BackupStats, source: &'a SourceName, tags: &'a [String]) -> Self {
        Self {
            id: stats.id,
            source,
            parent: stats.parent,
            size: stats.size,
            read_bytes: stats.statistics.read_bytes,
            hole_bytes: stats.statistics.hole_bytes,
            new_bytes: stats.statistics.new_bytes,
            stored_bytes: stats.statistics.stored_bytes,
            reused_bytes: stats.statistics.reused_bytes,
            reused_chunks: stats.statistics.reused_chunks,
            new_chunks: stats.statistics.new_chunks,
            sampled_count: stats.sample.count,
            sampled_bytes: stats.sample.bytes,
            duration_seconds: human::seconds(stats.statistics.duration_milliseconds),
            tags,
            warnings: &stats.warnings,
            rechecked: stats.recheck.map(RecheckReport::from),
            healed: &stats.healed,
        }
    }
}

/// A damaged chunk, and what is hit.
#[derive(Debug, Serialize)]
pub(crate) struct DamageReport<'a> {
    chunk: ChunkId,
    pack: Option<PackId>,
    reason: &'a str,
    revisions: Vec<DamagedRangesReport<'a>>,
}

/// Ranges of one revision: offset and length in bytes.
#[derive(Debug, Serialize)]
struct DamagedRangesReport<'a> {
    id: RevisionId,
    ranges: &'a [(u64, u64)],
}

impl<'a> From<&'a DamagedChunk> for DamageReport<'a> {
    fn from(damage: &'a DamagedChunk) -> Self {
        let ranges = damage
            .revisions
            .iter()
            .map(|hit| DamagedRangesReport { id: hit.id, ranges: &hit.ranges });
        Self {
            chunk: damage.chunk,
            pack: damage.pack,
            reason: &damage.reason,
            revisions: ranges.collect(),
        }
    }
}

/// What `restore` did.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreReport<'a> {
    id: RevisionId,
    target: String,
    size: u64,
    written_bytes: u64,
    kept_bytes: u64,
    zero_bytes: u64,
    duration_seconds: f64,
    damaged: Vec<DamageReport<'a>>,
}

impl<'a> RestoreReport<'a> {
    pub(crate) fn new(id: RevisionId, target: &Path, stats: &'a RestoreStats) -> Self {
        Self {
            id,
            target: target.display().to_string(),
            size: stats.size,
            written_bytes: stats.written_bytes,
            kept_bytes: stats.kept_bytes,
            zero_bytes: stats.zero_bytes,
            duration_seconds: human::seconds(stats.duration_milliseconds),
            damaged: stats.damaged.iter().map(DamageReport::from).collect(),
        }
    }
}

/// What `verify` found.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyReport<'a> {
    checked_chunks: u64,
    checked_bytes: u64,
    proven_chunks: u64,
    damaged: Vec<DamageReport<'a>>,
    damaged_packs: Vec<DamagedPackReport<'a>>,
    verified: &'a [RevisionId],
    healed: &'a [RevisionId],
    duration_seconds: f64,
}

/// A pack that cannot be read as a whole.
#[derive(Debug, Serialize)]
struct DamagedPackReport<'a> {
    pack: PackId,
    reason: &'a str,
}

fn damaged_packs(packs: &[(PackId, String)]) -> Vec<DamagedPackReport<'_>> {
    packs.iter().map(|(pack, reason)| DamagedPackReport { pack: *pack, reason }).collect()
}

impl<'a> From<&'a VerifyStats> for VerifyReport<'a> {
    fn from(stats: &'a VerifyStats) -> Self {
        Self {
            checked_chunks: stats.checked_chunks,
            checked_bytes: stats.checked_bytes,
            proven_chunks: stats.proven_chunks,
            damaged: stats.damaged.iter().map(DamageReport::from).collect(),
            damaged_packs: damaged_packs(&stats.damaged_packs),
            verified: &stats.verified,
            healed: &stats.healed,
            duration_seconds: human::seconds(stats.duration_milliseconds),
        }
    }
}

/// What `scrub` found.
#[derive(Debug, Serialize)]
pub(crate) struct ScrubReport<'a> {
    checked_packs: u64,
    checked_chunks: u64,
    checked_bytes: u64,
    damaged: Vec<DamageReport<'a>>,
    damaged_packs: Vec<DamagedPackReport<'a>>,
    damaged_revisions: &'a [RevisionId],
    healed: &'a [RevisionId],
    coverage: CoverageReport,
    duration_seconds: f64,
}

impl<'a> ScrubReport<'a> {
    pub(crate) fn new(stats: &'a ScrubStats, coverage: &Coverage) -> Self {
        Self {
            checked_packs: stats.checked_packs,
            checked_chunks: stats.checked_chunks,
            checked_bytes: stats.checked_bytes,
            damaged: stats.damaged.iter().map(DamageReport::from).collect(),
            damaged_packs: damaged_packs(&stats.damaged_packs),
            damaged_revisions: &stats.damaged_revisions,
            healed: &stats.healed,
            coverage: CoverageReport::from(coverage),
            duration_seconds: human::seconds(stats.duration_milliseconds),
        }
    }
}

/// How much of a store was read as a whole, and when the stalest of it was.
#[derive(Debug, Serialize)]
struct CoverageReport {
    packs: u64,
    pack_bytes: u64,
    read_packs: u64,
    read_bytes: u64,
    stalest: Option<Timestamp>,
}

impl From<&Coverage> for CoverageReport {
    fn from(coverage: &Coverage) -> Self {
        Self {
            packs: coverage.packs,
            pack_bytes: coverage.pack_bytes,
            read_packs: coverage.read_packs,
            read_bytes: coverage.read_bytes,
            stalest: coverage.stalest,
        }
    }
}

/// What a purge did, or would do.
#[derive(Debug, Serialize)]
pub(crate) struct PurgeReport<'a> {
    pub(crate) dry_run: bool,
    pub(crate) freed_bytes: u64,
    pub(crate) repacked_bytes: u64,
    pub(crate) kept_bytes: u64,
    pub(crate) deferred_bytes: u64,
    pub(crate) waiting: Vec<WaitingReport<'a>>,
    /// What was to be copied and is damaged.
    pub(crate) damaged: &'a [String],
}

/// Space that is not given back yet.
#[derive(Debug, Serialize)]
pub(crate) struct WaitingReport<'a> {
    bytes: u64,
    /// Whether it is condemned; otherwise somebody uses it, or may go on with it.
    condemned: bool,
    until: Option<Timestamp>,
    session: Option<SessionReport<'a>>,
    pub(crate) reason: String,
}

/// Who is waited for.
#[derive(Debug, Serialize)]
struct SessionReport<'a> {
    kind: SessionKind,
    host: &'a str,
    process: u32,
    command: &'a str,
    since: Timestamp,
}

impl<'a> From<&'a Waiting> for WaitingReport<'a> {
    fn from(waiting: &'a Waiting) -> Self {
        let reason = &waiting.reason;
        let session = reason.session().map(|session| SessionReport {
            kind: session.kind,
            host: &session.host,
            process: session.process,
            command: &session.command,
            since: session.started,
        });
        Self {
            bytes: waiting.bytes,
            condemned: matches!(reason, WaitReason::OlderSession(_) | WaitReason::Grace { .. }),
            until: reason.until(),
            session,
            reason: reason.to_string(),
        }
    }
}

impl WaitingReport<'_> {
    /// Returns the line for a person.
    pub(crate) fn line(&self) -> String {
        let what = if self.condemned { "deferred" } else { "kept" };
        let word = if self.condemned { "waits for" } else { "for" };
        format!("{what}: {} {word} {}", human::size(self.bytes), self.reason)
    }
}

/// What a store is and holds.
#[derive(Debug, Serialize)]
pub(crate) struct InfoReport<'a> {
    path: &'a Path,
    format: u32,
    store_id: StoreId,
    revisions: u64,
    packs: u64,
    chunks: u64,
    apparent_bytes: u64,
    unique_bytes: u64,
    stored_bytes: u64,
    condemned_bytes: u64,
    quarantined_chunks: u64,
    unhealed_chunks: u64,
    mismatches: u64,
    chunking: ChunkingParams,
    compression_level: i32,
    coverage: CoverageReport,
}

impl<'a> InfoReport<'a> {
    pub(crate) fn new(path: &'a Path, info: &StoreInfo, coverage: &Coverage) -> Self {
        Self {
            path,
            format: info.format,
            store_id: info.store_id,
            revisions: info.revisions,
            packs: info.packs,
            chunks: info.chunks,
            apparent_bytes: info.apparent_bytes,
            unique_bytes: info.unique_bytes,
            stored_bytes: info.stored_bytes,
            condemned_bytes: info.condemned_bytes,
            quarantined_chunks: info.quarantined_chunks,
            unhealed_chunks: info.unhealed_chunks,
            mismatches: info.mismatches,
            chunking: info.chunking,
            compression_level: info.compression_level,
            coverage: CoverageReport::from(coverage),
        }
    }
}

/// A revision and the file of its record.
#[derive(Debug, Serialize)]
pub(crate) struct FoundReport {
    pub(crate) id: RevisionId,
    pub(crate) path: String,
}

/// Which revisions were forgotten.
#[derive(Debug, Serialize)]
pub(crate) struct ForgetReport<'a> {
    pub(crate) forgotten: &'a [RevisionId],
}

/// What an edit of tags did.
#[derive(Debug, Serialize)]
pub(crate) struct TagsReport<'a> {
    pub(crate) revisions: Vec<TagChangeReport<'a>>,
}

/// What became of the tags of one revision.
#[derive(Debug, Serialize)]
pub(crate) struct TagChangeReport<'a> {
    id: RevisionId,
    tags_before: &'a [String],
    tags_after: &'a [String],
    removed: bool,
}

impl<'a> From<&'a TagChange> for TagChangeReport<'a> {
    fn from(change: &'a TagChange) -> Self {
        Self {
            id: change.id,
            tags_before: &change.before,
            tags_after: &change.after,
            removed: change.is_removed,
        }
    }
}

/// Which revisions are protected now, or no longer.
#[derive(Debug, Serialize)]
pub(crate) struct ProtectReport<'a> {
    pub(crate) protected: bool,
    pub(crate) changed: &'a [RevisionId],
    pub(crate) unchanged: &'a [RevisionId],
}

/// What distrusting did.
#[derive(Debug, Serialize)]
pub(crate) struct DistrustReport<'a> {
    pub(crate) changed: &'a [RevisionId],
    pub(crate) unchanged: &'a [RevisionId],
}

/// What the index was made from.
#[derive(Debug, Serialize)]
pub(crate) struct RebuildReport {
    pub(crate) packs: u64,
    pub(crate) chunks: u64,
    pub(crate) damaged: Vec<String>,
}
