//! `commissaire cluster upgrade`, `restart`, `deploy`, `operation`, `pause`, `resume`, `cancel`.

use std::time::Duration;

use clap::Args;
use commissaire::{Client, Error, app::Exit};
use commissaire_api::{
    Operation,
    clusterexec::{
        Cancel as CancelCall, CancelParams, ClusterParams, ClusterexecEvent, Deploy as DeployCall,
        DeployParams, Events, EventsParams, GetOperation, NameParams, OperationKind, Pause as PauseCall,
        Plan, PlanParams, Restart as RestartCall, Resume as ResumeCall, Told, Upgrade as UpgradeCall,
    },
    record::FINISHED,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    Failed,
    asking::Asking,
    output::{complain, print},
    table::{plain, print_table},
};

/// How often it is asked what has happened.
const LOOK: Duration = Duration::from_millis(300);

/// Bring all hosts of a cluster up to date, and reboot those that need it
#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// The cluster
    name: String,
    #[command(flatten)]
    how: How,
}

/// Reboot all hosts of a cluster
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The cluster
    name: String,
    #[command(flatten)]
    how: How,
}

/// Bring all hosts of a cluster to a version
#[derive(Debug, Args)]
pub(super) struct Deploy {
    /// The cluster
    name: String,
    /// The version, or the image
    version: String,
    #[command(flatten)]
    how: How,
}

/// How to go over the hosts; what is not said is as the service is configured.
#[derive(Debug, Args)]
struct How {
    /// How many hosts at one time: 3, 25%
    #[arg(long, value_name = "N|%", value_parser = amount)]
    max_concurrent: Option<Value>,
    /// How many may fail: with one more it stops
    #[arg(long, value_name = "N|%", value_parser = amount)]
    max_failed: Option<Value>,
    /// Fewer at one time in the beginning: 1,5,25%
    #[arg(long, value_name = "N|%", value_parser = amount, value_delimiter = ',')]
    ramp: Vec<Value>,
    /// How many hosts must be available at all times
    #[arg(long, value_name = "N|%", value_parser = amount)]
    min_available: Option<Value>,
    /// Only the hosts with which the last operation was not done
    #[arg(long)]
    failed_only: bool,
    /// Other options, as a JSON object: see the README
    #[arg(long, value_name = "JSON", value_parser = object)]
    options: Option<Map<String, Value>>,
    /// Only tell to which hosts it would come, and what it would do there
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is over
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Show the last operation of a cluster, host by host
#[derive(Debug, Args)]
pub(super) struct LastOperation {
    /// The cluster
    name: String,
    /// Show what has happened and what happens, until it is over
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Begin with no more hosts until somebody resumes
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// The cluster
    name: String,
    #[command(flatten)]
    asking: Asking,
}

/// Go on
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// The cluster
    name: String,
    #[command(flatten)]
    asking: Asking,
}

/// End the operation with the hosts that were begun
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The cluster
    name: String,
    /// Do not wait for the hosts that were begun; a command that runs on one goes on there to its end
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    asking: Asking,
}

fn amount(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let number = text.strip_suffix('%').unwrap_or(text);
    let number: u32 =
        number.parse().map_err(|_| format!("{text:?} is no number of hosts, and no part of them: 3, 25%"))?;
    Ok(if text.ends_with('%') { json!(text) } else { json!(number) })
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|e| format!("it is no JSON object: {e}"))
}

impl Upgrade {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let Self { name, how } = self;
        run(OperationKind::Upgrade, name, String::new(), how).await
    }
}

impl Restart {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let Self { name, how } = self;
        run(OperationKind::Restart, name, String::new(), how).await
    }
}

impl Deploy {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let Self { name, version, how } = self;
        run(OperationKind::Deploy, name, version, how).await
    }
}

impl How {
    fn options(&self) -> Map<String, Value> {
        let mut options = self.options.clone().unwrap_or_default();
        let said = [
            ("max_concurrent", self.max_concurrent.clone()),
            ("max_failed", self.max_failed.clone()),
            ("min_available", self.min_available.clone()),
            ("ramp", (!self.ramp.is_empty()).then(|| Value::from(self.ramp.clone()))),
            ("failed_only", self.failed_only.then_some(Value::Bool(true))),
        ];
        options.extend(said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        options
    }
}

async fn run(kind: OperationKind, cluster_name: String, version: String, how: How) -> Result<(), Failed> {
    let options = Some(how.options());
    let (client, _) = how.asking.client().await?;
    if how.dry_run {
        let params = PlanParams { cluster_name, kind, version, options };
        let planned = client.call(Plan, &params).await?;
        for host in &planned.hosts {
            if how.asking.json {
                print(&serde_json::to_string(host).unwrap_or_default())?;
            } else if host.impossible.is_empty() {
                let steps: Vec<String> = host.steps.iter().map(|step| first_line(step)).collect();
                print(&format!("{} ({}): {}", plain(&host.address), plain(&host.os), steps.join("; ")))?;
            } else {
                print(&format!("{}: not possible: {}", plain(&host.address), plain(&host.impossible)))?;
            }
        }
        return Ok(client.bus().close().await?);
    }
    let cluster = cluster_name.clone();
    let params = ClusterParams { cluster_name: cluster_name.clone(), options: options.clone() };
    match kind {
        OperationKind::Upgrade => drop(client.call(UpgradeCall, &params).await?),
        OperationKind::Restart => drop(client.call(RestartCall, &params).await?),
        OperationKind::Deploy => {
            drop(client.call(DeployCall, &DeployParams { cluster_name, version, options }).await?);
        }
    }
    if how.no_wait {
        client.bus().close().await?;
        return print(&format!("the {} of cluster {} has begun", kind.as_str(), plain(&cluster)));
    }
    follow(&client, &cluster, &how.asking).await?;
    end(&client, &cluster, &how.asking).await
}

/// Shows what happens, until the operation is over.
async fn follow(client: &Client, cluster: &str, asking: &Asking) -> Result<(), Failed> {
    let (until, mut since) = (Instant::now() + asking.timeout, 0);
    loop {
        let params = EventsParams { cluster_name: cluster.to_owned(), since };
        let told = client.call(Events, &params).await?;
        for event in &told.events {
            since = since.max(event.seq);
            complain(&if asking.json {
                serde_json::to_string(event).unwrap_or_default()
            } else {
                line(event)
            });
        }
        if told.over && told.events.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::timeout("the operation, which goes on,", asking.timeout).into());
        }
        sleep(LOOK).await;
    }
}

fn line(event: &ClusterexecEvent) -> String {
    let who = if event.address.is_empty() { &event.cluster } else { &event.address };
    let text = first_line(&event.text);
    format!("{}  {}{}", plain(who), event.state, if text.is_empty() { text } else { format!(": {text}") })
}

fn first_line(text: &str) -> String {
    plain(text.trim().lines().next().unwrap_or_default())
}

/// What became of the hosts.
async fn end(client: &Client, cluster: &str, asking: &Asking) -> Result<(), Failed> {
    let told = client.call(GetOperation, &NameParams { cluster_name: cluster.to_owned() }).await?;
    client.bus().close().await?;
    show(&told, asking)?;
    let status = told.operation.status.as_str();
    if !told.operation.is_over() || status == FINISHED { Ok(()) } else { Err(Failed::Said(Exit::Failed)) }
}

fn show(told: &Told, asking: &Asking) -> Result<(), Failed> {
    if asking.json {
        return print(&serde_json::to_string(told).unwrap_or_default());
    }
    let row = |host: &commissaire_api::OperationHost| {
        let progress = host.progress();
        let failure = progress.failure.map(|failure| failure.text).unwrap_or_default();
        let reboot = if progress.boot_after.is_empty() { "" } else { "rebooted" };
        [plain(&host.address), host.stage.as_str().to_owned(), reboot.to_owned(), first_line(&failure)]
    };
    let rows: Vec<_> = told.hosts.iter().map(row).collect();
    print_table(["ADDRESS", "STAGE", "", ""], &rows)?;
    let text = told.operation.progress().text;
    let kind = told.operation.wanted().map(|wanted| wanted.kind.as_str()).unwrap_or_default();
    let more = if text.is_empty() { String::new() } else { format!(": {}", first_line(&text)) };
    print(&format!("{kind} of cluster {}: {}{more}", plain(&told.operation.cluster), told.operation.status))
}

impl LastOperation {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        if self.follow {
            follow(&client, &self.name, &self.asking).await?;
        }
        end(&client, &self.name, &self.asking).await
    }
}

impl Pause {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        let operation = client.call(PauseCall, &NameParams { cluster_name: self.name }).await?;
        said(&client, &operation, "no more hosts are begun", &self.asking).await
    }
}

impl Resume {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        let operation = client.call(ResumeCall, &NameParams { cluster_name: self.name }).await?;
        said(&client, &operation, "it goes on", &self.asking).await
    }
}

impl Cancel {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (client, _) = self.asking.client().await?;
        let operation =
            client.call(CancelCall, &CancelParams { cluster_name: self.name, now: self.now }).await?;
        let what = if self.now { "it ends" } else { "it ends with the hosts that were begun" };
        said(&client, &operation, what, &self.asking).await
    }
}

async fn said(client: &Client, operation: &Operation, what: &str, asking: &Asking) -> Result<(), Failed> {
    client.bus().close().await?;
    if asking.json {
        return print(&serde_json::to_string(operation).unwrap_or_default());
    }
    print(&format!("cluster {}: {what}", plain(&operation.cluster)))
}
