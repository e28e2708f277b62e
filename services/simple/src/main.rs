//! The program of the example service.

use std::process::ExitCode;

fn main() -> ExitCode {
    commissaire::app::run(commissaire_simple::PROGRAM, commissaire_transports::ALL)
}
