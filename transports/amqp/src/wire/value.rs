//! Arguments of declarations.

use lapin::types::{AMQPValue, FieldTable};

/// A value of an argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Int(i64),
    Text(String),
}

/// Names and values of arguments.
pub(crate) type Table = Vec<(String, Value)>;

/// As lapin wants them.
pub(super) fn fields(table: &Table) -> FieldTable {
    let mut fields = FieldTable::default();
    for (name, value) in table {
        let value = match value {
            Value::Int(value) => AMQPValue::LongLongInt(*value),
            Value::Text(text) => AMQPValue::LongString(text.as_str().into()),
        };
        fields.insert(name.as_str().into(), value);
    }
    fields
}

/// A number of whatever width.
pub(super) fn number(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::LongLongInt(n) => *n,
        _ => return None,
    })
}
