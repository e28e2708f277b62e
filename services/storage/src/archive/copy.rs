//! Putting records into places, from an archive or from other places. What is there just so already is left as it is,
//! so that what was interrupted goes on where it was when it is begun again.

use std::collections::BTreeSet;

use commissaire::{Error, Result};
use commissaire_api::{MODELS, model::Model};
use serde_json::Value;

use super::{
    Progress, Records, failed,
    walk::{Item, Walk},
};
use crate::{
    handler::{Author, Content, Transaction, Write, is_same},
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
    pub left: BTreeSet<(String, String)>,
}

/// Puts `records` into `routes`. What is there otherwise is left, unless it is to be replaced.
pub async fn import(
    records: Records,
    routes: &Routes,
    replace: bool,
    progress: &mut Progress<'_>,
) -> Result<Copied> {
    let mut filling = Filling::new(routes, replace);
    let mut items = Vec::new();
    let mut bytes = 0;
    for ((number, key), json) in records {
        let Some(model) = MODELS.get(number) else { continue };
        bytes += json.len();
        items.push(Item { model, key, json: Some(json) });
        if items.len() >= TOGETHER || bytes >= BYTES {
            filling.put(std::mem::take(&mut items)).await?;
            bytes = 0;
            progress(filling.copied.written + filling.copied.same);
        }
    }
    filling.put(items).await?;
    progress(filling.copied.written + filling.copied.same);
    Ok(filling.copied)
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
    let mut filling = Filling::new(to, replace);
    for mut walk in Walk::all(from, secrets) {
        while let Some(items) = walk.next().await? {
            let mut rest = items.into_iter().peekable();
            while rest.peek().is_some() {
                filling.put(rest.by_ref().take(TOGETHER).collect()).await?;
            }
            progress(filling.copied.written + filling.copied.same);
        }
    }
    Ok(filling.copied)
}

/// The places that are filled.
struct Filling<'a> {
    routes: &'a Routes,
    replace: bool,
    /// What is there as it was when it was copied: that is replaced when it has changed since.
    ours: BTreeSet<(&'static str, String)>,
    copied: Copied,
}

impl<'a> Filling<'a> {
    fn new(routes: &'a Routes, replace: bool) -> Self {
        Self { routes, replace, ours: BTreeSet::new(), copied: Copied::default() }
    }

    /// Writes `items`, those of one place and model together.
    async fn put(&mut self, items: Vec<Item>) -> Result<()> {
        let mut rest = items;
        while let Some(first) = rest.first() {
            let (model, place) = (first.model, place(self.routes, first)?);
            let mut together = Vec::new();
            let mut others = Vec::new();
            let (mut bytes, mut full) = (0, false);
            for item in rest {
                let size = item.json.as_ref().map_or(0, |json| json.len());
                full |= !together.is_empty() && bytes + size > BYTES;
                if !full && item.model == model && self::place(self.routes, &item)?.name == place.name {
                    bytes += size;
                    together.push(item);
                } else {
                    others.push(item);
                }
            }
            self.put_together(together, model, place).await?;
            rest = others;
        }
        Ok(())
    }

    async fn put_together(&mut self, items: Vec<Item>, model: &'static Model, place: &Place) -> Result<()> {
        let keys: Vec<String> = items.iter().map(|item| item.key.clone()).collect();
        let found = place.handler.get(model, &keys).await.map_err(|e| failed(&place.name, &e))?;
        let mut writes = Vec::new();
        let (mut written, mut deleted) = (0, 0);
        for (Item { key, json, .. }, found) in items.into_iter().zip(found) {
            let known = (model.name, key.clone());
            let may = self.replace || self.ours.contains(&known);
            let (content, expected) = match (json, found) {
                (None, None) => continue,
                (Some(json), Some(there)) if is_same(&json, &there.json) => {
                    self.copied.same += 1;
                    self.ours.insert(known);
                    continue;
                }
                (_, Some(_)) if !may => {
                    self.copied.left.insert((model.name.to_owned(), key));
                    continue;
                }
                (None, Some(there)) => {
                    deleted += 1;
                    (Content::Nothing, there.revision)
                }
                (Some(json), there) => {
                    written += 1;
                    (Content::Record(json), there.map_or(0, |there| there.revision))
                }
            };
            self.ours.insert(known);
            writes.push(Write { model, key, expected: Some(expected), content });
        }
        if writes.is_empty() {
            return Ok(());
        }
        let author = Author { operation: Some("import".to_owned()), ..Author::default() };
        let transaction = Transaction { author, ..Transaction::of(writes) };
        place.handler.commit(transaction).await.map_err(|error| {
            let why = failed(&place.name, &error);
            Error::unavailable(format!("{why}; begin again, what is there already is left as it is"))
        })?;
        self.copied.written += written;
        self.copied.deleted += deleted;
        Ok(())
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
