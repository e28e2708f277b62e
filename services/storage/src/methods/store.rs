//! `storage.store`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::{NoParams, StoreOutput};

use super::Storage;

pub(super) async fn store(storage: Arc<Storage>, _: NoParams, _: Context) -> Result<StoreOutput, RpcError> {
    Ok(StoreOutput {
        store: storage.routes.id().to_string(),
        instance: storage.instance.to_string(),
        seal_key: Some(storage.key.public().clone()),
    })
}
