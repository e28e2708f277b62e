//! The methods of the storage service, one file each, and what they have in common.

mod answer;
mod changes;
mod delete;
mod get;
mod given;
mod lease;
mod list;
mod list_store_handlers;
mod place;
mod refuse;
mod save;
mod secret;
mod store;

use std::sync::Arc;

use commissaire::{Context, RpcError, Service};
use commissaire_api::{
    model::{Kept, MODELS, Model},
    sealed::SealKey,
    storage as api,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    handler::{Author, StoreError},
    routes::Routes,
};
use refuse::faulty;

/// What the methods share.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) routes: Arc<Routes>,
    /// What secrets are sealed to on the bus.
    pub(crate) key: SealKey,
    /// The id of this running instance.
    pub(crate) instance: Uuid,
}

/// The service over `storage`.
pub(crate) fn service(storage: Arc<Storage>) -> Service<Storage> {
    Service::new("storage", storage)
        .method(api::Get, get::get)
        .method(api::Save, save::save)
        .method(api::Delete, delete::delete)
        .method(api::List, list::list)
        .method(api::ListStoreHandlers, list_store_handlers::list_store_handlers)
        .method(api::Changes, changes::changes)
        .method(api::Store, store::store)
        .method(api::LeaseAcquire, lease::acquire)
        .method(api::LeaseRenew, lease::renew)
        .method(api::LeaseRelease, lease::release)
}

/// The model of this name, if storage keeps it.
fn kept(name: &str) -> Result<&'static Model, RpcError> {
    Model::find(name).filter(|model| model.kept != Kept::Nowhere).ok_or_else(|| {
        let known = MODELS.into_iter().filter(|model| model.kept != Kept::Nowhere).map(|model| model.name);
        unknown(name, &known.collect::<Vec<_>>())
    })
}

/// The model of this name, or of lists of this name, if it can be listed.
fn listed(name: &str) -> Result<&'static Model, RpcError> {
    Model::find_listed(name).filter(|model| model.kept == Kept::Plain).ok_or_else(|| {
        let known = MODELS.into_iter().filter(|model| model.kept == Kept::Plain);
        unknown(name, &known.map(|model| model.list.unwrap_or(model.name)).collect::<Vec<_>>())
    })
}

fn unknown(name: &str, known: &[&str]) -> RpcError {
    let shown: String = name.chars().take(64).collect();
    let near = commissaire::nearest(name, known.iter().copied());
    let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
    faulty("model_type_name", format!("{shown:?} is unknown{near} (known are {})", known.join(", ")))
}

/// The record that readers find although it is not stored, if it has this key: the default network.
fn built_in(model: &Model, key: &str) -> Option<Map<String, Value>> {
    (model.name == "Network" && key == commissaire_api::Network::DEFAULT).then(|| model.blank(key))
}

/// Who asks, and what it belongs to.
fn author(context: &Context, operation: Option<String>) -> Result<Author, RpcError> {
    if let Some(operation) = &operation
        && (operation.is_empty()
            || operation.len() > api::MAX_OPERATION
            || operation.contains(char::is_control))
    {
        let most = api::MAX_OPERATION;
        return Err(faulty("operation", format!("must have 1 to {most} bytes without control characters")));
    }
    let actor = context.actor.name().map(|name| name.as_str().to_owned());
    Ok(Author { actor, verified: context.actor.is_verified(), operation })
}

/// Does `work` to its end, whether the caller still waits for it or not: half of it would be worse than none.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let told = "the storage service has failed";
    let panicked = |_| StoreError::Failed { told, why: told.to_owned(), uncertain: true };
    tokio::spawn(work).await.map_err(panicked)?
}
