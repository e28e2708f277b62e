//! A program at work: what it was told, what it says, how it ends.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use commissaire::testkit::{Failure, Outcome, until};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::{PATIENCE, programs};

/// A program to be started.
pub struct Order {
    name: String,
    command: Command,
    input: Option<Vec<u8>>,
}

/// A program that was started. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    note: Option<PathBuf>,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
}

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

/// What came on one stream so far, and when.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Instant, String)>>>);

impl Order {
    /// The program `name` of this build, with nothing of this process's environment but PATH.
    pub(crate) fn new(name: &str) -> Outcome<Self> {
        Ok(Self::of(name, programs::find(name)?))
    }

    /// The program `name` that is installed on this machine, in the same way.
    pub fn installed(name: &str) -> Self {
        Self::of(name, name)
    }

    fn of(name: &str, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new("setpriv");
        // Should these tests be killed, it dies with them.
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.env_clear().envs(path());
        Self { name: name.to_owned(), command, input: None }
    }

    /// The same by way of another program, which these words start and which makes way for it.
    #[must_use]
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        let ordered = self.command.as_std();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(ordered.get_program()).args(ordered.get_args());
        command.env_clear().envs(path());
        command.envs(ordered.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = ordered.get_current_dir() {
            command.current_dir(folder);
        }
        self.command = command;
        self
    }

    /// With this argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// With these arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// In this folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this on its standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Outcome<Process> {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let started = Instant::now();
        let mut child = self
            .command
            .spawn()
            .map_err(|e| Failure::new(format!("{} cannot be started with setpriv: {e}", self.name)))?;
        let pid = child.id().ok_or_else(|| Failure::new("a process without an id"))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            tokio::spawn(async move {
                // A program that does not read all of it says why by its exit code.
                let _ = stdin.write_all(&input).await;
            });
        }
        let (out, err) = (Lines::default(), Lines::default());
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|stream| tokio::spawn(out.clone().fill(stream))));
        readers.extend(child.stderr.take().map(|stream| tokio::spawn(err.clone().fill(stream))));
        let note = note(pid)?;
        Ok(Process { name: self.name, child, pid, note, out, err, readers, started })
    }

    /// Runs it to its end.
    pub async fn run(self) -> Outcome<Ended> {
        self.start()?.ended().await
    }
}

impl Process {
    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it has written to standard output so far.
    pub fn out(&self) -> Vec<String> {
        self.out.texts()
    }

    /// What it has written to standard error so far.
    pub fn err(&self) -> Vec<String> {
        self.err.texts()
    }

    /// Waits for a line on standard output; returns when it came.
    pub async fn says(&mut self, what: &str, is: impl Fn(&str) -> bool) -> Outcome<Instant> {
        let lines = self.out.clone();
        self.wait_for(what, &lines, is).await
    }

    /// Waits for a line on standard error; returns when it came.
    pub async fn logs(&mut self, what: &str, is: impl Fn(&str) -> bool) -> Outcome<Instant> {
        let lines = self.err.clone();
        self.wait_for(what, &lines, is).await
    }

    async fn wait_for(&mut self, what: &str, lines: &Lines, is: impl Fn(&str) -> bool) -> Outcome<Instant> {
        let mut found = None;
        let mut over = false;
        let waited = until(format_args!("{} says {what}", self.name), PATIENCE, async || {
            // Looked at first: what an ended program said is all there only afterwards.
            over = self.readers.iter().all(JoinHandle::is_finished);
            found = lines.find(&is);
            found.is_some() || over
        })
        .await;
        found.ok_or_else(|| {
            let why = waited.err().map_or_else(|| "it has ended".to_owned(), |failure| failure.to_string());
            Failure::new(format!("{} did not say {what}: {why}\n{}", self.name, self.said()))
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(format!("{} is no process id", self.pid)))?;
        kill_process(pid, signal).map_err(|e| Failure::new(format!("signalling {}: {e}", self.name)))
    }

    /// Ends it at once, as by `kill -9`, and returns what it had said.
    pub async fn kill(mut self) -> Outcome<Ended> {
        let _ = self.child.start_kill();
        self.end().await
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn terminate(self) -> Outcome<Ended> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> Outcome<Ended> {
        self.end().await
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    async fn end(&mut self) -> Outcome<Ended> {
        let status: ExitStatus = match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                let text = format!("{} did not end within {PATIENCE:?}\n{}", self.name, self.said());
                return Err(Failure::new(text));
            }
        };
        until(format_args!("the last words of {}", self.name), PATIENCE, async || {
            self.readers.iter().all(JoinHandle::is_finished)
        })
        .await?;
        Ok(Ended { code: status.code(), out: self.out.text(), err: self.err.text() })
    }

    fn said(&self) -> String {
        format!("--- its output:\n{}--- its errors:\n{}---", self.out.text(), self.err.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.start_kill();
        let limit = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        if std::thread::panicking() {
            println!("{self:?}\n{}", self.said());
        }
        if let Some(note) = &self.note {
            let _ = fs::remove_file(note);
        }
    }
}

impl Ended {
    /// Fails unless it ended with `code`.
    pub fn expect(self, code: i32) -> Outcome<Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        Err(Failure::new(format!("exit code {code} was awaited: {self:#?}")))
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Outcome<serde_json::Value> {
        read(&self.out)
    }

    /// The last line of its standard error as JSON.
    pub fn error(&self) -> Outcome<serde_json::Value> {
        read(self.err.lines().last().unwrap_or_default())
    }

    /// Fails unless it said on standard error each of these.
    pub fn tells(&self, parts: &[&str]) -> Outcome {
        match parts.iter().find(|part| !self.err.contains(**part)) {
            None => Ok(()),
            Some(part) => Err(Failure::new(format!("{part:?} is not in {:?}", self.err))),
        }
    }
}

impl Lines {
    async fn fill(self, stream: impl AsyncRead + Unpin) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            self.lock().push((Instant::now(), text));
            line.clear();
        }
    }

    fn find(&self, is: impl Fn(&str) -> bool) -> Option<Instant> {
        self.lock().iter().find(|(_, line)| is(line)).map(|(at, _)| *at)
    }

    fn texts(&self) -> Vec<String> {
        self.lock().iter().map(|(_, line)| line.clone()).collect()
    }

    fn text(&self) -> String {
        self.lock().iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// What a program has of this process's environment.
fn path() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name == "PATH")
}

fn read(text: &str) -> Outcome<serde_json::Value> {
    serde_json::from_str(text).map_err(|e| Failure::new(format!("{text:?} is not JSON: {e}")))
}

/// Notes a process, and when it started, for `integration/run.sh`, which ends those that a killed test left behind.
fn note(pid: u32) -> Outcome<Option<PathBuf>> {
    let Some(folder) = std::env::var_os("COMMISSAIRE_TEST_DIR") else { return Ok(None) };
    let folder = Path::new(&folder).join("pids");
    fs::create_dir_all(&folder)?;
    // Behind the program's name, which may hold anything, the 20th word is the time of the start.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words = stat.rsplit_once(") ").map(|(_, words)| words).unwrap_or_default();
    let path = folder.join(pid.to_string());
    fs::write(&path, words.split(' ').nth(19).unwrap_or_default())?;
    Ok(Some(path))
}
