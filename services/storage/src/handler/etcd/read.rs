//! Reading records by key and by model.

use commissaire_api::model::Model;
use etcd_client::{GetOptions, Txn, TxnOp};

use super::{Etcd, gets, keys, revision, signed, unsigned};
use crate::handler::{Query, Rows, StoreError, Stored, found::Room};

/// How many records are asked for at once by their keys.
const AT_ONCE: usize = 100;
/// How many records of a model are asked for at first, until their size is known, and at most.
const FIRST: usize = 64;
const MOST: usize = 5_000;
/// How many bytes of records are asked for at once, about.
const CHUNK: usize = 4 << 20;

impl Etcd {
    pub(super) async fn get(
        &self,
        model: &Model,
        keys: &[String],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        let mut all = Vec::with_capacity(keys.len());
        for some in keys.chunks(AT_ONCE) {
            let looks: Vec<TxnOp> = some.iter().map(|key| TxnOp::get(keys::path(model, key), None)).collect();
            let answer =
                self.link.read(|client| {
                    let txn = Txn::new().and_then(looks.clone());
                    async move {
                        client.kv_client().max_decoding_message_size(super::link::LARGEST).txn(txn).await
                    }
                });
            let found = gets(answer.await?.op_responses());
            for (key, pair) in some.iter().zip(found) {
                all.push(match pair {
                    None => None,
                    Some(pair) => Some(Stored {
                        revision: unsigned(pair.mod_revision()),
                        json: self.opened(model, key, pair.value())?,
                    }),
                });
            }
        }
        Ok(all)
    }

    pub(super) async fn list(&self, model: &Model, query: &Query) -> Result<Rows, StoreError> {
        let (before, behind) = keys::around(model);
        let end = successor(format!("{before}{}", query.prefix).into_bytes());
        // With something behind the key etcd's order is not that of the keys; there are few of those.
        let sorted = behind.is_empty();
        let mut first = match query.after.as_deref() {
            Some(after) if sorted && after >= query.prefix.as_str() => format!("{before}{after}\0"),
            _ => format!("{before}{}", query.prefix),
        }
        .into_bytes();
        let mut rows: Vec<(String, Stored)> = Vec::new();
        let mut unreadable = Vec::new();
        let (mut at, mut count, mut more, mut largest) = (0, FIRST, true, 1);
        let mut room = Room::new(query.most, query.bytes);
        'all: while more {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(i64::try_from(count).unwrap_or(i64::MAX))
                .with_revision(signed(at));
            let answer = self.link.read(|client| {
                let (first, options) = (first.clone(), options.clone());
                async move {
                    let kv = client.kv_client();
                    kv.max_decoding_message_size(super::link::LARGEST).get(first, Some(options)).await
                }
            });
            let mut answer = answer.await?;
            // All that follows as it was then.
            at = if at == 0 { revision(answer.header()) } else { at };
            more = answer.more();
            for pair in answer.take_kvs() {
                first = [pair.key(), b"\0"].concat();
                largest = largest.max(pair.value().len());
                let Some(key) = keys::key(model, pair.key()) else { continue };
                match self.opened(model, key, pair.value()) {
                    Ok(_) if sorted && !room.take(pair.value().len()) => {
                        more = true;
                        break 'all;
                    }
                    Ok(json) => {
                        rows.push((key.to_owned(), Stored { revision: unsigned(pair.mod_revision()), json }));
                    }
                    Err(error) => {
                        tracing::warn!(model = model.name, %error, "left out of a list");
                        unreadable.push((key.to_owned(), error));
                    }
                }
            }
            count = (CHUNK / largest).clamp(1, MOST);
        }
        if !sorted {
            rows.sort_by(|one, other| one.0.cmp(&other.0));
            rows.retain(|(key, _)| query.after.as_ref().is_none_or(|after| key > after));
            let fit = rows.iter().take_while(|(_, stored)| room.take(stored.json.len())).count();
            more = fit < rows.len();
            rows.truncate(fit);
        }
        Ok(Rows { rows, more, latest: at, unreadable })
    }
}

/// The first of all keys behind those that begin with `prefix`.
pub(super) fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            return prefix;
        }
    }
    vec![0]
}
