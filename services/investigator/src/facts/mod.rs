//! What a host is: asked by one script in one round trip, with nothing but a POSIX shell there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use commissaire_ssh::{
    Failure, FailureKind, Script, Session,
    os::{Booted, OsRelease},
};
use serde::{Deserialize, Serialize};

const PROBE: &str = include_str!("probe.sh");
const LIMIT: Duration = Duration::from_secs(60);
/// How far a host's clock may be off before that is worth a word: Kubernetes and TLS suffer.
const SKEW: f64 = 5.0;

/// What a host is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `ID` of `/etc/os-release`.
    pub os: String,
    /// The words of `ID_LIKE`.
    pub os_like: Vec<String>,
    /// `PRETTY_NAME`.
    pub os_name: String,
    /// `VERSION_ID`.
    pub os_version: String,
    /// `VARIANT_ID`.
    pub os_variant: String,
    /// `ostree`, `bootc`, or nothing: from what kind of image it was booted.
    pub booted: String,
    /// The release of its kernel.
    pub kernel: String,
    /// What it runs on, `x86_64`.
    pub arch: String,
    /// How many processors are at work.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory: u64,
    /// The bytes of its file systems with a device of their own, each counted once.
    pub space: u64,
    /// How full the fullest of them is, in percent.
    pub fullest: u8,
    /// How many of the inodes are used where most are, in percent.
    pub inodes: u8,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Which boot it is in.
    pub boot_id: String,
    /// What it runs in, as `systemd-detect-virt` says.
    pub virtualization: String,
    /// `Enforcing`, `Permissive`, `Disabled`, or nothing.
    pub selinux: String,
    /// The container runtimes that are there.
    pub runtimes: Vec<String>,
    /// How far its clock is ahead of ours, in seconds, at least; 0 where that cannot be told from the way there.
    pub clock_ahead: f64,
}

impl Facts {
    /// Asks a host.
    pub async fn gather(session: &Session) -> Result<Self, Failure> {
        let began = now();
        let output = session.run(&Script::new(PROBE).as_root().within(LIMIT)).await?;
        let facts = Self::read(&output.out, began, now());
        facts.ok_or_else(|| {
            let (address, ending) = (session.address(), output.ending());
            let text = format!(
                "{address} does not say what it is ({ending}): {}",
                output.tail.lines().last().unwrap_or("nothing was said")
            );
            Failure::new(FailureKind::Command, text)
        })
    }

    /// What the probe said between two moments of our clock.
    pub fn read(text: &str, began: f64, ended: f64) -> Option<Self> {
        // Whatever a login script says comes before.
        let (_, text) = text.split_once("commissaire facts 1\n")?;
        let (text, _) = text.split_once("== end\n")?;
        let section = |name: &str| -> &str {
            let start = format!("== {name}\n");
            let rest = text.split_once(&start).map_or("", |(_, rest)| rest);
            let end = if rest.starts_with("== ") { 0 } else { rest.find("\n== ").unwrap_or(rest.len()) };
            rest[..end].trim()
        };
        let os = section("os");
        let release = OsRelease::read(os);
        let booted: Vec<&str> = section("booted").lines().collect();
        let booted = if booted.contains(&"bootc") || release.variant == "bootc" {
            "bootc"
        } else {
            booted.first().copied().unwrap_or_default()
        };
        let kib = section("memory").split_whitespace().nth(1)?.parse::<u64>().ok()?;
        let columns = |name: &str, at: usize| -> Vec<u64> {
            let value = |line: &str| line.split_whitespace().nth(at)?.trim_end_matches('%').parse().ok();
            section(name).lines().filter_map(value).collect()
        };
        let most = |percents: Vec<u64>| percents.into_iter().max().and_then(|most| most.try_into().ok());
        let clock: Option<f64> = section("clock").trim_end_matches(".%N").parse().ok();
        let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Some(Self {
            os: release.id,
            os_like: release.like,
            os_name: pretty.map(|name| name.trim_matches(['"', '\'']).to_owned()).unwrap_or_default(),
            os_version: release.version,
            os_variant: release.variant,
            booted: booted.to_owned(),
            kernel: section("kernel").to_owned(),
            arch: section("arch").to_owned(),
            cpus: section("cpus").parse().ok()?,
            memory: kib / 1024,
            space: columns("space", 1).into_iter().fold(0_u64, u64::saturating_add).saturating_mul(1024),
            fullest: most(columns("space", 4)).unwrap_or_default(),
            inodes: most(columns("inodes", 4)).unwrap_or_default(),
            machine_id: section("machine-id").to_owned(),
            boot_id: section("boot-id").to_owned(),
            virtualization: section("virtualization").to_owned(),
            selinux: section("selinux").to_owned(),
            runtimes: section("runtimes").lines().map(str::to_owned).collect(),
            clock_ahead: clock.map_or(0.0, |clock| {
                if clock > ended { clock - ended } else { (clock + 1.0 - began).min(0.0) }
            }),
        })
    }

    /// What tells which row of the OS table is its.
    pub fn release(&self) -> OsRelease {
        OsRelease {
            id: self.os.clone(),
            like: self.os_like.clone(),
            version: self.os_version.clone(),
            variant: self.os_variant.clone(),
            booted: match self.booted.as_str() {
                "bootc" => Some(Booted::Bootc),
                "ostree" => Some(Booted::Ostree),
                _ => None,
            },
        }
    }

    /// What somebody should look at.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.clock_ahead.abs() > SKEW {
            let way = if self.clock_ahead > 0.0 { "ahead" } else { "behind" };
            warnings.push(format!("its clock is {:.0} s {way}", self.clock_ahead.abs()));
        }
        if self.fullest >= 90 {
            warnings.push(format!("a file system is {} % full", self.fullest));
        }
        if self.inodes >= 90 {
            warnings.push(format!("{} % of the inodes of a file system are used", self.inodes));
        }
        warnings
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
