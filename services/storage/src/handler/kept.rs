//! Records in the form in which they are kept: secret ones sealed, and of others the members that hold a secret.

use base64ct::{Base64, Encoding};
use commissaire_api::model::{Kept, Model};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::seal::Sealer;

/// The one member of what stands in the place of a secret member.
const SEALED: &str = "sealed";

impl Sealer {
    /// The record `json` as it is kept. `None` when the system gives no random numbers.
    pub(super) fn to_keep(&self, model: &Model, key: &str, json: &[u8]) -> Option<Vec<u8>> {
        if model.kept == Kept::Sealed {
            return self.seal(model.name, key, json);
        }
        if !model.holds_secrets() {
            return Some(json.to_vec());
        }
        self.each(model, json, |place, value| {
            let nothing = value.is_null() || *value == "";
            let plain = Zeroizing::new(serde_json::to_vec(value).ok()?);
            if !nothing {
                let sealed = Base64::encode_string(&self.seal(place, key, &plain)?);
                *value = Value::Object(Map::from_iter([(SEALED.to_owned(), sealed.into())]));
            }
            Some(())
        })
    }

    /// The record that is kept so. Members in the clear are taken as they are: they were stored by another program, or
    /// before they were sealed. `None` when something was sealed for another place.
    pub(super) fn of_kept(&self, model: &Model, key: &str, kept: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
        if model.kept == Kept::Sealed {
            return self.open(model.name, key, &kept);
        }
        if !model.holds_secrets() {
            return Some(Zeroizing::new(kept));
        }
        let opened = self.each(model, &kept, |place, value| {
            let sealed = value.as_object().filter(|members| members.len() == 1);
            let Some(Value::String(sealed)) = sealed.and_then(|members| members.get(SEALED)) else {
                return Some(());
            };
            let opened = self.open(place, key, &Base64::decode_vec(sealed).ok()?)?;
            *value = serde_json::from_slice(&opened).ok()?;
            Some(())
        });
        opened.map(Zeroizing::new)
    }

    /// The record with each of its secret members changed; each is sealed for its own place.
    fn each(
        &self,
        model: &Model,
        json: &[u8],
        change: impl Fn(&str, &mut Value) -> Option<()>,
    ) -> Option<Vec<u8>> {
        let mut record: Map<String, Value> = serde_json::from_slice(json).ok()?;
        for field in model.fields {
            for name in field.kind.secret() {
                if let Some(value) = record.get_mut(field.name).and_then(|object| object.get_mut(*name)) {
                    change(&format!("{}.{}.{name}", model.name, field.name), value)?;
                }
            }
        }
        serde_json::to_vec(&record).ok()
    }
}
