//! A service bus that is agnostic of its broker.
//!
//! A **message** goes to an [**address**](Address); the address says how it is shared out. A [**bus**](Bus) is a handful of
//! verbs over addresses; a transport is one implementation of them, chosen at run time by the scheme of `bus_uri`
//! ([`connect`]). Calls, jobs and events ([`Client`], [`Service`]) are plain code over `Arc<dyn Bus>`, so no transport knows
//! JSON-RPC and no service knows a broker. The promises are the same on every transport; what a broker cannot keep it
//! refuses at start, by name.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use commissaire::{Address, BusOptions, Key, Message, Source, connect};
//!
//! let bus = connect(&"memory://".parse()?, &BusOptions::default(), commissaire_transports::ALL).await?;
//! let queue = Key::new("jobs.investigate")?;
//! bus.publish(Message::new(Address::Queue(queue.clone()), r#"{"address":"10.0.0.7"}"#)?).await?;
//!
//! let mut jobs = bus.subscribe(Source::Queue(queue), 1).await?;
//! let job = jobs.next_delivery().await.expect("the job that was published");
//! assert_eq!(job.attempt(), 1);
//! job.ack().await?;
//! bus.close().await
//! # }).unwrap();
//! ```
//!
//! Modules in reading order: [`address`], [`pattern`], [`message`], [`delivery`], [`subscription`], [`bus`], [`driver`],
//! [`error`]; what operators look at, [`connection`], [`survey`], [`dead`], and [`ledger`]; then [`jsonrpc`], [`contract`], [`handler`], [`layer`], [`client`], [`service`]; then [`app`], what every
//! program does.

pub mod address;
pub mod bus;
pub mod connection;
pub mod dead;
pub mod delivery;
pub mod driver;
pub mod envelope;
pub mod error;
pub mod ledger;
pub mod message;
mod nearest;
pub mod pattern;
pub mod subscription;
pub mod survey;
pub mod time;

pub mod actor;
pub mod backoff;
pub mod client;
pub mod contract;
pub mod handler;
pub mod jsonrpc;
pub mod layer;
pub mod logging;
pub mod metrics;
pub mod service;
pub mod trace;

pub mod app;
pub mod config;

#[cfg(feature = "testkit")]
pub mod testkit;

pub use actor::{Access, Actor, Identity, PublicKey, SecretKey};
pub use address::{Address, Inbox, Key, Origin, Token};
pub use backoff::Backoff;
pub use bus::{Bus, Durability, Guarantees};
pub use client::Client;
pub use connection::{Connection, ConnectionWatch, Connectivity};
pub use contract::{Event, Job, Method};
pub use dead::DeadLetter;
pub use delivery::{Delivery, Settle, Settlement};
pub use driver::{BusOptions, BusUri, Driver, connect};
pub use error::{Error, ErrorKind, Result};
pub use handler::{Call, Handler, Layer, Outcome};
pub use jsonrpc::RpcError;
pub use ledger::{Begun, Ledger, LocalLedger};
pub use message::{Headers, MAX_MESSAGE, MAX_RECEIVED, Message, MessageId, header};
pub use metrics::Metrics;
pub use nearest::nearest;
pub use pattern::Pattern;
pub use service::{Context, Drained, Notice, RetryPolicy, Running, Service};
pub use subscription::{Consuming, Feed, Gap, Place, Received, Source, Subscription};
pub use survey::{Declared, Survey, What};
pub use trace::Trace;

/// The examples in README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
