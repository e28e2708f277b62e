//! JSON-RPC 2.0 as pure data: requests, responses, errors, and the limits on what is read.
//!
//! Parameters may be named (an object), positional (an array) or absent. A request without an id is a notification and
//! gets no reply. A batch holds at most [`MAX_BATCH`] requests. Ids are echoed, whatever JSON they are, up to
//! [`MAX_ID`] bytes. Specification: <https://www.jsonrpc.org/specification>.

use serde::Deserialize;
use serde_json::value::RawValue;

mod check;
mod error;
mod params;
mod request;
mod response;

pub use check::{MAX_DEPTH, MAX_KEYS, check};
pub use error::RpcError;
pub use params::{from_foreign_params, from_params, to_params};
pub use request::{Id, Incoming, Invalid, MAX_BATCH, MAX_ID, Request, read_request, write_request};
pub use response::{Response, read_response, write_batch, write_response};

/// Reads a member that is there as it is, `null` included: `Option` alone reads `null` as absent.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(parser: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(parser).map(Some)
}
