//! What a callee says to its caller when it cannot answer.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// A JSON-RPC error object: what travels from callee to caller. It must hold nothing secret and nothing of the inside
/// of a program (no paths, no panic texts).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpcError {
    /// What sort of error; see the constants.
    pub code: i64,
    /// One sentence for a person.
    pub message: String,
    /// What a program may want to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl RpcError {
    /// The body is not JSON.
    pub const PARSE: i64 = -32700;
    /// The body is JSON, but not a request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The service has no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters are not what the method takes.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The service failed.
    pub const INTERNAL: i64 = -32603;
    /// The service has too much to do; nothing was executed.
    pub const BUSY: i64 = -32001;
    /// Something that the service needs is away; `data.kind` says how.
    pub const UNAVAILABLE: i64 = -32002;
    /// The answer is larger than the bus carries.
    pub const TOO_LARGE: i64 = -32003;
    /// The service does not answer this to who asks; nothing was executed.
    pub const FORBIDDEN: i64 = -32004;
    /// The storage service has no such record.
    pub const STORAGE_LOOKUP: i64 = -20000;
    /// A container manager failed.
    pub const CONTAINER_MANAGER: i64 = -20001;
    /// There is no such thing.
    pub const NOT_FOUND: i64 = 404;
    /// The thing is not in the state that was expected; `data` says in which it is.
    pub const CONFLICT: i64 = 409;

    /// An error of `code`.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// With `data` for programs.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Value>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Parameters that cannot be used. `faults` are pairs of a field's name and what is wrong with it; all of them stand
    /// in the message, and as `{"faults": [{"field", "problem"}]}` in the data.
    pub fn invalid_params(faults: &[(String, String)]) -> Self {
        let texts: Vec<String> = faults
            .iter()
            .map(
                |(field, problem)| {
                    if field.is_empty() { problem.clone() } else { format!("{field}: {problem}") }
                },
            )
            .collect();
        let data: Vec<Value> =
            faults.iter().map(|(field, problem)| json!({"field": field, "problem": problem})).collect();
        Self::new(Self::INVALID_PARAMS, format!("invalid params: {}", texts.join("; ")))
            .with_data(json!({ "faults": data }))
    }

    /// The service failed in a way that is not the caller's business.
    pub fn internal() -> Self {
        Self::new(Self::INTERNAL, "internal error")
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

/// What a service answers when something that it did on the bus failed: the callee's own error as it is, so that errors
/// travel; for all else only the kind, for the text may name things inside.
impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Remote(remote) if remote.code != Self::BUSY => remote.clone(),
            // Busy promises that nothing was executed; of this call something may have been.
            ErrorKind::Remote(_) | ErrorKind::Busy => {
                Self::new(Self::UNAVAILABLE, "a service that this one needs is busy")
                    .with_data(json!({"kind": "busy", "maybe_executed": true}))
            }
            kind if error.is_temporary() => {
                Self::new(Self::UNAVAILABLE, "a service that this one needs did not answer")
                    .with_data(json!({"kind": kind.name(), "maybe_executed": error.may_have_executed()}))
            }
            _ => Self::internal(),
        }
    }
}
