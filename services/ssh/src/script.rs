//! What is to be run on a host: a script for `sh`, given on its standard input.
//!
//! No word of a script stands on a command line there, where every user of the host could read it, and nothing is quoted
//! for the shell of whoever logs in. The shell reads all of it before it begins: of a script that was cut short nothing is
//! done.
//!
//! A connection that breaks ends a script at the next word that it says, in the middle of an upgrade perhaps. One that runs
//! [`alone`](Script::alone) goes on to its end, and whoever comes after it waits for that.

use std::time::Duration;

use zeroize::Zeroizing;

/// How long a script may run when nobody says otherwise.
const USUAL: Duration = Duration::from_secs(600);
/// How much of what it writes to standard output is kept.
const KEPT: usize = 256 * 1024;

/// What is to be run.
#[derive(Clone)]
pub struct Script {
    text: String,
    variables: Vec<(String, Zeroizing<String>)>,
    pub(crate) as_root: bool,
    alone: bool,
    pub(crate) limit: Duration,
    pub(crate) keep: usize,
}

impl Script {
    /// These lines. Its standard input is empty.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            variables: Vec::new(),
            as_root: false,
            alone: false,
            limit: USUAL,
            keep: KEPT,
        }
    }

    /// With this in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), Zeroizing::new(value.into())));
        self
    }

    /// As root: with sudo, where the user is another.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    /// As root, for what changes the host: it is not ended by a connection that breaks, and waits until no other script
    /// that was begun so is at work there. What it says is heard when it has ended.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self.as_root()
    }

    /// Ended when it takes longer; while it waits for others as well.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What the shell is given.
    pub(crate) fn input(&self) -> Zeroizing<Vec<u8>> {
        let mut input = String::from(
            "LC_ALL=C; export LC_ALL\nPATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH\ncommissaire() {\n",
        );
        for (name, value) in &self.variables {
            input.push_str(&format!("{name}={}; export {name}\n", quoted(value)));
        }
        input.push_str(&self.text);
        input.push_str("\n}\n");
        input.push_str(if self.alone { ALONE } else { "commissaire </dev/null; exit\n" });
        Zeroizing::new(input.into_bytes())
    }
}

/// What runs a script alone. The lock is that of the shell which waits for it, not of what it leaves behind. What it says is
/// in files that are nobody's but its own; a signal ends it, and then what it has said is told.
const ALONE: &str = r#"run=/run
[ -w "$run" ] || run=/tmp
exec 9>>"$run/commissaire.lock"
if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
    echo "waiting for what commissaire has begun on this host before" >&2
    flock 9
fi
said=$(mktemp "$run/commissaire.XXXXXX") && exec 3>"$said" 4<"$said" && rm -f -- "$said" || exit
said=$(mktemp "$run/commissaire.XXXXXX") && exec 5>"$said" 6<"$said" && rm -f -- "$said" || exit
trap : HUP TERM
( commissaire ) </dev/null >&3 2>&5 3>&- 4<&- 5>&- 6<&- 9>&-
status=$?
cat <&4
cat <&6 >&2
exit "$status"
"#;

/// One word of the shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Script").field("text", &self.text).field("variables", &names).finish_non_exhaustive()
    }
}
