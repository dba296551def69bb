//! Checks the needed records of one pack after another.

use super::check::{Checked, Run};
use crate::chunk_reader::to_usize;
use crate::compression::Expander;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FooterRecord, FormatError, RecordHeader};
use crate::id::PackId;
use crate::mark::PackNeeds;
use crate::pack::{PackContents, read_contents, read_record};
use crate::storage::Storage;

/// Bytes that are read from a pack at once, unless one record is longer.
pub(super) const READ_LEN: u32 = 4 << 20;

/// One thread with buffers of its own.
pub(super) struct Worker<'a> {
    run: &'a Run<'a>,
    expander: Expander,
    stored: Vec<u8>,
    plain: Vec<u8>,
    pub(super) checked: Checked,
}

impl<'a> Worker<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            expander: Expander::new(),
            stored: Vec::new(),
            plain: Vec::new(),
            checked: Checked::default(),
        }
    }

    pub(super) fn check_pack(&mut self, pack: &PackId, need: &PackNeeds) -> Result<()> {
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
