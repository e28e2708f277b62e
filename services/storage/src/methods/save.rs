//! `storage.save`.

use std::sync::Arc;

use commissaire::{Context, RpcError};
use commissaire_api::storage::{Data, MAX_ANSWER, SaveParams};

use super::{
    Storage,
    answer::{Row, records, size},
    given::{Given, expected},
    kept,
    refuse::{refused, too_large},
};
use crate::store::{Content, Transaction, Write};

pub(super) async fn save(storage: Arc<Storage>, params: SaveParams, _: Context) -> Result<Data, RpcError> {
    let model = kept(&params.model_type_name)?;
    let given = Given::read(&params.model_json_data)?;
    let many = given.many;
    let given = given.records(model)?;
    let expected = expected(params.expected_revision, given.len())?;
    // Before anything is stored: what is stored must also be answered.
    if size(given.iter().map(|record| record.json.as_slice())) > MAX_ANSWER {
        return Err(too_large("save fewer records at once"));
    }
    let answers: Vec<_> = given.iter().map(|record| record.json.clone()).collect();
    let writes = given.into_iter().zip(expected);
    let writes = writes
        .map(|(record, expected)| Write {
            model,
            key: record.key,
            expected,
            content: Content::Record(record.json),
        })
        .collect();
    let transaction =
        Transaction { writes, fence: params.fence, quiet_if_unchanged: params.quiet_if_unchanged };
    let revisions = storage.store.commit(transaction).await.map_err(|error| refused(model, error))?;
    let rows: Vec<Row<'_>> =
        answers.iter().zip(revisions).map(|(json, revision)| Row { json, revision }).collect();
    records(&rows, many, params.with_revision)
}
