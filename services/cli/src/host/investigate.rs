//! `commissaire host investigate` and `trust`.

use clap::Args;
use commissaire::{Client, Error, Event, Pattern, Received, RpcError, Source};
use commissaire_api::{
    Host, Investigation, StorageClient,
    investigator::{
        INVESTIGATION_FAILED, Investigate as Call, InvestigateJob, InvestigateParams, InvestigatorEvent,
        InvestigatorState,
    },
    record::StepState,
};
use futures_util::{StreamExt, stream};

use super::{AT_ONCE, Known, done, json};
use crate::{
    Failed,
    asking::Asking,
    output::{complain, print},
    table::plain,
};

/// Find out what hosts are, and bring them in order
#[derive(Debug, Args)]
pub(super) struct Investigate {
    /// Their addresses
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    addresses: Vec<String>,
    /// All hosts
    #[arg(long)]
    all: bool,
    /// Only find out what they are
    #[arg(long)]
    facts_only: bool,
    /// Only tell which steps would change something
    #[arg(long, conflicts_with = "facts_only")]
    dry_run: bool,
    /// Do not wait until it is done
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Take the keys that hosts show now in the place of those that were pinned
#[derive(Debug, Args)]
#[command(after_help = "\
Only when you know why the key has changed, because the host was installed anew, say: else somebody may answer in its place.")]
pub(super) struct Trust {
    /// Their addresses
    #[arg(required = true)]
    addresses: Vec<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Investigate {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let addresses = if self.all {
            storage.list::<Host>().await?.into_iter().map(|host| host.address).collect()
        } else {
            self.addresses
        };
        let wanted = InvestigateParams {
            facts_only: self.facts_only,
            dry_run: self.dry_run,
            ..InvestigateParams::default()
        };
        investigate(&client, &storage, &addresses, &wanted, &self.asking, self.no_wait).await
    }
}

impl Trust {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, storage) = self.asking.client().await?;
        let wanted =
            InvestigateParams { facts_only: true, trust_new_key: true, ..InvestigateParams::default() };
        investigate(&client, &storage, &self.addresses, &wanted, &self.asking, false).await
    }
}

/// Has hosts looked over, shows how that goes, and what it came to.
pub(super) async fn investigate(
    client: &Client,
    storage: &StorageClient,
    addresses: &[String],
    wanted: &InvestigateParams,
    asking: &Asking,
    no_wait: bool,
) -> Result<(), Failed> {
    let of = |address: &String| InvestigateParams { address: address.clone(), ..wanted.clone() };
    if no_wait {
        for address in addresses {
            client.enqueue(InvestigateJob, &of(address)).await?;
        }
        client.bus().close().await?;
        return print(&format!("{} hosts are being looked over", addresses.len()));
    }
    let events = Source::Topic(vec![Pattern::new(InvestigatorEvent::PATTERN)?]);
    let mut events = client.bus().subscribe(events, 256).await?;
    let show = async {
        while let Some(received) = events.next().await {
            let Received::Delivery(delivery) = received else { continue };
            if let Ok(event) = serde_json::from_slice::<InvestigatorEvent>(delivery.message().body())
                && addresses.contains(&event.address)
            {
                complain(&progress(&event));
            }
            let _ = delivery.ack().await;
        }
        // The bus is closed; the calls say so.
        std::future::pending::<()>().await;
    };
    let calls = stream::iter(addresses).map(|address| async move {
        client.call(Call, &of(address)).await.map(drop).map_err(|error| (address.clone(), error))
    });
    let calls = calls.buffer_unordered(AT_ONCE).filter_map(async |ended| ended.err()).collect::<Vec<_>>();
    let errors: Vec<(String, Error)> = tokio::select! {
        errors = calls => errors,
        () = show => Vec::new(),
    };
    // Failures of hosts are in the table; others are said.
    let (failed, errors): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|(_, error)| error.remote().is_some_and(|e: &RpcError| e.code == INVESTIGATION_FAILED));
    let there: Vec<String> = addresses
        .iter()
        .filter(|address| errors.iter().all(|(other, _)| other != *address))
        .cloned()
        .collect();
    if !there.is_empty() {
        tell(storage, &there, wanted.dry_run, asking).await?;
    }
    for (address, error) in &failed {
        let data = error.remote().and_then(|remote| remote.data.clone()).unwrap_or_default();
        let text = data["text"].as_str().unwrap_or("the investigation failed");
        complain(&format!(
            "commissaire: {address}: {}: {}",
            data["step"].as_str().unwrap_or_default(),
            plain(text)
        ));
        for line in
            data["tail"].as_str().unwrap_or_default().lines().rev().take(5).collect::<Vec<_>>().iter().rev()
        {
            complain(&format!("  | {}", plain(line)));
        }
    }
    client.bus().close().await?;
    if failed.is_empty() { done(errors, false) } else { done(errors, true) }
}

/// What became of the hosts.
async fn tell(
    storage: &StorageClient,
    addresses: &[String],
    dry_run: bool,
    asking: &Asking,
) -> Result<(), Failed> {
    let known = Known::of(storage, addresses).await?;
    if asking.json {
        for host in &known.hosts {
            let found = storage.find::<Investigation>(&host.address).await?.map(|found| found.record);
            json(&known.line(host, found.as_ref()))?;
        }
        return Ok(());
    }
    if !dry_run {
        return known.print();
    }
    for host in &known.hosts {
        let Some(found) = storage.find::<Investigation>(&host.address).await? else { continue };
        let steps = found.record.progress().steps;
        if steps.iter().all(|step| step.state == StepState::Unchanged) {
            print(&format!("{}: nothing is to be done", host.address))?;
        }
        for step in steps.iter().filter(|step| step.state == StepState::WouldChange) {
            print(&format!("{}: {}", host.address, step.name))?;
        }
    }
    Ok(())
}

fn progress(event: &InvestigatorEvent) -> String {
    let text = plain(event.text.lines().next().unwrap_or_default());
    let what = match event.state {
        InvestigatorState::Started => "is looked over".to_owned(),
        InvestigatorState::Facts => format!("runs {text}"),
        InvestigatorState::Step => format!("{}: {}", event.step, text.replace('_', " ")),
        InvestigatorState::Finished => format!("done, {text}"),
        InvestigatorState::Failed => format!("failed at {}: {text}", event.step),
    };
    format!("{}  {what}", event.address)
}
