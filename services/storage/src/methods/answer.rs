//! Answers made of stored JSON, without reading it again.

use commissaire::RpcError;
use commissaire_api::storage::{Data, MAX_ANSWER};
use serde_json::value::RawValue;

use super::refuse::{internal, too_large};

/// What `with_revision` puts around a record, at most.
pub(super) const AROUND: usize = r#"{"record":,"revision":18446744073709551615},"#.len();

/// One record of an answer.
pub(super) struct Row<'a> {
    pub(super) json: &'a [u8],
    pub(super) revision: u64,
}

/// The one record, or the list when `many`.
pub(super) fn records(rows: &[Row<'_>], many: bool, with_revision: bool) -> Result<Data, RpcError> {
    let mut text = Vec::with_capacity(size(rows.iter().map(|row| row.json)));
    if many {
        write_list(&mut text, rows, with_revision);
    } else if let Some(row) = rows.first() {
        write(&mut text, row, with_revision);
    }
    finish(text)
}

/// A page of a list.
pub(super) fn page(
    rows: &[Row<'_>],
    with_revision: bool,
    next: Option<&str>,
    latest: u64,
) -> Result<Data, RpcError> {
    let next = serde_json::to_string(&next).map_err(|_| internal("a key cannot be written as JSON"))?;
    let mut text = Vec::with_capacity(size(rows.iter().map(|row| row.json)) + next.len() + AROUND);
    text.extend(b"{\"records\":");
    write_list(&mut text, rows, with_revision);
    text.extend(format!(",\"next\":{next},\"revision\":{latest}}}").as_bytes());
    finish(text)
}

/// The most bytes that these records take in an answer.
pub(super) fn size<'a>(records: impl Iterator<Item = &'a [u8]>) -> usize {
    2 + records.map(|json| json.len() + AROUND).sum::<usize>()
}

fn write_list(text: &mut Vec<u8>, rows: &[Row<'_>], with_revision: bool) {
    text.push(b'[');
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write(text, row, with_revision);
    }
    text.push(b']');
}

fn write(text: &mut Vec<u8>, row: &Row<'_>, with_revision: bool) {
    if with_revision {
        text.extend(b"{\"record\":");
        text.extend(row.json);
        text.extend(format!(",\"revision\":{}}}", row.revision).as_bytes());
    } else {
        text.extend(row.json);
    }
}

fn finish(text: Vec<u8>) -> Result<Data, RpcError> {
    if text.len() > MAX_ANSWER {
        return Err(too_large("ask for fewer records at once"));
    }
    let damaged = "a stored record is not JSON";
    let text = String::from_utf8(text).map_err(|_| internal(damaged))?;
    RawValue::from_string(text).map(Data).map_err(|_| internal(damaged))
}
