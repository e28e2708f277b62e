//! Where lines go to.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    file::LogFile,
    format::Format,
    level::Level,
    plan::{PlannedHandler, Target},
    record::Record,
    syslog::Syslog,
};

/// Where lines go to, how they look, and which ones.
#[derive(Debug)]
pub(super) struct Handler {
    name: String,
    pub(super) level: Level,
    format: Arc<Format>,
    sink: Sink,
    /// Whether its failure was told.
    failed: AtomicBool,
}

#[derive(Debug)]
enum Sink {
    Nowhere,
    Stderr,
    Stdout,
    File(Mutex<LogFile>),
    Syslog(Mutex<Syslog>),
}

impl Handler {
    /// Opens what is to be opened. Fails with the name of the member that says what that is.
    pub(super) fn open(name: &str, plan: PlannedHandler) -> Result<Self, (&'static str, String)> {
        let sink = match plan.target {
            Target::Nowhere => Sink::Nowhere,
            Target::Stderr => Sink::Stderr,
            Target::Stdout => Sink::Stdout,
            Target::File { path, empty, turn } => {
                let file = LogFile::open(&path, empty, turn);
                let cannot = |e: io::Error| {
                    ("filename", format!("is {}, which cannot be opened: {e}", path.display()))
                };
                Sink::File(Mutex::new(file.map_err(cannot)?))
            }
            Target::Syslog { address, facility } => Sink::Syslog(Mutex::new(Syslog::new(address, facility))),
        };
        Ok(Self::new(name, plan.level, plan.format, sink))
    }

    /// Standard error.
    pub(super) fn stderr(level: Level, format: Arc<Format>) -> Self {
        Self::new("standard error", level, format, Sink::Stderr)
    }

    fn new(name: &str, level: Level, format: Arc<Format>, sink: Sink) -> Self {
        Self { name: name.to_owned(), level, format, sink, failed: AtomicBool::new(false) }
    }

    pub(super) fn write(&self, record: &Record<'_>) {
        let mut line = self.format.line(record);
        let written = match &self.sink {
            Sink::Nowhere => Ok(()),
            Sink::Syslog(syslog) => {
                syslog.lock().unwrap_or_else(PoisonError::into_inner).write(record.level.severity(), &line)
            }
            sink => {
                line.push('\n');
                match sink {
                    Sink::Stdout => io::stdout().lock().write_all(line.as_bytes()),
                    Sink::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(&line),
                    _ => io::stderr().lock().write_all(line.as_bytes()),
                }
            }
        };
        match written {
            Ok(()) => self.failed.store(false, Ordering::Relaxed),
            // Told once, and again after it was well: a full disk is not to fill another one.
            Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                let _ =
                    writeln!(io::stderr(), "commissaire: the log handler {:?} failed: {error}", self.name);
            }
            Err(_) => {}
        }
    }
}
