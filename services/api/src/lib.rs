//! What the Commissaire services say to each other: their records, and the contracts of their methods and events.
//!
//! * [`record`]: the records as types, each beside the table that describes it.
//! * [`model`]: that table as data, for whoever must check or print a record without knowing its type.
//! * [`fault`]: all that is wrong with a record, at once.
//! * [`storage`]: the methods of the storage service.
//! * [`sealed`]: secret records on the bus.
//! * [`event`]: what the storage service announces.
//! * [`investigator`], [`watcher`], [`container`], [`clusterexec`]: the methods, jobs and events of the other services.
//! * [`client`]: the storage service in terms of the record types.

pub mod check;
pub mod client;
pub mod clusterexec;
pub mod container;
pub mod event;
pub mod fault;
pub mod investigator;
pub mod model;
pub mod record;
pub mod sealed;
pub mod storage;
pub mod watcher;

pub use client::StorageClient;
pub use event::{StorageEvent, Verb};
pub use fault::{Fault, Faults};
pub use model::{MODELS, Model};
pub use record::{
    Cluster, ClusterDeploy, ClusterRestart, ClusterUpgrade, ContainerManagerConfig, ContainerManagerKind,
    Host, HostCreds, HostFailure, HostState, HostStatus, Investigation, Network, NetworkKind, NodeDrain,
    Operation, OperationHost, Record, WatchShard, WatcherRecord,
};
