//! The methods of the example service.

use std::sync::Arc;

use commissaire::{Context, RpcError};

use crate::contract::{Add, Sum};

pub(crate) async fn add(_: Arc<()>, sum: Sum, _: Context) -> Result<i64, RpcError> {
    let problem = || RpcError::invalid_params(&[("y".into(), "the sum does not fit into 64 bits".into())]);
    sum.x.checked_add(sum.y).ok_or_else(problem)
}

pub(crate) async fn wordy_add(_: Arc<()>, sum: Sum, context: Context) -> Result<String, RpcError> {
    let result = context.client.call(Add, &sum).await?;
    Ok(format!("{} + {} = {result}", sum.x, sum.y))
}
