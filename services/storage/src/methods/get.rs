//! `storage.get`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::{Data, GetParams};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Storage,
    answer::{Row, records},
    built_in,
    given::Given,
    kept, off_thread,
    refuse::refused,
};
use crate::store::{StoreError, Stored};

/// Up to this many records are looked up on the thread that has the call: each takes some microseconds.
const FEW: usize = 16;

pub(super) async fn get(storage: Arc<Storage>, params: GetParams, _: Context) -> Result<Data, RpcError> {
    let model = kept(&params.model_type_name)?;
    let given = Given::read(&params.model_json_data)?;
    let many = given.many;
    let keys = given.keys(model)?;
    let (keys, found) = if keys.len() <= FEW {
        let found = storage.store.get(model, &keys);
        (keys, found)
    } else {
        let store = storage.store.clone();
        off_thread(move || {
            let found = store.get(model, &keys);
            (keys, found)
        })
        .await?
    };
    let mut there: Vec<Stored> = Vec::with_capacity(keys.len());
    let mut missing = Vec::new();
    for (key, found) in keys.into_iter().zip(found.map_err(|error| refused(model, error))?) {
        let built_in = || {
            let json = Value::Object(built_in(model, &key)?).to_string().into_bytes();
            Some(Stored { revision: 0, json: Zeroizing::new(json) })
        };
        match found.or_else(built_in) {
            Some(stored) => there.push(stored),
            None => missing.push(key),
        }
    }
    if !missing.is_empty() {
        return Err(refused(model, StoreError::Missing(missing)));
    }
    let rows: Vec<Row<'_>> =
        there.iter().map(|stored| Row { json: &stored.json, revision: stored.revision }).collect();
    records(&rows, many, params.with_revision)
}
