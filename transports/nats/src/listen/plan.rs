//! What a subscription needs on the server.

use std::sync::Arc;

use commissaire::{Address, Error, Key, Origin, Result, Source};
use tokio::time::Instant;

use super::interest::{self, First};
use crate::{
    bus::Core,
    declare::{Consumer, Stream},
    registry::Wanted,
    settle::Spot,
};

/// What a consumer's deliveries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Messages as they were published.
    First,
    /// Retries and dead letters that were brought back, of a durable subscription.
    Again,
    /// Retries that rest.
    Rest,
}

/// What is needed, and what is known of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) spot: Arc<Spot>,
    /// For a durable subscription.
    pub(super) wanted: Option<Arc<Wanted>>,
}

impl Plan {
    pub(super) fn new(source: Source) -> Result<Self> {
        let (origin, dead, wanted) = match source {
            Source::Queue(key) => (Origin::Queue(key), false, None),
            Source::Durable(name, patterns) => {
                (Origin::Durable(name.clone()), false, Some(Arc::new(Wanted::new(name, patterns))))
            }
            Source::DeadLetters(origin) => (origin, true, None),
            other => return Err(Error::invalid(format!("{other} has no stream"))),
        };
        Ok(Self { spot: Arc::new(Spot { origin, dead }), wanted })
    }

    /// The consumers, those first that must not wait behind others.
    pub(super) fn consumers(&self, core: &Core) -> Vec<(Role, Consumer)> {
        let (link, origin) = (&core.link, &self.spot.origin);
        if self.spot.dead {
            return vec![(Role::First, Consumer::dead(link, origin))];
        }
        let (rest, work) = (Consumer::rest(link, origin), Consumer::work(link, origin));
        match &self.wanted {
            None => vec![(Role::Rest, rest), (Role::First, work)],
            Some(wanted) => {
                let filter = link.names.covering(&wanted.patterns());
                let first = Consumer::durable(link, wanted.name.as_str(), &filter);
                vec![(Role::Rest, rest), (Role::Again, work), (Role::First, first)]
            }
        }
    }

    /// Makes sure that all is there, with the settings that we want. Returns whether something was not, and what is to be
    /// acknowledged before anything else.
    pub(super) async fn ensure(&self, core: &Core, deadline: Instant) -> Result<(bool, Option<First>)> {
        let (mut made, mut first) = (self.streams(core, deadline).await?, None);
        for (role, consumer) in self.consumers(core) {
            let (new, info) = consumer.ensure(&core.link, deadline).await?;
            made |= new;
            if self.wanted.is_some() && role == Role::First {
                first = First::store(&core.link, consumer, &info, deadline).await;
            }
        }
        Ok((made, first))
    }

    /// Makes the streams.
    async fn streams(&self, core: &Core, deadline: Instant) -> Result<bool> {
        let (link, mut made) = (&core.link, false);
        if self.spot.dead {
            return Stream::dead(link).ensure(link, deadline).await;
        }
        made |= Stream::work(link, &self.spot.origin).ensure(link, deadline).await?;
        if self.wanted.is_some() {
            made |= Stream::events(link).ensure(link, deadline).await?;
            interest::keep(link, deadline).await?;
        }
        Ok(made)
    }

    /// The address that messages here have which cannot be read.
    pub(super) fn address(&self) -> Option<Address> {
        match &self.spot.origin {
            Origin::Queue(key) => Some(Address::Queue(key.clone())),
            Origin::Durable(name) => Key::new(name.as_str()).ok().map(Address::Topic),
        }
    }
}
