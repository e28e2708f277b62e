//! `storage.list`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::{
    Faults, Network,
    model::Model,
    storage::{Data, ListParams, MAX_ANSWER, MAX_PAGE},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    Storage,
    answer::{AROUND, Row, page, records},
    built_in, listed,
    refuse::{faults, faulty, internal, refused, too_large},
    secret::{check_secret, room},
};
use crate::handler::{Query, Rows, Stored};

/// Room for what is in an answer beside the stored records: brackets, the cursor, the default network.
const BESIDE: usize = 1024;

pub(super) async fn list(storage: Arc<Storage>, params: ListParams, _: Context) -> Result<Data, RpcError> {
    let model = listed(&params.model_type_name)?;
    check_secret(model, params.seal_to.as_ref())?;
    let paged = params.limit.is_some() || params.after.is_some();
    let most = match params.limit {
        Some(0) => return Err(faulty("limit", format!("is 0: it takes 1 to {MAX_PAGE}"))),
        Some(limit) => limit.min(MAX_PAGE) as usize,
        None if paged => MAX_PAGE as usize,
        None => usize::MAX,
    };
    let view = View::new(model, params.filter, params.fields)?;
    let mut query = Query {
        prefix: params.prefix.unwrap_or_default(),
        after: params.after,
        most: if view.is_all() { most } else { MAX_PAGE as usize },
        bytes: params.seal_to.as_ref().map_or(MAX_ANSWER, |_| room()) - BESIDE,
    };
    let mut answer = Rows { rows: Vec::new(), more: true, latest: 0, unreadable: Vec::new() };
    let (mut size, mut next) = (0, None);
    'all: while answer.more {
        let found = everywhere(&storage, model, &query).await?;
        let Rows { rows, more, latest, .. } = with_built_in(model, found, &query);
        if answer.latest == 0 {
            answer.latest = latest;
        }
        answer.more = more;
        if rows.is_empty() {
            answer.more = false;
        }
        query.after = rows.last().map(|(key, _)| key.clone()).or(query.after);
        for (key, stored) in rows {
            let Some(stored) = view.of(stored)? else { continue };
            size += stored.json.len() + AROUND;
            if answer.rows.len() >= most || (size > query.bytes && !answer.rows.is_empty()) {
                answer.more = true;
                break 'all;
            }
            next = Some(key.clone());
            answer.rows.push((key, stored));
        }
        next = query.after.clone();
        if view.is_all() {
            break;
        }
    }
    let rows = answer.rows.iter();
    let rows: Vec<Row<'_>> =
        rows.map(|(_, stored)| Row { json: &stored.json, revision: stored.revision }).collect();
    let answer = if paged {
        let next = next.as_deref().filter(|_| answer.more);
        page(&rows, params.with_revision, next, answer.latest)?
    } else if answer.more {
        return Err(too_large("page with limit and after"));
    } else {
        records(&rows, true, params.with_revision)?
    };
    storage.secretly(model, params.seal_to, answer)
}

/// The records of all places that have any, sorted by key.
async fn everywhere(storage: &Storage, model: &'static Model, query: &Query) -> Result<Rows, RpcError> {
    let mut all: Option<Rows> = None;
    for place in storage.places(model)? {
        let found = place.handler.list(model, query.clone()).await.map_err(|error| refused(model, error))?;
        all = Some(match all {
            None => found,
            Some(all) => merged(all, found, query.most),
        });
    }
    all.ok_or_else(|| internal("a model has no place"))
}

/// Both together, as far as they go. The revision is that of the first.
fn merged(mut one: Rows, other: Rows, most: usize) -> Rows {
    // Behind the last of a part that has more there may be some that are not here.
    let end = |rows: &Rows| rows.rows.last().filter(|_| rows.more).map(|(key, _)| key.clone());
    let end = [end(&one), end(&other)].into_iter().flatten().min();
    one.more |= other.more;
    one.rows.extend(other.rows);
    one.rows.sort_by(|one, other| one.0.cmp(&other.0));
    if let Some(end) = end {
        one.rows.retain(|(key, _)| *key <= end);
    }
    one.more |= one.rows.len() > most;
    one.rows.truncate(most);
    one
}

/// What is wanted of the records of a model.
struct View {
    filter: Option<Map<String, Value>>,
    fields: Option<Vec<String>>,
    /// Text that the filter wants, as it is written where nothing is escaped.
    wanted: Option<String>,
}

impl View {
    fn new(
        model: &Model,
        filter: Option<Map<String, Value>>,
        fields: Option<Vec<String>>,
    ) -> Result<Self, RpcError> {
        let mut wrong = Faults::default();
        let names = filter.iter().flat_map(|filter| filter.keys().map(|name| ("filter", name)));
        for (member, name) in names.chain(fields.iter().flatten().map(|name| ("fields", name))) {
            if model.field(name).is_none() {
                let shown: String = name.chars().take(64).collect();
                let near = model.nearest_field(name);
                let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
                wrong.add(member, format!("{shown:?} is not a field of {}{near}", model.name));
            }
        }
        let plain = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let texts = filter.iter().flatten().filter_map(|(_, value)| value.as_str().filter(plain));
        let wanted = texts.max_by_key(|text| text.len());
        let wanted = wanted.map(|text| format!("\"{text}\""));
        wrong.or(Self { filter, fields, wanted }).map_err(faults)
    }

    fn is_all(&self) -> bool {
        self.filter.is_none() && self.fields.is_none()
    }

    /// What is to be seen of `stored`, if anything.
    fn of(&self, stored: Stored) -> Result<Option<Stored>, RpcError> {
        if self.is_all() {
            return Ok(Some(stored));
        }
        // Most that are not meant are known without being read, which is the greater part of what a look costs.
        let json = stored.json.as_slice();
        if let Some(wanted) = &self.wanted
            && memchr::memchr(b'\\', json).is_none()
            && memchr::memmem::find(json, wanted.as_bytes()).is_none()
        {
            return Ok(None);
        }
        let damaged = |_| internal("a stored record is not JSON");
        let mut record: Map<String, Value> = serde_json::from_slice(&stored.json).map_err(damaged)?;
        if self.filter.iter().flatten().any(|(name, value)| record.get(name) != Some(value)) {
            return Ok(None);
        }
        let Some(fields) = &self.fields else { return Ok(Some(stored)) };
        record.retain(|name, _| fields.contains(name));
        let json = Zeroizing::new(serde_json::to_vec(&record).map_err(damaged)?);
        Ok(Some(Stored { json, ..stored }))
    }
}

/// The rows with the record that is there although it is not stored, in its place.
fn with_built_in(model: &Model, mut rows: Rows, query: &Query) -> Rows {
    let key = Network::DEFAULT;
    let Some(record) = built_in(model, key).filter(|_| key.starts_with(&query.prefix)) else { return rows };
    let at = match rows.rows.binary_search_by(|(known, _)| known.as_str().cmp(key)) {
        Ok(_) => return rows,
        Err(at) => at,
    };
    let before = query.after.as_deref().is_some_and(|after| key <= after);
    let behind = rows.more && at == rows.rows.len();
    if before || behind {
        return rows;
    }
    let json = Zeroizing::new(Value::Object(record).to_string().into_bytes());
    rows.rows.insert(at, (key.to_owned(), Stored { revision: 0, json }));
    if rows.rows.len() > query.most {
        rows.rows.pop();
        rows.more = true;
    }
    rows
}
