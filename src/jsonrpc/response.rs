//! Responses.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Id, RpcError};
use crate::error::{Error, Result};

/// What answers a request: a result or an error, with the request's id.
#[derive(Debug, Serialize)]
pub struct Response {
    jsonrpc: &'static str,
    id: Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RpcError>,
}

impl Response {
    /// The response to the request of this id.
    pub fn new(id: Id, outcome: std::result::Result<Box<RawValue>, RpcError>) -> Self {
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self { jsonrpc: "2.0", id, result, error }
    }
}

/// Writes one response.
pub fn write_response(response: &Response) -> Vec<u8> {
    // Strings and checked JSON always serialise.
    serde_json::to_vec(response).unwrap_or_default()
}

/// Writes the responses to a batch.
pub fn write_batch(responses: &[Response]) -> Vec<u8> {
    serde_json::to_vec(responses).unwrap_or_default()
}

/// Reads the response to one request.
pub fn read_response(body: &[u8]) -> Result<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow, default, deserialize_with = "super::present")]
        result: Option<&'a RawValue>,
        error: Option<RpcError>,
    }
    let wire: Wire<'_> = serde_json::from_slice(body)
        .map_err(|e| Error::malformed("the answer is not a JSON-RPC response").because(e).maybe_executed())?;
    match (wire.result, wire.error) {
        (_, Some(error)) => Err(error.into()),
        (Some(result), None) => Ok(result.to_owned()),
        (None, None) => Err(Error::malformed("the answer has neither result nor error").maybe_executed()),
    }
}
