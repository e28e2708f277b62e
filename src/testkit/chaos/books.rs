//! Ledgers and surveys that are wrong.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::Fault;
use crate::{
    address::Origin,
    bus::Bus,
    error::Result,
    ledger::{Begun, Ledger},
    message::MessageId,
    subscription::Source,
    survey::{Survey, What},
};

/// What `bus` tells, with `fault`.
pub(super) async fn survey(bus: &Arc<dyn Bus>, fault: Fault) -> Result<Survey> {
    let mut survey = bus.survey().await?;
    for declared in &mut survey.declared {
        let waits = declared.waiting.is_some_and(|waiting| waiting > 0);
        match (fault, &declared.what) {
            (Fault::Miscounts, _) => declared.waiting = declared.waiting.map(|waiting| waiting + 1),
            (Fault::Rummages, What::Queue(key)) if waits => {
                let mut taken = bus.subscribe(Source::Queue(key.clone()), 1).await?;
                if let Some(delivery) = taken.next_delivery().await {
                    delivery.ack().await?;
                }
            }
            _ => {}
        }
    }
    Ok(survey)
}

/// A ledger with a fault.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) inner: Arc<dyn Ledger>,
    pub(super) fault: Fault,
}

#[async_trait]
impl Ledger for Books {
    async fn begin(&self, place: &Origin, id: MessageId, holder: u128, lease: Duration) -> Result<Begun> {
        match self.fault {
            Fault::Waves => Ok(Begun::Fresh),
            _ => self.inner.begin(place, id, holder, lease).await,
        }
    }

    async fn end(&self, place: &Origin, id: MessageId, holder: u128, done: Option<Duration>) -> Result<()> {
        let done = done.filter(|_| self.fault != Fault::Unlearns);
        self.inner.end(place, id, holder, done).await
    }
}
