//! `storage.delete`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::{model::Model, storage::DeleteParams};

use super::{
    Storage, author,
    get::found,
    given::{Given, expected},
    kept,
    refuse::{faulty, refused},
    whole,
};
use crate::{
    handler::{Content, Transaction, Write},
    routes::Place,
};

pub(super) async fn delete(
    storage: Arc<Storage>,
    params: DeleteParams,
    context: Context,
) -> Result<(), RpcError> {
    let model = kept(&params.model_type_name)?;
    let keys = Given::read(&params.model_json_data, model, &context)?.distinct_keys(model)?;
    let expected = expected(params.expected_revision, keys.len())?;
    let author = author(&context, params.operation)?;
    let place = place(&storage, model, &keys).await?;
    storage.check_fence(place, params.fence.as_ref())?;
    let writes = keys.into_iter().zip(expected);
    let writes = writes
        .map(|((key, _), expected)| Write { model, key, expected, content: Content::Nothing })
        .collect();
    let transaction = Transaction { writes, fence: params.fence, quiet_if_unchanged: false, author };
    let handler = place.handler.clone();
    let commit = async move { handler.commit(transaction).await };
    whole(commit).await.map_err(|error| refused(model, error))?;
    Ok(())
}

/// The one place of all `keys`; that of the model where they are nowhere.
async fn place<'a>(
    storage: &'a Storage,
    model: &'static Model,
    keys: &[(String, Option<String>)],
) -> Result<&'a Place, RpcError> {
    let own = storage.place(model)?;
    if storage.places(model)?.len() == 1 {
        for (_, source) in keys {
            storage.source(model, source.as_deref())?;
        }
        return Ok(own);
    }
    let mut all: Option<&Place> = None;
    for (key, source) in keys {
        let place = match found(storage, model, key, source.as_deref()).await? {
            Some((place, _)) => place,
            None => own,
        };
        if let Some(other) = all.filter(|other| other.name != place.name) {
            let why = format!("these are in {:?} and {:?}: delete them one by one", other.name, place.name);
            return Err(faulty("model_json_data", why));
        }
        all = Some(place);
    }
    Ok(all.unwrap_or(own))
}
