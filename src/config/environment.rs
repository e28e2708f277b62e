//! The environment as layers, one a variable.

use figment::value::Value;

use super::{
    ENV_PREFIX, Place,
    layer::{Layer, Path},
};
use crate::nearest;

/// What stands between the names that lead to a member.
const WITHIN: &str = "__";

/// The layers of the variables that begin with [`ENV_PREFIX`], in the order of their names, for the members that are
/// `known` at the top. A variable that is empty counts as not set, and one of another member is somebody else's; one that
/// looks like a slip of the finger is told.
pub(super) fn layers(known: &[&str]) -> Vec<Layer> {
    let mut set: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(variable, text)| Some((variable.into_string().ok()?, text.into_string().ok()?)))
        .filter(|(variable, text)| variable.starts_with(ENV_PREFIX) && !text.is_empty())
        .collect();
    set.sort_unstable();
    set.into_iter().filter_map(|(variable, text)| layer(variable, text, known)).collect()
}

/// The layer of one variable. Its text is a text; what a member takes that is none is found when it is read.
fn layer(variable: String, text: String, known: &[&str]) -> Option<Layer> {
    let path: Path =
        variable.strip_prefix(ENV_PREFIX)?.to_lowercase().split(WITHIN).map(str::to_owned).collect();
    let first = path.first()?;
    if !known.contains(&first.as_str()) {
        if let Some(meant) = nearest(first, known.iter().copied()) {
            let meant = format!("{ENV_PREFIX}{}", meant.to_uppercase());
            tracing::warn!(variable, "this variable sets nothing: did you mean {meant}?");
        }
        return None;
    }
    Some(Layer::one(path, Value::from(text), Place::Environment { variable }))
}
