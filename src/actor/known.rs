//! A bus on which a program is known.

use std::{fmt, future::ready, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Admission, Identity};
use crate::{
    address::Token,
    bus::{Bus, Guarantees},
    connection::ConnectionWatch,
    driver::BusOptions,
    error::Result,
    ledger::Ledger,
    message::Message,
    subscription::{Source, Subscription},
    survey::Survey,
};

/// `bus`, used by the program that `options` describe: calls, jobs and events that are published through it carry the
/// program's name, and services that start on it admit by the program's rules. [`connect`](crate::connect) does this.
pub fn introduce(bus: Arc<dyn Bus>, options: &BusOptions) -> Arc<dyn Bus> {
    Arc::new(Known::new(bus, options))
}

/// See [`introduce`].
struct Known {
    inner: Arc<dyn Bus>,
    exchange: Token,
    identity: Identity,
    admission: Option<Arc<Admission>>,
}

impl Known {
    fn new(inner: Arc<dyn Bus>, options: &BusOptions) -> Self {
        let exchange = options.exchange.clone();
        let program = options.client_name.strip_prefix("commissaire-").unwrap_or(&options.client_name);
        let mut identity = options.identity.clone();
        identity.name = identity.name.or_else(|| Token::new(program).ok());
        let access = options.access.clone();
        let admission = access.map(|access| Arc::new(Admission::new(exchange.clone(), access)));
        Self { inner, exchange, identity, admission }
    }
}

#[async_trait]
impl Bus for Known {
    // Written out: no second future around that of the transport.
    fn publish<'bus, 'publish>(
        &'bus self,
        message: Message,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'publish>>
    where
        'bus: 'publish,
    {
        match self.identity.stamp(&self.exchange, message) {
            Ok(message) => self.inner.publish(message),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.inner.subscribe(source, prefetch).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn connection(&self) -> ConnectionWatch {
        self.inner.connection()
    }

    async fn survey(&self) -> Result<Survey> {
        self.inner.survey().await
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.inner.remove_durable(name, idle).await
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        self.inner.ledger()
    }

    fn admission(&self) -> Option<Arc<Admission>> {
        self.admission.clone()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
