//! Letting in: is it really who it says, and is that allowed?

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Access, Actor, FRESH, identity::now, seen::Seen, signed::Signed};
use crate::{
    address::{Key, Token},
    message::{Message, header},
};

/// [`Access`] at work on one bus. It remembers which signatures of calls were good, so that none is good twice.
#[derive(Debug)]
pub struct Admission {
    exchange: Token,
    access: Arc<Access>,
    seen: HashMap<Token, Mutex<Seen>>,
}

/// Why somebody was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no signature.
    Unsigned,
    /// The name has no public key here.
    Unknown,
    /// The signature does not fit the message, or is none.
    Forged,
    /// It was signed too long ago by the clock here.
    Stale(Duration),
    /// It was signed so far in the future by the clock here.
    Early(Duration),
    /// It was let in before, or may have been.
    Replayed,
    /// The rules do not let this actor ask for this.
    Denied,
}

impl Admission {
    /// Admission by the rules of `access` to services on the bus of this exchange.
    pub fn new(exchange: Token, access: Arc<Access>) -> Self {
        let seen = access.actors().map(|name| (name.clone(), Mutex::default())).collect();
        Self { exchange, access, seen }
    }

    /// Who sent the call `message`, if that is proved, recently, and for the first time.
    pub fn call(&self, message: &Message) -> Result<Actor, Refusal> {
        self.call_at(message, now())
    }

    fn call_at(&self, message: &Message, now: u64) -> Result<Actor, Refusal> {
        let (name, signed) = self.verify(message)?;
        let (age, early) = (now.saturating_sub(signed.time), signed.time.saturating_sub(now));
        if u128::from(age) > FRESH.as_millis() {
            return Err(Refusal::Stale(Duration::from_millis(age)));
        }
        if u128::from(early) > FRESH.as_millis() {
            return Err(Refusal::Early(Duration::from_millis(early)));
        }
        let id = message.id().ok_or(Refusal::Forged)?.0.as_u128();
        let seen = self.seen.get(&name).ok_or(Refusal::Unknown)?;
        if !seen.lock().unwrap_or_else(PoisonError::into_inner).enter(signed.time, id, now) {
            return Err(Refusal::Replayed);
        }
        Ok(Actor::verified(name))
    }

    /// Who sent the job or the event `message`, whenever that was.
    pub fn stored(&self, message: &Message) -> Result<Actor, Refusal> {
        self.verify(message).map(|(name, _)| Actor::verified(name))
    }

    /// Whether `actor` may send calls and jobs to `key`.
    pub fn allow(&self, key: &Key, actor: &Actor) -> Result<(), Refusal> {
        let name = actor.name().filter(|_| actor.is_verified());
        match name.is_some_and(|name| self.access.allows(key, name)) {
            true => Ok(()),
            false => Err(Refusal::Denied),
        }
    }

    fn verify(&self, message: &Message) -> Result<(Token, Signed), Refusal> {
        let name = Actor::claimed(message).name;
        let signature = message.headers().get(header::SIGNATURE);
        let (Some(name), Some(signature)) = (name, signature) else { return Err(Refusal::Unsigned) };
        let keys = self.access.keys(&name).ok_or(Refusal::Unknown)?;
        let signed = Signed::parse(signature).ok_or(Refusal::Forged)?;
        match signed.is_of(keys, self.exchange.as_str(), message) {
            true => Ok((name, signed)),
            false => Err(Refusal::Forged),
        }
    }
}

impl Refusal {
    /// The stable name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Unknown => "unknown",
            Self::Forged => "forged",
            Self::Stale(_) => "stale",
            Self::Early(_) => "early",
            Self::Replayed => "replayed",
            Self::Denied => "denied",
        }
    }

    /// What the sender is told.
    pub(crate) fn tell(&self, key: &Key, actor: &Actor) -> String {
        let seconds = FRESH.as_secs();
        let why = match self {
            Self::Unsigned => "it is not signed: give the program that asks a key (identity.key_file)".into(),
            Self::Unknown => "nobody of that name is known: add its public key to access.actors".into(),
            Self::Forged => "the signature does not fit the message, its sender and this bus".into(),
            Self::Stale(age) => {
                let age = age.as_secs();
                format!("signed {age} s ago by the clock here, {seconds} s are the most: set the clocks")
            }
            Self::Early(early) => {
                let early = early.as_secs();
                format!("signed {early} s ahead of the clock here, {seconds} s are the most: set the clocks")
            }
            Self::Replayed => "it was asked before".into(),
            Self::Denied => "access.allow does not let this actor".into(),
        };
        format!("forbidden: {key} for {actor}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actor::{Identity, SecretKey},
        address::Address,
    };

    const FIVE: u64 = 300_000;

    /// A call by `anna`, and the time when it was signed.
    fn call() -> (Admission, Message, u64) {
        let key = SecretKey::generate().unwrap();
        let (name, exchange) = (Token::new("anna").unwrap(), Token::new("bus").unwrap());
        let access = Access::new([(name.clone(), vec![key.public()])].into(), None).unwrap();
        let identity = Identity { name: Some(name), key: Some(Arc::new(key)) };
        let address = Address::Service(Key::new("calc.add").unwrap());
        let message = identity.stamp(&exchange, Message::new(address, "{}").unwrap()).unwrap();
        let signed = Signed::parse(message.headers().get(header::SIGNATURE).unwrap()).unwrap();
        (Admission::new(exchange, Arc::new(access)), message, signed.time)
    }

    #[test]
    fn a_call_is_good_five_minutes_early_and_late_and_no_more() {
        let (admission, message, time) = call();
        let far = |error| matches!(error, Err(Refusal::Stale(_) | Refusal::Early(_)));
        assert!(far(admission.call_at(&message, time + FIVE + 1)));
        assert!(far(admission.call_at(&message, time - FIVE - 1)));
        assert!(admission.call_at(&message, time - FIVE).is_ok());
        let (admission, message, time) = call();
        assert!(admission.call_at(&message, time + FIVE).is_ok());
    }

    #[test]
    fn a_call_is_good_once_and_a_job_always() {
        let (admission, message, time) = call();
        assert!(admission.call_at(&message, time).is_ok());
        for now in [time, time + 1, time + FIVE] {
            assert_eq!(admission.call_at(&message, now), Err(Refusal::Replayed));
        }
        assert!(admission.stored(&message).is_ok_and(|actor| actor.is_verified()));
        assert!(admission.stored(&message).is_ok());
    }
}
