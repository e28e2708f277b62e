//! What a hub tells about itself.

use std::collections::BTreeMap;

use commissaire::{Declared, Survey, What};

use crate::{hub::Hub, line::Line};

/// The most that one survey tells of: it must fit into a frame.
const MOST: usize = 2_000;

impl Hub {
    /// A survey; `place` is where the bus is.
    pub(crate) fn survey(&self, place: &str) -> Survey {
        let (mut found, mut faults) = (BTreeMap::new(), Vec::new());
        let mut tell = |told: Declared, line: &Line| {
            if line.is_full() {
                faults.push(format!("{} is full: consume from it, or remove it", told.what));
            }
            found.insert(told.what.to_string(), told);
        };
        let lines = self.lock();
        for (key, line) in &lines.services {
            tell(told(What::Service(key.clone()), line), line);
        }
        for (key, line) in &lines.queues {
            tell(told(What::Queue(key.clone()), line), line);
        }
        for (origin, line) in &lines.dead {
            tell(told(What::dead(origin), line), line);
        }
        for (name, durable) in &lines.durables {
            let declared = Declared {
                patterns: Some(durable.patterns.iter().map(ToString::to_string).collect()),
                idle: Some(durable.idle()),
                expires_after: Some(durable.expiry),
                ..told(What::Durable(name.clone()), &durable.line)
            };
            tell(declared, &durable.line);
        }
        drop(lines);
        let more = found.len().saturating_sub(MOST);
        let unknown = match more {
            0 => Vec::new(),
            more => vec![format!("{more} more are declared: a survey tells of {MOST} at the most")],
        };
        Survey {
            broker: format!("memory bus {} {place}", env!("CARGO_PKG_VERSION")),
            declared: found.into_values().take(MOST).collect(),
            faults,
            unknown,
        }
    }
}

fn told(what: What, line: &Line) -> Declared {
    let counts = line.counts();
    Declared {
        waiting: Some(counts.waiting),
        in_hand: Some(counts.in_hand),
        resting: Some(counts.resting),
        oldest: counts.oldest,
        consumers: Some(counts.consumers),
        deaf: Some(0),
        ..Declared::new(what)
    }
}
