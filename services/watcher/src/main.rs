//! The program of the watcher.

use std::process::ExitCode;

fn main() -> ExitCode {
    commissaire::app::run(commissaire_watcher::PROGRAM, commissaire_transports::ALL)
}
