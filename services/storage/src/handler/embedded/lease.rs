//! Leases: something that one holder has for a while, and a token that tells it from every holder before.
//!
//! The table of leases and the greatest token are on the disk; when a lease expires is known by the monotonic clock of
//! this process only, so a restart gives each lease its full time again. A lease that has expired is still its
//! holder's until somebody else takes it: renewing it then is well, and its token is the current.

use std::time::{Duration, Instant};

use commissaire_api::storage::Lease;
use redb::ReadableTable;

use super::{
    Store, StoreError,
    pass::{Failure, Pass},
};

/// The most leases.
const MOST: usize = 100_000;

impl Store {
    /// See [`Handler::acquire_lease`](crate::handler::Handler::acquire_lease).
    pub async fn acquire_lease(
        &self,
        name: String,
        holder: String,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        self.write(move |pass| pass.acquire(&name, &holder, ttl)).await
    }

    /// See [`Handler::renew_lease`](crate::handler::Handler::renew_lease).
    pub async fn renew_lease(&self, name: String, token: u64) -> Result<Lease, StoreError> {
        self.write(move |pass| {
            let ttl_ms = pass.check_token(&name, token)?;
            pass.memory.set_lease(&name, Some(Instant::now() + Duration::from_millis(ttl_ms)));
            Ok(Lease { token, ttl_ms })
        })
        .await
    }

    /// See [`Handler::release_lease`](crate::handler::Handler::release_lease).
    pub async fn release_lease(&self, name: String, token: u64) -> Result<bool, StoreError> {
        self.write(move |pass| match pass.check_token(&name, token) {
            Ok(_) => pass.drop_lease(&name).map(|()| true),
            Err(Failure::Refused(_)) => Ok(false),
            Err(broken) => Err(broken),
        })
        .await
    }
}

impl Pass<'_> {
    fn acquire(&mut self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, Failure> {
        let now = Instant::now();
        let expires = self.memory.leases.get(name).copied();
        if let Some(left) = expires.and_then(|expires| expires.checked_duration_since(now))
            && let Some(row) = self.leases.get(name)?
            && !left.is_zero()
        {
            let (_, _, holder) = row.value();
            return Err(Failure::Refused(StoreError::Held {
                name: name.to_owned(),
                holder: holder.to_owned(),
                expires_in: left,
            }));
        }
        self.prune(now)?;
        if expires.is_none() && self.memory.leases.len() >= MOST {
            return Err(Failure::Refused(StoreError::TooManyLeases));
        }
        let token = self.memory.numbers.token + 1;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.leases.insert(name, (token, ttl_ms, holder))?;
        self.memory.numbers.token = token;
        self.memory.set_lease(name, Some(now + ttl));
        self.dirty = true;
        Ok(Lease { token, ttl_ms })
    }

    /// The time to live of the lease in milliseconds, if `token` is its current one.
    pub(super) fn check_token(&mut self, name: &str, token: u64) -> Result<u64, Failure> {
        match self.leases.get(name)?.map(|row| row.value().0 == token).unwrap_or(false) {
            true => Ok(self.leases.get(name)?.map_or(0, |row| row.value().1)),
            false => Err(Failure::Refused(StoreError::Fenced { name: name.to_owned() })),
        }
    }

    fn drop_lease(&mut self, name: &str) -> Result<(), Failure> {
        self.leases.remove(name)?;
        self.memory.set_lease(name, None);
        self.dirty = true;
        Ok(())
    }

    /// Forgets what has expired, when there are many.
    fn prune(&mut self, now: Instant) -> Result<(), Failure> {
        if self.memory.leases.len() < self.memory.prune_at {
            return Ok(());
        }
        let expired = self.memory.leases.iter().filter(|(_, expires)| **expires <= now);
        for name in expired.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.drop_lease(&name)?;
        }
        self.memory.prune_at = (2 * self.memory.leases.len()).max(1024);
        Ok(())
    }
}
