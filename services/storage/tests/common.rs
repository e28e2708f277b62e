//! What tests have in common.

use std::{path::Path, sync::Arc};

use commissaire::{
    Bus, BusOptions, Client, Metrics,
    app::{Failure, Instance},
    connect,
    testkit::Server,
};
use commissaire_api::{
    StorageClient,
    model::Model,
    storage::{Fence, MAX_ANSWER},
};
use commissaire_storage::{
    StorageConfig, Store,
    config::Members,
    handler::{Content, Query, StoreError, Transaction, Write, embedded::StoreOptions},
    start,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// A directory that goes away.
pub(crate) fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The store in `dir`.
pub(crate) fn open(dir: &Path) -> Store {
    open_with(dir, 100_000)
}

/// The store in `dir`, whose log keeps `change_log` changes.
pub(crate) fn open_with(dir: &Path, change_log: u64) -> Store {
    Store::open(&StoreOptions { dir: dir.to_owned(), change_log }).expect("the store opens")
}

/// The error of opening the store in `dir`.
pub(crate) fn refusal(dir: &Path) -> String {
    let refused = Store::open(&StoreOptions { dir: dir.to_owned(), change_log: 100_000 });
    let error = refused.expect_err("the store is refused");
    assert_eq!(*error.kind(), commissaire::ErrorKind::Config);
    error.to_string()
}

/// A save of `record`.
pub(crate) fn put(model: &str, record: Value) -> Write {
    let model = Model::find(model).unwrap();
    let record = model.check(record).expect("a sound record");
    let key = model.key_of(&record).unwrap().to_owned();
    let json = Zeroizing::new(serde_json::to_vec(&record).unwrap());
    Write { model, key, expected: None, content: Content::Record(json) }
}

/// A save of the host `address` with `status`.
pub(crate) fn host(address: &str, status: &str) -> Write {
    put("Host", json!({"address": address, "status": status}))
}

/// A deletion.
pub(crate) fn gone(model: &str, key: &str) -> Write {
    let model = Model::find(model).unwrap();
    Write { model, key: key.to_owned(), expected: None, content: Content::Nothing }
}

/// With this revision expected.
pub(crate) fn expecting(mut write: Write, revision: u64) -> Write {
    write.expected = Some(revision);
    write
}

/// Carries `writes` out together.
pub(crate) async fn commit(store: &Store, writes: Vec<Write>) -> Result<Vec<u64>, StoreError> {
    store.commit(Transaction::of(writes)).await
}

/// Carries `writes` out under a lease.
pub(crate) async fn commit_fenced(
    store: &Store,
    writes: Vec<Write>,
    name: &str,
    token: u64,
) -> Result<Vec<u64>, StoreError> {
    let fence = Some(Fence { name: name.to_owned(), token });
    store.commit(Transaction { fence, ..Transaction::of(writes) }).await
}

/// The record and its revision.
pub(crate) fn get(store: &Store, model: &str, key: &str) -> Option<(Value, u64)> {
    let found = store.get(Model::find(model).unwrap(), &[key.to_owned()]).expect("a read").remove(0)?;
    Some((serde_json::from_slice(&found.json).unwrap(), found.revision))
}

/// The first `most` records.
pub(crate) fn all(most: usize) -> Query {
    Query { prefix: String::new(), after: None, most, bytes: MAX_ANSWER }
}

/// A bus within this process.
pub(crate) async fn memory_bus() -> Arc<dyn Bus> {
    connect(&"memory://".parse().unwrap(), &BusOptions::default(), commissaire_transports::ALL).await.unwrap()
}

/// Where a service keeps its records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Embedded,
    Etcd,
}

/// Makes a test of each function for each place, in modules of their names.
macro_rules! each_place {
    ($($promise:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(crate::common::Place::Embedded).await;
            })+
        }
        mod etcd {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(crate::common::Place::Etcd).await;
            })+
        }
    };
}
pub(crate) use each_place;

/// What a service leaves behind when it ends.
pub(crate) struct Kept {
    pub(crate) dir: TempDir,
    pub(crate) etcd: Option<Server>,
}

impl Kept {
    pub(crate) async fn new(place: Place) -> Self {
        let etcd = match place {
            Place::Embedded => None,
            Place::Etcd => Some(Server::etcd(&[]).await.expect("an etcd")),
        };
        Self { dir: dir(), etcd }
    }

    /// The configuration of a service there.
    pub(crate) fn config(&self) -> StorageConfig {
        let mut config = StorageConfig::new(self.dir.path());
        if let Some(etcd) = &self.etcd {
            config.members = members(json!({"storage_handlers": {"type": "etcd", "server_url": etcd.uri()}}));
        }
        config
    }
}

/// The members of a service as its configuration has them.
pub(crate) fn members(members: Value) -> Members {
    serde_json::from_value(members).expect("sound members")
}

/// A storage service on a bus of its own, with whom to ask it.
pub(crate) struct Served {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) client: Client,
    pub(crate) storage: StorageClient,
    service: Box<dyn Instance>,
    /// Held so that it stays.
    pub(crate) kept: Kept,
}

impl Served {
    /// With an embedded store.
    pub(crate) async fn new() -> Self {
        Self::on(Place::Embedded).await
    }

    pub(crate) async fn on(place: Place) -> Self {
        let kept = Kept::new(place).await;
        Self::with(kept.config(), kept).await
    }

    pub(crate) async fn with(config: StorageConfig, kept: Kept) -> Self {
        let bus = memory_bus().await;
        let service = serve(&bus, config).await.expect("the service starts");
        let client = Client::new(bus.clone());
        Self { bus, storage: StorageClient::new(client.clone()), client, service, kept }
    }

    /// Calls by JSON.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, commissaire::RpcError> {
        let key = commissaire::Key::new(method).unwrap();
        let params = serde_json::value::to_raw_value(&params).unwrap();
        match self.client.call_raw(key, Some(params)).await {
            Ok(answer) => Ok(serde_json::from_str(answer.get()).unwrap()),
            Err(error) => Err(error.remote().unwrap_or_else(|| panic!("{method}: {error}")).clone()),
        }
    }

    /// Ends the service in order, and not the bus.
    pub(crate) async fn leave(self) -> Kept {
        self.service.finish(std::time::Duration::from_secs(5)).await;
        self.kept
    }

    /// Ends in order.
    pub(crate) async fn finish(self) -> Kept {
        self.service.finish(std::time::Duration::from_secs(5)).await;
        self.bus.close().await.unwrap();
        self.kept
    }
}

/// Starts the service.
pub(crate) async fn serve(
    bus: &Arc<dyn Bus>,
    config: StorageConfig,
) -> commissaire::Result<Box<dyn Instance>> {
    let service = start(bus.clone(), config, Metrics::default(), Failure::default()).await?;
    Ok(Box::new(service))
}
