//! Verify: re-hash every chunk that revisions need, each one once, in the order in which packs hold them.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::findings::{DamagedChunk, Findings};
use crate::chunk_reader::to_usize;
use crate::compression::Expander;
use crate::error::{Error, ObjectName, Result};
use crate::format::{
    FooterRecord, FormatError, PageEntry, RecordHeader, RevisionState, SessionKind, SpanRef, Trust,
};
use crate::id::{ChunkId, PackId, RevisionId};
use crate::mark::{Gap, Marker, PackNeeds};
use crate::pack::{PackContents, read_contents, read_record};
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::revision::Revision;
use crate::session::Session;
use crate::storage::Storage;
use crate::store::Store;

/// Bytes that are read from a pack at once, unless one record is longer.
const READ_LEN: u32 = 4 << 20;

/// Roots that one session pins: its record must stay below the limit of a document.
const PINS_MAX: usize = 8192;

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Threads that read and expand; as many as there are processors if `None`.
    pub threads: Option<NonZero<usize>>,
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct VerifyStats {
    /// Chunks that were read, those of chunk lists included.
    pub checked_chunks: u64,
    /// Plain bytes of these chunks.
    pub checked_bytes: u64,
    /// Chunks that cannot be had, and which bytes of which revisions that costs.
    pub damaged: Vec<DamagedChunk>,
    /// Packs with damage outside of needed chunks: in their header, their table, or in a record's header. What revisions
    /// need can still be read from them.
    pub damaged_packs: Vec<(PackId, String)>,
    /// Revisions that are verified now.
    pub verified: Vec<RevisionId>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

impl VerifyStats {
    /// Returns whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.damaged_packs.is_empty()
    }
}

/// Re-hashes every chunk that one of the revisions needs, and notes the result in their state: `verified`,
/// or `damaged`, so that the next backup of that source writes every chunk again.
///
/// Damage does not end the verification; it is in the statistics.
///
/// # Errors
///
/// - [`Error::NoSuchRevision`].
/// - [`Error::Storage`] if the store cannot be read, or a state not written.
/// - [`Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions, VerifyOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let id = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id;
///
/// let stats = ops::verify(&store, &[id], &VerifyOptions::default(), &NoProgress)?;
/// assert!(stats.is_sound());
/// assert_eq!(stats.checked_chunks, 3); // The data, its page and the root.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(
    store: &Store,
    ids: &[RevisionId],
    options: &VerifyOptions,
    progress: &dyn Progress,
) -> Result<VerifyStats> {
    let clock = &store.environment().clock;
    let started = clock.monotonic();
    for damage in store.index().reconcile()? {
        progress.note(&damage.to_string());
    }
    let (revisions, _sessions) = begin(store, ids)?;
    let run = Run { store, progress, threads: options.threads };
    let checked = match run.check(&revisions, false)? {
        Some(checked) => checked,
        None => {
            // The index lacks chunks, or names records that their packs do not have in these places.
            progress.note("the index does not fit to the packs and was rebuilt");
            store.index().renew()?;
            run.check(&revisions, true)?.ok_or_else(|| Error::Bug {
                what: "a new index contradicts the packs that it was built from".to_owned(),
            })?
        }
    };
    let mut findings = checked.findings;
    let affected = run.attribute(&revisions, &mut findings)?;
    let mut stats = VerifyStats {
        checked_chunks: checked.chunks,
        checked_bytes: checked.bytes,
        damaged: findings.into_damaged(),
        damaged_packs: checked.damaged_packs,
        ..VerifyStats::default()
    };
    for revision in &revisions {
        let is_sound = !affected.contains(&revision.record.id);
        if note_result(store, revision, is_sound, progress)? && is_sound {
            stats.verified.push(revision.record.id);
        }
    }
    let elapsed = clock.monotonic().saturating_sub(started);
    stats.duration_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}

/// Registers sessions that pin the revisions, and reads their records again once purge knows it.
fn begin(store: &Store, ids: &[RevisionId]) -> Result<(Vec<Revision>, Vec<Session>)> {
    let read = || ids.iter().map(|id| store.revision(id)).collect::<Result<Vec<_>>>();
    let pins: Vec<ChunkId> = read()?.iter().map(|revision| revision.record.root).collect();
    let sessions = pins
        .chunks(PINS_MAX)
        .map(|pins| store.begin_reading_session(SessionKind::Verify, pins.to_vec()))
        .collect::<Result<Vec<_>>>()?;
    Ok((read()?, sessions.into_iter().flatten().collect()))
}

/// Writes the new trust of a revision, if the store can be written and the revision is still there; returns whether it did.
///
/// The state is read again: tags and protection may have been edited while the chunks were read, and a distrust that came
/// meanwhile is not answered by what was read before.
fn note_result(
    store: &Store,
    revision: &Revision,
    is_sound: bool,
    progress: &dyn Progress,
) -> Result<bool> {
    let record = &revision.record;
    let now = store.environment().clock.now();
    let note =
        |error: &Error| progress.note(&format!("the result is not noted in the store: {error}"));
    let lock = match store.lock_history() {
        Err(error @ Error::Storage { .. }) => {
            note(&error);
            return Ok(false);
        }
        other => other?,
    };
    let current = match store.read_revision(&record.source, &record.id)? {
        Some(current) => current.state,
        None => return Ok(false),
    };
    let is_answered = current.trust == revision.state.trust;
    let state = match is_sound {
        true => RevisionState {
            trust: if is_answered { Trust::Verified } else { current.trust },
            verified: Some(now),
            ..current
        },
        false => RevisionState { trust: Trust::Damaged, rewritten: None, ..current },
    };
    match store.write_state(&lock, &record.source, &state) {
        Err(error @ Error::Storage { .. }) => {
            // The finding itself is not lost: it is what this operation returns.
            note(&error);
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

struct Run<'a> {
    store: &'a Store,
    progress: &'a dyn Progress,
    threads: Option<NonZero<usize>>,
}

#[derive(Default)]
struct Checked {
    chunks: u64,
    bytes: u64,
    findings: Findings,
    damaged_packs: Vec<(PackId, String)>,
    index_is_wrong: bool,
}

impl Run<'_> {
    /// Checks all that the revisions need. `None`: the index does not fit to the packs, or lacks something although
    /// it is not new.
    fn check(&self, revisions: &[Revision], is_new_index: bool) -> Result<Option<Checked>> {
        let mut marker = Marker::new(self.store, self.progress);
        for revision in revisions {
            marker.mark_root(&revision.record.root)?;
        }
        if !is_new_index && marker.gaps.values().any(Gap::has_no_place) {
            return Ok(None);
        }
        let mut findings = Findings::default();
        for (chunk, gap) in &marker.gaps {
            findings.add(*chunk, &gap.error);
        }
        let needs: Vec<(PackId, PackNeeds)> = marker.needs.into_iter().collect();
        self.progress.begin(Phase::Verify, Some(self.stored_len(&needs)?));
        let next = AtomicUsize::new(0);
        let total = Mutex::new(Checked { findings, ..Checked::default() });
        let work = || -> Result<()> {
            let mut worker = Worker::new(self);
            while let Some((pack, need)) = needs.get(next.fetch_add(1, Ordering::Relaxed)) {
                worker.check_pack(pack, need)?;
            }
            let mut total = total.lock().expect("no holder of this lock panics");
            total.chunks += worker.checked.chunks;
            total.bytes += worker.checked.bytes;
            total.findings.merge(worker.checked.findings);
            total.damaged_packs.append(&mut worker.checked.damaged_packs);
            total.index_is_wrong |= worker.checked.index_is_wrong;
            Ok(())
        };
        on_threads(self.threads, needs.len(), work).into_iter().collect::<Result<()>>()?;
        self.progress.end();
        let mut checked = total.into_inner().expect("no holder of this lock panics");
        checked.damaged_packs.sort();
        Ok((!checked.index_is_wrong).then_some(checked))
    }

    fn stored_len(&self, needs: &[(PackId, PackNeeds)]) -> Result<u64> {
        let wanted: std::collections::HashSet<PackId> =
            needs.iter().map(|(pack, _)| *pack).collect();
        let packs = self.store.index().view(|view| view.packs())?;
        let needed = packs.iter().filter(|(_, row)| wanted.contains(&row.id));
        Ok(needed.map(|(_, row)| row.file_len).sum())
    }

    /// Finds out which bytes of which revisions the findings cost, and returns the revisions.
    fn attribute(
        &self,
        revisions: &[Revision],
        findings: &mut Findings,
    ) -> Result<Vec<RevisionId>> {
        let mut affected = Vec::new();
        if findings.is_empty() {
            return Ok(affected);
        }
        let mut reader = crate::chunk_reader::ChunkReader::new(self.store);
        for revision in revisions {
            let record = &revision.record;
            let mut hits = Vec::new();
            let root = if findings.contains(&record.root) {
                None
            } else {
                let root = reader.read_root(&record.root);
                root.map_or_else(
                    |error| findings.add_damage(record.root, error).map(|()| None),
                    |root| Ok(Some(root)),
                )?
            };
            if root.is_none() {
                hits.push((record.root, 0, record.size));
            }
            for (span, reference) in root.iter().flat_map(|root| root.spans.iter().enumerate()) {
                let (SpanRef::Page(id), Some(root)) = (reference, &root) else { continue };
                let range = root.span_range(span);
                let len = range.end - range.start;
                let entries = if findings.contains(id) {
                    None
                } else {
                    let page = reader.read_page(id, None, len);
                    page.map_or_else(
                        |error| findings.add_damage(*id, error).map(|()| None),
                        |page| Ok(Some(page.entries)),
                    )?
                };
                let Some(entries) = entries else {
                    hits.push((*id, range.start, len));
                    continue;
                };
                let mut offset = range.start;
                for entry in &entries {
                    if let PageEntry::Data { id, len } = entry
                        && findings.contains(id)
                    {
                        hits.push((*id, offset, u64::from(*len)));
                    }
                    offset += entry.len();
                }
            }
            if !hits.is_empty() {
                affected.push(record.id);
            }
            for (chunk, offset, len) in hits {
                findings.add_range(&chunk, record.id, offset, len);
            }
        }
        Ok(affected)
    }
}

/// Checks one pack after another.
struct Worker<'a> {
    run: &'a Run<'a>,
    expander: Expander,
    stored: Vec<u8>,
    plain: Vec<u8>,
    checked: Checked,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            expander: Expander::new(),
            stored: Vec::new(),
            plain: Vec::new(),
            checked: Checked::default(),
        }
    }

    fn check_pack(&mut self, pack: &PackId, need: &PackNeeds) -> Result<()> {
        let storage: &dyn Storage = self.run.store.storage();
        let contents = match read_contents(storage, pack) {
            Ok(contents) => contents,
            Err(error) if error.is_damage() => return self.note_lost(pack, need, &[], &error),
            Err(other) => return Err(other),
        };
        let is_agreed = need.agrees_with(&contents.records);
        if let Some(source) = &contents.damage {
            self.checked.damaged_packs.push((*pack, source.to_string()));
            if !is_agreed {
                let object = ObjectName::Pack(*pack);
                let error = Error::Damaged { object, source: source.clone() };
                self.note_lost(pack, need, &contents.records, &error)?;
            }
        } else if !is_agreed {
            self.checked.index_is_wrong = true;
            return Ok(());
        }
        self.check_records(pack, need, &contents)?;
        self.run.progress.advance(contents.file_len);
        Ok(())
    }

    /// Notes the needed records of a pack that are not among those which were found in it. Their ids are in the index only.
    fn note_lost(
        &mut self,
        pack: &PackId,
        need: &PackNeeds,
        found: &[FooterRecord],
        error: &Error,
    ) -> Result<()> {
        let mut named = 0;
        for (record_index, id) in self.run.store.index().view(|view| view.chunks_of(pack))? {
            let index = to_usize(record_index);
            if need.contains(index) {
                named += 1;
                if found.get(index).is_none_or(|record| record.id != id) {
                    self.checked.findings.add(id, error);
                }
            }
        }
        // An index that has lost their ids cannot say what the pack has lost.
        self.checked.index_is_wrong |= named != need.count();
        Ok(())
    }

    /// Reads the needed records in runs of neighbours and checks each of them.
    fn check_records(
        &mut self,
        pack: &PackId,
        need: &PackNeeds,
        contents: &PackContents,
    ) -> Result<()> {
        let needed: Vec<&FooterRecord> = contents
            .records
            .iter()
            .enumerate()
            .filter(|(index, _)| need.contains(*index))
            .map(|(_, record)| record)
            .collect();
        let mut rest = needed.as_slice();
        while let Some(first) = rest.first() {
            if self.run.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let mut end = first.offset.0 + first.len_in_pack();
            let mut count = 1;
            while let Some(next) = rest.get(count)
                && next.offset.0 == end
                && end - first.offset.0 + next.len_in_pack() <= READ_LEN
            {
                end += next.len_in_pack();
                count += 1;
            }
            let (run, behind) = rest.split_at(count);
            self.check_run(pack, run, end - first.offset.0)?;
            rest = behind;
        }
        Ok(())
    }

    fn check_run(&mut self, pack: &PackId, run: &[&FooterRecord], len: u32) -> Result<()> {
        let Some(first) = run.first() else { return Ok(()) };
        let storage: &dyn Storage = self.run.store.storage();
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(to_usize(len), 0);
        match read_record(storage, pack, &mut stored, first.offset) {
            Ok(()) => {
                for record in run {
                    let start = to_usize(record.offset.0 - first.offset.0);
                    let bytes = &stored[start..start + to_usize(record.len_in_pack())];
                    self.check_record(pack, record, bytes);
                }
            }
            Err(error) if run.len() == 1 || error.is_damage() => {
                for record in run {
                    self.checked.findings.add(record.id, &error);
                }
            }
            Err(_unreadable) => {
                // A bad sector must not condemn its neighbours: each record on its own.
                for record in run {
                    self.check_run(pack, &[record], record.len_in_pack())?;
                }
            }
        }
        self.stored = stored;
        Ok(())
    }

    fn check_record(&mut self, pack: &PackId, record: &FooterRecord, bytes: &[u8]) {
        self.checked.chunks += 1;
        self.checked.bytes += u64::from(record.plain_len);
        let (header, payload) = bytes.split_at(RecordHeader::LEN);
        let result = RecordHeader::decode(header).and_then(|header| {
            if header == record.header() {
                self.expander.expand(&header, payload, &mut self.plain)
            } else {
                Err(FormatError::Inconsistent { what: "its header differs from the pack's table" })
            }
        });
        if let Err(source) = result {
            let object = ObjectName::Chunk { id: record.id, pack: Some(*pack) };
            self.checked.findings.add(record.id, &Error::Damaged { object, source });
        }
    }
}
