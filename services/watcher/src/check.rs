//! Looking at a host: whether SSH is spoken there, and, in full, whether one gets in and what it says.

use std::time::{Duration, Instant};

use commissaire::Result;
use commissaire_api::{HostCreds, HostState, StorageClient};
use commissaire_ssh::{Credentials, Failure, Script, Ssh, Target};
use tokio::time::timeout;

use crate::fate::Look;

/// What a full look asks: cheap, and without root.
const ASK: &str = "cat /proc/sys/kernel/random/boot_id
df -P / /var 2>/dev/null | awk 'NR > 1 { sub(\"%\", \"\", $5); print \"disk\", $6, $5 }'
systemctl --failed --no-legend --plain 2>/dev/null | awk '{ print \"unit\", $1 }' | head -n 5
exit 0";
const LIMIT: Duration = Duration::from_secs(30);

/// What a look found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) look: Look,
    pub(crate) latency: Duration,
    /// What the host said, of a full look.
    pub(crate) full: Option<Full>,
}

/// What a host said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) boot_id: String,
    pub(crate) warnings: Vec<String>,
}

/// Who looks.
#[derive(Debug, Clone)]
pub(crate) struct Eye {
    pub(crate) ssh: Ssh,
    pub(crate) storage: StorageClient,
    pub(crate) has_agent: bool,
    pub(crate) patience: Duration,
}

impl Eye {
    /// Whether SSH is spoken at `address`.
    pub(crate) async fn knock(&self, address: &str) -> Found {
        let began = Instant::now();
        // One limit for all: a host that takes longer is as good as away.
        let knocked = timeout(self.patience, self.ssh.knock(address)).await;
        let look = match knocked {
            Ok(Ok(_)) => Look::Well,
            Ok(Err(failure)) => bad(&failure),
            Err(_) => Look::Bad {
                cause: "timed_out".to_owned(),
                text: format!("{address} did not say who it is within {:?}", self.patience),
            },
        };
        Found { look, latency: began.elapsed(), full: None }
    }

    /// Whether one gets in to `address`, and what it says. An error: of the records, not of the host.
    pub(crate) async fn look(&self, address: &str) -> Result<Found> {
        let creds = self.storage.find::<HostCreds>(address).await?;
        let (key, user) = match &creds {
            Some(found) => (found.record.ssh_priv_key.as_str(), found.record.remote_user.clone()),
            None => ("", "root".to_owned()),
        };
        if key.is_empty() && !self.has_agent {
            // One cannot get in, and nobody wants to.
            return Ok(self.knock(address).await);
        }
        let pinned = self.storage.find::<HostState>(address).await?.map(|found| found.record.host_keys);
        let began = Instant::now();
        // What is not there is known soon, whatever else may take its time.
        let knocked = self.knock(address).await;
        if knocked.look != Look::Well {
            return Ok(knocked);
        }
        let asked = async {
            let credentials = Credentials::of_record(address, key)?;
            let pinned = pinned.unwrap_or_default();
            let target = Target { address: address.to_owned(), user, credentials, pinned };
            let session = self.ssh.connect(&target).await?;
            let latency = began.elapsed();
            let output = session.run(&Script::new(ASK).within(LIMIT)).await;
            session.close().await;
            Ok((latency, read(&output?.out)))
        };
        Ok(match asked.await {
            Ok((latency, full)) => Found { look: Look::Well, latency, full: Some(full) },
            Err(failure) => Found { look: bad(&failure), latency: began.elapsed(), full: None },
        })
    }
}

fn bad(failure: &Failure) -> Look {
    Look::Bad { cause: failure.kind.to_string(), text: failure.text.clone() }
}

fn read(text: &str) -> Full {
    let mut lines = text.lines();
    let boot_id = lines.next().unwrap_or_default().trim().to_owned();
    let mut warnings = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["disk", point, percent] if percent.parse::<u8>().is_ok_and(|percent| percent >= 90) => {
                let warning = format!("the file system of {point} is {percent} % full");
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            ["unit", unit] => warnings.push(format!("{unit} has failed")),
            _ => {}
        }
    }
    Full { boot_id, warnings }
}
