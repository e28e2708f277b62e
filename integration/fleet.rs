//! Real machines to log in to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use commissaire::testkit::{Failure, Outcome, Process, until, within};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::ChildStdout,
};

use crate::{PATIENCE, place::Place, process::Order};

/// What makes machines, and does things to them.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fleet/hosts.sh");

/// Machines at 10.77.0.11, 10.77.0.12 and so on: each a real sshd that is the first process of its own namespaces, on a
/// disk of its own, with a host key, a boot id, an uptime, and the release and package tools of its persona. A machine is
/// called by its place in the list of personas, from 0.
///
/// The personas are `fedora`, `centos`, `rhel`, `rhel7`, `debian`, `ubuntu`, `opensuse`, `arch` and `alpine`, which install
/// packages; and `coreos`, `atomic`, `bootc`, `flatcar` and `microos`, which are replaced as a whole and have their
/// daemons from the beginning. What a tool, a service or a reboot does is in the scripts of `integration/fleet/machine`.
///
/// [`key_file`](Self::key_file) lets in `root`; `fleet`, who has all rights by sudo; `guarded`, who has them with the
/// password [`PASSWORD`](Self::PASSWORD); and `plain`, who has none.
///
/// The network of a fleet is its own, and reached only by programs that were started [`within`](Self::within) it. All of a
/// fleet is gone when it is dropped, or its process is killed; nothing of the real machine is changed by it.
#[derive(Debug)]
pub struct Fleet {
    /// In whose namespaces it is.
    holder: Process,
    place: Place,
    key: PathBuf,
    size: usize,
}

/// A command that was run on a machine, of those that are stand-ins: package tools, services, reboots, daemons.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// When, in seconds since 1970.
    pub at: f64,
    /// In which boot.
    pub boot_id: String,
    /// By which user.
    pub uid: u32,
    /// Its name and its arguments, with a blank between them; a line break is a blank as well.
    pub line: String,
}

impl Fleet {
    /// The password of `guarded`, for sudo.
    pub const PASSWORD: &str = "s3cr3t-sudo";

    /// Brings up a machine of each persona, in this order; returns when all answer. Fails where this process may not make
    /// machines, or a program is missing for them.
    pub async fn start(personas: &[&str]) -> Outcome<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(
                "machines are made by root only: they are namespaces with mounts in them",
            ));
        }
        let place = Place::new()?;
        let said = place.path().join("said");
        let mut command = Process::command("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
        command.args(["bash", SCRIPT]).arg(place.path()).args(["hold", &personas.join(",")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&said)?);
        let holder = Process::spawn("unshare", command)?;
        let key = place.path().join("key");
        let mut fleet = Self { holder, place, key, size: personas.len() };
        let mut line = String::new();
        if let Some(out) = fleet.holder.child().stdout.take() {
            let limit = PATIENCE + Duration::from_millis(200) * u32::try_from(fleet.size).unwrap_or_default();
            // Ends with `up`, or with its end: nothing else is said.
            let mut out = BufReader::new(ChildStdout::from_std(out)?).take(3);
            within("a fleet comes up", limit, out.read_to_string(&mut line)).await??;
        }
        if line != "up\n" {
            let said = fs::read_to_string(said)?;
            return Err(Failure::new(format!("no fleet of {personas:?} comes up: {}", said.trim())));
        }
        Ok(fleet)
    }

    /// How many machines there are.
    #[expect(clippy::len_without_is_empty, reason = "a fleet without machines does not come up")]
    pub fn len(&self) -> usize {
        self.size
    }

    /// Where a machine is reached, from [`within`](Self::within) its network: on port 22.
    pub fn address(&self, machine: usize) -> String {
        let number = machine + 11;
        format!("10.77.{}.{}", number / 250, number % 250)
    }

    /// The private key that all machines accept, as OpenSSH writes it.
    pub fn key_file(&self) -> &Path {
        &self.key
    }

    /// The public half of the host key that a machine has now: `ssh-ed25519 AAAA…`.
    pub fn host_key(&self, machine: usize) -> Outcome<String> {
        let text = self.read(&format!("disk/h{machine}/upper/etc/ssh/fleet_host_key.pub"))?;
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(key)) => Ok(format!("{kind} {key}")),
            _ => Err(Failure::new(format!("machine {machine} has no host key: {text:?}"))),
        }
    }

    /// The boot that a machine is in, or was in last.
    pub async fn boot_id(&self, machine: usize) -> Outcome<String> {
        Ok(self.read(&format!("meta/h{machine}.boot_id"))?.trim().to_owned())
    }

    /// The commands that were run on a machine so far, over all its boots.
    pub async fn commands(&self, machine: usize) -> Outcome<Vec<Command>> {
        self.read(&format!("own/h{machine}/log"))?.lines().map(Command::read).collect()
    }

    /// Runs a shell command in a machine as root, not by SSH; what it printed. Fails when that fails.
    pub async fn run(&self, machine: usize, command: &str) -> Outcome<String> {
        let ended = self.order("run", machine, &[command]).run().await?;
        let ended =
            ended.expect(0).map_err(|failure| failure.in_step(format!("{command:?} on {machine}")))?;
        Ok(ended.out)
    }

    /// Does something to a machine.
    ///
    /// | | |
    /// |---|---|
    /// | `reboot` | starts it again at once; its connections are closed |
    /// | `crash` | cuts its power, and gives it back: no connection hears of it |
    /// | `off`, `on` | the same, with as much time between as one likes |
    /// | `delay` SECONDS | how long it is down, whenever it starts again from now on; 1 by default |
    /// | `partition`, `heal` | no packet gets to it or from it |
    /// | `blackhole`, `unblackhole` | packets get to it, and none from it |
    /// | `freeze`, `thaw` | all its processes stop: it takes connections, and nobody answers |
    /// | `fill`, `free` | its disk has no byte left |
    /// | `rehost-key` | gives it another host key, by a reboot |
    /// | `machine-id` VALUE | gives it another machine id |
    /// | `updates` \[VERSION] | there is something to upgrade to again |
    /// | `behave` COMMAND HOW | has a stand-in for a command fail, or be slow; without HOW no more. `exit=1 sleep=2 times=3 out=some text`, any of these in this order; COMMAND may have its first argument with it |
    ///
    /// Returns when it is done: a machine that is to start again is down then. Wait for another
    /// [`boot_id`](Self::boot_id) by [`rebooted`](Self::rebooted).
    pub async fn control(&self, what: &str, machine: usize, more: &[&str]) -> Outcome {
        let ended = self.order(what, machine, more).run().await?;
        ended.expect(0).map_err(|failure| failure.in_step(format!("{what} machine {machine}"))).map(drop)
    }

    /// The same program, started within the fleet's network: what it listens on and connects to by TCP is there. The
    /// file system is the same, and so a socket in it is where it was: a program there takes a bus that has one.
    pub fn within(&self, order: Order) -> Order {
        order.under(&["nsenter", &format!("--net={}", self.namespace("net")), "--"])
    }

    /// The OpenSSH client running a command on a machine as this user, from within the fleet's network. It trusts only
    /// the host key that the machine has now, and gives up after three seconds without a connection.
    pub fn ssh(&self, user: &str, machine: usize, command: &str) -> Outcome<Order> {
        let known = tempfile::Builder::new().prefix("known").tempfile_in(self.place.path())?;
        let (_, known) = known.keep().map_err(|error| error.error)?;
        let address = self.address(machine);
        fs::write(&known, format!("{address} {}\n", self.host_key(machine)?))?;
        let mut order = Order::installed("ssh").arg("-i").arg(&self.key).args(["-F", "none"]);
        // What it prefers to agree on keys costs more than all else that it does.
        let quick = "KexAlgorithms=curve25519-sha256";
        for option in
            ["BatchMode=yes", "ConnectTimeout=3", "LogLevel=ERROR", "StrictHostKeyChecking=yes", quick]
        {
            order = order.args(["-o", option]);
        }
        order = order.args(["-o", &format!("UserKnownHostsFile={}", known.display())]);
        Ok(self.within(order.arg(format!("{user}@{address}")).arg(command)))
    }

    /// Waits until a machine is on and its sshd listens. What keeps packets from it is not seen.
    pub async fn wait_up(&self, machine: usize) -> Outcome {
        until(format_args!("machine {machine} is up"), PATIENCE, async || self.listens(machine)).await
    }

    /// Waits until a machine is up in another boot than `before`; which that is.
    pub async fn rebooted(&self, machine: usize, before: &str) -> Outcome<String> {
        let mut now = String::new();
        until(format_args!("machine {machine} has left boot {before}"), PATIENCE, async || {
            now = self.boot_id(machine).await.unwrap_or_default();
            !now.is_empty() && now != before
        })
        .await?;
        self.wait_up(machine).await?;
        Ok(now)
    }

    fn listens(&self, machine: usize) -> bool {
        let pid = self.read(&format!("meta/h{machine}.pid")).unwrap_or_default();
        let sockets = self.seen(&format!("/proc/{}/net/tcp", pid.trim()));
        // Port 22, with no other end: state 0A is that of who listens.
        let is = |line: &str| line.contains(":0016 00000000:0000 0A ");
        fs::read_to_string(sockets).is_ok_and(|sockets| sockets.lines().any(is))
    }

    fn order(&self, what: &str, machine: usize, more: &[&str]) -> Order {
        let order = Order::installed("bash").arg(SCRIPT).arg(self.place.path());
        let namespaces = [("net", "net"), ("mount", "mnt"), ("pid", "pid_for_children")]
            .map(|(kind, file)| format!("--{kind}={}", self.namespace(file)));
        let [net, mount, pid] = &namespaces;
        order.args([what, &machine.to_string()]).args(more).under(&["nsenter", net, mount, pid, "--"])
    }

    fn namespace(&self, file: &str) -> String {
        format!("/proc/{}/ns/{file}", self.holder.pid())
    }

    /// A path of the fleet's own mounts, from here.
    fn seen(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.pid()))
    }

    fn read(&self, file: &str) -> Outcome<String> {
        let path = self.seen(&format!("{}/mem/{file}", self.place.path().display()));
        fs::read_to_string(&path).map_err(|e| Failure::new(format!("{file} of a fleet: {e}")))
    }

    /// The first process of its namespaces, as it is called out here.
    fn first(&self) -> Option<Pid> {
        let pid = self.holder.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // It ends when all processes in its namespaces have, and the holder when that has. Where it is not found, it is
        // killed with the holder, a little later.
        if let Some(first) = self.first() {
            let _ = kill_process(first, Signal::KILL);
            let limit = Instant::now() + Duration::from_secs(10);
            while !self.holder.has_ended() && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Command {
    fn read(line: &str) -> Outcome<Self> {
        let mut words = line.splitn(4, '\t');
        let mut word = || words.next().unwrap_or_default();
        let (at, boot_id, uid, line) = (word(), word(), word(), word());
        match (at.parse(), uid.parse()) {
            (Ok(at), Ok(uid)) => Ok(Self { at, boot_id: boot_id.to_owned(), uid, line: line.to_owned() }),
            _ => Err(Failure::new(format!("{at:?} … {line:?} is no line of a log"))),
        }
    }
}
