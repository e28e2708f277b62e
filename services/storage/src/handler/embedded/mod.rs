//! The embedded store: one redb file that this process alone has open.
//!
//! Every change of a record is one transaction that holds the record, its entry in the log of changes, and the
//! announcement that is due; it is on the disk when its caller hears of it. Writers queue for one thread that commits
//! all that has queued at once, so that the price of the disk's flush is shared. Readers read a snapshot and wait for
//! nobody.
//!
//! When the disk fails or is full, the transactions under way fail whole, the file is opened anew, and the store goes on.

mod as_handler;
mod file;
mod lease;
mod memory;
mod pass;
mod read;
mod save;
mod tables;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use commissaire::{Error, Result};
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::{StoreError, master_key, seal::Sealer};
use memory::Memory;
use tables::{META, REVISION};
use writer::Job;

/// How many writes may wait for the writer; more wait at its door.
const QUEUE: usize = 256;

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The directory of the store's file and of the master key; made when it is not there.
    pub dir: PathBuf,
    /// How many changes stay in the log at least.
    pub change_log: u64,
}

/// The embedded store. Dropping it waits for the writes that were queued.
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<(mpsc::Sender<Job>, JoinHandle<()>)>,
}

/// What readers and the writer have in common.
struct Shared {
    path: PathBuf,
    id: Uuid,
    sealer: Sealer,
    /// `None` while the file is being opened anew, or cannot be.
    database: RwLock<Option<Database>>,
    /// Rung after each commit that leaves something to announce.
    announce: Notify,
    /// How many changes stay in the log at least.
    change_log: AtomicU64,
}

impl Store {
    /// Opens the store in the directory, or makes it. Every failure is a configuration error that names the file and
    /// says what to do.
    pub fn open(options: &StoreOptions) -> Result<Self> {
        let path = options.dir.join("storage.redb");
        master_key::make_dir(&options.dir)?;
        let (shared, memory) = file::unpanicked(&path, || Shared::open(options, path.clone()))?;
        let shared = Arc::new(shared);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn({
            let shared = shared.clone();
            move || writer::run(&shared, memory, jobs)
        });
        let thread =
            thread.map_err(|e| Error::config(format!("the store's writer thread cannot start: {e}")))?;
        Ok(Self { shared, writer: Some((queue, thread)) })
    }

    /// The store's id: made once, never changed.
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    /// The store's file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Resolves after a commit that left something in the outbox, at once if there was one since the last time.
    pub async fn announced(&self) {
        self.shared.announce.notified().await;
    }

    /// Resolves when the writer has stopped, which it does only when it panicked: nothing can be written any more.
    pub async fn stopped(&self) {
        if let Some((queue, _)) = &self.writer {
            queue.closed().await;
        }
    }

    /// Reads a snapshot with `look`.
    fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let looked = match &*database {
            None => Err(redb::Error::DatabaseClosed),
            Some(database) => {
                database.begin_read().map_err(redb::Error::from).and_then(|snapshot| look(&snapshot))
            }
        };
        drop(database);
        looked.map_err(|error| {
            self.reopen();
            StoreError::broken(&self.shared.path, &error, false)
        })
    }

    /// How many changes stay in the log at least.
    pub fn change_log(&self) -> u64 {
        self.shared.change_log.load(Ordering::Relaxed)
    }

    /// Keeps so many changes in the log at least, from the next commit on. A log that is longer is cut down bit by bit.
    pub fn keep_changes(&self, change_log: u64) {
        self.shared.change_log.store(change_log, Ordering::Relaxed);
    }

    /// Has the writer open the file anew if it must, after whatever it does now.
    fn reopen(&self) {
        if let Some((queue, _)) = &self.writer {
            // A full queue has jobs enough to find the same out.
            let _ = queue.try_send(writer::check());
        }
    }
}

impl Shared {
    /// Opens the file and reads what the writer must know.
    fn open(options: &StoreOptions, path: PathBuf) -> Result<(Self, Memory)> {
        let wrong = |problem: file::Problem| problem.explain(&path);
        let database = file::open(&path).map_err(wrong)?;
        let id = tables::prepare(&database).map_err(wrong)?;
        let broken = |error: redb::Error| wrong(error.into());
        let wrapped = tables::read_key(&database).map_err(broken)?;
        let sealer = master_key::sealer(&options.dir, &path.display().to_string(), wrapped.as_deref())?;
        if wrapped.is_none() {
            tables::write_key(&database, sealer.wrapped()).map_err(broken)?;
        }
        let memory = Memory::load(&database).map_err(|error| wrong(error.into()))?;
        let database = RwLock::new(Some(database));
        let change_log = AtomicU64::new(options.change_log);
        Ok((Self { path, id, sealer, database, announce: Notify::new(), change_log }, memory))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some((queue, thread)) = self.writer.take() {
            drop(queue);
            // A writer that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).field("id", &self.shared.id).finish()
    }
}

/// The latest revision in `snapshot`.
fn latest(snapshot: &ReadTransaction) -> Result<u64, redb::Error> {
    Ok(snapshot.open_table(META)?.get(REVISION)?.map_or(0, |value| value.value()))
}
