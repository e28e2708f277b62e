//! Requests: one, or a batch.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{RpcError, check};

/// The most requests of a batch.
pub const MAX_BATCH: usize = 50;
/// The most bytes of an id, as JSON.
pub const MAX_ID: usize = 128;

/// What joins a response to its request: any JSON of at most [`MAX_ID`] bytes, echoed as it is.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Id(Box<RawValue>);

/// A request, or a notification when it has no id.
#[derive(Debug)]
pub struct Request {
    /// `None`: a notification, to which no response may be sent.
    pub id: Option<Id>,
    /// The method: the last word of the routing key.
    pub method: String,
    /// An object or an array.
    pub params: Option<Box<RawValue>>,
}

/// A request that cannot be taken as one: the response to send.
#[derive(Debug)]
pub struct Invalid {
    /// Its id as far as it could be read, else `null`.
    pub id: Id,
    /// What is wrong.
    pub error: RpcError,
}

/// What a body holds.
#[derive(Debug)]
pub enum Incoming {
    /// One request.
    One(Result<Request, Invalid>),
    /// A batch, in its order; never empty.
    Batch(Vec<Result<Request, Invalid>>),
}

impl Id {
    /// The id of responses to what cannot be read.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// An id from a number.
    pub fn number(number: u64) -> Self {
        Self(RawValue::from_string(number.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// As JSON.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

/// Reads a body. Fails only when nothing in it can be answered one by one.
pub fn read_request(body: &[u8]) -> Result<Incoming, Invalid> {
    let whole = |error| Invalid { id: Id::null(), error };
    check(body).map_err(whole)?;
    let invalid =
        |text: String| whole(RpcError::new(RpcError::INVALID_REQUEST, format!("invalid request: {text}")));
    if !body.trim_ascii_start().starts_with(b"[") {
        return Ok(Incoming::One(read_one(body)));
    }
    let members: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| invalid("not a batch".into()))?;
    match members.len() {
        0 => Err(invalid("a batch of none".into())),
        1..=MAX_BATCH => {
            Ok(Incoming::Batch(members.into_iter().map(|member| read_one(member.get().as_bytes())).collect()))
        }
        many => Err(invalid(format!("a batch of {many}: {MAX_BATCH} is the most"))),
    }
}

/// Writes one request; without `id` it is a notification.
pub fn write_request(id: Option<&Id>, method: &str, params: Option<&RawValue>) -> Vec<u8> {
    let request = Outgoing { jsonrpc: "2.0", id: id.map(|id| &*id.0), method, params };
    // Strings and checked JSON always serialise.
    serde_json::to_vec(&request).unwrap_or_default()
}

#[derive(Serialize)]
struct Outgoing<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "super::present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "super::present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "super::present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "super::present")]
    params: Option<&'a RawValue>,
}

fn read_one(body: &[u8]) -> Result<Request, Invalid> {
    let invalid = |id: Id, text: &str| Invalid {
        id,
        error: RpcError::new(RpcError::INVALID_REQUEST, format!("invalid request: {text}")),
    };
    let body = body.trim_ascii();
    // Serde would also read the members from an array in their order.
    if !body.starts_with(b"{") {
        return Err(invalid(Id::null(), "not an object"));
    }
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(|_| invalid(Id::null(), "not an object"))?;
    let id = match wire.id {
        Some(id) if id.get().len() > MAX_ID => {
            return Err(invalid(Id::null(), "its id is longer than 128 bytes"));
        }
        Some(id) => Some(Id(id.to_owned())),
        None => None,
    };
    let reply_id = || id.clone().unwrap_or_else(Id::null);
    if wire.jsonrpc.map(RawValue::get) != Some(r#""2.0""#) {
        return Err(invalid(reply_id(), "member jsonrpc must be \"2.0\""));
    }
    let method = wire.method.and_then(|method| serde_json::from_str::<Cow<'_, str>>(method.get()).ok());
    let Some(method) = method else {
        return Err(invalid(reply_id(), "member method must be a string"));
    };
    Ok(Request { id, method: method.into_owned(), params: wire.params.map(ToOwned::to_owned) })
}
