//! Putting records into places, from an archive or from other places. What is there just so already is left as it is,
//! so that what was interrupted goes on where it was when it is begun again.

use commissaire::{Error, Result};
use commissaire_api::{MODELS, model::Model};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Progress, Records, failed,
    walk::{Item, Walk},
};
use crate::{
    handler::{Author, Content, StoreError, Transaction, Write},
    routes::{Place, Routes},
};

/// How many records are written together, and of how many bytes.
const TOGETHER: usize = 100;
const BYTES: usize = 512 << 10;

/// What became of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many were written.
    pub written: u64,
    /// How many were there just so.
    pub same: u64,
    /// How many were deleted, because they are gone where they came from.
    pub deleted: u64,
    /// Those that are there otherwise, and were left: model and key.
    pub left: Vec<(String, String)>,
}

/// Puts `records` into `routes`. What is there otherwise is left, unless it is to be replaced.
pub async fn import(
    records: Records,
    routes: &Routes,
    replace: bool,
    progress: &mut Progress<'_>,
) -> Result<Copied> {
    let mut copied = Copied::default();
    let mut items = Vec::new();
    let mut bytes = 0;
    for ((number, key), json) in records {
        let Some(model) = MODELS.get(number) else { continue };
        bytes += json.len();
        items.push(Item { model, key, json: Some(json) });
        if items.len() >= TOGETHER || bytes >= BYTES {
            put(std::mem::take(&mut items), routes, replace, &mut copied).await?;
            bytes = 0;
            progress(copied.written + copied.same);
        }
    }
    put(items, routes, replace, &mut copied).await?;
    progress(copied.written + copied.same);
    Ok(copied)
}

/// Puts all that is in `from` into `to`, with secrets or without, and what changes there meanwhile.
pub async fn copy(
    from: &Routes,
    to: &Routes,
    secrets: bool,
    replace: bool,
    progress: &mut Progress<'_>,
) -> Result<Copied> {
    if from.id() == to.id() {
        return Err(Error::config("these are the same places: nothing is to be copied"));
    }
    let mut copied = Copied::default();
    for mut walk in Walk::all(from, secrets) {
        // What has changed since it was copied replaces what was copied.
        let mut again = std::collections::BTreeSet::new();
        while let Some(items) = walk.next().await? {
            let mut rest = items.into_iter().peekable();
            while rest.peek().is_some() {
                let some: Vec<Item> = rest.by_ref().take(TOGETHER).collect();
                let ours = |item: &Item| again.contains(&(item.model.name, item.key.clone()));
                let replace = replace || some.iter().any(ours);
                again.extend(some.iter().map(|item| (item.model.name, item.key.clone())));
                put(some, to, replace, &mut copied).await?;
            }
            progress(copied.written + copied.same);
        }
    }
    Ok(copied)
}

/// Writes `items`, those of one place and model together.
async fn put(items: Vec<Item>, routes: &Routes, replace: bool, copied: &mut Copied) -> Result<()> {
    let mut rest = items;
    while let Some(first) = rest.first() {
        let (model, name) = (first.model, place(routes, first)?.name.clone());
        let mut together = Vec::new();
        let mut others = Vec::new();
        let (mut bytes, mut full) = (0, false);
        for item in rest {
            let size = item.json.as_ref().map_or(0, |json| json.len());
            full |= !together.is_empty() && bytes + size > BYTES;
            if !full && item.model == model && place(routes, &item)?.name == name {
                bytes += size;
                together.push(item);
            } else {
                others.push(item);
            }
        }
        let place = routes.all().iter().find(|place| place.name == name);
        if let Some(place) = place {
            put_together(together, model, place, replace, copied).await?;
        }
        rest = others;
    }
    Ok(())
}

async fn put_together(
    items: Vec<Item>,
    model: &'static Model,
    place: &Place,
    replace: bool,
    copied: &mut Copied,
) -> Result<()> {
    let keys: Vec<String> = items.iter().map(|item| item.key.clone()).collect();
    let found = match place.handler.get(model, &keys).await {
        // It is overwritten where that is wanted, and else left.
        Err(StoreError::Damaged { .. }) => keys.iter().map(|_| None).collect(),
        found => found.map_err(|e| failed(&place.name, &e))?,
    };
    let mut writes = Vec::new();
    let (mut written, mut deleted) = (0, 0);
    for (Item { key, json, .. }, found) in items.into_iter().zip(found) {
        let (content, expected) = match (json, found) {
            (None, None) => continue,
            (None, Some(there)) => {
                deleted += 1;
                (Content::Nothing, there.revision)
            }
            (Some(json), Some(there)) if is_same(&json, &there.json) => {
                copied.same += 1;
                continue;
            }
            (Some(_), Some(_)) if !replace => {
                copied.left.push((model.name.to_owned(), key));
                continue;
            }
            (Some(json), there) => {
                written += 1;
                (Content::Record(json), there.map_or(0, |there| there.revision))
            }
        };
        writes.push(Write { model, key, expected: Some(expected), content });
    }
    if writes.is_empty() {
        return Ok(());
    }
    let author = Author { operation: Some("import".to_owned()), ..Author::default() };
    let transaction = Transaction { author, ..Transaction::of(writes) };
    match place.handler.commit(transaction).await {
        Ok(_) => {
            copied.written += written;
            copied.deleted += deleted;
            Ok(())
        }
        Err(error) => {
            let why = failed(&place.name, &error);
            Err(Error::unavailable(format!("{why}; begin again, what is there already is left as it is")))
        }
    }
}

/// The place of `item`: where its source says, if it has one, else that of its model.
fn place<'a>(routes: &'a Routes, item: &Item) -> Result<&'a Place> {
    let source = || -> Option<String> {
        item.model.field("source")?;
        let record: Value = serde_json::from_slice(item.json.as_ref()?).ok()?;
        record["source"].as_str().filter(|source| !source.is_empty()).map(str::to_owned)
    };
    let (model, key) = (item.model.name, &item.key);
    match source() {
        Some(source) => routes.named(&source).ok_or_else(|| {
            Error::config(format!("{model} {key:?} is of {source:?}, and no storage handler has that name"))
        }),
        None => routes
            .of(item.model)
            .ok_or_else(|| Error::config(format!("no storage handler keeps {model}: see storage_handlers"))),
    }
}

/// Whether both are the same record.
pub(super) fn is_same(one: &Zeroizing<Vec<u8>>, other: &Zeroizing<Vec<u8>>) -> bool {
    let read = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
    one == other || read(one).is_some_and(|one| Some(one) == read(other))
}
