//! How much a program says.

use crate::{
    config::Config,
    error::Result,
    logging::{Level, Logging, LoggingSection, install},
};

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
    /// Starts the log of this program, on standard error. Where nothing else is said it tells what is `usual`.
    pub fn start(self, usual: Level) {
        if let Ok(logging) = Logging::new(&LoggingSection::default(), usual, self.libraries()) {
            install(self.over(logging));
        }
    }

    /// The log that `config` asks for, its files open, to be [installed](install). Where it says nothing else, that tells
    /// what is `usual`.
    pub(super) fn logging(self, config: &Config, usual: Level) -> Result<Logging> {
        Ok(self.over(config.logging(usual, self.libraries())?))
    }

    /// Libraries beside ours are heard only with `-v`, and then only when something failed: an AMQP client takes it for an
    /// error that a queue is not there, and it warns of each message that came back, with its body.
    fn libraries(self) -> Level {
        if self.verbose > 0 { Level::ERROR } else { Level::NONE }
    }

    fn over(self, logging: Logging) -> Logging {
        match (self.quiet, self.verbose) {
            (true, _) => logging.root_at(Level::ERROR),
            (false, 0) => logging,
            (false, 1) => logging.root_at_least(Level::INFO),
            (false, 2) => logging.root_at_least(Level::DEBUG),
            (false, _) => logging.root_at_least(Level::TRACE),
        }
    }
}
