//! The program of the storage service.

use std::process::ExitCode;

fn main() -> ExitCode {
    commissaire::app::run(commissaire_storage::PROGRAM, commissaire_transports::ALL)
}
