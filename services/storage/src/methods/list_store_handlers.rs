//! `storage.list_store_handlers`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::{NoParams, StoreHandler};

use super::Storage;

pub(super) async fn list_store_handlers(
    storage: Arc<Storage>,
    _: NoParams,
    _: Context,
) -> Result<Vec<StoreHandler>, RpcError> {
    Ok(storage.routes.all().iter().map(|place| place.about.clone()).collect())
}
