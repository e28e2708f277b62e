//! One layer of a configuration: what one source sets, and where in it.

use std::collections::BTreeMap;

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::Place;

/// The names that lead to a member; an element of a list has its number, from 0.
pub(super) type Path = Vec<String>;

/// What one source sets.
#[derive(Clone)]
pub(super) struct Layer {
    name: String,
    members: Dict,
    places: BTreeMap<Path, Place>,
}

impl Layer {
    /// What `name` sets, each member with its place.
    pub(super) fn new(name: impl Into<String>, members: Dict, places: BTreeMap<Path, Place>) -> Self {
        Self { name: name.into(), members, places }
    }

    /// One member, set at `place`.
    pub(super) fn one(path: Path, value: Value, place: Place) -> Self {
        let nest = |value, name: &String| Value::from(Dict::from([(name.clone(), value)]));
        let members = path.iter().rev().fold(value, nest).into_dict().unwrap_or_default();
        Self::new(place.to_string(), members, BTreeMap::from([(path, place)]))
    }

    /// What holds when nobody says anything.
    pub(super) fn defaults(members: Dict) -> Self {
        Self::new("default", members, BTreeMap::from([(Path::new(), Place::Default)]))
    }

    /// Its name, for errors and logs.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it sets there, or on the way there.
    pub(super) fn value(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        walk(self.members.get(first)?, rest)
    }

    /// Where it sets that: the place of the nearest member around it that has one.
    pub(super) fn place(&self, path: &[String]) -> Option<&Place> {
        (0..=path.len()).rev().find_map(|length| self.places.get(&path[..length]))
    }
}

/// The value at `path` below `value`, or the one on the way that has nothing below it.
fn walk<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match value {
        Value::Dict(_, members) => walk(members.get(first)?, rest),
        Value::Array(_, items) => walk(items.get(first.parse::<usize>().ok()?)?, rest),
        scalar => Some(scalar),
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.members.clone()))
    }
}
