//! What the writer knows by heart.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase, ReadableTable};

use super::tables::{LEASES, META, OLDEST, REVISION, TOKEN, number};

/// What the writer knows by heart.
pub(super) struct Memory {
    pub(super) numbers: Numbers,
    /// When each lease of the table expires.
    pub(super) leases: HashMap<String, Instant>,
    /// What `leases` held before this commit.
    undo: Vec<(String, Option<Instant>)>,
    /// How many leases make it worth to look for expired ones.
    pub(super) prune_at: usize,
    /// Whether the last commit failed, so that a disk that fails is logged once.
    pub(super) failing: bool,
}

/// The numbers of the meta table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) revision: u64,
    pub(super) oldest: u64,
    pub(super) token: u64,
}

impl Memory {
    /// What is in `database`; every lease there has its full time to live from now.
    pub(super) fn load(database: &Database) -> Result<Self, redb::Error> {
        let numbers = Numbers { revision: 0, oldest: 1, token: 0 };
        let mut memory =
            Self { numbers, leases: HashMap::new(), undo: Vec::new(), prune_at: 1024, failing: false };
        memory.learn(database)?;
        Ok(memory)
    }

    /// Takes over what is in `database`. Leases known already keep their time.
    pub(super) fn learn(&mut self, database: &Database) -> Result<(), redb::Error> {
        let snapshot = database.begin_read()?;
        let meta = snapshot.open_table(META)?;
        self.numbers = Numbers {
            revision: number(&meta, REVISION)?,
            oldest: number(&meta, OLDEST)?,
            token: number(&meta, TOKEN)?,
        };
        let now = Instant::now();
        let mut known = std::mem::take(&mut self.leases);
        for row in snapshot.open_table(LEASES)?.iter()? {
            let (name, lease) = row?;
            let (_, ttl_ms, _) = lease.value();
            let name = name.value().to_owned();
            let expires = known.remove(&name).unwrap_or(now + Duration::from_millis(ttl_ms));
            self.leases.insert(name, expires);
        }
        Ok(())
    }

    /// The commit is on the disk: nothing of it is undone any more.
    pub(super) fn settle(&mut self) {
        self.undo.clear();
    }

    /// Notes when a lease expires; `None`: it is gone. Undone when the commit fails.
    pub(super) fn set_lease(&mut self, name: &str, expires: Option<Instant>) {
        let before = match expires {
            Some(expires) => self.leases.insert(name.to_owned(), expires),
            None => self.leases.remove(name),
        };
        self.undo.push((name.to_owned(), before));
    }

    /// What was before this commit.
    pub(super) fn roll_back(&mut self, numbers: Numbers) {
        self.numbers = numbers;
        for (name, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            match before {
                Some(expires) => self.leases.insert(name, expires),
                None => self.leases.remove(&name),
            };
        }
    }
}
