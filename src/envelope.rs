//! The envelope: a message as bytes, for brokers that have no headers of their own.
//!
//! Layout, numbers little-endian: `0x01`, kind of address (u8), length of its name (u16) and name, number of headers
//! (u8), for each the length of its name (u8) and name, length of its value (u16) and value; the rest is the body.
//! Names and values obey the limits of [`Headers`], so every length fits.

use bytes::{Buf, Bytes};

use crate::{
    address::Address,
    error::{Error, Result},
    message::{Headers, MAX_HEADERS, Message, RESERVED_HEADERS},
};

const FORMAT: u8 = 1;
const KINDS: [&str; 5] = ["service", "queue", "topic", "control", "inbox"];

/// Writes `message`.
pub fn encode(message: &Message) -> Vec<u8> {
    let name = message.address().name();
    let headers: usize = message.headers().iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    let mut out = Vec::with_capacity(5 + name.len() + headers + message.body().len());
    let kind = KINDS.iter().position(|kind| *kind == message.address().kind()).unwrap_or_default();
    out.extend([FORMAT, kind as u8]);
    put(&mut out, &name);
    out.push(message.headers().iter().len() as u8);
    for (name, value) in message.headers().iter() {
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
        put(&mut out, value);
    }
    out.extend(message.body());
    out
}

/// Reads what [`encode`] wrote. The body shares `bytes`. Never panics, whatever the bytes are.
pub fn decode(mut bytes: Bytes) -> Result<Message> {
    let cut = || Error::malformed("envelope is cut short");
    let format = bytes.try_get_u8().map_err(|_| cut())?;
    if format != FORMAT {
        return Err(Error::malformed(format!("envelope of format {format}: this program reads {FORMAT}")));
    }
    let kind = usize::from(bytes.try_get_u8().map_err(|_| cut())?);
    let kind =
        KINDS.get(kind).ok_or_else(|| Error::malformed("envelope names an unknown kind of address"))?;
    let address = Address::parse(kind, &take_long(&mut bytes)?)?;
    let count = usize::from(bytes.try_get_u8().map_err(|_| cut())?);
    if count > MAX_HEADERS + RESERVED_HEADERS {
        return Err(Error::malformed(format!("envelope has {count} headers: {MAX_HEADERS} is the most")));
    }
    let mut headers = Headers::default();
    for _ in 0..count {
        let length = usize::from(bytes.try_get_u8().map_err(|_| cut())?);
        let name = take(&mut bytes, length)?;
        headers.insert(name.into(), take_long(&mut bytes)?, MAX_HEADERS + RESERVED_HEADERS)?;
    }
    Message::from_parts(address, headers, bytes)
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

fn take_long(bytes: &mut Bytes) -> Result<String> {
    let length = bytes.try_get_u16_le().map_err(|_| Error::malformed("envelope is cut short"))?;
    take(bytes, usize::from(length))
}

fn take(bytes: &mut Bytes, length: usize) -> Result<String> {
    if bytes.len() < length {
        return Err(Error::malformed("envelope is cut short"));
    }
    let text = bytes.split_to(length);
    std::str::from_utf8(&text)
        .map(str::to_owned)
        .map_err(|_| Error::malformed("envelope holds text that is not UTF-8"))
}
