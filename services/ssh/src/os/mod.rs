//! What each kind of operating system is told to do, as data: see `default.toml`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use commissaire::{Error, Result};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{Failure, Script, Session};

const DEFAULT: &str = include_str!("default.toml");

/// The kinds that are known.
#[derive(Debug, Clone)]
pub struct OsTable(Vec<Os>);

/// One kind of operating system: scripts for `sh`, to be run as root. See `default.toml` for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Os {
    /// Its name in the table.
    pub name: String,
    r#match: Vec<Match>,
    /// Brings everything up to date.
    #[serde(default)]
    pub upgrade: Option<String>,
    /// Brings the system to `$VERSION`.
    #[serde(default)]
    pub deploy: Option<String>,
    /// Takes the last upgrade back.
    #[serde(default)]
    pub rollback: Option<String>,
    /// Ends with 0 when a reboot is needed, with 1 when not.
    #[serde(default)]
    pub needs_reboot: Option<String>,
    /// Reboots.
    pub reboot: String,
    /// Ends with 0 when the package repositories are enabled.
    #[serde(default)]
    pub repositories: Option<String>,
    /// Enables them.
    #[serde(default)]
    pub enable_repositories: Option<String>,
    /// Installs `$PACKAGES`; `None` where software comes with the image only.
    #[serde(default)]
    pub install: Option<String>,
    /// Whether what is installed is there from the next boot on.
    #[serde(default)]
    pub staged: bool,
    /// Ends with 0 when `$PACKAGE` is installed.
    #[serde(default)]
    pub installed: Option<String>,
    /// Where the settings of services are.
    pub config_dir: String,
    /// The packages of each container runtime, and of flannel.
    #[serde(default)]
    pub packages: BTreeMap<String, Vec<String>>,
    /// Ends with 0 when the service `$UNIT` starts with the system.
    pub enabled: String,
    /// Has it start with the system.
    pub enable: String,
    /// Ends with 0 when it runs.
    pub active: String,
    /// Starts it anew.
    pub restart: String,
    /// Has the service manager read its files again.
    pub reload: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    likes: Option<Vec<String>>,
    #[serde(default)]
    booted: Option<Booted>,
    #[serde(default)]
    version_below: Option<u64>,
}

/// What a system was booted from, where that is an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Booted {
    /// An image of bootc's.
    Bootc,
    /// A deployment of OSTree's.
    Ostree,
}

/// What tells the kind of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID` of `/etc/os-release`.
    pub id: String,
    /// The words of `ID_LIKE`.
    pub like: Vec<String>,
    /// `VERSION_ID`.
    pub version: String,
    /// `VARIANT_ID`.
    pub variant: String,
    /// What it was booted from.
    pub booted: Option<Booted>,
}

impl OsTable {
    /// The rows that come with this program, and before them those of `file`.
    pub fn read(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return Self::of(DEFAULT, None).map_err(Error::config) };
        let unusable = |what: String| Error::config(format!("os_file {}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|e| unusable(format!("cannot be read: {e}")))?;
        Self::of(DEFAULT, Some(&text)).map_err(unusable)
    }

    fn of(base: &str, own: Option<&str>) -> std::result::Result<Self, String> {
        let mut base = rows(base)?;
        let mut defaults = match base.remove("defaults") {
            Some(Value::Table(defaults)) => defaults,
            _ => Table::new(),
        };
        let mut all = list(base)?;
        if let Some(own) = own {
            let mut own = rows(own)?;
            if let Some(Value::Table(more)) = own.remove("defaults") {
                defaults.extend(more);
            }
            let mut before = Vec::new();
            for row in list(own)? {
                let name = name(&row)?;
                match all.iter_mut().find(|known| name_of(known) == Some(&name)) {
                    Some(known) => known.extend(row),
                    None => before.push(row),
                }
            }
            before.append(&mut all);
            all = before;
        }
        let whole = all.into_iter().map(|row| {
            let name = name(&row)?;
            let mut whole = defaults.clone();
            whole.extend(row);
            Value::Table(whole).try_into::<Os>().map_err(|e| format!("row {name:?}: {}", e.message()))
        });
        whole.collect::<std::result::Result<_, _>>().map(Self)
    }

    /// All rows.
    pub fn all(&self) -> &[Os] {
        &self.0
    }

    /// The row of a host.
    pub fn find(&self, release: &OsRelease) -> Option<&Os> {
        let by = |fits: &dyn Fn(&Match) -> bool| self.0.iter().find(|os| os.r#match.iter().any(fits));
        by(&|one| one.fits(release, std::slice::from_ref(&release.id), &one.ids))
            .or_else(|| by(&|one| one.fits(release, &release.like, one.likes.as_ref().unwrap_or(&one.ids))))
    }
}

impl Match {
    fn fits(&self, release: &OsRelease, words: &[String], wanted: &[String]) -> bool {
        let first = release.version.split('.').next().and_then(|number| number.parse::<u64>().ok());
        let named = wanted.iter().any(|wanted| words.contains(wanted));
        // Only what runs an image is told what images are told, and nothing else.
        self.booted == release.booted.filter(|_| self.booted.is_some())
            && (named || (self.ids.is_empty() && self.likes.is_none() && self.booted.is_some()))
            && self.version_below.is_none_or(|below| first.is_some_and(|first| first < below))
    }
}

/// What tells the kind of a host: its `os-release`, and what it was booted from.
const ASK: &str = r#"cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release
echo
[ ! -e /run/ostree-booted ] || echo BOOTED=ostree
if command -v bootc >/dev/null 2>&1; then
    bootc status --json 2>/dev/null | tr -d ' \n' | grep -q '"booted":{"image":{' && echo BOOTED=bootc
fi
exit 0"#;

impl OsRelease {
    /// Asks a host, as root.
    pub async fn ask(session: &Session) -> std::result::Result<Self, Failure> {
        let script = Script::new(ASK).as_root().within(Duration::from_secs(60));
        let said = session.run(&script).await?.out;
        let mut release = Self::read(&said);
        let last = said.lines().rev().find_map(|line| line.strip_prefix("BOOTED="));
        release.booted = match last {
            Some("bootc") => Some(Booted::Bootc),
            Some("ostree") if release.variant == "bootc" => Some(Booted::Bootc),
            Some("ostree") => Some(Booted::Ostree),
            _ => None,
        };
        Ok(release)
    }

    /// What `/etc/os-release` says.
    pub fn read(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        Self {
            id: value("ID").to_ascii_lowercase(),
            like: value("ID_LIKE").split_whitespace().map(str::to_ascii_lowercase).collect(),
            version: value("VERSION_ID"),
            variant: value("VARIANT_ID"),
            booted: None,
        }
    }
}

fn rows(text: &str) -> std::result::Result<Table, String> {
    text.parse::<Table>().map_err(|e| e.to_string())
}

fn list(mut table: Table) -> std::result::Result<Vec<Table>, String> {
    let rows = table.remove("os").unwrap_or_else(|| Value::Array(Vec::new()));
    if let Some(other) = table.keys().next() {
        return Err(format!("{other:?} is not known: there are [defaults] and [[os]]"));
    }
    rows.try_into::<Vec<Table>>().map_err(|_| "[[os]] is a list of rows".to_owned())
}

fn name_of(row: &Table) -> Option<&str> {
    row.get("name").and_then(Value::as_str)
}

fn name(row: &Table) -> std::result::Result<String, String> {
    name_of(row).map(str::to_owned).ok_or_else(|| "a row has no name".to_owned())
}
