//! rabbitmq-server: a node of its own, with its own epmd, cookie and ports, all on 127.0.0.1.

use std::{
    fmt::Write,
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failure, Outcome, Process, Program, Server, free_port};

/// The scripts themselves: those on the path change to the packaged user, whose node is another one.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
const NODE: &str = "bus@localhost";
const EPMD: &str = "epmd.port";

pub(super) const PROGRAM: Program = Program {
    name: "rabbitmq-server",
    scheme: "amqp",
    patience: Duration::from_secs(90),
    beside: Some(epmd),
    command: |dir, port, settings| {
        let mut text = format!("listeners.tcp.1 = {}:{port}\n", Ipv4Addr::LOCALHOST);
        let mut plugins = "";
        for (name, value) in settings {
            match name.as_str() {
                "plugins" => plugins = value,
                "definitions" => {
                    let file = dir.join("definitions.json");
                    fs::write(&file, value)?;
                    let _ = writeln!(text, "load_definitions = {}", file.display());
                }
                // Writing to a string cannot fail.
                _ => drop(writeln!(text, "{name} = {value}")),
            }
        }
        fs::write(dir.join("rabbitmq.conf"), text)?;
        fs::write(dir.join("plugins"), format!("[{plugins}]."))?;
        let mut command = Process::command(Path::new(SCRIPTS).join("rabbitmq-server"));
        at_home(&mut command, dir)?;
        command
            // The script then becomes the virtual machine itself, so that signals reach it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_MNESIA_BASE", dir.join("data"))
            .env("RABBITMQ_LOG_BASE", dir.join("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .env("RABBITMQ_DIST_PORT", free_port()?.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            );
        Ok(command)
    },
    answers: |mut stream| {
        Box::pin(async move {
            stream.write_all(b"AMQP\0\0\x09\x01").await?;
            // The first frame is the method Connection.Start; a plain answer is the header of another version.
            Ok(stream.read_u8().await? == 1)
        })
    },
};

impl Server {
    /// Runs `rabbitmqctl` with these arguments on this node; what it prints.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> Outcome<String> {
        let mut command = Process::command(Path::new(SCRIPTS).join("rabbitmqctl"));
        at_home(&mut command, self.dir())?;
        command
            .env("RABBITMQ_CTL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .args(["--quiet", "--node", NODE])
            .args(arguments)
            .stdin(Stdio::null());
        let what = format!("rabbitmqctl {}", arguments.join(" "));
        let ended = tokio::task::spawn_blocking(move || command.output()).await??;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            return Err(Failure::new(format!("{what}: {} {said}", ended.status)));
        }
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}

/// Whatever is started finds the node's own cookie and epmd, and no settings of the machine.
fn at_home(command: &mut Command, dir: &Path) -> Outcome {
    command
        .env("HOME", dir)
        .env("ERL_EPMD_PORT", fs::read_to_string(dir.join(EPMD))?)
        .env("ERL_EPMD_ADDRESS", Ipv4Addr::LOCALHOST.to_string())
        .env("ERL_CRASH_DUMP", "/dev/null")
        .env("LANG", "C.UTF-8")
        .env("RABBITMQ_NODENAME", NODE)
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("no.conf"));
    Ok(())
}

/// The port mapper of the node. It would start one itself, which outlived it.
fn epmd(dir: &Path) -> Outcome<Process> {
    let port = free_port()?.to_string();
    fs::write(dir.join(EPMD), &port)?;
    let mut command = Process::command("epmd");
    command
        .args(["-port", &port, "-address", &Ipv4Addr::LOCALHOST.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::spawn("epmd", command)
}
