//! Child processes that end with the test that started them, however it ends.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{Failure, Outcome, until};

/// A child process. Killed when dropped; killed with this process too, where `setpriv` is installed.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// A command that starts `program`, to be given arguments and handed to [`spawn`](Self::spawn).
    pub fn command(program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        if !on_path("setpriv") {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Starts `command`, called `name` in failures.
    pub fn spawn(name: impl Into<String>, command: Command) -> Outcome<Self> {
        let name = name.into();
        let child = spawn(command).map_err(|e| Failure::new(format!("{name} cannot be started: {e}")))?;
        note(child.id())?;
        Ok(Self { name, child })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as by `kill -9`.
    pub fn kill(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        forget(self.child.id());
    }

    /// Stops it in the middle of whatever it does (SIGSTOP).
    pub fn stop(&self) -> Outcome {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`stop`](Self::stop).
    pub fn cont(&self) -> Outcome {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM) and waits until it has; its exit code, if it was not a signal that ended it.
    pub async fn terminate(&mut self, limit: Duration) -> Outcome<Option<i32>> {
        self.signal(Signal::TERM)?;
        let what = format!("{} ends", self.name);
        until(what, limit, async || self.has_ended()).await?;
        let status = self.child.wait()?;
        forget(self.child.id());
        Ok(status.code())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// The process itself, for what it says on its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    fn signal(&self, signal: Signal) -> Outcome {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|e| Failure::new(format!("signalling {}: {e}", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.child.id())
    }
}

/// Whether a program of this name can be started.
pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Starts `command` from a thread that lives as long as this process: the signal that a child gets when its parent
/// dies comes when the *thread* ends that started it.
fn spawn(command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::sync_channel::<Order>(0);
        std::thread::spawn(move || {
            while let Ok((mut command, reply)) = inbox.recv() {
                // Who ordered waits for it.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, child) = mpsc::sync_channel(1);
    spawner.send((command, reply)).map_err(std::io::Error::other)?;
    child.recv().map_err(std::io::Error::other)?
}

/// Notes a process and when it began, for `integration/run.sh`, which ends those that a killed test left behind.
fn note(pid: u32) -> Outcome {
    if let Some(note) = note_path(pid) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold anything but the last parenthesis; the 20th word behind it is the time of its start.
        let behind = stat.rsplit(") ").next().unwrap_or_default();
        fs::create_dir_all(note.with_file_name(""))?;
        fs::write(note, behind.split(' ').nth(19).unwrap_or_default())?;
    }
    Ok(())
}

fn forget(pid: u32) {
    if let Some(note) = note_path(pid) {
        // Whoever reads a note that stayed checks the process.
        let _ = fs::remove_file(note);
    }
}

fn note_path(pid: u32) -> Option<PathBuf> {
    std::env::var_os("COMMISSAIRE_TEST_DIR").map(|dir| Path::new(&dir).join("pids").join(pid.to_string()))
}
