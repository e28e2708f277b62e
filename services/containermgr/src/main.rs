//! The program of the service of container managers.

use std::process::ExitCode;

fn main() -> ExitCode {
    commissaire::app::run(commissaire_containermgr::PROGRAM, commissaire_transports::ALL)
}
