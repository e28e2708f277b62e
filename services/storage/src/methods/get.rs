//! `storage.get`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use commissaire::{Context, RpcError};
use commissaire_api::{
    model::Model,
    storage::{Data, GetParams, MAX_ANSWER},
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Storage,
    answer::{Row, records, size},
    built_in,
    given::Given,
    kept,
    refuse::{refused, too_large},
    secret::check_secret,
};
use crate::{
    handler::{StoreError, Stored},
    routes::Place,
};

/// How many records are looked up at once.
const TOGETHER: usize = 100;

pub(super) async fn get(
    storage: Arc<Storage>,
    params: GetParams,
    context: Context,
) -> Result<Data, RpcError> {
    let model = kept(&params.model_type_name)?;
    check_secret(model, params.seal_to.as_ref())?;
    let given = Given::read(&params.model_json_data, model, &context)?;
    let many = given.many;
    let keys = given.keys(model)?;
    let mut there = look(&storage, model, &keys).await?;
    let mut missing = Vec::new();
    for (key, _) in &keys {
        if there.contains_key(key) {
            continue;
        }
        match built_in(model, key) {
            Some(record) => {
                let json = Zeroizing::new(Value::Object(record).to_string().into_bytes());
                there.insert(key.clone(), Stored { revision: 0, json });
            }
            None => missing.push(key.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(refused(model, StoreError::Missing(missing)));
    }
    let found = keys.iter().filter_map(|(key, _)| there.get(key));
    if size(found.clone().map(|stored| stored.json.as_slice())) > MAX_ANSWER {
        return Err(too_large("ask for fewer records at once"));
    }
    let rows: Vec<Row<'_>> =
        found.map(|stored| Row { json: &stored.json, revision: stored.revision }).collect();
    storage.secretly(model, params.seal_to, records(&rows, many, params.with_revision)?)
}

/// Those of the records `keys` that are there, each from the place that is named beside it, or from any.
async fn look(
    storage: &Storage,
    model: &'static Model,
    keys: &[(String, Option<String>)],
) -> Result<HashMap<String, Stored>, RpcError> {
    let places = storage.places(model)?;
    let mut there = HashMap::new();
    let mut bytes = 0;
    if let [only] = places[..] {
        for (_, source) in keys {
            storage.source(model, source.as_deref())?;
        }
        let mut seen = HashSet::new();
        let distinct: Vec<String> =
            keys.iter().filter(|(key, _)| seen.insert(key)).map(|(key, _)| key.clone()).collect();
        for some in distinct.chunks(TOGETHER) {
            let found = only.handler.get(model, some).await.map_err(|error| refused(model, error))?;
            let found = some.iter().zip(found).filter_map(|(key, stored)| Some((key.clone(), stored?)));
            for (key, stored) in found {
                bytes += stored.json.len();
                there.insert(key, stored);
            }
            if bytes > MAX_ANSWER {
                return Err(too_large("ask for fewer records at once"));
            }
        }
        return Ok(there);
    }
    for (key, source) in keys {
        if let Some((_, stored)) = found(storage, model, key, source.as_deref()).await? {
            bytes += stored.json.len();
            there.insert(key.clone(), stored);
        }
        if bytes > MAX_ANSWER {
            return Err(too_large("ask for fewer records at once"));
        }
    }
    Ok(there)
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
