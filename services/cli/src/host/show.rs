//! `commissaire host show` and `list`.

use clap::Args;
use commissaire_api::Investigation;
use serde_json::Value;

use super::{Known, json};
use crate::{
    Failed,
    asking::Asking,
    output::{complain, print},
    table::plain,
};

/// Show all that is known of a host
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Its address
    address: String,
    #[command(flatten)]
    asking: Asking,
}

/// List hosts
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only those with this status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let known = Known::of(&storage, std::slice::from_ref(&self.address)).await?;
        let investigation = storage.find::<Investigation>(&self.address).await?.map(|found| found.record);
        client.bus().close().await?;
        for host in &known.hosts {
            let line = known.line(host, investigation.as_ref());
            if self.asking.json {
                json(&line)?;
                continue;
            }
            let Ok(Value::Object(mut all)) = serde_json::to_value(&line) else { continue };
            // The steps alone are of interest here.
            let progress = all.remove("investigation").map(|mut record| record["progress"].take());
            if let Some(Value::Object(state)) = all.remove("state") {
                all.extend(state);
            }
            tell("", &Value::Object(all))?;
            for step in
                progress.as_ref().and_then(|progress| progress["steps"].as_array()).into_iter().flatten()
            {
                let (name, state) = (step["name"].as_str(), step["state"].as_str());
                row(&format!("step {}", name.unwrap_or_default()), state.unwrap_or_default())?;
            }
        }
        Ok(())
    }
}

impl List {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let mut known = Known::of(&storage, &[]).await?;
        client.bus().close().await?;
        let clusters = std::mem::take(&mut known.clusters);
        known.hosts.retain(|host| {
            self.status.as_ref().is_none_or(|status| host.status == *status)
                && self.cluster.as_ref().is_none_or(|name| {
                    clusters
                        .iter()
                        .any(|cluster| cluster.name == *name && cluster.hostset.contains(&host.address))
                })
        });
        known.clusters = clusters;
        if self.asking.json {
            return known.hosts.iter().try_for_each(|host| json(&known.line(host, None)));
        }
        if known.hosts.is_empty() {
            complain("there are no such hosts");
        }
        known.print()
    }
}

/// A value in rows, objects with the names of their members.
fn tell(name: &str, value: &Value) -> Result<(), Failed> {
    match value {
        Value::Null => Ok(()),
        Value::Object(members) => members.iter().try_for_each(|(member, value)| {
            let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
            tell(&name, value)
        }),
        Value::Array(items) => items.iter().try_for_each(|item| tell(name, item)),
        Value::String(text) if text.is_empty() => Ok(()),
        Value::String(text) => text.lines().try_for_each(|line| row(name, line)),
        other => row(name, &other.to_string()),
    }
}

fn row(name: &str, value: &str) -> Result<(), Failed> {
    print(&format!("{name:28}{}", plain(value)))
}
