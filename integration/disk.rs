//! Disks that are small or slow.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use commissaire::testkit::{Failure, Outcome, Process, Server};

/// A small filesystem in memory over one folder, which only programs see that are started [under](Self::under) it. It
/// is gone when the last of these has ended: nothing of it is left on the machine.
#[derive(Debug)]
pub struct Disk {
    holder: Process,
    folder: PathBuf,
}

impl Disk {
    /// A filesystem of `mebibytes` over `folder`. `None` where this user may not mount.
    pub fn over(folder: &Path, mebibytes: u32) -> Outcome<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        fs::create_dir_all(folder)?;
        let mut command = Process::command("unshare");
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m tmpfs \"$0\" && echo mounted && exec sleep infinity"
        );
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = Process::spawn("unshare", command)?;
        let mut line = String::new();
        if let Some(out) = holder.child().stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line.trim() != "mounted" {
            return Err(Failure::new(format!("no filesystem could be mounted over {}", folder.display())));
        }
        Ok(Some(Self { holder, folder: folder.to_owned() }))
    }

    /// Has `server` see it when it is started the next time.
    pub fn under(&self, server: &mut Server) {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.pid());
        server.under(&["nsenter", &namespace, "--"]);
    }

    /// Takes all the space that is left on it.
    pub fn fill(&self) -> Outcome {
        let mut file = fs::File::options().create(true).append(true).open(self.ballast())?;
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![0; size];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn free(&self) -> Outcome {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        let seen_from_there = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        seen_from_there.join(self.folder.strip_prefix("/").unwrap_or(&self.folder)).join("ballast")
    }
}

/// Has each `fsync` and `fdatasync` of `server` take so much longer when it is started the next time.
pub fn slow_sync(server: &mut Server, milliseconds: u32) {
    let inject = format!("inject=fsync,fdatasync:delay_enter={}", milliseconds * 1000);
    // `-D`: the server stays the child that was started, and strace stands beside it.
    let trace = "trace=fsync,fdatasync";
    server.under(&[
        "strace",
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-o",
        "/dev/null",
        "-e",
        trace,
        "-e",
        &inject,
    ]);
}
