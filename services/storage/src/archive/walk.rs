//! All records of one place, and then what has changed meanwhile, until nothing does.

use std::{collections::BTreeSet, sync::Arc};

use commissaire::{Error, Result};
use commissaire_api::model::{Kept, Model};
use zeroize::Zeroizing;

use super::failed;
use crate::{
    handler::{Handler, Query, StoreError},
    routes::{Place, Routes},
};

/// How much is read at once.
const PAGE: usize = 1_000;
const BYTES: usize = 4 << 20;
/// How often what changes is followed before it is given up.
const ROUNDS: usize = 1_000;

/// A record as it is, or that it is gone.
pub(super) struct Item {
    pub(super) model: &'static Model,
    pub(super) key: String,
    pub(super) json: Option<Zeroizing<Vec<u8>>>,
}

/// A way through one place.
pub(super) struct Walk {
    place: String,
    handler: Arc<dyn Handler>,
    models: Vec<&'static Model>,
    /// Which model is next, and after which key.
    at: usize,
    after: Option<String>,
    /// The revision up to which all changes are known; `None` where nobody tells of them.
    since: Option<u64>,
    begun: bool,
    rounds: usize,
    /// Whether records come with the secrets in them.
    secrets: bool,
    /// What cannot be read: model, key, and why.
    unreadable: Vec<(&'static Model, String, StoreError)>,
}

impl Walk {
    /// Ways through all places, with that of secrets or without.
    pub(super) fn all(routes: &Routes, secrets: bool) -> Vec<Self> {
        let wanted = routes.all().iter().filter(|place| secrets || !place.is_secret());
        wanted.map(|place| Self::of(routes, place, secrets)).collect()
    }

    fn of(routes: &Routes, place: &Place, secrets: bool) -> Self {
        Self {
            place: place.name.clone(),
            handler: place.handler.clone(),
            models: routes.models_in(place),
            at: 0,
            after: None,
            since: None,
            begun: false,
            rounds: 0,
            secrets,
            unreadable: Vec::new(),
        }
    }

    /// The place's name.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// What cannot be read, so far.
    pub(super) fn unreadable(&mut self) -> Vec<(&'static Model, String, StoreError)> {
        std::mem::take(&mut self.unreadable)
    }

    /// Some more; `None`: that was all, and nothing has changed since. An error at the end where something could not be
    /// read and nobody has asked for it.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Item>>> {
        let more = self.more().await?;
        match (&more, self.unreadable.first()) {
            (None, Some((model, key, why))) => Err(Error::malformed(format!(
                "storage handler {:?}: {} {key:?}: {why} (`commissaire storage verify` tells of all {}): mend or delete it",
                self.place,
                model.name,
                self.unreadable.len()
            ))),
            _ => Ok(more),
        }
    }

    async fn more(&mut self) -> Result<Option<Vec<Item>>> {
        match self.models.get(self.at) {
            Some(model) => self.page(model).await.map(Some),
            None => self.changed().await,
        }
    }

    async fn page(&mut self, model: &'static Model) -> Result<Vec<Item>> {
        let query = Query { prefix: String::new(), after: self.after.take(), most: PAGE, bytes: BYTES };
        let found = self.handler.list(model, query).await.map_err(|e| failed(&self.place, &e))?;
        if !self.begun {
            self.begun = true;
            self.since = (found.latest > 0).then_some(found.latest);
        }
        let unreadable = found.unreadable.into_iter().map(|(key, why)| (model, key, why));
        self.unreadable.extend(unreadable);
        match found.rows.last() {
            Some((key, _)) if found.more => self.after = Some(key.clone()),
            _ => self.at += 1,
        }
        let rows = found.rows.into_iter();
        Ok(rows.map(|(key, stored)| Item { model, key, json: Some(self.told(model, stored.json)) }).collect())
    }

    /// A record, without the secrets in it unless they are wanted.
    fn told(&self, model: &Model, json: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
        if self.secrets { json } else { without_secrets(model, &json).unwrap_or(json) }
    }

    async fn changed(&mut self) -> Result<Option<Vec<Item>>> {
        let Some(since) = self.since else { return Ok(None) };
        let told = match self.handler.changes(since, PAGE, BYTES).await {
            // A keeper of secrets knows of none.
            Err(StoreError::Unfit(_)) => return Ok(None),
            told => told.map_err(|e| failed(&self.place, &e))?,
        };
        self.since = Some(told.next);
        self.rounds += 1;
        if told.changes.is_empty() && told.next >= told.latest {
            return Ok(None);
        }
        if self.rounds > ROUNDS {
            let why = format!("storage handler {:?}: records change faster than they are read", self.place);
            return Err(Error::unavailable(why));
        }
        let mut items = Vec::new();
        for model in &self.models {
            let ours = told.changes.iter().filter(|change| change.model_type_name == model.name);
            let keys: BTreeSet<String> = ours.map(|change| change.key.clone()).collect();
            let keys: Vec<String> = keys.into_iter().collect();
            let found = self.handler.get(model, &keys).await.map_err(|e| failed(&self.place, &e))?;
            items.extend(keys.into_iter().zip(found).map(|(key, stored)| Item {
                model,
                key,
                json: stored.map(|stored| self.told(model, stored.json)),
            }));
        }
        Ok(Some(items))
    }
}

/// The record without the secrets in it; `None`: there are none.
pub(super) fn without_secrets(model: &Model, json: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if model.kept == Kept::Sealed || !model.holds_secrets() {
        return None;
    }
    let mut record = serde_json::from_slice(json).ok()?;
    model.take_secrets(&mut record).then(|| serde_json::to_vec(&record).ok())?.map(Zeroizing::new)
}

impl Routes {
    /// The models of which records may be in `place`.
    fn models_in(&self, place: &Place) -> Vec<&'static Model> {
        let mut models = place.models().to_vec();
        if place.is_secret() || self.plain().count() < 2 {
            return models;
        }
        // Hosts are where their source says.
        let scattered = commissaire_api::MODELS
            .into_iter()
            .filter(|model| model.kept == Kept::Plain && model.field("source").is_some());
        for model in scattered {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }
}
