//! The writer: one thread that carries out all changes, as many in one commit as have queued.

use std::sync::PoisonError;

use redb::{Database, ReadableTable};
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, Store, StoreError, file,
    memory::{Memory, Numbers},
    pass::{Failure, Pass},
    tables::{self, REVISION},
};

/// The most jobs in one commit.
const BATCH: usize = 256;

/// Work for the writer. Without a pass it was not done; what it returns is called when the commit is over.
pub(super) type Job = Box<dyn FnOnce(Option<&mut Pass<'_>>) -> (Finish, Option<redb::Error>) + Send>;
/// Tells the caller how it ended: with the error, or as the work itself found.
pub(super) type Finish = Box<dyn FnOnce(Option<&StoreError>) + Send>;

impl Store {
    /// Has the writer do `work`, and returns when it is on the disk. Work must look before it writes: when it refuses,
    /// it must have written nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Pass<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::stopped(&self.shared.path);
        let (answer, answered) = oneshot::channel();
        let shared = self.shared.clone();
        let job: Job = Box::new(move |pass| {
            let (outcome, broken) = match pass.map(work) {
                Some(Ok(value)) => (Some(Ok(value)), None),
                Some(Err(Failure::Refused(refusal))) => (Some(Err(refusal)), None),
                Some(Err(Failure::Broken(error))) => (None, Some(error)),
                None => (None, None),
            };
            let finish: Finish = Box::new(move |failed| {
                // A refusal too: it may rest on what another job of the failed commit had written.
                let result = match failed {
                    Some(failure) => Err(failure.clone()),
                    None => outcome.unwrap_or_else(|| Err(StoreError::stopped(&shared.path))),
                };
                // Whoever asked may have gone.
                let _ = answer.send(result);
            });
            (finish, broken)
        });
        let Some((queue, _)) = &self.writer else { return Err(stopped()) };
        queue.send(job).await.map_err(|_| stopped())?;
        // It may have died behind the commit.
        answered.await.unwrap_or_else(|_| Err(StoreError::died(&self.shared.path)))
    }
}

/// Work that only finds out whether the file must be opened anew.
pub(super) fn check() -> Job {
    Box::new(|pass| {
        let broken = pass.and_then(|pass| pass.meta.get(REVISION).err());
        (Box::new(|_| {}), broken.map(redb::Error::from))
    })
}

/// Carries out jobs until the store is dropped.
pub(super) fn run(shared: &Shared, mut memory: Memory, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        commit(shared, &mut memory, batch);
    }
}

fn commit(shared: &Shared, memory: &mut Memory, batch: Vec<Job>) {
    reopen_if_closed(shared, memory);
    let before = memory.numbers;
    let mut finish = Vec::with_capacity(batch.len());
    let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
    let done = transact(database.as_ref(), shared, memory, batch, &mut finish);
    drop(database);
    let failure = match done {
        Ok(written) => {
            memory.settle();
            if written.is_some() && std::mem::take(&mut memory.failing) {
                tracing::info!(path = %shared.path.display(), "the store takes writes again");
            }
            if written == Some(true) {
                shared.announce.notify_one();
            }
            None
        }
        Err(broken) => {
            memory.roll_back(before);
            close(shared);
            let reopened = reopen_if_closed(shared, memory);
            // Only what is in the file now says whether a commit that failed was stored in spite of that.
            let uncertain = broken
                .attempted
                .is_some_and(|attempted| !reopened || attempted == before || memory.numbers != before);
            let failure = StoreError::broken(&shared.path, &broken.error, uncertain);
            if !std::mem::replace(&mut memory.failing, true) {
                tracing::error!(%failure, "the store fails: its callers are told until it takes writes again");
            }
            Some(failure)
        }
    };
    for finish in finish {
        finish(failure.as_ref());
    }
}

/// A commit that failed.
struct Broken {
    error: redb::Error,
    /// The numbers that it would have left, when it came so far that it may be on the disk.
    attempted: Option<Numbers>,
}

/// Does the jobs in one transaction and commits it, if they wrote anything; then, whether there is something to announce.
fn transact(
    database: Option<&Database>,
    shared: &Shared,
    memory: &mut Memory,
    batch: Vec<Job>,
    finish: &mut Vec<Finish>,
) -> Result<Option<bool>, Broken> {
    let mut jobs = batch.into_iter();
    let mut attempted = None;
    let mut work = || {
        let transaction = database.ok_or(redb::Error::DatabaseClosed)?.begin_write()?;
        let mut pass = Pass::open(&transaction, shared, memory)?;
        for job in jobs.by_ref() {
            let (done, broken) = job(Some(&mut pass));
            finish.push(done);
            if let Some(error) = broken {
                return Err(error);
            }
        }
        if !pass.dirty {
            return Ok(None);
        }
        let announce = pass.close()?;
        attempted = Some(memory.numbers);
        transaction.commit()?;
        Ok(Some(announce))
    };
    let done = work();
    finish.extend(jobs.map(|job| job(None).0));
    done.map_err(|error| Broken { error, attempted })
}

/// Closes the file after a failure.
fn close(shared: &Shared) {
    *shared.database.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Opens the file again after a failure, and learns what is in it. Whether it is open.
fn reopen_if_closed(shared: &Shared, memory: &mut Memory) -> bool {
    if shared.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
        return true;
    }
    let mut open = || -> Result<Database, file::Problem> {
        let database = file::open(&shared.path)?;
        if tables::prepare(&database)? != shared.id {
            return Err(file::Problem::Foreign);
        }
        memory.learn(&database)?;
        Ok(database)
    };
    match file::unpanicked(&shared.path, || open().map_err(|problem| problem.explain(&shared.path))) {
        Ok(database) => {
            *shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
            tracing::debug!(path = %shared.path.display(), "store opened again");
            true
        }
        Err(error) => {
            if !memory.failing {
                tracing::error!(%error, "the store stays closed until it can be opened again");
            }
            false
        }
    }
}
