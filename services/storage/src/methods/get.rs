//! `storage.get`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::{
    model::Model,
    storage::{Data, GetParams},
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Storage,
    answer::{Row, records},
    built_in,
    given::Given,
    kept,
    refuse::refused,
    secret::check_seal_to,
};
use crate::{
    handler::{StoreError, Stored},
    routes::Place,
};

pub(super) async fn get(storage: Arc<Storage>, params: GetParams, _: Context) -> Result<Data, RpcError> {
    let model = kept(&params.model_type_name)?;
    check_seal_to(model, params.seal_to.as_ref())?;
    let given = Given::read(&params.model_json_data)?;
    let many = given.many;
    let keys = given.keys(model)?;
    let mut there = look(&storage, model, &keys).await?;
    let mut missing = Vec::new();
    for ((key, _), found) in keys.iter().zip(&mut there) {
        if found.is_none() {
            *found = built_in(model, key).map(|record| Stored {
                revision: 0,
                json: Zeroizing::new(Value::Object(record).to_string().into_bytes()),
            });
        }
        if found.is_none() {
            missing.push(key.clone());
        }
    }
    if !missing.is_empty() {
        return Err(refused(model, StoreError::Missing(missing)));
    }
    let there = there.iter().flatten();
    let rows: Vec<Row<'_>> =
        there.map(|stored| Row { json: &stored.json, revision: stored.revision }).collect();
    storage.secretly(model, params.seal_to, records(&rows, many, params.with_revision)?)
}

/// The records of `keys`, each from the place that is named beside it, or from any.
async fn look(
    storage: &Storage,
    model: &'static Model,
    keys: &[(String, Option<String>)],
) -> Result<Vec<Option<Stored>>, RpcError> {
    let places = storage.places(model)?;
    if let [only] = places[..] {
        for (_, source) in keys {
            storage.source(model, source.as_deref())?;
        }
        let keys: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
        return only.handler.get(model, &keys).await.map_err(|error| refused(model, error));
    }
    let mut all = Vec::with_capacity(keys.len());
    for (key, source) in keys {
        all.push(found(storage, model, key, source.as_deref()).await?.map(|(_, stored)| stored));
    }
    Ok(all)
}

/// The record `key` of `model` in the place that `source` names, or in the first that has it.
pub(super) async fn found<'a>(
    storage: &'a Storage,
    model: &'static Model,
    key: &str,
    source: Option<&str>,
) -> Result<Option<(&'a Place, Stored)>, RpcError> {
    let places = match source.filter(|source| !source.is_empty()) {
        Some(source) => vec![storage.source(model, Some(source))?],
        None => storage.places(model)?,
    };
    for place in places {
        let stored = place.handler.get(model, &[key.to_owned()]).await;
        if let Some(stored) = stored.map_err(|error| refused(model, error))?.pop().flatten() {
            return Ok(Some((place, stored)));
        }
    }
    Ok(None)
}
