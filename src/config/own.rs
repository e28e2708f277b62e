//! The members that one service has beside those of all.

use std::fmt;

use figment::value::{Dict, Value};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Deserializer, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};

use super::faults::Reading;

/// The members that one service has beside those of all: those of a struct with `deny_unknown_fields` and defaults.
#[derive(Clone, Copy)]
pub struct OwnMembers {
    names: fn() -> &'static [&'static str],
    defaults: fn() -> Dict,
    check: fn(&mut Reading<'_>, &mut Dict, Option<&str>, &[&str]),
}

/// The members of a service that has none of its own.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoMembers {}

impl OwnMembers {
    /// Those of `T`, whose defaults are what holds when nobody says anything.
    pub const fn of<T: DeserializeOwned + Serialize + Default>() -> Self {
        Self {
            names: names::<T>,
            defaults: || Value::serialize(T::default()).ok().and_then(Value::into_dict).unwrap_or_default(),
            check: |reading, members, section, known| drop(reading.read::<T>(members, section, known)),
        }
    }

    pub(super) fn names(&self) -> &'static [&'static str] {
        (self.names)()
    }

    pub(super) fn defaults(&self) -> Dict {
        (self.defaults)()
    }

    pub(super) fn check(
        &self,
        reading: &mut Reading<'_>,
        members: &mut Dict,
        section: Option<&str>,
        known: &[&str],
    ) {
        (self.check)(reading, members, section, known);
    }
}

impl fmt::Debug for OwnMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnMembers").field(&self.names()).finish()
    }
}

/// The names of the fields of `T`, which it tells to whoever gives it a value.
fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Ask(&mut names));
    names
}

struct Ask<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("no value"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Some {
        change_log: u64,
        #[serde(rename = "type")]
        kind: String,
    }

    #[test]
    fn a_struct_tells_its_members() {
        assert_eq!(OwnMembers::of::<Some>().names(), ["change_log", "type"]);
        assert!(OwnMembers::of::<NoMembers>().names().is_empty());
        assert_eq!(OwnMembers::of::<Some>().defaults().keys().collect::<Vec<_>>(), ["change_log", "type"]);
    }
}
