//! Saving and deleting: checks first, then every write of the transaction with its change and its announcement.

use std::collections::HashSet;

use commissaire_api::{
    event::Verb,
    model::{Kept, Model},
    storage::Change,
};
use redb::{ReadableTable, StorageError};

use super::{
    Store, StoreError,
    pass::{Failure, Pass, Records},
    tables::KEY,
};
use crate::handler::{Author, Content, Transaction, Write, transaction::shown};

impl Store {
    /// See [`Handler::commit`](crate::handler::Handler::commit).
    pub async fn commit(&self, transaction: Transaction) -> Result<Vec<u64>, StoreError> {
        self.write(move |pass| pass.apply(&transaction)).await
    }

    /// Takes from the outbox what was announced, by revision.
    pub async fn sent(&self, revisions: Vec<u64>) -> Result<(), StoreError> {
        self.write(move |pass| {
            for revision in &revisions {
                pass.dirty |= pass.outbox.remove(revision)?.is_some();
            }
            Ok(())
        })
        .await
    }

    /// Keeps this as the wrapped key that secrets are sealed with.
    pub(super) async fn keep_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError> {
        self.write(move |pass| {
            pass.sealed.insert(KEY, (0, wrapped.as_slice()))?;
            pass.dirty = true;
            Ok(())
        })
        .await
    }
}

impl<'t> Pass<'t> {
    fn apply(&mut self, transaction: &Transaction) -> Result<Vec<u64>, Failure> {
        if let Some(fence) = &transaction.fence {
            self.check_token(&fence.name, fence.token)?;
        }
        self.check(&transaction.writes)?;
        let Transaction { writes, quiet_if_unchanged, author, .. } = transaction;
        writes.iter().map(|write| self.put(write, *quiet_if_unchanged, author)).collect()
    }

    fn check(&mut self, writes: &[Write]) -> Result<(), Failure> {
        let mut missing = Vec::new();
        let mut conflict = None;
        let mut seen = HashSet::new();
        for write in writes {
            let (model, key) = (write.model, write.key.as_str());
            let current = self.table(model).get((model.name, key))?.map(|row| row.value().0);
            let twice = !seen.insert((model.name, key));
            match (current, &write.content, write.expected) {
                (None, Content::Nothing, _) => missing.push(key.to_owned()),
                (current, _, Some(expected)) if twice || expected != current.unwrap_or(0) => {
                    conflict = conflict.or(Some((key.to_owned(), current.unwrap_or(0))));
                }
                (_, Content::Nothing, _) if twice => missing.push(key.to_owned()),
                _ => {}
            }
        }
        if !missing.is_empty() {
            return Err(Failure::Refused(StoreError::Missing(missing)));
        }
        match conflict {
            Some((key, revision)) => Err(Failure::Refused(StoreError::Conflict { key, revision })),
            None => Ok(()),
        }
    }

    /// Writes one record, its change and, unless it is secret, its place in the outbox. Its revision.
    fn put(&mut self, write: &Write, quiet: bool, author: &Author) -> Result<u64, Failure> {
        let (model, key) = (write.model, write.key.as_str());
        let place = (model.name, key);
        let before = self.table(model).get(place)?.map(|row| {
            let (revision, stored) = row.value();
            (revision, stored.to_vec())
        });
        let revision = self.memory.numbers.revision + 1;
        let damaged = |_| corrupt(model.name);
        let (event, shown) = match (&write.content, before) {
            (Content::Record(json), before) => {
                if quiet
                    && let Some((revision, stored)) = &before
                    && self.is_same(model, key, stored, json)
                {
                    return Ok(*revision);
                }
                let stored = self.stored(model, key, json)?;
                self.table(model).insert(place, (revision, stored.as_slice()))?;
                let event = if before.is_some() { Verb::Updated } else { Verb::Created };
                (event, shown(model, json).map_err(damaged)?)
            }
            (Content::Nothing, before) => {
                self.table(model).remove(place)?;
                let (_, stored) = before.unwrap_or_default();
                (Verb::Deleted, shown(model, &stored).map_err(damaged)?)
            }
        };
        if shown.is_some() {
            self.outbox.insert(revision, ())?;
            self.announce = true;
        }
        let change = Change {
            revision,
            model_type_name: model.name.to_owned(),
            key: key.to_owned(),
            event,
            record: shown,
            at: commissaire::time::timestamp(),
            actor: author.actor.clone(),
            verified: author.verified,
            operation: author.operation.clone(),
        };
        let change = serde_json::to_vec(&change).map_err(|_| corrupt("a change"))?;
        self.changes.insert(revision, change.as_slice())?;
        self.memory.numbers.revision = revision;
        self.dirty = true;
        Ok(revision)
    }

    fn table(&mut self, model: &Model) -> &mut Records<'t> {
        match model.kept {
            Kept::Sealed => &mut self.sealed,
            Kept::Plain | Kept::Nowhere => &mut self.records,
        }
    }

    /// `json` as it is kept.
    fn stored(&self, model: &Model, key: &str, json: &[u8]) -> Result<Vec<u8>, Failure> {
        let kept = self.shared.sealer.to_keep(model, key, json);
        kept.ok_or_else(|| Failure::Refused(StoreError::no_random_numbers()))
    }

    fn is_same(&self, model: &Model, key: &str, stored: &[u8], json: &[u8]) -> bool {
        let opened = self.shared.sealer.of_kept(model, key, stored.to_vec());
        opened.is_some_and(|opened| opened.as_slice() == json)
    }
}

fn corrupt(what: &str) -> StorageError {
    StorageError::Corrupted(format!("a stored {what} is not JSON"))
}
