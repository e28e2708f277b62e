//! What happened in a simulation.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// More than happens in any simulation that ends.
const MOST: usize = 50_000;

/// All that happened, in its order.
#[derive(Debug)]
pub(super) struct Log {
    began: Instant,
    events: Mutex<Vec<(Duration, Event)>>,
}

/// What can happen. `n` numbers a job, an event or a call, `by` a process: the client, an instance of the service, or
/// who brings dead letters back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A job is to be enqueued or an event announced, and then: the broker has it, or may have it, or has it not.
    Enqueue {
        n: u32,
    },
    Announce {
        n: u32,
    },
    Enqueued {
        n: u32,
    },
    NotEnqueued {
        n: u32,
        maybe: bool,
    },
    /// It is delivered: how many failed runs it tells of, and how often it was put to rest after one.
    Handed {
        n: u32,
        failed: u32,
        rested: u32,
    },
    /// A handler begins; `alone` when the job came back from a consumer that died.
    Begin {
        n: u32,
        by: u32,
        attempt: u32,
        alone: bool,
    },
    /// It goes on after a rest.
    Resume {
        n: u32,
        by: u32,
    },
    Done {
        n: u32,
        by: u32,
    },
    Fail {
        n: u32,
        by: u32,
    },
    /// It was dropped at an await.
    Cut {
        n: u32,
        by: u32,
    },
    /// The broker forgets it: it was acknowledged.
    Acked {
        n: u32,
    },
    Buried {
        n: u32,
        attempts: u32,
        cause: String,
    },
    /// It is no dead letter any more.
    Redriven {
        n: u32,
    },
    /// The broker forgot that it was acknowledged.
    Undone {
        n: u32,
    },
    /// A call, and how it ends; `limit` is when it must be over.
    Call {
        n: u32,
        limit: Duration,
    },
    Answered {
        n: u32,
        answer: u64,
    },
    Failed {
        n: u32,
        kind: &'static str,
        maybe: bool,
    },
    Forsaken {
        n: u32,
    },
    /// A handler of a call.
    Serve {
        n: u32,
        by: u32,
    },
    Served {
        n: u32,
        by: u32,
    },
    Dropped {
        n: u32,
        by: u32,
    },
    /// An ephemeral subscription brings an event, or says that some may be missing.
    Heard {
        n: u32,
        by: u32,
    },
    Missed {
        by: u32,
    },
    /// An instance is started, which works on so many jobs and so many calls at one time.
    Start {
        by: u32,
    },
    Concurrency {
        by: u32,
        at_once: u16,
    },
    Started {
        by: u32,
    },
    NotStarted {
        by: u32,
    },
    Drain {
        by: u32,
        grace: Duration,
    },
    /// `in_hand` is what the broker still counts as delivered to it.
    Drained {
        by: u32,
        in_hand: usize,
    },
    Kill {
        by: u32,
    },
    /// The connection of a process breaks, and comes back.
    Down {
        by: u32,
    },
    Up {
        by: u32,
    },
    /// The broker dies and is back at once.
    Crash,
    /// Nothing is on its way any more.
    Quiet,
    /// All are gone; what is left at the broker.
    End {
        left: usize,
        in_hand: usize,
        dead: usize,
    },
}

impl Default for Log {
    fn default() -> Self {
        Self { began: Instant::now(), events: Mutex::default() }
    }
}

impl Log {
    /// Notes that something happens now.
    pub(super) fn note(&self, event: Event) {
        let at = self.began.elapsed();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            events.len() < MOST,
            "a simulation has no end: the last that happened was {:?}",
            events.last()
        );
        events.push((at, event));
    }

    /// All of it.
    pub(super) fn events(&self) -> Vec<(Duration, Event)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in self.events() {
            writeln!(f, "{:>12?} {event:?}", at)?;
        }
        Ok(())
    }
}
