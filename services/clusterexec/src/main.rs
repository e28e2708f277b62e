//! The program of clusterexec.

use std::process::ExitCode;

fn main() -> ExitCode {
    commissaire::app::run(commissaire_clusterexec::PROGRAM, commissaire_transports::ALL)
}
