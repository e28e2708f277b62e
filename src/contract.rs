//! Contracts: what a service answers, written once as types and shared by caller and service.
//!
//! A [`Method`] is asked and waited for, a [`Job`] is left to be done, an [`Event`] tells that something happened.
//! Methods and jobs are unit structs that are passed as values, so that the compiler joins caller, contract and handler.

use serde::{Serialize, de::DeserializeOwned};

use crate::{address::Key, error::Result};

/// A call: a request with one answer. Declare it with [`method!`](crate::method).
pub trait Method: Send + Sync + 'static {
    /// The routing key, `storage.get`.
    const NAME: &'static str;
    /// Whether carrying it out twice is the same as once; only then may it be sent again by itself.
    const IDEMPOTENT: bool;
    /// What is asked: a struct, so that parameters may be named or positional.
    type Params: Serialize + DeserializeOwned + Send + Sync;
    /// What is answered.
    type Output: Serialize + DeserializeOwned + Send;
}

/// A job: work that is done once someone can, at least once. Declare it with [`job!`](crate::job).
pub trait Job: Send + Sync + 'static {
    /// The routing key, which is also the name of the queue.
    const NAME: &'static str;
    /// What is to be done: a struct.
    type Params: Serialize + DeserializeOwned + Send + Sync;
}

/// An event: the body of messages on a topic.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Covers every key on which such an event is announced.
    const PATTERN: &'static str;
    /// The key on which this one is announced.
    fn key(&self) -> Result<Key>;
}

/// Declares a [`Method`].
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// /// Two numbers.
/// #[derive(Serialize, Deserialize)]
/// pub struct AddParams { x: i64, y: i64 }
///
/// commissaire::method! {
///     /// Adds two numbers.
///     pub Add = "simple.add": AddParams => i64, idempotent
/// }
/// ```
#[macro_export]
macro_rules! method {
    ($(#[$doc:meta])* $vis:vis $name:ident = $key:literal : $params:ty => $output:ty $(,)?) => {
        $crate::method!(@ $(#[$doc])* $vis $name, $key, $params, $output, false);
    };
    ($(#[$doc:meta])* $vis:vis $name:ident = $key:literal : $params:ty => $output:ty, idempotent $(,)?) => {
        $crate::method!(@ $(#[$doc])* $vis $name, $key, $params, $output, true);
    };
    (@ $(#[$doc:meta])* $vis:vis $name:ident, $key:literal, $params:ty, $output:ty, $idempotent:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        $vis struct $name;
        impl $crate::Method for $name {
            const NAME: &'static str = $key;
            const IDEMPOTENT: bool = $idempotent;
            type Params = $params;
            type Output = $output;
        }
    };
}

/// Declares a [`Job`].
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] pub struct Host { address: String }
/// commissaire::job! {
///     /// Looks a host over.
///     pub Investigate = "jobs.investigate": Host
/// }
/// ```
#[macro_export]
macro_rules! job {
    ($(#[$doc:meta])* $vis:vis $name:ident = $key:literal : $params:ty $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        $vis struct $name;
        impl $crate::Job for $name {
            const NAME: &'static str = $key;
            type Params = $params;
        }
    };
}
