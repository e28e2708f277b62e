//! Reading what the server answers. Nothing here trusts the shape of it.

use redis::Value;

/// The bytes of a string.
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::VerbatimString { text, .. } => Some(text.into_bytes()),
        _ => None,
    }
}

/// The text of a string.
pub fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

/// A whole number, also one that is written as a string.
pub fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Value::SimpleString(text) => text.parse().ok(),
        Value::Boolean(yes) => Some(i64::from(*yes)),
        _ => None,
    }
}

/// The items of an array; a map as its names and values in turn; anything else as none.
pub fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        _ => Vec::new(),
    }
}

/// The items of an array by twos: a map, whichever way the server wrote it.
pub fn pairs(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        Value::Array(items)
            if items.iter().all(|item| matches!(item, Value::Array(pair) if pair.len() == 2)) =>
        {
            items.into_iter().filter_map(two).collect()
        }
        Value::Array(items) => {
            let mut out = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(name), Some(value)) = (items.next(), items.next()) {
                out.push((name, value));
            }
            out
        }
        _ => Vec::new(),
    }
}

/// Exactly two items.
pub fn two(value: Value) -> Option<(Value, Value)> {
    let mut items = items(value).into_iter();
    match (items.next(), items.next(), items.next()) {
        (Some(first), Some(second), None) => Some((first, second)),
        _ => None,
    }
}

/// What `TIME` answers, in milliseconds.
pub fn millis(value: Value) -> Option<i64> {
    let (seconds, micros) = two(value)?;
    int(&seconds)?.checked_mul(1000)?.checked_add(int(&micros)? / 1000)
}
