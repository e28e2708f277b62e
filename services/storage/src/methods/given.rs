//! `model_json_data`: an object, or its JSON as a string, or a list of either.

use std::collections::HashSet;

use commissaire::{Context, RpcError, jsonrpc};
use commissaire_api::{
    Faults,
    model::{Kept, Model},
    storage::{Data, Expected, MAX_RECORD},
};
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::refuse::{faults, faulty, internal};

/// The records that a caller gave, and whether as a list.
pub(super) struct Given {
    pub(super) records: Vec<Value>,
    pub(super) many: bool,
}

/// A record as it is to be stored.
pub(super) struct Record {
    pub(super) key: String,
    /// The place that it names, if it is of a model that does.
    pub(super) source: Option<String>,
    pub(super) json: Zeroizing<Vec<u8>>,
}

impl Given {
    /// Reads strings of JSON as what they hold. One that is not JSON is −32700. What a foreign program gives that `model`
    /// does not have is passed over.
    pub(super) fn read(data: &Data, model: &Model, context: &Context) -> Result<Self, RpcError> {
        let mut given = Self::as_it_is(data)?;
        if context.actor.is_foreign() {
            for record in given.records.iter_mut().filter_map(Value::as_object_mut) {
                record.retain(|name, _| model.field(name).is_some());
            }
        }
        Ok(given)
    }

    fn as_it_is(data: &Data) -> Result<Self, RpcError> {
        let given: Value =
            data.to().map_err(|_| RpcError::new(RpcError::PARSE, "model_json_data is not JSON"))?;
        Ok(match given {
            Value::Array(items) => {
                let records = items.into_iter().enumerate();
                let records = records.map(|(at, item)| parsed(item, &format!("model_json_data[{at}]")));
                Self { records: records.collect::<Result<_, _>>()?, many: true }
            }
            one => Self { records: vec![parsed(one, "model_json_data")?], many: false },
        })
    }

    /// The keys, each with the place that was named beside it.
    pub(super) fn keys(self, model: &Model) -> Result<Vec<(String, Option<String>)>, RpcError> {
        self.each(|record| {
            let source = source(record.as_object());
            Ok((model.check_key(record)?, source))
        })
    }

    /// The keys, none of them twice.
    pub(super) fn distinct_keys(self, model: &Model) -> Result<Vec<(String, Option<String>)>, RpcError> {
        let keys = self.keys(model)?;
        distinct(keys.iter().map(|(key, _)| key.as_str()))?;
        Ok(keys)
    }

    /// The records, checked, with their defaults; none of them twice.
    pub(super) fn records(self, model: &Model) -> Result<Vec<Record>, RpcError> {
        let checked = self.each(|record| {
            let mut record = model.check(record)?;
            let json = serde_json::to_vec(&record).map(Zeroizing::new);
            let mut faults = Faults::default();
            if let Ok(json) = &json
                && json.len() > MAX_RECORD
            {
                faults.add("", format!("the record has {} bytes: {MAX_RECORD} is the most", json.len()));
            }
            let key = model.key_of(&record).unwrap_or_default().to_owned();
            let source = source(Some(&record));
            if model.kept == Kept::Sealed {
                wipe(&mut record);
            }
            faults.or((key, source, json))
        })?;
        let records = checked.into_iter().map(|(key, source, json)| {
            let json = json.map_err(|_| internal("a record cannot be written as JSON"))?;
            Ok(Record { key, source, json })
        });
        let records: Vec<Record> = records.collect::<Result<_, RpcError>>()?;
        distinct(records.iter().map(|record| record.key.as_str()))?;
        Ok(records)
    }

    /// What `check` makes of each, or all that is wrong with any.
    fn each<T>(self, check: impl Fn(Value) -> Result<T, Faults>) -> Result<Vec<T>, RpcError> {
        let mut all = Faults::default();
        let mut checked = Vec::with_capacity(self.records.len());
        for (at, record) in self.records.into_iter().enumerate() {
            match check(record) {
                Ok(one) => checked.push(one),
                Err(wrong) if self.many => all.add_at(at, wrong),
                Err(wrong) => all.0.extend(wrong.0),
            }
        }
        all.or(checked).map_err(faults)
    }
}

/// The revision expected of each of `count` records.
pub(super) fn expected(given: Option<Expected>, count: usize) -> Result<Vec<Option<u64>>, RpcError> {
    match given {
        None => Ok(vec![None; count]),
        Some(Expected::One(revision)) if count == 1 => Ok(vec![Some(revision)]),
        Some(Expected::Each(each)) if each.len() == count => Ok(each),
        Some(_) => Err(faulty(
            "expected_revision",
            format!("must be a list of {count} revisions, as there are records"),
        )),
    }
}

fn parsed(item: Value, place: &str) -> Result<Value, RpcError> {
    let Value::String(text) = item else { return Ok(item) };
    let text = Zeroizing::new(text);
    jsonrpc::check(text.as_bytes())
        .map_err(|error| RpcError::new(error.code, format!("{place}: {}", error.message)))?;
    serde_json::from_str(&text).map_err(|_| RpcError::new(RpcError::PARSE, format!("{place} is not JSON")))
}

/// The place that a record names.
fn source(record: Option<&Map<String, Value>>) -> Option<String> {
    record?.get("source")?.as_str().map(str::to_owned)
}

/// Overwrites the texts of a secret record that is not needed any more.
fn wipe(record: &mut Map<String, Value>) {
    for value in record.values_mut() {
        if let Value::String(text) = value {
            text.zeroize();
        }
    }
}

fn distinct<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), RpcError> {
    let mut seen = HashSet::new();
    let mut twice = Faults::default();
    for (at, key) in keys.enumerate() {
        if !seen.insert(key) {
            twice.add(format!("[{at}]"), format!("has the key {key:?}, as one before it"));
        }
    }
    twice.or(()).map_err(faults)
}
