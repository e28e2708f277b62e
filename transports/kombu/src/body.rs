//! Bodies as Kombu programs write them: in base64 or plain, JSON or text, and never unpacked here.

use base64ct::{Base64, Encoding};
use commissaire::{Error, MAX_RECEIVED, Result};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// How bytes stand in a dead letter that could not be read.
pub(crate) const HEX: &str = "hex";

/// The bytes of a body that was written in this encoding.
pub(crate) fn decoded(body: String, encoding: Option<&str>) -> Result<Vec<u8>> {
    // Base64 takes a third more, digits take twice as much.
    let limit = |bytes: usize| match bytes <= MAX_RECEIVED {
        true => Ok(()),
        false => Err(Error::malformed(format!("a body of {bytes} bytes: {MAX_RECEIVED} is the most"))),
    };
    match encoding {
        Some("base64") => {
            limit(body.len() / 4 * 3)?;
            Base64::decode_vec(&body).map_err(|_| Error::malformed("the body is not base64"))
        }
        None | Some("utf-8") => {
            limit(body.len())?;
            Ok(body.into_bytes())
        }
        Some(HEX) => {
            limit(body.len() / 2)?;
            let digits = body.as_bytes().chunks(2);
            let byte = |pair: &[u8]| {
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
            };
            digits
                .map(byte)
                .collect::<Option<_>>()
                .ok_or_else(|| Error::malformed("the body is not hexadecimal"))
        }
        Some(_) => Err(Error::malformed("the body has an encoding that is not known here")),
    }
}

/// Refuses what a Kombu program would have to unpack: pickles, archives, other alphabets.
pub(crate) fn understood(
    kind: Option<&str>,
    encoding: Option<&str>,
    headers: &Map<String, Value>,
) -> Result<()> {
    let kind = kind.unwrap_or("text/plain");
    if !["application/json", "text/plain", "application/data"].contains(&kind) {
        return Err(Error::malformed("its content type is not JSON or text"));
    }
    let encoding = encoding.unwrap_or("utf-8").to_ascii_lowercase();
    if !["utf-8", "utf8", "us-ascii", "ascii", "binary"].contains(&&*encoding) {
        return Err(Error::malformed("its content encoding is not UTF-8"));
    }
    match headers.get("compression") {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(Error::malformed("it is compressed")),
    }
}

/// The JSON in a JSON string; anything else as it is. Kombu programs write both.
pub(crate) fn unwrapped(body: Vec<u8>) -> Vec<u8> {
    if body.first() != Some(&b'"') {
        return body;
    }
    match serde_json::from_slice::<String>(&body) {
        Ok(inner) if serde_json::from_str::<IgnoredAny>(&inner).is_ok() => inner.into_bytes(),
        _ => body,
    }
}
