//! Checks the records of one pack after another: those that are needed, or all.

use super::check::{Checked, Run};
use crate::chunk_reader::to_usize;
use crate::compression::Expander;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FooterRecord, FormatError, RecordHeader};
use crate::id::{ChunkId, PackId};
use crate::mark::PackNeeds;
use crate::pack::{PackContents, read_contents, read_record};
use crate::storage::{ObjectKey, Storage};
use crate::time::Timestamp;
use crate::units::PackOffset;

/// Bytes that are read from a pack at once, unless one record is longer.
pub(super) const READ_LEN: u32 = 4 << 20;

/// One thread with buffers of its own.
pub(in crate::ops) struct Worker<'a> {
    run: &'a Run<'a>,
    expander: Expander,
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// Whether all was sound that was read of the current pack.
    is_sound: bool,
    pub(in crate::ops) checked: Checked,
}

impl<'a> Worker<'a> {
    pub(in crate::ops) fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            expander: Expander::new(),
            stored: Vec::new(),
            plain: Vec::new(),
            is_sound: true,
            checked: Checked::default(),
        }
    }

    pub(super) fn check_pack(&mut self, pack: &PackId, need: &PackNeeds) -> Result<()> {
        let began = self.begin_pack();
        let contents = match self.read_table(pack) {
            Ok(contents) => contents,
            Err(error) if error.is_damage() => {
                self.checked.reads.push((*pack, None));
                return self.note_lost(pack, need, &[], &error);
            }
            Err(other) => return Err(other),
        };
        let is_agreed = need.agrees_with(&contents.records);
        if let Some(source) = &contents.damage {
            self.is_sound = false;
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
        let records = contents.records.iter().enumerate();
        let needed: Vec<&FooterRecord> =
            records.filter(|(index, _)| need.contains(*index)).map(|(_, record)| record).collect();
        self.check_records(pack, &needed)?;
        if !self.is_sound {
            self.checked.reads.push((*pack, None));
        } else if needed.len() == contents.records.len() {
            self.checked.reads.push((*pack, Some(began)));
        }
        self.run.progress.advance(contents.file_len);
        Ok(())
    }

    /// Checks all of a pack, whether anything needs it or not. A pack that a purge removes meanwhile is passed over.
    pub(in crate::ops) fn check_whole_pack(&mut self, pack: &PackId) -> Result<()> {
        let began = self.begin_pack();
        let before = std::mem::take(&mut self.checked);
        let result = self.check_all_records(pack);
        let found = std::mem::replace(&mut self.checked, before);
        let is_damage = !self.is_sound || result.as_ref().is_err_and(Error::is_damage);
        if is_damage && self.run.store.storage().object_len(&ObjectKey::Pack(*pack))?.is_none() {
            return Ok(());
        }
        result?;
        self.checked.add(found);
        self.checked.reads.push((*pack, self.is_sound.then_some(began)));
        Ok(())
    }

    fn check_all_records(&mut self, pack: &PackId) -> Result<()> {
        let contents = match self.read_table(pack) {
            Ok(contents) => contents,
            Err(error) if error.is_damage() => {
                let reason = match &error {
                    Error::Damaged { source, .. } => source.to_string(),
                    other => other.to_string(),
                };
                self.is_sound = false;
                self.checked.damaged_packs.push((*pack, reason));
                return self.note_known(pack, &[], &error);
            }
            Err(other) => return Err(other),
        };
        if let Some(source) = &contents.damage {
            self.is_sound = false;
            self.checked.damaged_packs.push((*pack, source.to_string()));
            let object = ObjectName::Pack(*pack);
            let error = Error::Damaged { object, source: source.clone() };
            self.note_known(pack, &contents.records, &error)?;
        }
        // What is in quarantine is known to be damaged, and nothing leads there.
        let quarantine = self.run.store.index().quarantine()?;
        let (known, records): (Vec<&FooterRecord>, Vec<&FooterRecord>) =
            contents.records.iter().partition(|record| quarantine.contains(pack, &record.id));
        self.check_records(pack, &records)?;
        // By damage that is known a pack has another digest; what is sound in spite of that may be of another pack.
        if self.is_sound && self.are_sound(pack, &known)? {
            self.check_name(pack, &contents)?;
        }
        self.run.progress.advance(contents.file_len);
        Ok(())
    }

    /// Checks that a pack without damage is the one that its name says, and not another one in its place: the name is the digest of the
    /// file. What was read a moment ago is in memory, so the medium is read once.
    fn check_name(&mut self, pack: &PackId, contents: &PackContents) -> Result<()> {
        let storage: &dyn Storage = self.run.store.storage();
        let mut hasher = blake3::Hasher::new();
        let file_len = u32::try_from(contents.file_len).expect("a pack has at most 256 MiB");
        let mut offset = 0;
        while offset < file_len {
            let len = READ_LEN.min(file_len - offset);
            self.stored.resize(to_usize(len), 0);
            read_record(storage, pack, &mut self.stored, PackOffset(offset))?;
            hasher.update(&self.stored);
            offset += len;
        }
        if hasher.finalize() == *pack.as_bytes() {
            return Ok(());
        }
        let source = FormatError::Inconsistent { what: "it is another pack than its name says" };
        self.is_sound = false;
        self.checked.damaged_packs.push((*pack, source.to_string()));
        let error = Error::Damaged { object: ObjectName::Pack(*pack), source };
        self.note_known(pack, &contents.records, &error)
    }

    /// Notes what the index has in a pack and the pack itself does not tell any more.
    fn note_known(&mut self, pack: &PackId, found: &[FooterRecord], error: &Error) -> Result<()> {
        for (index, id) in self.run.store.index().view(|view| view.chunks_of(pack))? {
            if found.get(to_usize(index)).is_none_or(|record| record.id != id) {
                self.find_damage(pack, id, error);
            }
        }
        Ok(())
    }

    fn begin_pack(&mut self) -> Timestamp {
        self.is_sound = true;
        self.run.store.environment().clock.now()
    }

    fn read_table(&self, pack: &PackId) -> Result<PackContents> {
        let contents = read_contents(self.run.store.storage() as &dyn Storage, pack)?;
        let records: u64 =
            contents.records.iter().map(|record| u64::from(record.len_in_pack())).sum();
        self.wait_for_turn(contents.file_len.saturating_sub(records))?;
        Ok(contents)
    }

    /// Waits until `len` bytes may be read, if the rate is limited.
    fn wait_for_turn(&self, len: u64) -> Result<()> {
        match &self.run.limit {
            Some(limit) => {
                limit.take(len, self.run.store.environment().clock.as_ref(), self.run.progress)
            }
            None => Ok(()),
        }
    }

    fn find_damage(&mut self, pack: &PackId, id: ChunkId, error: &Error) {
        self.is_sound = false;
        self.checked.damaged_copies.insert((*pack, id));
        self.checked.findings.add(id, error);
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
                    self.find_damage(pack, id, error);
                }
            }
        }
        // An index that has lost their ids cannot say what the pack has lost.
        self.checked.index_is_wrong |= named != need.count();
        Ok(())
    }

    /// Reads records in runs of neighbours and checks each of them.
    fn check_records(&mut self, pack: &PackId, records: &[&FooterRecord]) -> Result<()> {
        let mut rest = records;
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
        self.wait_for_turn(len.into())?;
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
                    self.find_damage(pack, record.id, &error);
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

    /// Returns whether each of these records can be read and is sound, without a finding if not.
    fn are_sound(&mut self, pack: &PackId, records: &[&FooterRecord]) -> Result<bool> {
        let storage: &dyn Storage = self.run.store.storage();
        for record in records {
            self.wait_for_turn(record.len_in_pack().into())?;
            let mut stored = std::mem::take(&mut self.stored);
            stored.resize(to_usize(record.len_in_pack()), 0);
            let is_sound = read_record(storage, pack, &mut stored, record.offset).is_ok()
                && self.expand(record, &stored).is_ok();
            self.stored = stored;
            if !is_sound {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Checks the bytes of a record, which is in `plain` then.
    fn expand(&mut self, record: &FooterRecord, bytes: &[u8]) -> Result<(), FormatError> {
        let (header, payload) = bytes.split_at(RecordHeader::LEN);
        let header = RecordHeader::decode(header)?;
        if header != record.header() {
            let what = "its header differs from the pack's table";
            return Err(FormatError::Inconsistent { what });
        }
        self.expander.expand(&header, payload, &mut self.plain)
    }

    fn check_record(&mut self, pack: &PackId, record: &FooterRecord, bytes: &[u8]) {
        self.checked.chunks += 1;
        self.checked.bytes += u64::from(record.plain_len);
        if let Err(source) = self.expand(record, bytes) {
            let object = ObjectName::Chunk { id: record.id, pack: Some(*pack) };
            self.find_damage(pack, record.id, &Error::Damaged { object, source });
        }
    }
}
