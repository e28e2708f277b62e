//! `storage.delete`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::DeleteParams;

use super::{
    Storage,
    given::{Given, expected},
    kept,
    refuse::refused,
};
use crate::store::{Content, Transaction, Write};

pub(super) async fn delete(storage: Arc<Storage>, params: DeleteParams, _: Context) -> Result<(), RpcError> {
    let model = kept(&params.model_type_name)?;
    let keys = Given::read(&params.model_json_data)?.distinct_keys(model)?;
    let expected = expected(params.expected_revision, keys.len())?;
    let writes = keys.into_iter().zip(expected);
    let writes =
        writes.map(|(key, expected)| Write { model, key, expected, content: Content::Nothing }).collect();
    let transaction = Transaction { writes, fence: params.fence, quiet_if_unchanged: false };
    storage.store.commit(transaction).await.map_err(|error| refused(model, error))?;
    Ok(())
}
