//! Saving and deleting: one transaction of etcd.

use commissaire_api::model::Model;
use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use serde::{Deserialize, Serialize};

use super::{Etcd, gets, keys, revision, signed, unsigned};
use crate::handler::{Author, Content, StoreError, Transaction, Write};

/// The most records of one transaction: etcd takes 128 operations unless it is told otherwise, and one is the note.
const MOST: usize = 127;

/// Who wanted a change, and when.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    pub(super) at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<String>,
}

impl Etcd {
    pub(super) async fn commit(&self, transaction: &Transaction) -> Result<Vec<u64>, StoreError> {
        let Transaction { writes, fence, quiet_if_unchanged, author } = transaction;
        if writes.len() > MOST {
            return Err(StoreError::Unfit(format!(
                "etcd takes at most {MOST} records at once, these are {}",
                writes.len()
            )));
        }
        // Of a lease that nobody holds etcd says that it is of revision 0.
        if let Some(fence) = fence.as_ref().filter(|fence| fence.token == 0) {
            return Err(StoreError::Fenced { name: fence.name.clone() });
        }
        loop {
            let same = if *quiet_if_unchanged { self.same(writes).await? } else { vec![None; writes.len()] };
            let mut compares = Vec::new();
            let mut operations = Vec::new();
            if let Some(fence) = fence {
                let token = signed(fence.token);
                compares.push(Compare::mod_revision(keys::lease(&fence.name), CompareOp::Equal, token));
            }
            for (write, same) in writes.iter().zip(&same) {
                let path = keys::path(write.model, &write.key);
                if let Some(revision) = write.expected.or(*same) {
                    compares.push(Compare::mod_revision(path.clone(), CompareOp::Equal, signed(revision)));
                } else if matches!(write.content, Content::Nothing) {
                    compares.push(Compare::version(path.clone(), CompareOp::Greater, 0));
                }
                match &write.content {
                    _ if same.is_some() => {}
                    Content::Record(json) => {
                        operations.push(TxnOp::put(path, self.sealed(write.model, &write.key, json)?, None));
                    }
                    Content::Nothing => operations.push(TxnOp::delete(path, None)),
                }
            }
            if !operations.is_empty() {
                operations.push(TxnOp::put(keys::NOTE, note(author), None));
            }
            let lease = fence.iter().map(|fence| keys::lease(&fence.name));
            let paths = lease.chain(writes.iter().map(|write| keys::path(write.model, &write.key)));
            let keys_only = || Some(GetOptions::new().with_keys_only());
            let looks: Vec<TxnOp> = paths.map(|path| TxnOp::get(path, keys_only())).collect();
            let txn = Txn::new().when(compares).and_then(operations).or_else(looks);
            let answer = self.link.write(|mut client| async move { client.txn(txn).await }).await?;
            if answer.succeeded() {
                let revision = revision(answer.header());
                return Ok(same.into_iter().map(|same| same.unwrap_or(revision)).collect());
            }
            let found = gets(answer.op_responses());
            let found =
                found.iter().map(|pair| pair.as_ref().map_or(0, |pair| unsigned(pair.mod_revision())));
            refusal(transaction, &found.collect::<Vec<_>>())?;
            // What was read to compare with has changed meanwhile.
        }
    }

    /// The revision of each record that is stored just so already.
    async fn same(&self, writes: &[Write]) -> Result<Vec<Option<u64>>, StoreError> {
        let mut same = Vec::with_capacity(writes.len());
        for write in writes {
            let Content::Record(json) = &write.content else {
                same.push(None);
                continue;
            };
            let found = self.get(write.model, std::slice::from_ref(&write.key)).await;
            let stored = match found {
                Ok(mut found) => found.pop().flatten(),
                // It is about to be overwritten.
                Err(StoreError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            let stored = stored.filter(|stored| *stored.json == **json);
            let expected = write.expected;
            same.push(
                stored
                    .map(|stored| stored.revision)
                    .filter(|found| expected.is_none_or(|expected| expected == *found)),
            );
        }
        Ok(same)
    }

    fn sealed(&self, model: &Model, key: &str, json: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.sealer.to_keep(model, key, json).ok_or_else(StoreError::no_random_numbers)
    }
}

/// Why `transaction` was not done, when the lease and then each record has these revisions. `Ok`: it may be tried again.
fn refusal(transaction: &Transaction, found: &[u64]) -> Result<(), StoreError> {
    let mut found = found.iter().copied();
    if let Some(fence) = &transaction.fence
        && found.next() != Some(fence.token)
    {
        return Err(StoreError::Fenced { name: fence.name.clone() });
    }
    let mut missing = Vec::new();
    let mut conflict = None;
    for (write, revision) in transaction.writes.iter().zip(found) {
        let key = || write.key.clone();
        match write.expected {
            _ if revision == 0 && matches!(write.content, Content::Nothing) => missing.push(key()),
            Some(expected) if expected != revision => {
                conflict = conflict.or_else(|| Some(StoreError::Conflict { key: key(), revision }));
            }
            _ => {}
        }
    }
    if !missing.is_empty() {
        return Err(StoreError::Missing(missing));
    }
    conflict.map_or(Ok(()), Err)
}

fn note(author: &Author) -> Vec<u8> {
    let Author { actor, verified, operation } = author.clone();
    let note = Note { at: commissaire::time::timestamp(), actor, verified, operation };
    serde_json::to_vec(&note).unwrap_or_default()
}
