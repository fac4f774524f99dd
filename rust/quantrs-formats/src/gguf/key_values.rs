//! The key/value table of a file: one buffer, an index into it, values decoded on demand.

use std::ops::Range;
use std::sync::Arc;

use super::cursor::Cursor;
use super::value::{ARRAY_CODE, ScalarType, Value, ValueType};
use crate::error::{FormatError, Result, preview};
use crate::source::ReadAt;

/// The shortest key/value there can be: length, a one-byte key, type, a one-byte value.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Where one key/value lies in the header.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Range<usize>,
    pub(crate) value_type: ValueType,
    /// What follows the type code (of an array: element type, count, elements).
    pub(crate) value: Range<usize>,
}

/// Entries in file order while the header is still being read.
pub(crate) struct Index {
    entries: Vec<Entry>,
    /// Positions in `entries`, ordered by key: lookups, and finding doubles without a quadratic scan.
    by_key: Vec<u32>,
}

/// The checked table.
#[derive(Debug, Clone)]
pub(crate) struct KeyValues {
    /// The header, shared with the headers made from it.
    pub(crate) buf: Arc<Vec<u8>>,
    pub(crate) entries: Vec<Entry>,
    by_key: Vec<u32>,
}

impl Index {
    pub(crate) fn parse<S: ReadAt + ?Sized>(cursor: &mut Cursor<'_, S>, count: u64) -> Result<Self> {
        cursor.check_count(count, MIN_ENTRY_BYTES, format_args!("the {count} key/values"))?;
        let mut entries = Vec::new();
        for i in 0..count {
            entries.push(parse_entry(cursor, i)?);
        }
        // The header's size limit keeps the count far below u32::MAX.
        let mut by_key: Vec<u32> = (0..entries.len() as u32).collect();
        let key = |i: u32| cursor.bytes(entries[i as usize].key.clone());
        by_key.sort_by(|a, b| key(*a).cmp(key(*b)));
        for pair in by_key.windows(2) {
            if key(pair[0]) == key(pair[1]) {
                let (first, second) = (&entries[pair[0] as usize].key, &entries[pair[1] as usize].key);
                return Err(FormatError::Duplicate {
                    place: cursor.place(second.start as u64, format_args!("key of key/value {}", pair[1])),
                    name: preview(cursor.bytes(first.clone())),
                    first: first.start as u64,
                });
            }
        }
        Ok(Self { entries, by_key })
    }

    /// Type, bytes and offset of a value.
    pub(crate) fn raw<'b>(&self, buf: &'b [u8], key: &str) -> Option<(ValueType, &'b [u8], u64)> {
        let entry = &self.entries[find(&self.entries, &self.by_key, buf, key)?];
        Some((entry.value_type, &buf[entry.value.clone()], entry.value.start as u64))
    }

    pub(crate) fn finish(self, buf: Vec<u8>) -> KeyValues {
        KeyValues { buf: Arc::new(buf), entries: self.entries, by_key: self.by_key }
    }
}

impl KeyValues {
    /// Keys in file order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| self.key(entry))
    }

    pub(crate) fn key(&self, entry: &Entry) -> &str {
        std::str::from_utf8(&self.buf[entry.key.clone()]).expect("keys were checked when they were parsed")
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        find(&self.entries, &self.by_key, &self.buf, key).map(|i| &self.entries[i])
    }

    pub(crate) fn value(&self, entry: &Entry) -> Value<'_> {
        Value::decode(entry.value_type, &self.buf[entry.value.clone()])
            .expect("values were checked when they were parsed")
    }

    /// One sentence for every key with strings that are not UTF-8.
    pub(crate) fn bad_utf8_values(&self) -> Vec<String> {
        self.entries.iter().filter_map(|entry| self.bad_utf8_value(entry)).collect()
    }

    fn bad_utf8_value(&self, entry: &Entry) -> Option<String> {
        let key = self.key(entry);
        let is_bad = |value: &Value<'_>| matches!(value, Value::String(text) if std::str::from_utf8(text).is_err());
        match entry.value_type {
            ValueType::Scalar(ScalarType::String) => {
                let Value::String(text) = self.value(entry) else { return None };
                is_bad(&Value::String(text))
                    .then(|| format!("key '{key}': its string is not UTF-8 (\"{}\"); kept as bytes", preview(text)))
            }
            ValueType::Array(ScalarType::String) => {
                let Value::Array(array) = self.value(entry) else { return None };
                let mut bad = array.iter().enumerate().filter(|(_, value)| is_bad(value)).map(|(i, _)| i);
                let first = bad.next()?;
                let total = 1 + bad.count();
                Some(format!(
                    "key '{key}': {total} of {} strings are not UTF-8 (the first is element {first}); kept as bytes",
                    array.len()
                ))
            }
            ValueType::Scalar(_) | ValueType::Array(_) => None,
        }
    }
}

fn find(entries: &[Entry], by_key: &[u32], buf: &[u8], key: &str) -> Option<usize> {
    let i = by_key.binary_search_by(|i| buf[entries[*i as usize].key.clone()].cmp(key.as_bytes())).ok()?;
    Some(by_key[i] as usize)
}

fn parse_entry<S: ReadAt + ?Sized>(cursor: &mut Cursor<'_, S>, i: u64) -> Result<Entry> {
    let key = cursor.string(format_args!("key of key/value {i}"))?;
    let key_place = |cursor: &Cursor<'_, S>| cursor.place(key.start as u64, format_args!("key of key/value {i}"));
    let Ok(name) = std::str::from_utf8(cursor.bytes(key.clone())) else {
        return Err(FormatError::BadText { place: key_place(cursor), found: preview(cursor.bytes(key)) });
    };
    if name.is_empty() {
        return Err(FormatError::Invalid {
            place: key_place(cursor),
            found: "an empty key".into(),
            expected: "a name".into(),
        });
    }
    // Damaged keys can be long; messages stay short.
    let name = preview(name.as_bytes());

    let type_at = cursor.position();
    let code = cursor.u32(format_args!("type of key '{name}'"))?;
    let start = cursor.position() as usize;
    let value_type = if code == ARRAY_CODE {
        ValueType::Array(pass_array(cursor, &name)?)
    } else if let Some(scalar) = ScalarType::from_code(code) {
        match scalar.fixed_bytes() {
            Some(n) => cursor.take(n as u64, format_args!("value of key '{name}'"))?,
            None => cursor.string(format_args!("value of key '{name}'"))?,
        };
        ValueType::Scalar(scalar)
    } else {
        return Err(FormatError::Invalid {
            place: cursor.place(type_at, format_args!("type of key '{name}'")),
            found: format!("{code}"),
            expected: "a value type from 0 to 12".into(),
        });
    };
    Ok(Entry { key, value_type, value: start..cursor.position() as usize })
}

/// Passes element type, count and elements.
fn pass_array<S: ReadAt + ?Sized>(cursor: &mut Cursor<'_, S>, name: &str) -> Result<ScalarType> {
    let type_at = cursor.position();
    let code = cursor.u32(format_args!("element type of key '{name}'"))?;
    let Some(element) = ScalarType::from_code(code) else {
        let found = if code == ARRAY_CODE { "an array inside an array".into() } else { format!("{code}") };
        return Err(FormatError::Invalid {
            place: cursor.place(type_at, format_args!("element type of key '{name}'")),
            found,
            expected: "the type of a number, bool or string (0 to 8, 10 to 12)".into(),
        });
    };
    let count = cursor.u64(format_args!("element count of key '{name}'"))?;
    let min_bytes = element.fixed_bytes().unwrap_or(8) as u64;
    cursor.check_count(count, min_bytes, format_args!("the {count} elements of key '{name}'"))?;
    if element == ScalarType::String {
        cursor.strings(count, |i| format!("element {i} of key '{name}'"))?;
    } else {
        cursor.take(count * min_bytes, format_args!("the {count} elements of key '{name}'"))?;
    }
    Ok(element)
}
