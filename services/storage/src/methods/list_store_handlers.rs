//! `storage.list_store_handlers`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::{
    model::{Kept, MODELS},
    storage::{NoParams, StoreHandler},
};
use serde_json::{Map, Value, json};

use super::Storage;

pub(super) async fn list_store_handlers(
    storage: Arc<Storage>,
    _: NoParams,
    _: Context,
) -> Result<Vec<StoreHandler>, RpcError> {
    let dir = &storage.config.data_dir;
    let store = json!({"data_dir": dir, "change_log": storage.store.change_log()});
    // Where the key lies, not what it is.
    let secrets = json!({"data_dir": dir, "master_key": dir.join("master.key")});
    Ok(vec![
        handler("EmbeddedStoreHandler", store, Kept::Plain),
        handler("EmbeddedSecretHandler", secrets, Kept::Sealed),
    ])
}

fn handler(handler_type: &str, config: Value, kept: Kept) -> StoreHandler {
    let mut model_types: Vec<String> =
        MODELS.into_iter().filter(|model| model.kept == kept).map(|model| model.name.to_owned()).collect();
    model_types.sort();
    let config = if let Value::Object(config) = config { config } else { Map::new() };
    StoreHandler { handler_type: handler_type.to_owned(), config, model_types }
}
