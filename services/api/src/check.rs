//! Checking data against a model: types, keys and rules; every fault at once; defaults filled in.

use commissaire::nearest;
use serde_json::{Map, Value};

use crate::{
    fault::Faults,
    model::{Field, Kind, Model, Rule},
};

/// The most bytes of a key.
pub const MAX_KEY: usize = 255;

impl Model {
    /// `given` as a whole record: fields that are missing have their defaults, and nothing is there that the model
    /// does not know. All that is wrong is told at once.
    ///
    /// ```
    /// use commissaire_api::record::HOST;
    /// use serde_json::json;
    /// let record = HOST.check(json!({"address": "10.0.0.7"})).unwrap();
    /// assert_eq!(record["status"], "");
    /// let faults = HOST.check(json!({"adress": "10.0.0.7", "cpus": true})).unwrap_err();
    /// assert_eq!(faults.to_string(),
    ///     "adress is not a field of Host: did you mean address?; address is missing; cpus is a boolean: it takes a whole number");
    /// ```
    pub fn check(&self, given: Value) -> Result<Map<String, Value>, Faults> {
        let mut faults = Faults::default();
        let Some(mut given) = self.object(given, &mut faults) else { return Err(faults) };
        let mut record = Map::new();
        for field in self.fields {
            match given.remove(field.name).or_else(|| field.default()) {
                None => faults.add(field.name, "is missing"),
                Some(value) => {
                    if field.check(&value, &mut faults) && self.key == Some(field.name) {
                        check_key(field.name, value.as_str().unwrap_or_default(), &mut faults);
                    }
                    record.insert(field.name.to_owned(), value);
                }
            }
        }
        for rule in self.rules {
            rule.check(&record, &mut faults);
        }
        faults.or(record)
    }

    /// The key in `given`, which may hold the other fields or not; they are not looked at, but must be of this model.
    pub fn check_key(&self, given: Value) -> Result<String, Faults> {
        let mut faults = Faults::default();
        let Some(mut given) = self.object(given, &mut faults) else { return Err(faults) };
        let name = self.key.unwrap_or_default();
        let mut key = String::new();
        match given.remove(name) {
            None => faults.add(name, "is missing"),
            Some(Value::String(text)) => {
                check_key(name, &text, &mut faults);
                key = text;
            }
            Some(other) => faults.add(name, wrong(&other, "text")),
        }
        faults.or(key)
    }

    /// `given` as an object, unknown fields noted.
    fn object(&self, given: Value, faults: &mut Faults) -> Option<Map<String, Value>> {
        let Value::Object(given) = given else {
            faults.add("", format!("the data {}", wrong(&given, &format!("an object, a {}", self.name))));
            return None;
        };
        for name in given.keys().filter(|name| self.field(name).is_none()) {
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            match self.nearest_field(name) {
                Some(near) => {
                    faults.add(shown, format!("is not a field of {}: did you mean {near}?", self.name));
                }
                None => {
                    let known: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
                    faults
                        .add(shown, format!("is not a field of {}: it has {}", self.name, known.join(", ")));
                }
            }
        }
        Some(given)
    }
}

impl Field {
    /// Whether `value` is of the field's kind.
    fn check(&self, value: &Value, faults: &mut Faults) -> bool {
        let problem = match (self.kind, value) {
            (Kind::Text, Value::String(_)) | (Kind::Object { .. }, Value::Object(_)) => return true,
            (Kind::Int { most }, Value::Number(number)) => match number.as_u64() {
                Some(whole) if whole <= most => return true,
                _ if number.is_f64() => format!("is {number}: it takes a whole number"),
                _ => format!("is {number}: it takes 0 to {most}"),
            },
            (Kind::Texts, Value::Array(items)) => {
                let mut sound = true;
                for (at, item) in items.iter().enumerate().filter(|(_, item)| !item.is_string()) {
                    faults.add(format!("{}[{at}]", self.name), wrong(item, "text"));
                    sound = false;
                }
                return sound;
            }
            (Kind::Text, other) => wrong(other, "text"),
            (Kind::Int { .. }, other) => wrong(other, "a whole number"),
            (Kind::Texts, other) => wrong(other, "a list of text"),
            (Kind::Object { .. }, other) => wrong(other, "an object"),
        };
        faults.add(self.name, problem);
        false
    }
}

impl Rule {
    /// Notes a fault when `record` breaks the rule. A field of the wrong kind was noted before.
    fn check(&self, record: &Map<String, Value>, faults: &mut Faults) {
        let text = |field: &str| record.get(field).and_then(Value::as_str);
        match self {
            Self::NotEmpty(field) => {
                if text(field) == Some("") {
                    faults.add(*field, "must not be empty");
                }
            }
            Self::OneOf(field, words) => {
                if let Some(word) = text(field).filter(|word| !words.contains(word)) {
                    let shown: String = word.chars().take(64).collect();
                    faults.add(*field, format!("is {shown:?}: it takes {}", words.join(", ")));
                }
            }
            Self::Known(object, known) => {
                let Some(Value::Object(members)) = record.get(*object) else { return };
                for name in members.keys().filter(|name| !known.contains(&&*name.replace('-', "_"))) {
                    let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
                    let meant = match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("known are {}", known.join(", ")),
                    };
                    faults.add(format!("{object}.{shown}"), format!("is not known: {meant}"));
                }
            }
            Self::HostPort { field, word, object, member } => {
                if text(field) != Some(word) {
                    return;
                }
                let Some(Value::Object(members)) = record.get(*object) else { return };
                let place = format!("{object}.{member}");
                match members.get(*member) {
                    None => faults.add(place, format!("is missing: {word} takes host:port")),
                    Some(Value::String(address)) if is_host_port(address) => {}
                    Some(_) => faults.add(place, "must be host:port"),
                }
            }
        }
    }
}

/// Notes what is wrong with `key`, the value of `field`. A key becomes part of a path in some stores, so it must not be
/// able to change one.
pub fn check_key(field: &str, key: &str, faults: &mut Faults) {
    if key.is_empty() {
        faults.add(field, "must not be empty");
    }
    if key.len() > MAX_KEY {
        faults.add(field, format!("has {} bytes: {MAX_KEY} is the most", key.len()));
    }
    if key == "." || key == ".." {
        faults.add(field, format!("must not be {key:?}"));
    }
    if let Some(bad) = key.chars().find(|c| matches!(c, '/' | '\\') || c.is_control()) {
        faults.add(field, format!("must not hold {bad:?}"));
    }
}

/// Whether `text` is `host:port`, an IPv6 address in brackets.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    host && port
}

/// What is wrong with a value of another kind than `wanted`; the value itself is not told.
fn wrong(value: &Value, wanted: &str) -> String {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("is {is}: it takes {wanted}")
}
