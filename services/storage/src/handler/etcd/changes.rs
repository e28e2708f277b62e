//! Changes, as etcd tells them.

use std::time::Duration;

use commissaire_api::{event::Verb, model::Kept, storage::Change};
use etcd_client::{
    Event, EventType, GetOptions, SortOrder, SortTarget, WatchOptions, WatchResponse, WatchStream,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Etcd,
    commit::Note,
    keys::{self, NOTE, ROOT},
    link::LARGEST,
    of_one, revision, signed, unsigned, whole,
};
use crate::handler::{ChangeSet, StoreError, found::Room, transaction::shown};

/// Within this etcd must tell what it has.
const TELL: Duration = Duration::from_secs(8);
/// What others have written is waited for so long.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The changes of one revision.
pub(super) struct Step {
    pub(super) revision: u64,
    pub(super) changes: Vec<Change>,
}

/// What a watch tells next.
pub(super) enum Told {
    /// Changes, by revision.
    Steps(Vec<Step>),
    /// What was to be told is not known any more: etcd begins with this revision.
    Compacted(u64),
}

impl Etcd {
    pub(super) async fn changes(
        &self,
        since: u64,
        most: usize,
        bytes: usize,
    ) -> Result<ChangeSet, StoreError> {
        let look = self.link.read(|mut client| async move { client.get(NOTE, None).await }).await?;
        let (now, noted) = (revision(look.header()), of_one(&look));
        let latest = noted.max(since);
        if since > now {
            return Err(StoreError::Compacted { oldest: now, latest: now });
        }
        let mut set = ChangeSet { changes: Vec::new(), next: since, latest, oldest: 0 };
        if since == now {
            return Ok(set);
        }
        let mut watch = self.watch(since).await?;
        let mut room = Room::new(most, bytes);
        // What is noted is waited for. Others note nothing: what they have changed is told if etcd tells it at once.
        let deadline = Instant::now() + if since < noted { TELL } else { AT_ONCE };
        loop {
            let told = match timeout_at(deadline, watch.next()).await {
                Ok(told) => told?,
                Err(_) if since >= noted || !set.changes.is_empty() => return Ok(set),
                Err(_) => return Err(StoreError::silent()),
            };
            let steps = match told {
                Told::Steps(steps) => steps,
                Told::Compacted(oldest) if self.unchanged(set.next, oldest).await? => {
                    set.next = oldest;
                    set.latest = set.latest.max(oldest);
                    if oldest >= noted {
                        return Ok(set);
                    }
                    watch = self.watch(oldest).await?;
                    continue;
                }
                Told::Compacted(oldest) => return Err(StoreError::Compacted { oldest, latest }),
            };
            for mut step in steps {
                let large = |step: &Step| step.changes.iter().map(size).sum::<usize>();
                // What would fit no answer is told without what the records were.
                if large(&step) > bytes {
                    step.changes.iter_mut().for_each(|change| change.record = None);
                }
                if !room.take(large(&step)) {
                    return Ok(set);
                }
                room.more(step.changes.len().saturating_sub(1));
                set.next = step.revision;
                set.latest = set.latest.max(step.revision);
                set.changes.extend(step.changes);
                if step.revision >= noted {
                    return Ok(set);
                }
            }
        }
    }

    /// What changes after `revision`.
    pub(super) async fn watch(&self, revision: u64) -> Result<Watch, StoreError> {
        // From that revision itself, so that etcd says when it has been compacted: of the first revision that it keeps,
        // it has forgotten what was deleted, and says nothing of that.
        let first = signed(revision.max(1));
        let stream = self.link.read(|client| async move {
            let from = WatchOptions::new().with_prefix().with_start_revision(first).with_prev_key();
            client.watch_client().max_decoding_message_size(LARGEST).watch(ROOT, Some(from)).await
        });
        Ok(Watch { stream: stream.await?, after: revision })
    }

    /// Whether nothing below our root was changed after the revision `since` up to `oldest`, the first that etcd knows: of
    /// what it has compacted. What another program has deleted leaves no trace.
    pub(super) async fn unchanged(&self, since: u64, oldest: u64) -> Result<bool, StoreError> {
        let newest = self.link.read(|mut client| async move {
            let newest = GetOptions::new()
                .with_prefix()
                .with_keys_only()
                .with_revision(signed(oldest))
                .with_sort(SortTarget::Mod, SortOrder::Descend)
                .with_limit(1);
            client.get(ROOT, Some(newest)).await
        });
        Ok(of_one(&newest.await?) <= since)
    }
}

/// Changes as they happen.
pub(super) struct Watch {
    stream: WatchStream,
    /// What is told of up to here is known.
    after: u64,
}

impl Watch {
    /// What it tells next, once there is something. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Told, StoreError> {
        loop {
            let told = match self.stream.message().await {
                Ok(Some(told)) => told,
                Ok(None) | Err(_) => return Err(StoreError::silent()),
            };
            if told.compact_revision() > 0 {
                return Ok(Told::Compacted(unsigned(told.compact_revision())));
            }
            if told.canceled() {
                return Err(StoreError::silent());
            }
            let mut steps = steps(&told);
            steps.retain(|step| step.revision > self.after);
            if !steps.is_empty() {
                return Ok(Told::Steps(steps));
            }
        }
    }
}

/// The changes in `told`, by revision.
fn steps(told: &WatchResponse) -> Vec<Step> {
    let at = |event: &Event| event.kv().map_or(0, |pair| unsigned(pair.mod_revision()));
    let together = told.events().chunk_by(|one, other| at(one) == at(other));
    together
        .map(|events| {
            let note = events.iter().filter_map(Event::kv).find(|pair| pair.key() == NOTE.as_bytes());
            let note: Option<Note> = note.and_then(|pair| serde_json::from_slice(pair.value()).ok());
            let note = note.unwrap_or_else(|| Note { at: commissaire::time::timestamp(), ..Note::default() });
            let revision = events.first().map_or(0, at);
            Step {
                revision,
                changes: events.iter().filter_map(|event| change(event, revision, &note)).collect(),
            }
        })
        .collect()
}

fn change(event: &Event, revision: u64, note: &Note) -> Option<Change> {
    let pair = event.kv()?;
    let (model, key) = keys::record(pair.key())?;
    let (verb, stored) = match event.event_type() {
        EventType::Put if pair.create_revision() == pair.mod_revision() => (Verb::Created, Some(pair)),
        EventType::Put => (Verb::Updated, Some(pair)),
        EventType::Delete => (Verb::Deleted, event.prev_kv()),
    };
    let told = match model.kept {
        Kept::Plain => {
            let json = stored.and_then(|pair| whole(model, key, pair.value()).ok());
            let known = json.and_then(|json| shown(model, &json).ok());
            // After a deletion etcd may not know any more what it was, or it was none.
            let blank = || shown(model, serde_json::to_string(&model.blank(key)).ok()?.as_bytes()).ok();
            known.or_else(|| (verb == Verb::Deleted).then(blank).flatten())
        }
        Kept::Sealed | Kept::Nowhere => Some(None),
    };
    let Some(record) = told else {
        tracing::warn!(model = model.name, key, "what another program has stored is no record");
        return None;
    };
    Some(Change {
        revision,
        model_type_name: model.name.to_owned(),
        key: key.to_owned(),
        event: verb,
        record,
        at: note.at.clone(),
        actor: note.actor.clone(),
        verified: note.verified,
        operation: note.operation.clone(),
    })
}

/// About the bytes that `change` takes in an answer.
pub(super) fn size(change: &Change) -> usize {
    let texts = [Some(&change.key), change.actor.as_ref(), change.operation.as_ref()];
    let record = change.record.as_ref().map_or(0, |record| record.text().len());
    texts.into_iter().flatten().map(String::len).sum::<usize>() + record + 200
}
