//! `storage.changes`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::{ChangesOutput, ChangesParams, MAX_ANSWER, MAX_PAGE};

use super::{
    Storage, off_thread,
    refuse::{failed, faulty},
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
    let store = storage.store.clone();
    let found =
        off_thread(move || store.changes(params.since, most, MAX_ANSWER - BESIDE)).await?.map_err(failed)?;
    Ok(ChangesOutput {
        next: found.changes.last().map_or(params.since, |change| change.revision),
        changes: found.changes,
        latest: found.latest,
        compacted: found.oldest,
    })
}
