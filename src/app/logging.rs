//! The log: lines on standard error.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How much a program says.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Verbosity {
    /// Say more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

impl Verbosity {
    fn level(self, usual: LevelFilter) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => usual,
            (false, 1) => usual.max(LevelFilter::INFO),
            (false, 2) => LevelFilter::DEBUG,
            (false, _) => LevelFilter::TRACE,
        }
    }
}

/// Starts the log of this program. Libraries beside ours are heard only with `-v`, and then only when something failed:
/// what matters of that we say ourselves (an AMQP client takes it for an error that a queue is not there), and what they say
/// at other levels may hold what must not be logged (it warns of each message that came back, with its body).
pub fn log_to_stderr(verbosity: Verbosity, usual: LevelFilter) {
    let level = verbosity.level(usual);
    let libraries = if verbosity.verbose > 0 { LevelFilter::ERROR } else { LevelFilter::OFF };
    let targets = Targets::new().with_default(libraries).with_target("commissaire", level);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // A second start in one process changes nothing: the first log stays.
    let _ = tracing_subscriber::registry().with(targets).with(lines).try_init();
}
