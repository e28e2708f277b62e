//! Exit codes.

use std::process::ExitCode;

use crate::error::{Error, ErrorKind};

/// How a program ends. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Well = 0,
    /// The callee answered with an error, or the program failed.
    Failed = 1,
    /// No running service answers.
    NoResponder = 2,
    /// The bus cannot be reached.
    Unreachable = 3,
    /// The time ran out.
    Timeout = 4,
    /// There was nothing to do.
    Nothing = 5,
    /// The command line cannot be used (EX_USAGE).
    Usage = 64,
    /// The configuration cannot be used, or the broker does not give what it asks for (EX_CONFIG).
    Config = 78,
    /// A signal (SIGINT, SIGTERM) ended it before it was done.
    Interrupted = 130,
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NoResponders => Self::NoResponder,
            ErrorKind::Unavailable => Self::Unreachable,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Invalid | ErrorKind::TooLarge => Self::Usage,
            ErrorKind::Config | ErrorKind::NotDurable | ErrorKind::Topology | ErrorKind::Forbidden => {
                Self::Config
            }
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
