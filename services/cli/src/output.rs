//! What a command prints.

use std::io::{self, Write};

use commissaire::{Error, ErrorKind};

use crate::Failed;

/// One line on standard output, at once.
pub(crate) fn print(line: &str) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| Error::new(ErrorKind::Closed, "cannot write to standard output").because(e).into())
}

/// One line on standard error; nobody reading it changes nothing.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
