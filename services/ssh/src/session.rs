//! A session: scripts, and files, on one host.

use std::{fmt, sync::Arc, time::Duration};

use russh::{ChannelMsg, Disconnect, Sig, client::Handle};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use crate::{
    engine::{Chain, Target},
    failure::{Failure, FailureKind},
    handshake::{Checker, broken},
    limits::Counted,
    output::{Kept, Output},
    script::{Script, quoted},
};

/// How much of the end of what a script said is kept for people.
const TAIL: usize = 8 * 1024;
/// How long what is still on its way is waited for when a script has ended: something that it left behind may hold its
/// streams for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the host is given to end by itself what takes too long.
const GRACE: Duration = Duration::from_secs(2);
/// How the `timeout` of coreutils ends when it had to end something, and when it had to kill it.
const TIMED_OUT: [u32; 2] = [124, 137];
/// How long the host may take for a channel.
const OPEN: Duration = Duration::from_secs(20);
/// How long writing a file may take.
const WRITE: Duration = Duration::from_secs(120);

/// Logged in to a host.
pub struct Session {
    handle: Handle<Checker>,
    target: Target,
    new_host_key: Option<String>,
    sudo_password: Option<Zeroizing<String>>,
    root: OnceCell<Root>,
    _counted: Counted,
    _way: Option<Arc<Chain>>,
}

/// How one becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// One is.
    Already,
    /// By sudo, which asks for nothing.
    Free,
    /// By sudo, which asks for the password.
    Password,
}

impl Session {
    pub(crate) fn new(
        handle: Handle<Checker>,
        target: Target,
        new_host_key: Option<String>,
        sudo_password: Option<Zeroizing<String>>,
        counted: Counted,
        way: Option<Arc<Chain>>,
    ) -> Self {
        let root = OnceCell::new();
        Self { handle, target, new_host_key, sudo_password, root, _counted: counted, _way: way }
    }

    /// The address.
    pub fn address(&self) -> &str {
        &self.target.address
    }

    /// The host's key, as a line of OpenSSH's, when it was taken because none was known: to be pinned.
    pub fn new_host_key(&self) -> Option<&str> {
        self.new_host_key.as_deref()
    }

    /// Runs a script. How it ends is for the caller to judge; it is an error when it cannot be begun, takes too long, or
    /// when the connection breaks before its end.
    pub async fn run(&self, script: &Script) -> Result<Output, Failure> {
        let (become_root, mut input) = self.prefix(script.as_root).await?;
        input.extend_from_slice(&script.input());
        // The host ends it by itself: not every server passes signals on, and none does when the connection breaks.
        let seconds = script.limit.as_secs_f64().ceil().max(1.0);
        let command = format!("exec {become_root}sh -c {} sh {seconds}", quoted(RUN));
        self.exec(&command, &input, script.limit, script.keep).await
    }

    /// Writes a file, as root: whole, or not at all; in place of what was there, whose owner it keeps, and which is kept
    /// beside it once as `FILE.before-commissaire`. Without a `mode` it gets that of the file before it, a new one 0644.
    /// Whether that changed anything.
    pub async fn write_file(&self, path: &str, content: &[u8], mode: Option<u32>) -> Result<bool, Failure> {
        let (become_root, mut input) = self.prefix(true).await?;
        let mode = mode.map(|mode| format!("{mode:o}")).unwrap_or_default();
        let words = [path, &mode, &content.len().to_string()].map(quoted).join(" ");
        input.extend_from_slice(content);
        let command = format!("exec {become_root}sh -c {} sh {words}", quoted(WRITE_FILE));
        let output = self.exec(&command, &input, WRITE, 4096).await?;
        match output.out.trim() {
            "changed" if output.is_well() => Ok(true),
            "unchanged" if output.is_well() => Ok(false),
            _ => {
                let (address, ending) = (&self.target.address, output.ending());
                let text =
                    format!("{path} on {address} cannot be written ({ending}): {}", output.tail.trim());
                Err(Failure::new(FailureKind::Command, text))
            }
        }
    }

    /// Takes leave of the host.
    pub async fn close(self) {
        let _ = timeout(LAST_WORDS, self.handle.disconnect(Disconnect::ByApplication, "", "")).await;
    }

    /// What stands before a command that root is to run, and what stands before its input: what sudo reads.
    async fn prefix(&self, as_root: bool) -> Result<(&'static str, Zeroizing<Vec<u8>>), Failure> {
        let root = match as_root && self.target.user != "root" {
            true => *self.root.get_or_try_init(|| self.find_root()).await?,
            false => Root::Already,
        };
        let (command, line) = match root {
            Root::Already => ("", None),
            Root::Free => ("sudo -n -- ", None),
            // Without what it remembers, so that it reads the password each time.
            Root::Password => ("sudo -k -S -p '' -- ", self.sudo_password.as_deref()),
        };
        Ok((command, Zeroizing::new(line.map(|word| format!("{word}\n").into_bytes()).unwrap_or_default())))
    }

    async fn find_root(&self) -> Result<Root, Failure> {
        let Target { address, user, .. } = &self.target;
        let refused = |what: &str| {
            let text = format!("{user} cannot become root on {address}: {what}");
            Err(Failure::new(FailureKind::Permission, text))
        };
        let found = self.run_plain(FIND_ROOT, b"").await?;
        match found.out.trim() {
            "already" => return Ok(Root::Already),
            "free" => return Ok(Root::Free),
            "missing" => return refused("there is no sudo"),
            _ => {}
        }
        let Some(password) = &self.sudo_password else {
            return refused(&format!(
                "sudo refuses or asks for a password (allow it NOPASSWD, or see ssh.sudo_password_path): {}",
                found.tail.trim()
            ));
        };
        let line = Zeroizing::new(format!("{}\n", **password));
        let tried = self.run_plain("exec sudo -k -S -p '' -- sh -c :", line.as_bytes()).await?;
        if tried.is_well() {
            Ok(Root::Password)
        } else {
            refused(&format!("sudo refuses: {}", tried.tail.trim()))
        }
    }

    async fn run_plain(&self, command: &str, input: &[u8]) -> Result<Output, Failure> {
        self.exec(command, input, OPEN, 4096).await
    }

    async fn exec(
        &self,
        command: &str,
        input: &[u8],
        limit: Duration,
        keep: usize,
    ) -> Result<Output, Failure> {
        let address = &self.target.address;
        let lost = |error: russh::Error| broken(address, "before a command could be begun", &error);
        let end = Instant::now() + limit;
        let deadline = end + GRACE;
        let open = async {
            let channel = self.handle.channel_open_session().await.map_err(lost)?;
            channel.exec(true, command).await.map_err(lost)?;
            Ok(channel)
        };
        let opened = timeout(OPEN.min(limit), open).await;
        let silent = |_| Failure::new(FailureKind::Lost, format!("{address} opens no channel"));
        let (mut reader, writer) = opened.map_err(silent)??.split();
        let write = async {
            // A command that ends before it has read all says why by its exit status.
            let _ = writer.data(input).await;
            let _ = writer.eof().await;
            std::future::pending::<()>().await;
        };
        tokio::pin!(write);
        let (mut out, mut tail) = (Kept::new(keep / 2, keep / 2), Kept::new(0, TAIL));
        let (mut status, mut signal) = (None, None);
        let (mut ended, mut late) = (false, false);
        let mut until = deadline;
        loop {
            let message = tokio::select! {
                () = &mut write => None,
                message = timeout_at(until, reader.wait()) => Some(message),
            };
            match message {
                None => {}
                Some(Ok(Some(ChannelMsg::Data { data }))) => {
                    out.add(&data);
                    tail.add(&data);
                }
                Some(Ok(Some(ChannelMsg::ExtendedData { data, .. }))) => tail.add(&data),
                Some(Ok(Some(ChannelMsg::ExitStatus { exit_status }))) => {
                    status = Some(exit_status);
                    ended = true;
                }
                Some(Ok(Some(ChannelMsg::ExitSignal { signal_name, .. }))) => {
                    signal = Some(name(&signal_name));
                    ended = true;
                }
                Some(Ok(Some(ChannelMsg::Failure))) => {
                    let text = format!("{address} does not run commands for {}", self.target.user);
                    return Err(Failure::new(FailureKind::Permission, text));
                }
                Some(Ok(Some(ChannelMsg::Close) | None)) => break,
                Some(Ok(Some(_))) => {}
                Some(Err(_)) if ended || late => break,
                Some(Err(_)) => {
                    // What it has to say to that is heard.
                    late = true;
                    until = Instant::now() + LAST_WORDS;
                    let _ = timeout(LAST_WORDS, writer.signal(Sig::TERM)).await;
                }
            }
            if ended && !late {
                until = deadline.min(Instant::now() + LAST_WORDS);
            }
        }
        let _ = timeout(LAST_WORDS, writer.close()).await;
        late |= Instant::now() >= end && status.is_some_and(|status| TIMED_OUT.contains(&status));
        if late {
            let text = format!(
                "a command on {address} did not end within {limit:?}; it was told to: {}",
                tail.text().trim()
            );
            return Err(Failure::new(FailureKind::Command, text));
        }
        if status.is_none() && signal.is_none() {
            let text = format!(
                "the connection to {address} broke before a command had ended: it may have been carried out or not"
            );
            return Err(Failure::new(FailureKind::Lost, text));
        }
        Ok(Output { status, signal, out: out.text(), tail: tail.text() })
    }
}

/// What runs a script that comes on standard input, for so many seconds at most.
const RUN: &str = r#"if timeout -k 1 1 true >/dev/null 2>&1; then exec timeout -k 5 "$1" sh -s; fi
exec sh -s"#;

/// What tells how one becomes root.
const FIND_ROOT: &str = r#"exec sh -c 'if [ "$(id -u)" = 0 ]; then echo already
elif ! command -v sudo >/dev/null 2>&1; then echo missing
elif sudo -k -n sh -c : </dev/null; then echo free
else echo password; fi'"#;

/// What writes a file: its path, its mode, and how many bytes of it come.
const WRITE_FILE: &str = r#"umask 077
path=$1
[ ! -e "$path" ] || path=$(readlink -f -- "$path") || exit
case $path in */*) mkdir -p -m 755 -- "${path%/*}" || exit ;; esac
new=$(mktemp "$path.XXXXXX") || exit
trap "rm -f -- \"\$new\"" EXIT
cat >"$new" || exit
if [ "$(wc -c <"$new")" -ne "$3" ]; then echo "not all of it came" >&2; exit 1; fi
mode=${2:-$(stat -c %a -- "$path" 2>/dev/null || echo 644)}
if [ -e "$path" ]; then
    same() { cmp -s "$path" "$new" 2>/dev/null || [ "$(sha256sum <"$path")" = "$(sha256sum <"$new")" ]; }
    if same && [ "$((0$(stat -c %a -- "$path")))" -eq "$((0$mode))" ]; then echo unchanged; exit 0; fi
    chown "$(stat -c %u:%g -- "$path")" "$new" || exit
    [ -e "$path.before-commissaire" ] || cp -p -- "$path" "$path.before-commissaire" || exit
fi
chmod "$mode" "$new" || exit
sync "$new" 2>/dev/null || sync
mv -f -- "$new" "$path" || exit
if command -v restorecon >/dev/null 2>&1; then restorecon "$path" || true; fi
echo changed"#;

fn name(signal: &Sig) -> String {
    format!("{signal:?}").trim_start_matches("Custom(\"").trim_end_matches("\")").to_owned()
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("address", &self.target.address)
            .field("user", &self.target.user)
            .finish_non_exhaustive()
    }
}
