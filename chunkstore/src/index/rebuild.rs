//! Builds an index from the packs alone.
//!
//! Entries are written in the order of their ids, whatever the order of packs: the cost grows with the number of chunks, and
//! the tree comes out dense.

use redb::Database;

use super::reconcile::{Condemned, is_of_this_pack, row};
use super::record_buckets::{BUCKET_COUNT, Overflow, RecordBuckets};
use super::tables::PackRow;
use super::{Change, Fault, Index, fault};
use crate::error::{Error, ObjectName};
use crate::pack::read_contents;
use crate::progress::{Phase, Progress};
use crate::session;
use crate::storage::Storage;

/// Records after which a transaction ends.
const TRANSACTION_RECORD_COUNT: usize = 500_000;

/// What a rebuild found.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    pub(crate) packs: u64,
    pub(crate) records: u64,
    pub(crate) damaged: Vec<Error>,
}

impl Index {
    /// Fills an empty database from the packs.
    pub(super) fn fill(
        &self,
        database: &Database,
        overflow: Overflow<'_>,
        progress: &dyn Progress,
    ) -> Result<Rebuilt, Fault> {
        let packs = self.storage.list_packs()?;
        let condemned = Condemned::read(&self.storage)?;
        let quarantine = self.quarantine()?;
        let generation_of = condemned.generation_of_pack();
        // The counter goes on where it was, also for sessions that are running now.
        let generation = condemned
            .newest_generation()
            .max(session::newest_start_generation(&self.environment, &self.layout)?);
        progress.begin(Phase::RebuildIndex, Some(packs.len() as u64));
        let mut rebuilt = Rebuilt::default();
        let mut rows: Vec<PackRow> = Vec::new();
        let mut buckets = RecordBuckets::new(overflow);
        for id in packs {
            if progress.is_cancelled() {
                return Err(Fault::Store(Error::Cancelled));
            }
            match read_contents(&self.storage, &id) {
                Ok(contents) => {
                    let number = u32::try_from(rows.len())
                        .map_err(|_| Fault::Damaged("there are too many packs".to_owned()))?;
                    rows.push(row(id, &contents, generation_of(&id)));
                    buckets
                        .add(number, &contents.records, |chunk| quarantine.contains(&id, chunk))?;
                    rebuilt.packs += 1;
                    rebuilt.records += contents.records.len() as u64;
                    let object = ObjectName::Pack(id);
                    let damage = contents.damage.map(|source| Error::Damaged { object, source });
                    rebuilt.damaged.extend(damage);
                }
                Err(Error::Missing { .. }) => {}
                Err(error) if is_of_this_pack(&error) => rebuilt.damaged.push(error),
                Err(other) => return Err(Fault::Store(other)),
            }
            progress.advance(1);
        }
        let now = self.environment.clock.now();
        self.commit(database, |transaction| {
            let mut change = Change::create(transaction, self.store_id, generation, now)?;
            change.note_honoured(&quarantine.names)?;
            change.insert_rows(&rows)
        })?;
        self.insert_buckets(database, &rows, &mut buckets, progress)?;
        progress.end();
        Ok(rebuilt)
    }

    fn insert_buckets(
        &self,
        database: &Database,
        rows: &[PackRow],
        buckets: &mut RecordBuckets<'_>,
        progress: &dyn Progress,
    ) -> Result<(), Fault> {
        let now = self.environment.clock.now();
        let mut next = 0;
        while next < BUCKET_COUNT && !rows.is_empty() {
            self.commit(database, |transaction| {
                let mut change = Change::open(transaction, self.store_id, now)?;
                let mut count = 0;
                while next < BUCKET_COUNT && count < TRANSACTION_RECORD_COUNT {
                    if progress.is_cancelled() {
                        return Err(Fault::Store(Error::Cancelled));
                    }
                    let records = buckets.take(next)?;
                    change.append_sorted(&records, rows)?;
                    count += records.len();
                    next += 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn commit(
        &self,
        database: &Database,
        edit: impl FnOnce(&redb::WriteTransaction) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut transaction = database.begin_write().map_err(fault)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        edit(&transaction)?;
        transaction.commit().map_err(fault)
    }
}
