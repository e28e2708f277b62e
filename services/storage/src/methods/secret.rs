//! Secret records as they come and go on the bus.

use commissaire::{Context, RpcError};
use commissaire_api::{
    model::{Kept, Model},
    sealed::{PublicSealKey, Purpose, Sealed},
    storage::{Data, MAX_ANSWER, UNOPENED},
};
use serde_json::{Value, value::RawValue};

use super::{
    Storage,
    refuse::{faulty, internal, too_large},
};

/// The most bytes of what has `size` bytes, sealed.
pub(super) fn sealed_size(size: usize) -> usize {
    (size + 64).div_ceil(3) * 4 + 256
}

/// The most bytes that fit an answer when they are sealed.
pub(super) fn room() -> usize {
    (MAX_ANSWER - 256) / 4 * 3 - 64
}

/// Refuses to seal what is no secret.
pub(super) fn check_secret(model: &Model, key: Option<&PublicSealKey>) -> Result<(), RpcError> {
    match key {
        Some(_) if !model.holds_secrets() => {
            Err(faulty("seal_to", format!("is for secrets, and {} is none", model.name)))
        }
        _ => Ok(()),
    }
}

/// Refuses what could not be sealed then, before anything is done.
pub(super) fn check_seal_to(model: &Model, key: Option<&PublicSealKey>) -> Result<(), RpcError> {
    check_secret(model, key)?;
    match key {
        Some(key) if key.seal(Purpose::Answer, model, b"").is_none() => {
            Err(faulty("seal_to", "is no key of X25519"))
        }
        _ => Ok(()),
    }
}

impl Storage {
    /// What is to be saved, opened if it is sealed. A secret that came in the clear is accepted, for there are callers
    /// that know nothing else, and told.
    pub(super) fn in_the_clear(
        &self,
        model: &Model,
        data: Data,
        context: &Context,
    ) -> Result<Data, RpcError> {
        if !model.holds_secrets() {
            return Ok(data);
        }
        let Ok(sealed) = data.to::<Sealed>() else {
            if !tells_secrets(model, &data) {
                return Ok(data);
            }
            tracing::warn!(model = model.name, actor = %context.actor, "a secret came over the bus in the clear");
            return Ok(data);
        };
        let opened = self.key.open(Purpose::Save, model, &sealed);
        let opened = opened.map_err(|why| RpcError::new(UNOPENED, format!("model_json_data: {why}")))?;
        let none = || RpcError::new(RpcError::PARSE, "what is sealed in model_json_data is not JSON");
        let text = str::from_utf8(&opened).map_err(|_| none())?;
        commissaire::jsonrpc::check(text.as_bytes()).map_err(|_| none())?;
        RawValue::from_string(text.to_owned()).map(Data).map_err(|_| none())
    }

    /// `answer`, records of `model`, sealed to `key` if they are secret and the caller has given one.
    pub(super) fn secretly(
        &self,
        model: &Model,
        key: Option<PublicSealKey>,
        answer: Data,
    ) -> Result<Data, RpcError> {
        match key {
            None if tells_secrets(model, &answer) => {
                tracing::warn!(
                    model = model.name,
                    "a secret goes over the bus in the clear: its caller gives no key"
                );
                Ok(answer)
            }
            None => Ok(answer),
            Some(_) if sealed_size(answer.text().len()) > MAX_ANSWER => {
                Err(too_large("ask for fewer records at once"))
            }
            Some(key) => {
                let sealed = key.seal(Purpose::Answer, model, answer.text().as_bytes());
                let sealed = sealed.ok_or_else(|| faulty("seal_to", "is no key of X25519"))?;
                Data::of(&sealed).map_err(|_| internal("what is sealed cannot be written as JSON"))
            }
        }
    }
}

/// Whether `data`, records of `model` in whatever is around them, tells a secret.
fn tells_secrets(model: &Model, data: &Data) -> bool {
    fn any(model: &Model, value: &mut Value) -> bool {
        match value {
            Value::Array(all) => all.iter_mut().any(|one| any(model, one)),
            // Text may be a record as well.
            Value::String(text) => serde_json::from_str(text).is_ok_and(|mut value| any(model, &mut value)),
            Value::Object(members) => {
                let within = ["records", "record"].iter().any(|name| {
                    members.get_mut(*name).is_some_and(|value| !value.is_string() && any(model, value))
                });
                within || model.take_secrets(members)
            }
            _ => false,
        }
    }
    match model.kept {
        Kept::Sealed => true,
        _ if !model.holds_secrets() => false,
        _ => data.to::<Value>().is_ok_and(|mut value| any(model, &mut value)),
    }
}
