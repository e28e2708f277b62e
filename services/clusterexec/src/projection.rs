//! The records that the first Commissaire kept of operations, as a view of ours.

use commissaire::{Result, time::timestamp};
use commissaire_api::{
    ClusterDeploy, ClusterRestart, ClusterUpgrade, Record, StorageClient, clusterexec::OperationKind,
};

/// One of the three records.
pub(crate) trait View: Record + Clone {
    fn new(cluster: &str, version: &str) -> Self;
    /// Status, hosts that are done, hosts at work, begin and end.
    fn fields(&mut self) -> [Part<'_>; 5];
}

/// A field of a view.
pub(crate) enum Part<'a> {
    Text(&'a mut String),
    Hosts(&'a mut Vec<String>),
}

macro_rules! view {
    ($record:ident, $done:ident $(, $version:ident)?) => {
        impl View for $record {
            fn new(cluster: &str, _version: &str) -> Self {
                Self { name: cluster.to_owned(), $($version: _version.to_owned(),)? ..Self::default() }
            }

            fn fields(&mut self) -> [Part<'_>; 5] {
                [
                    Part::Text(&mut self.status),
                    Part::Hosts(&mut self.$done),
                    Part::Hosts(&mut self.in_process),
                    Part::Text(&mut self.started_at),
                    Part::Text(&mut self.finished_at),
                ]
            }
        }
    };
}

view!(ClusterUpgrade, upgraded);
view!(ClusterRestart, restarted);
view!(ClusterDeploy, deployed, version);

/// What a view is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: String,
    pub(crate) done: Vec<String>,
    pub(crate) at_work: Vec<String>,
    pub(crate) started_at: String,
    pub(crate) over: bool,
}

/// Has the record of an operation of this kind say it.
pub(crate) async fn say(
    storage: &StorageClient,
    kind: OperationKind,
    cluster: &str,
    version: &str,
    said: &Said,
) -> Result<()> {
    match kind {
        OperationKind::Upgrade => set::<ClusterUpgrade>(storage, cluster, version, said).await.map(drop),
        OperationKind::Restart => set::<ClusterRestart>(storage, cluster, version, said).await.map(drop),
        OperationKind::Deploy => set::<ClusterDeploy>(storage, cluster, version, said).await.map(drop),
    }
}

/// The same, of one kind; the record.
pub(crate) async fn set<T: View>(
    storage: &StorageClient,
    cluster: &str,
    version: &str,
    said: &Said,
) -> Result<T> {
    let new = T::new(cluster, version);
    let now = if said.over { timestamp() } else { String::new() };
    let saved = storage.update_or_create(&new, |record| {
        *record = new.clone();
        let values: [(&str, &[String]); 5] = [
            (&said.status, &[]),
            ("", &said.done),
            ("", &said.at_work),
            (&said.started_at, &[]),
            (&now, &[]),
        ];
        for (part, (text, hosts)) in record.fields().into_iter().zip(values) {
            match part {
                Part::Text(field) => text.clone_into(field),
                Part::Hosts(field) => hosts.clone_into(field),
            }
        }
    });
    Ok(saved.await?.record)
}
