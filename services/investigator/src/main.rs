//! The program of the investigator.

use std::process::ExitCode;

fn main() -> ExitCode {
    commissaire::app::run(commissaire_investigator::PROGRAM, commissaire_transports::ALL)
}
