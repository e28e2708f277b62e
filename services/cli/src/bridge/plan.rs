//! What is carried, and which way: where somebody is who takes it.

use std::{collections::BTreeSet, sync::Arc};

use commissaire::{Error, Key, Pattern, Result, What};

use super::{calls::Calls, stored::Stored};

/// What the patterns come to.
#[derive(Debug)]
pub(super) struct Plan {
    patterns: Vec<Pattern>,
    /// Services that are named.
    services: BTreeSet<Key>,
    /// Queues that are named.
    queues: BTreeSet<Key>,
    pub(super) events: Vec<Pattern>,
}

impl Plan {
    pub(super) fn new(patterns: &[Pattern]) -> Result<Self> {
        let mut plan = Self {
            patterns: patterns.to_vec(),
            services: BTreeSet::new(),
            queues: BTreeSet::new(),
            events: Vec::new(),
        };
        for pattern in patterns {
            let text = pattern.as_str();
            let jobs = text == "jobs" || text.starts_with("jobs.");
            if jobs && let Ok(key) = Key::new(text) {
                plan.queues.insert(key.clone());
                plan.services.insert(key);
                continue;
            }
            if jobs {
                continue;
            }
            let service = text.strip_suffix(".*").or_else(|| text.strip_suffix(".#"));
            if let Some(service) = service.filter(|service| *service != "notify")
                && let Ok(service) = Key::new(service)
                && !text.starts_with("notify.")
            {
                plan.services.insert(service);
            } else if service.is_none() && Key::new(text).is_ok() {
                return Err(Error::invalid(format!(
                    "{text:?} names one key: calls are carried for a whole service, {text}.* or the like, jobs as jobs.KEY, events by a pattern"
                )));
            }
            plan.events.push(pattern.clone());
        }
        Ok(plan)
    }

    /// Whether a service or a queue that was found is to be carried.
    fn wants(&self, what: &What) -> bool {
        let covers = |key: &Key| self.patterns.iter().any(|pattern| pattern.matches(key));
        match what {
            What::Queue(key) => covers(key),
            What::Service(key) if key.as_str().starts_with("jobs.") => covers(key),
            What::Service(service) => Key::new(format!("{service}.any")).is_ok_and(|key| covers(&key)),
            _ => false,
        }
    }
}

/// Looks who is on which bus, and carries accordingly. What cannot be found out stays as it is.
pub(super) async fn look(plan: &Plan, calls: &Arc<Calls>, stored: &mut Stored) {
    let (mut services, mut queues) = (plan.services.clone(), plan.queues.clone());
    let surveys = stored.surveys().await;
    for declared in surveys.iter().flatten().flat_map(|survey| &survey.declared) {
        match &declared.what {
            what if !plan.wants(what) => {}
            What::Service(key) => drop(services.insert(key.clone())),
            What::Queue(key) => drop(queues.insert(key.clone())),
            _ => {}
        }
    }
    for service in services {
        calls.look(&service).await;
    }
    for queue in queues {
        stored.look(&queue, &surveys).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_say_what_is_carried() {
        let patterns = ["storage.*", "jobs.investigate", "notify.#", "a.b.#", "jobs.x.*"];
        let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::new(text).unwrap()).collect();
        let plan = Plan::new(&patterns).unwrap();
        let names = |keys: &BTreeSet<Key>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&plan.services), ["a.b", "jobs.investigate", "storage"]);
        assert_eq!(names(&plan.queues), ["jobs.investigate"]);
        assert_eq!(plan.events.len(), 3);
        for (what, wanted) in [
            (What::Queue(Key::new("jobs.x.y").unwrap()), true),
            (What::Queue(Key::new("jobs.other").unwrap()), false),
            (What::Service(Key::new("storage").unwrap()), true),
            (What::Service(Key::new("simple").unwrap()), false),
        ] {
            assert_eq!(plan.wants(&what), wanted, "{what}");
        }
        assert!(Plan::new(&[Pattern::new("storage.get").unwrap()]).is_err());
    }
}
