//! One commit under way.

use std::sync::atomic::Ordering;

use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    Shared, StoreError,
    memory::{Memory, Numbers},
    tables::{CHANGES, LEASES, META, OLDEST, OUTBOX, RECORDS, REVISION, SEALED, TOKEN, number},
};

/// How much more than was written may be compacted in one commit.
const COMPACTED_BESIDE: u64 = 64;

/// A table of records.
pub(super) type Records<'t> = Table<'t, (&'static str, &'static str), (u64, &'static [u8])>;

/// One commit under way: the tables, and what the writer knows by heart.
pub(super) struct Pass<'t> {
    pub(super) records: Records<'t>,
    pub(super) sealed: Records<'t>,
    pub(super) changes: Table<'t, u64, &'static [u8]>,
    pub(super) outbox: Table<'t, u64, ()>,
    pub(super) leases: Table<'t, &'static str, (u64, u64, &'static str)>,
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) memory: &'t mut Memory,
    pub(super) shared: &'t Shared,
    /// Whether anything was written.
    pub(super) dirty: bool,
    /// Whether anything is to be announced.
    pub(super) announce: bool,
}

/// Why work is not done.
pub(super) enum Failure {
    /// It may not be; nothing was written for it.
    Refused(StoreError),
    /// The file failed; nothing of this commit will be there.
    Broken(redb::Error),
}

impl<'t> Pass<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        shared: &'t Shared,
        memory: &'t mut Memory,
    ) -> Result<Self, redb::Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            sealed: transaction.open_table(SEALED)?,
            changes: transaction.open_table(CHANGES)?,
            outbox: transaction.open_table(OUTBOX)?,
            leases: transaction.open_table(LEASES)?,
            meta: transaction.open_table(META)?,
            memory,
            shared,
            dirty: false,
            announce: false,
        })
    }

    /// Compacts the log, and writes the numbers down. Whether anything is to be announced.
    pub(super) fn close(mut self) -> Result<bool, redb::Error> {
        let before = number(&self.meta, REVISION)?;
        let Numbers { revision, mut oldest, token } = self.memory.numbers;
        let keep = self.shared.change_log.load(Ordering::Relaxed);
        let due = (revision + 1).saturating_sub(oldest).saturating_sub(keep);
        let unsent = self.outbox.first()?.map_or(u64::MAX, |(sequence, _)| sequence.value());
        for _ in 0..due.min(2 * (revision - before) + COMPACTED_BESIDE) {
            if oldest >= unsent {
                break;
            }
            self.changes.remove(oldest)?;
            oldest += 1;
        }
        self.memory.numbers.oldest = oldest;
        self.meta.insert(REVISION, revision)?;
        self.meta.insert(OLDEST, oldest)?;
        self.meta.insert(TOKEN, token)?;
        Ok(self.announce)
    }
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}
