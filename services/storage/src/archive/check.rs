//! Looking whether what is stored is sound, and whether it is what an archive holds.

use std::fmt;

use commissaire::Result;
use commissaire_api::MODELS;
use serde_json::Value;

use super::{Progress, Records, number, walk::Walk};
use crate::{handler::is_same, routes::Routes};

/// Something that is wrong with a stored record. Never holds what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place.
    pub place: String,
    /// The model.
    pub model: &'static str,
    /// The key.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

/// How a stored record differs from that of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// It is in the archive only.
    Missing,
    /// It is stored only.
    More,
    /// It is another.
    Other,
}

/// Looks at every record, secrets as well, which are opened for that. How many there are, and what is wrong.
pub async fn check(routes: &Routes, progress: &mut Progress<'_>) -> Result<(u64, Vec<Fault>)> {
    let (mut count, mut faults) = (0, Vec::new());
    for mut walk in Walk::all(routes, true) {
        while let Some(items) = walk.next().await? {
            for (model, key, why) in walk.unreadable() {
                count += 1;
                faults.push(Fault {
                    place: walk.place().to_owned(),
                    model: model.name,
                    key,
                    what: why.to_string(),
                });
            }
            for item in items {
                let Some(json) = item.json else { continue };
                count += 1;
                let what = match serde_json::from_slice::<Value>(&json).map(|given| item.model.check(given)) {
                    Err(_) => "it is not JSON".to_owned(),
                    Ok(Err(wrong)) => wrong.to_string(),
                    Ok(Ok(record)) if item.model.key_of(&record) != Some(item.key.as_str()) => {
                        "it has another key within".to_owned()
                    }
                    Ok(Ok(_)) => continue,
                };
                let place = walk.place().to_owned();
                faults.push(Fault { place, model: item.model.name, key: item.key, what });
            }
            progress(count);
        }
    }
    Ok((count, faults))
}

/// How what is stored in `routes` differs from `records`; secrets are looked at where `secrets` says so.
pub async fn compare(
    routes: &Routes,
    mut records: Records,
    secrets: bool,
    progress: &mut Progress<'_>,
) -> Result<Vec<(&'static str, String, Difference)>> {
    let mut differences = std::collections::BTreeMap::new();
    let mut count = 0;
    let mut seen = Records::new();
    for mut walk in Walk::all(routes, secrets) {
        while let Some(items) = walk.next().await? {
            // That is told by `check`.
            for (model, key, _) in walk.unreadable() {
                records.remove(&(number(model), key));
            }
            for item in items {
                count += 1;
                let place = (number(item.model), item.key);
                match item.json {
                    Some(json) => drop(seen.insert(place, json)),
                    None => drop(seen.remove(&place)),
                }
            }
            progress(count);
        }
    }
    for (place, json) in seen {
        match records.remove(&place) {
            Some(wanted) if is_same(&wanted, &json) => {}
            Some(_) => drop(differences.insert(place, Difference::Other)),
            None => drop(differences.insert(place, Difference::More)),
        }
    }
    differences.extend(records.into_keys().map(|place| (place, Difference::Missing)));
    let named = |(number, key): (usize, String)| (MODELS.get(number).map_or("", |model| model.name), key);
    Ok(differences
        .into_iter()
        .map(|(place, difference)| {
            let (model, key) = named(place);
            (model, key, difference)
        })
        .collect())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is in the archive only",
            Self::More => "is stored only",
            Self::Other => "is another",
        })
    }
}
