//! `storage.save`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::{
    model::Model,
    storage::{Data, MAX_ANSWER, SaveParams},
};
use serde_json::json;

use super::{
    Storage,
    answer::{Row, records, size},
    author,
    given::{Given, Record, expected},
    kept,
    place::is_scattered,
    refuse::{faulty, refused, too_large},
    secret::{check_seal_to, sealed_size},
    whole,
};
use crate::{
    handler::{Content, Transaction, Write},
    routes::Place,
};

pub(super) async fn save(
    storage: Arc<Storage>,
    params: SaveParams,
    context: Context,
) -> Result<Data, RpcError> {
    let model = kept(&params.model_type_name)?;
    check_seal_to(model, params.seal_to.as_ref())?;
    let data = storage.in_the_clear(model, params.model_json_data, &context)?;
    let given = Given::read(&data, model, &context)?;
    let many = given.many;
    let given = given.records(model)?;
    let expected = expected(params.expected_revision, given.len())?;
    // Before anything is stored: what is stored must also be answered.
    let size = size(given.iter().map(|record| record.json.as_slice()));
    if params.seal_to.as_ref().map_or(size, |_| sealed_size(size)) > MAX_ANSWER {
        return Err(too_large("save fewer records at once"));
    }
    let place = place(&storage, model, &given)?;
    storage.check_fence(place, params.fence.as_ref())?;
    elsewhere(&storage, model, place, &given).await?;
    let author = author(&context, params.operation)?;
    let answers: Vec<_> = given.iter().map(|record| record.json.clone()).collect();
    let writes = given.into_iter().zip(expected);
    let writes = writes
        .map(|(record, expected)| Write {
            model,
            key: record.key,
            expected,
            content: Content::Record(record.json),
        })
        .collect();
    let transaction =
        Transaction { writes, fence: params.fence, quiet_if_unchanged: params.quiet_if_unchanged, author };
    let handler = place.handler.clone();
    let commit = async move { handler.commit(transaction).await };
    let revisions = whole(commit).await.map_err(|error| refused(model, error))?;
    let rows: Vec<Row<'_>> =
        answers.iter().zip(revisions).map(|(json, revision)| Row { json, revision }).collect();
    storage.secretly(model, params.seal_to, records(&rows, many, params.with_revision)?)
}

/// The one place of all `given` records.
fn place<'a>(storage: &'a Storage, model: &Model, given: &[Record]) -> Result<&'a Place, RpcError> {
    let mut all: Option<&Place> = None;
    for record in given {
        let place = storage.source(model, record.source.as_deref())?;
        if let Some(other) = all.filter(|other| other.name != place.name) {
            let why = format!("these go to {:?} and {:?}: save them one by one", other.name, place.name);
            return Err(faulty("model_json_data", why));
        }
        all = Some(place);
    }
    all.map_or_else(|| storage.place(model), Ok)
}

/// Refuses records that another place than theirs has: there would be two of them.
async fn elsewhere(
    storage: &Storage,
    model: &'static Model,
    place: &Place,
    given: &[Record],
) -> Result<(), RpcError> {
    if !is_scattered(model) {
        return Ok(());
    }
    let keys: Vec<String> = given.iter().map(|record| record.key.clone()).collect();
    for other in storage.places(model)?.into_iter().filter(|other| other.name != place.name) {
        let found = other.handler.get(model, &keys).await.map_err(|error| refused(model, error))?;
        if let Some((key, _)) = keys.iter().zip(&found).find(|(_, found)| found.is_some()) {
            let (other, place) = (&other.name, &place.name);
            let why = format!("{key:?} is in {other:?}: delete it there before it goes to {place:?}");
            return Err(RpcError::new(RpcError::CONFLICT, why)
                .with_data(json!({"model_type_name": model.name, "key": key, "handler": other})));
        }
    }
    Ok(())
}
