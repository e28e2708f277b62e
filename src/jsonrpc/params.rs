//! Parameters: from JSON to a type and back, with errors that name the field.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use super::RpcError;
use crate::error::{Error, Result};

/// Reads `params` as a `P`. An array is positional: its elements are the fields of the struct in their order. Absent
/// parameters are an empty object.
pub fn from_params<P: DeserializeOwned>(params: Option<&RawValue>) -> std::result::Result<P, RpcError> {
    let json = params.map_or("{}", RawValue::get);
    if !json.starts_with(['{', '[']) {
        return Err(RpcError::invalid_params(&[(String::new(), "must be an object or an array".into())]));
    }
    // The quick way first; the way that knows the path only when there is something to say.
    if let Ok(params) = serde_json::from_str(json) {
        return Ok(params);
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    match serde_path_to_error::deserialize(&mut parser) {
        Ok(params) => Ok(params),
        Err(error) => {
            let problem = without_values(&error.inner().to_string());
            let field = match (error.path().to_string(), quoted(&problem)) {
                // Serde names a missing or unknown field in its text; the path is that of the object around it.
                (path, Some(name)) if path == "." => name.to_owned(),
                (path, Some(name)) if path.rsplit('.').next() == Some(name) => path,
                (path, Some(name)) => format!("{path}.{name}"),
                (path, None) if path == "." => String::new(),
                (path, None) => path,
            };
            Err(RpcError::invalid_params(&[(field, problem)]))
        }
    }
}

/// Writes `params`; those that write as nothing (`()`) are absent.
pub fn to_params(params: &impl Serialize) -> Result<Option<Box<RawValue>>> {
    let raw = to_raw_value(params)
        .map_err(|e| Error::malformed("parameters cannot be written as JSON").because(e))?;
    Ok((raw.get() != "null").then_some(raw))
}

/// The field that serde's text names: "missing field `x`", "unknown field `x`, …".
fn quoted(problem: &str) -> Option<&str> {
    let rest = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| problem.strip_prefix(start))?;
    rest.split('`').next()
}

/// Serde's text without the position, and without what was given: a value may be a secret.
fn without_values(text: &str) -> String {
    let text = text.rsplit_once(" at line ").map_or(text, |(before, _)| before);
    for start in [
        "invalid type: string ",
        "invalid value: string ",
        "invalid type: integer ",
        "invalid value: integer ",
    ] {
        if let Some((_, expected)) = text.strip_prefix(start).and_then(|rest| rest.rsplit_once(", expected "))
        {
            return format!("{}, expected {expected}", start.trim_end());
        }
    }
    text.to_owned()
}
