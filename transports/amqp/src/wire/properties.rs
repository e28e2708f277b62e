//! What a message carries beside its body.

use bytes::{BufMut, Bytes};

use super::value::{
    Malformed, Value, find, put_short, take_short, take_table, take_u8, take_u16, take_u32, take_u64,
};

/// The properties of a message that the bus sets or looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Survives a restart of the broker.
    pub(crate) persistent: bool,
    /// Joins a returned message to its publishing.
    pub(crate) correlation: String,
    /// After how many ms in a queue it is dropped.
    pub(crate) expiration: String,
    /// Its own id, for operators.
    pub(crate) id: String,
    /// When it was sent, by the sender's reckoning.
    pub(crate) stamp: String,
    /// How often it was handed out and came back.
    pub(crate) deliveries: u32,
    /// Its place in a stream.
    pub(crate) offset: Option<i64>,
}

impl Properties {
    /// The payload of a header frame.
    pub(crate) fn write(&self, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_u16(60);
        out.put_u16(0);
        out.put_u64(size as u64);
        let texts = [(10, &self.correlation), (8, &self.expiration), (7, &self.id), (3, &self.stamp)];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let flags = texts.clone().fold(1_u16 << 12, |flags, (bit, _)| flags | 1 << bit);
        out.put_u16(flags);
        out.put_u8(1 + u8::from(self.persistent));
        for (_, text) in texts {
            put_short(&mut out, text);
        }
        out
    }

    /// Reads the payload of a header frame: the size of the body and the properties.
    pub(crate) fn read(mut from: Bytes) -> Result<(u64, Self), Malformed> {
        let from = &mut from;
        take_u32(from)?;
        let size = take_u64(from)?;
        let flags = take_u16(from)?;
        let mut found = Self::default();
        for bit in (2..=15).rev().filter(|bit| flags & 1 << bit != 0) {
            match bit {
                13 => {
                    let headers = take_table(from)?;
                    if let Some(Value::Int(count)) = find(&headers, "x-delivery-count") {
                        found.deliveries = u32::try_from(*count).unwrap_or_default();
                    }
                    if let Some(Value::Int(offset)) = find(&headers, "x-stream-offset") {
                        found.offset = Some(*offset);
                    }
                }
                12 => found.persistent = take_u8(from)? == 2,
                11 => drop(take_u8(from)?),
                10 => found.correlation = take_short(from)?,
                8 => found.expiration = take_short(from)?,
                7 => found.id = take_short(from)?,
                6 => drop(take_u64(from)?),
                3 => found.stamp = take_short(from)?,
                _ => drop(take_short(from)?),
            }
        }
        Ok((size, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_as_they_were() {
        let sent = Properties {
            persistent: true,
            correlation: "7".into(),
            expiration: "1500".into(),
            id: "some id".into(),
            stamp: "ab.12.13".into(),
            deliveries: 0,
            offset: None,
        };
        assert_eq!(Properties::read(sent.write(42).into()), Ok((42, sent)));
    }
}
