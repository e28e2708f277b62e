//! The values of AMQP 0-9-1: strings, numbers, tables.

use bytes::{Buf, BufMut, Bytes};

/// Bytes that are not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a table holds, as far as anybody here looks at it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Table(Table),
    Other,
}

/// Names and values, as the arguments of a declaration or the headers of a message.
pub(crate) type Table = Vec<(String, Value)>;

/// The value of `name`.
pub(crate) fn find<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    table.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// A text of at most 255 bytes; of a longer one the rest is cut off.
pub(crate) fn put_short(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u8(end as u8);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

pub(crate) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_table(out: &mut Vec<u8>, table: &Table) {
    let start = out.len();
    out.put_u32(0);
    for (name, value) in table {
        put_short(out, name);
        match value {
            Value::Bool(value) => out.extend([b't', u8::from(*value)]),
            Value::Int(value) => {
                out.put_u8(b'l');
                out.put_i64(*value);
            }
            Value::Text(text) => {
                out.put_u8(b'S');
                put_long(out, text.as_bytes());
            }
            Value::Table(table) => {
                out.put_u8(b'F');
                put_table(out, table);
            }
            Value::Other => out.put_u8(b'V'),
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(crate) fn take_u8(from: &mut Bytes) -> Result<u8, Malformed> {
    from.try_get_u8().map_err(|_| Malformed)
}

pub(crate) fn take_u16(from: &mut Bytes) -> Result<u16, Malformed> {
    from.try_get_u16().map_err(|_| Malformed)
}

pub(crate) fn take_u32(from: &mut Bytes) -> Result<u32, Malformed> {
    from.try_get_u32().map_err(|_| Malformed)
}

pub(crate) fn take_u64(from: &mut Bytes) -> Result<u64, Malformed> {
    from.try_get_u64().map_err(|_| Malformed)
}

pub(crate) fn take_short(from: &mut Bytes) -> Result<String, Malformed> {
    let length = usize::from(take_u8(from)?);
    Ok(String::from_utf8_lossy(&take(from, length)?).into_owned())
}

pub(crate) fn take_long(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = take_u32(from)? as usize;
    take(from, length)
}

pub(crate) fn take_table(from: &mut Bytes) -> Result<Table, Malformed> {
    table(from, 8)
}

/// Tables may hold tables; `depth` bounds how deep.
fn table(from: &mut Bytes, depth: u8) -> Result<Table, Malformed> {
    let mut rest = take_long(from)?;
    let mut table = Table::new();
    while rest.has_remaining() {
        table.push((take_short(&mut rest)?, value(&mut rest, depth)?));
    }
    Ok(table)
}

fn value(from: &mut Bytes, depth: u8) -> Result<Value, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let skipped = |from: &mut Bytes, length| take(from, length).map(|_| Value::Other);
    Ok(match take_u8(from)? {
        b't' => Value::Bool(take_u8(from)? != 0),
        b'b' => Value::Int(i64::from(take_u8(from)? as i8)),
        b'B' => Value::Int(i64::from(take_u8(from)?)),
        b's' => Value::Int(i64::from(take_u16(from)? as i16)),
        b'u' => Value::Int(i64::from(take_u16(from)?)),
        b'I' => Value::Int(i64::from(take_u32(from)? as i32)),
        b'i' => Value::Int(i64::from(take_u32(from)?)),
        b'l' | b'T' => Value::Int(take_u64(from)? as i64),
        b'f' => return skipped(from, 4),
        b'd' => return skipped(from, 8),
        b'D' => return skipped(from, 5),
        b'S' => Value::Text(String::from_utf8_lossy(&take_long(from)?).into_owned()),
        b'x' => take_long(from).map(|_| Value::Other)?,
        b'F' => Value::Table(table(from, depth)?),
        b'A' => {
            let mut items = take_long(from)?;
            while items.has_remaining() {
                value(&mut items, depth)?;
            }
            Value::Other
        }
        b'V' => Value::Other,
        _ => return Err(Malformed),
    })
}

fn take(from: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if from.remaining() < length {
        return Err(Malformed);
    }
    Ok(from.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was() {
        let inner = vec![("x-delivery-count".to_owned(), Value::Int(-3))];
        let table = vec![
            ("flag".to_owned(), Value::Bool(true)),
            ("text".to_owned(), Value::Text("ü".repeat(300))),
            ("inner".to_owned(), Value::Table(inner)),
            ("void".to_owned(), Value::Other),
        ];
        let mut out = Vec::new();
        put_table(&mut out, &table);
        assert_eq!(take_table(&mut Bytes::from(out)), Ok(table));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut out = Vec::new();
        put_table(&mut out, &vec![("a".to_owned(), Value::Table(vec![("b".to_owned(), Value::Int(1))]))]);
        for cut in 0..out.len() {
            let mut bytes = out.clone();
            bytes.truncate(cut);
            assert_eq!(take_table(&mut Bytes::from(bytes)), Err(Malformed));
        }
        for at in 0..out.len() {
            for byte in 0..=255 {
                let mut bytes = out.clone();
                bytes[at] = byte;
                let _ = take_table(&mut Bytes::from(bytes));
            }
        }
    }
}
