//! `storage.list`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::{
    Network,
    model::Model,
    storage::{Data, ListParams, MAX_ANSWER, MAX_PAGE},
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Storage,
    answer::{Row, page, records},
    built_in, listed, off_thread,
    refuse::{faulty, refused, too_large},
};
use crate::store::{Rows, Stored};

/// Room for what is in an answer beside the stored records: brackets, the cursor, the default network.
const BESIDE: usize = 1024;

pub(super) async fn list(storage: Arc<Storage>, params: ListParams, _: Context) -> Result<Data, RpcError> {
    let model = listed(&params.model_type_name)?;
    let paged = params.limit.is_some() || params.after.is_some();
    let most = match params.limit {
        Some(0) => return Err(faulty("limit", format!("is 0: it takes 1 to {MAX_PAGE}"))),
        Some(limit) => limit.min(MAX_PAGE) as usize,
        None if paged => MAX_PAGE as usize,
        None => usize::MAX,
    };
    let store = storage.store.clone();
    off_thread(move || {
        let after = params.after.as_deref();
        let rows =
            store.list(model, after, most, MAX_ANSWER - BESIDE).map_err(|error| refused(model, error))?;
        let Rows { rows, more, latest } = with_built_in(model, rows, after, most);
        let answer: Vec<Row<'_>> =
            rows.iter().map(|(_, stored)| Row { json: &stored.json, revision: stored.revision }).collect();
        if paged {
            let next = if more { rows.last().map(|(key, _)| key.as_str()) } else { None };
            page(&answer, params.with_revision, next, latest)
        } else if more {
            Err(too_large("page with limit and after"))
        } else {
            records(&answer, true, params.with_revision)
        }
    })
    .await?
}

/// The rows with the record that is there although it is not stored, in its place.
fn with_built_in(model: &Model, mut rows: Rows, after: Option<&str>, most: usize) -> Rows {
    let key = Network::DEFAULT;
    let Some(record) = built_in(model, key) else { return rows };
    let at = match rows.rows.binary_search_by(|(known, _)| known.as_str().cmp(key)) {
        Ok(_) => return rows,
        Err(at) => at,
    };
    let before = after.is_some_and(|after| key <= after);
    let behind = rows.more && at == rows.rows.len();
    if before || behind {
        return rows;
    }
    let json = Zeroizing::new(Value::Object(record).to_string().into_bytes());
    rows.rows.insert(at, (key.to_owned(), Stored { revision: 0, json }));
    if rows.rows.len() > most {
        rows.rows.pop();
        rows.more = true;
    }
    rows
}
