//! `storage.changes`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::{ChangesOutput, ChangesParams, MAX_ANSWER, MAX_PAGE};

use super::{
    Storage, kept,
    refuse::{failed, faulty, internal},
};

/// Room for what is in an answer beside the changes.
const BESIDE: usize = 1024;

pub(super) async fn changes(
    storage: Arc<Storage>,
    params: ChangesParams,
    _: Context,
) -> Result<ChangesOutput, RpcError> {
    let most = match params.limit {
        Some(0) => return Err(faulty("limit", format!("is 0: it takes 1 to {MAX_PAGE}"))),
        limit => limit.unwrap_or(MAX_PAGE).min(MAX_PAGE) as usize,
    };
    let model = params.model_type_name.as_deref().map(kept).transpose()?;
    let place = match model {
        Some(model) => storage.place(model)?,
        None => storage.routes.all().first().ok_or_else(|| internal("there is no place"))?,
    };
    let found = place.handler.changes(params.since, most, MAX_ANSWER - BESIDE).await.map_err(failed)?;
    let mut changes = found.changes;
    if let Some(model) = model {
        changes.retain(|change| change.model_type_name == model.name);
    }
    Ok(ChangesOutput { next: found.next, changes, latest: found.latest, compacted: found.oldest })
}
