//! The contract of the storage service.
//!
//! Beside the codes of JSON-RPC its errors are:
//!
//! | code | when | `data` |
//! |---|---|---|
//! | −20000 | a record is not there | `model_type_name`, `model_json_data`: those that are missing |
//! | 409 | a record has another revision than expected | `model_type_name`, `key`, `revision`: the current one, 0 for none |
//! | 409 | a lease is held, or its token is not the current | `name`; `holder` and `expires_in_ms` when held |
//! | [410](COMPACTED) | changes were asked for that are not known any more | `compacted`, `latest` |
//! | [−20002](UNOPENED) | what is sealed cannot be opened: it is for another key, or too old | |
//! | −32003 | the answer would not fit the bus: page, or ask for fewer at once | `most`: the bytes that do |
//! | −32002 | the store cannot be used now: its disk fails or is full, its server is away or refuses | `kind`: `store`, `maybe_executed` |
//!
//! A parameter or record that breaks a rule is −32602 with every fault in `data.faults`; text that is not JSON −32700.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use crate::{event::Verb, sealed::PublicSealKey};

/// The code of "these changes are not known any more".
pub const COMPACTED: i64 = 410;
/// The code of "what is sealed cannot be opened".
pub const UNOPENED: i64 = -20002;
/// The most bytes of an answer: what the bus carries, less room for headers and envelope.
pub const MAX_ANSWER: usize = commissaire::MAX_MESSAGE - 16 * 1024;
/// The most bytes of one record as JSON: it fits an answer and an announcement.
pub const MAX_RECORD: usize = MAX_ANSWER - 4 * 1024;
/// The most records of a page, and the most changes of an answer.
pub const MAX_PAGE: u32 = 1000;
/// The most bytes of the name or the holder of a lease.
pub const MAX_LEASE_NAME: usize = 200;
/// The most bytes of the name of an operation.
pub const MAX_OPERATION: usize = 200;
/// The longest time to live of a lease, in milliseconds: a day.
pub const MAX_TTL_MS: u64 = 86_400_000;

commissaire::method! {
    /// One record by its key, or a list of them by a list of keys.
    pub Get = "storage.get": GetParams => Data, idempotent
}
commissaire::method! {
    /// Stores a record, or all of a list or none, and answers what was stored.
    pub Save = "storage.save": SaveParams => Data
}
commissaire::method! {
    /// Deletes a record, or all of a list or none.
    pub Delete = "storage.delete": DeleteParams => ()
}
commissaire::method! {
    /// The records of a model, sorted by key.
    pub List = "storage.list": ListParams => Data, idempotent
}
commissaire::method! {
    /// Where which models are kept.
    pub ListStoreHandlers = "storage.list_store_handlers": NoParams => Vec<StoreHandler>, idempotent
}
commissaire::method! {
    /// What was changed after a revision.
    pub Changes = "storage.changes": ChangesParams => ChangesOutput, idempotent
}
commissaire::method! {
    /// Which store this is.
    pub Store = "storage.store": NoParams => StoreOutput, idempotent
}
commissaire::method! {
    /// Takes a lease that nobody holds.
    pub LeaseAcquire = "storage.lease.acquire": LeaseAcquireParams => Lease
}
commissaire::method! {
    /// Holds a lease for its time to live from now.
    pub LeaseRenew = "storage.lease.renew": Fence => Lease, idempotent
}
commissaire::method! {
    /// Gives a lease back.
    pub LeaseRelease = "storage.lease.release": Fence => Released, idempotent
}

/// JSON as it travels: a record, or a list of them. `Debug` shows its size only, for it may be secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Data(pub Box<RawValue>);

/// Which records to get.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetParams {
    /// The model, `Host`.
    pub model_type_name: String,
    /// An object with the key at least, or its JSON as a string, or a list of either.
    pub model_json_data: Data,
    /// Whether to answer [`Versioned`] records.
    #[serde(default)]
    pub with_revision: bool,
    /// To whom to seal the answer, for a model whose records hold secrets: then it is a [`Sealed`](crate::sealed::Sealed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_to: Option<PublicSealKey>,
}

/// What to save.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveParams {
    /// The model, `Host`.
    pub model_type_name: String,
    /// A record, or its JSON as a string, or a list of either; of a secret model also a
    /// [`Sealed`](crate::sealed::Sealed) of one of these.
    pub model_json_data: Data,
    /// Whether to answer [`Versioned`] records.
    #[serde(default)]
    pub with_revision: bool,
    /// Save only what has this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<Expected>,
    /// Save only while this lease is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// The caller's name for what this belongs to, for the log of changes: 1 to [`MAX_OPERATION`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Whether a record that is stored just so already is left as it is: no new revision, nothing announced.
    #[serde(default)]
    pub quiet_if_unchanged: bool,
    /// To whom to seal the answer, for a model whose records hold secrets: then it is a [`Sealed`](crate::sealed::Sealed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_to: Option<PublicSealKey>,
}

/// What to delete.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteParams {
    /// The model, `Host`.
    pub model_type_name: String,
    /// An object with the key at least, or its JSON as a string, or a list of either.
    pub model_json_data: Data,
    /// Delete only what has this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<Expected>,
    /// Delete only while this lease is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// The caller's name for what this belongs to, for the log of changes: 1 to [`MAX_OPERATION`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// The revision that a record must have; 0: it must not be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    /// Of the one record.
    One(u64),
    /// Of each record of a list; `null` for any.
    Each(Vec<Option<u64>>),
}

/// A lease under which to write: refused with 409 when it has gone to somebody else or was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The lease.
    pub name: String,
    /// The token that acquiring it answered.
    pub token: u64,
}

/// A record and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The record.
    pub record: T,
    /// The revision; 0 for a default that is not stored.
    pub revision: u64,
}

/// What to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// The model, `Hosts` or `Host`.
    pub model_type_name: String,
    /// Whether to answer [`Versioned`] records.
    #[serde(default)]
    pub with_revision: bool,
    /// The most records to answer, from 1 to [`MAX_PAGE`]. With it, or with `after`, the answer is a [`Page`]; without
    /// both it is a plain list of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The key after which to begin: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only records whose keys begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only records whose fields have these values: `{"status": "failed"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Map<String, Value>>,
    /// Only these fields of each record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// To whom to seal the answer, for a model whose records hold secrets: then it is a
    /// [`Sealed`](crate::sealed::Sealed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_to: Option<PublicSealKey>,
}

/// A part of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<T> {
    /// The records.
    pub records: Vec<T>,
    /// What to give as `after` for those that follow; `None`: these were the last.
    pub next: Option<String>,
    /// The store's latest revision when this page was read. Changes since that of the first page are all that the
    /// pages may have missed.
    pub revision: u64,
}

/// No parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// One place where records are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreHandler {
    /// What sort of place, `EmbeddedStoreHandler`.
    pub handler_type: String,
    /// How it is configured, without secrets.
    pub config: Map<String, Value>,
    /// The models kept there, sorted.
    pub model_types: Vec<String>,
}

/// Which changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesParams {
    /// The revision after which to begin: the `next` of the answer before; 0 for all.
    pub since: u64,
    /// Changes of this model only, in the handler that keeps it. Without, those of all models of the first handler:
    /// each handler counts its own revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_type_name: Option<String>,
    /// The most changes to answer, from 1 to [`MAX_PAGE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangesOutput {
    /// The changes, by revision. Those that were made together may share one; then all of them are here.
    pub changes: Vec<Change>,
    /// What to give as `since` for those that follow.
    pub next: u64,
    /// The store's latest revision.
    pub latest: u64,
    /// The oldest revision still known.
    pub compacted: u64,
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub revision: u64,
    /// The record's model.
    pub model_type_name: String,
    /// The record's key.
    pub key: String,
    /// What happened.
    pub event: Verb,
    /// The record without hidden fields; `None` for secret models. After a deletion, what it was.
    pub record: Option<Data>,
    /// When: UTC, ISO 8601.
    pub at: String,
    /// Who asked for it, if he said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Whether that was proved by a signature.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified: bool,
    /// The caller's name for what it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// Which store answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreOutput {
    /// The store's id, made once and for ever.
    pub store: String,
    /// The id of the running instance that has it open.
    pub instance: String,
    /// To whom to seal secret records that are to be saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<PublicSealKey>,
}

/// A lease to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAcquireParams {
    /// What it is on: 1 to [`MAX_LEASE_NAME`] bytes without control characters.
    pub name: String,
    /// Who takes it, for others to read.
    pub holder: String,
    /// How long it holds unless it is renewed, in milliseconds: 1 to [`MAX_TTL_MS`].
    pub ttl_ms: u64,
}

/// A lease that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Greater than that of any lease before.
    pub token: u64,
    /// How long it holds from now, in milliseconds.
    pub ttl_ms: u64,
}

/// Whether there was something to release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// `false`: the token was not the current, so that the lease is not ours either way.
    pub released: bool,
}

impl Data {
    /// `value` as JSON. Fails only when it has keys that are no text.
    pub fn of(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// What it holds, as a `T`.
    pub fn to<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.text())
    }

    /// The JSON.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of JSON", self.text().len())
    }
}
