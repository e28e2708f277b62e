//! Limits on the shape of JSON that comes from outside.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::RpcError;

/// The deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 64;
/// The most members of all objects together.
pub const MAX_KEYS: usize = 10_000;

/// The marker that tells our own refusals from the parser's.
const LIMIT: &str = "limit: ";

/// Checks that `json` is one JSON value, nested at most [`MAX_DEPTH`] deep, with at most [`MAX_KEYS`] members, and with
/// no member twice in one object. Fails with [`RpcError::PARSE`] when it is not JSON, else [`RpcError::INVALID_REQUEST`].
pub fn check(json: &[u8]) -> Result<(), RpcError> {
    let mut keys = 0;
    let mut parser = serde_json::Deserializer::from_slice(json);
    let shape = Shape { depth: 0, keys: &mut keys };
    shape.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|e| {
        let text = e.to_string();
        match text.strip_prefix(LIMIT) {
            Some(limit) => RpcError::new(RpcError::INVALID_REQUEST, format!("invalid request: {limit}")),
            None if text.starts_with("recursion limit") => RpcError::new(
                RpcError::INVALID_REQUEST,
                format!("invalid request: JSON is nested deeper than {MAX_DEPTH}"),
            ),
            None => RpcError::new(
                RpcError::PARSE,
                format!("parse error: not JSON at line {} column {}", e.line(), e.column()),
            ),
        }
    })
}

struct Shape<'a> {
    depth: usize,
    keys: &'a mut usize,
}

impl Shape<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<Shape<'_>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!("{LIMIT}JSON is nested deeper than {MAX_DEPTH}")));
        }
        Ok(Shape { depth: self.depth + 1, keys: self.keys })
    }
}

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(Shape { depth: inner.depth, keys: inner.keys })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = Seen::default();
        while let Some(Name(name)) = members.next_key()? {
            *inner.keys += 1;
            if *inner.keys > MAX_KEYS {
                return Err(A::Error::custom(format_args!("{LIMIT}JSON has more than {MAX_KEYS} members")));
            }
            if !seen.insert(name) {
                return Err(A::Error::custom(format_args!("{LIMIT}a member stands twice in one object")));
            }
            members.next_value_seed(Shape { depth: inner.depth, keys: inner.keys })?;
        }
        Ok(())
    }
}

/// The members of one object: few of them are found faster by looking at each.
#[derive(Default)]
struct Seen<'de> {
    few: Vec<std::borrow::Cow<'de, str>>,
    many: HashSet<std::borrow::Cow<'de, str>>,
}

impl<'de> Seen<'de> {
    fn insert(&mut self, name: std::borrow::Cow<'de, str>) -> bool {
        const FEW: usize = 16;
        if self.many.is_empty() && self.few.len() < FEW {
            let new = !self.few.contains(&name);
            self.few.push(name);
            return new;
        }
        self.many.extend(self.few.drain(..));
        self.many.insert(name)
    }
}

struct Name<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(text.to_owned().into()))
            }
        }
        parser.deserialize_str(Text)
    }
}
