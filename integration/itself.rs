//! A test in a process of its own: what is measured of a process must be the test's alone.

use std::{fs, process::Stdio, time::Duration};

use commissaire::testkit::{Failure, Outcome, within};
use tokio::{process::Command, runtime::Handle};

use crate::measures::resident_kib;

/// Set in a process that runs one test.
const ITSELF: &str = "COMMISSAIRE_TEST_ITSELF";

/// Runs `body`, the whole of the test that is called `name` in the list of tests, in another process of this program.
pub async fn by_itself(name: &str, limit: Duration, body: impl Future<Output = Outcome>) -> Outcome {
    if std::env::var_os(ITSELF).is_some() {
        return body.await;
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe()?);
    command.args([name, "--exact", "--nocapture"]).env(ITSELF, "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = within(name, limit, command.output()).await??;
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    println!("{out}");
    if ended.status.success() && out.contains("test result: ok. 1 passed") {
        return Ok(());
    }
    Err(Failure::new(format!("{name} in a process of its own: {}\n{out}\n{err}", ended.status)))
}

/// What this process and this runtime hold.
#[derive(Debug, Clone, Copy)]
pub struct Holdings {
    /// Memory, in KiB; see [`resident_kib`].
    pub resident_kib: u64,
    /// Open files and sockets.
    pub descriptors: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
}

impl Holdings {
    /// Now.
    pub fn now() -> Outcome<Self> {
        Ok(Self {
            resident_kib: resident_kib(std::process::id())?,
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        })
    }
}
