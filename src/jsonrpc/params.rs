//! Parameters: from JSON to a type and back, with errors that name the field.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

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

/// How many members that no contract has are passed over: nobody sends more, and each is looked for anew.
const MOST_PASSED_OVER: usize = 64;

/// The same, but for members that a `P` does not have: up to 64 of them are passed over, wherever they stand.
pub fn from_foreign_params<P: DeserializeOwned>(
    params: Option<&RawValue>,
) -> std::result::Result<P, RpcError> {
    let mut read = from_params(params);
    let Some(given) = params.filter(|_| read.is_err()) else { return read };
    let Ok(mut given) = serde_json::from_str::<Value>(given.get()) else { return read };
    for _ in 0..MOST_PASSED_OVER {
        // One is found at a time.
        let Err(error) = &read else { break };
        let fault = error.data.as_ref().map(|data| &data["faults"][0]);
        let unknown = |fault: &Value| {
            let is = fault["problem"].as_str().is_some_and(|problem| problem.starts_with("unknown field "));
            is.then(|| fault["field"].as_str().map(str::to_owned)).flatten()
        };
        if !fault.and_then(unknown).is_some_and(|path| remove(&mut given, &path)) {
            break;
        }
        let Ok(left) = to_raw_value(&given) else { break };
        read = from_params(Some(&left));
    }
    read
}

/// Removes the member at `path`, `a.b[0].c`. Whether it was there.
fn remove(from: &mut Value, path: &str) -> bool {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = parent.replace(['.', '['], "/").replace(']', "");
    let pointer = if pointer.is_empty() { pointer } else { format!("/{pointer}") };
    let object = from.pointer_mut(&pointer).and_then(Value::as_object_mut);
    object.is_some_and(|object| object.remove(name).is_some())
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        a: i32,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        b: i32,
    }

    fn foreign(text: &str) -> std::result::Result<Outer, RpcError> {
        from_foreign_params(Some(&RawValue::from_string(text.to_owned()).unwrap()))
    }

    #[test]
    fn members_of_foreign_programs_that_no_contract_has_are_ignored() {
        let read = foreign(r#"{"a": 1, "x": 2, "inner": [{"b": 3}, {"b": 4, "y": {"z": 5}}], "w": null}"#);
        assert_eq!(read.unwrap(), Outer { a: 1, inner: vec![Inner { b: 3 }, Inner { b: 4 }] });
        assert_eq!(foreign("[7]").unwrap(), Outer { a: 7, inner: vec![] });
        let many: String = (0..MOST_PASSED_OVER + 1).map(|at| format!(r#", "x{at}": 0"#)).collect();
        assert!(foreign(&format!(r#"{{"a": 1{many}}}"#)).is_err(), "there is an end to that");
    }

    #[test]
    fn all_else_that_is_wrong_is_told() {
        for (text, problem) in
            [(r#"{"x": 1}"#, "a: missing field `a`"), (r#"{"a": "1", "x": 2}"#, "a: invalid type")]
        {
            let error = foreign(text).unwrap_err();
            assert!(error.message.contains(problem), "{}", error.message);
        }
        let own: std::result::Result<Outer, _> =
            from_params(Some(&RawValue::from_string(r#"{"a": 1, "x": 2}"#.to_owned()).unwrap()));
        assert!(own.is_err());
    }
}
