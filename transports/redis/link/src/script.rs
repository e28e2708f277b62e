//! The scripts of a transport: run by their digests, loaded whenever a connection is made.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use crate::value::text;

/// The scripts of a transport, and their digests once a server has them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Scripts {
    texts: &'static [&'static str],
    digests: Arc<[String]>,
}

impl Scripts {
    /// Not loaded yet.
    pub(crate) fn new(texts: &'static [&'static str]) -> Self {
        Self { texts, digests: Arc::default() }
    }

    /// Loaded: the server has answered each with its digest.
    pub(crate) fn loaded(texts: &'static [&'static str], answers: Vec<Value>) -> Self {
        Self { texts, digests: answers.into_iter().map(|answer| text(answer).unwrap_or_default()).collect() }
    }

    /// The commands that load all of them.
    pub(crate) fn loading(&self) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(self.texts.len());
        for text in self.texts {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        pipeline
    }

    pub(crate) fn digests(&self) -> &[String] {
        &self.digests
    }
}

/// The command that runs the script of this digest over `keys`; arguments are added by the caller. A number that no
/// script has is one that the server does not know, and it says so.
pub fn run<K: AsRef<str>>(digests: &[String], number: usize, keys: &[K]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(digests.get(number).map_or("", String::as_str)).arg(keys.len());
    for key in keys {
        command.arg(key.as_ref());
    }
    command
}
