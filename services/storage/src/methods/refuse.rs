//! What the service answers when it does not do what it was asked: nothing of its inside, and never a secret.

use commissaire::RpcError;
use commissaire_api::{Faults, model::Model, storage};
use serde_json::{Value, json};

use crate::handler::StoreError;

/// One parameter that cannot be used.
pub(super) fn faulty(field: &str, problem: impl Into<String>) -> RpcError {
    RpcError::invalid_params(&[(field.to_owned(), problem.into())])
}

/// Records that cannot be used: all that is wrong with them.
pub(super) fn faults(faults: Faults) -> RpcError {
    let pairs: Vec<_> = faults.0.into_iter().map(|fault| (fault.field, fault.problem)).collect();
    RpcError::invalid_params(&pairs)
}

/// An answer that the bus would not carry. `instead` says what to ask for.
pub(super) fn too_large(instead: &str) -> RpcError {
    let most = storage::MAX_ANSWER;
    RpcError::new(RpcError::TOO_LARGE, format!("the answer would have more than {most} bytes: {instead}"))
        .with_data(json!({ "most": most }))
}

/// A fault of this program.
pub(super) fn internal(what: &str) -> RpcError {
    tracing::error!(what, "a method failed");
    RpcError::internal()
}

/// What the store said about records of `model`.
pub(super) fn refused(model: &Model, error: StoreError) -> RpcError {
    match error {
        StoreError::Missing(keys) => {
            let missing: Vec<Value> = keys
                .iter()
                .map(|key| {
                    let mut blank = model.blank(key);
                    model.hide(&mut blank);
                    Value::Object(blank)
                })
                .collect();
            let shown: Vec<String> = keys.iter().take(10).map(|key| format!("{key:?}")).collect();
            let dots = if keys.len() > shown.len() { ", …" } else { "" };
            RpcError::new(
                RpcError::STORAGE_LOOKUP,
                format!("no {} {}{dots} in the store", model.name, shown.join(", ")),
            )
            .with_data(json!({"model_type_name": model.name, "model_json_data": missing}))
        }
        StoreError::Conflict { ref key, revision } => {
            let data = json!({"model_type_name": model.name, "key": key, "revision": revision});
            RpcError::new(RpcError::CONFLICT, format!("{}: {error}", model.name)).with_data(data)
        }
        StoreError::Unsealable { .. } | StoreError::Damaged { .. } => {
            tracing::error!(model = model.name, %error, "a record cannot be read");
            RpcError::new(RpcError::INTERNAL, error.to_string())
        }
        StoreError::Unfit(what) => RpcError::new(RpcError::TOO_LARGE, what),
        other => failed(other),
    }
}

/// What the store said.
pub(super) fn failed(error: StoreError) -> RpcError {
    let message = error.to_string();
    match error {
        StoreError::Fenced { name } => {
            RpcError::new(RpcError::CONFLICT, message).with_data(json!({"name": name}))
        }
        StoreError::Held { name, holder, expires_in } => {
            let expires_in_ms = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX).max(1);
            let data = json!({"name": name, "holder": holder, "expires_in_ms": expires_in_ms});
            RpcError::new(RpcError::CONFLICT, message).with_data(data)
        }
        StoreError::TooManyLeases => RpcError::new(RpcError::BUSY, message),
        StoreError::Compacted { oldest, latest } => RpcError::new(storage::COMPACTED, message)
            .with_data(json!({"compacted": oldest, "latest": latest})),
        StoreError::Failed { told, uncertain, .. } => {
            tracing::debug!(error = message, "the store failed");
            let outcome = if uncertain { "what was asked may be done" } else { "nothing was changed" };
            RpcError::new(
                RpcError::UNAVAILABLE,
                format!("{told}, {outcome}: see the log of the storage service"),
            )
            .with_data(json!({"kind": "store", "maybe_executed": uncertain}))
        }
        StoreError::Missing(_)
        | StoreError::Conflict { .. }
        | StoreError::Unsealable { .. }
        | StoreError::Damaged { .. } => internal(&message),
        StoreError::Unfit(what) => RpcError::new(RpcError::INVALID_PARAMS, what),
    }
}
