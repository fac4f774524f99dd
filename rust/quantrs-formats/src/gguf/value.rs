//! The values of a GGUF header: their types, and a checked view of their bytes.

use std::fmt;
use std::str::FromStr;

use crate::error::FormatError;

/// Type of a value that is not an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalarType {
    /// 8 bits, unsigned.
    U8,
    /// 8 bits, signed.
    I8,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, signed.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, signed.
    I32,
    /// IEEE single.
    F32,
    /// One byte; 0 is false.
    Bool,
    /// u64 byte length, then the bytes; meant to be UTF-8, not always so.
    String,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, signed.
    I64,
    /// IEEE double.
    F64,
}

/// Code of an array in a file; it is not a scalar type.
pub(crate) const ARRAY_CODE: u32 = 9;

/// Scalar types with their code in files, their name and their bytes (None: it varies).
const SCALAR_TYPES: [(ScalarType, u32, &str, Option<usize>); 12] = [
    (ScalarType::U8, 0, "u8", Some(1)),
    (ScalarType::I8, 1, "i8", Some(1)),
    (ScalarType::U16, 2, "u16", Some(2)),
    (ScalarType::I16, 3, "i16", Some(2)),
    (ScalarType::U32, 4, "u32", Some(4)),
    (ScalarType::I32, 5, "i32", Some(4)),
    (ScalarType::F32, 6, "f32", Some(4)),
    (ScalarType::Bool, 7, "bool", Some(1)),
    (ScalarType::String, 8, "string", None),
    (ScalarType::U64, 10, "u64", Some(8)),
    (ScalarType::I64, 11, "i64", Some(8)),
    (ScalarType::F64, 12, "f64", Some(8)),
];

impl ScalarType {
    /// The type with this code in files.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        SCALAR_TYPES.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// Its code in files.
    pub(crate) fn code(self) -> u32 {
        SCALAR_TYPES[self as usize].1
    }

    /// Bytes of one value; None for strings.
    pub(crate) fn fixed_bytes(self) -> Option<usize> {
        SCALAR_TYPES[self as usize].3
    }

    /// As in `ValueType`'s text form.
    #[must_use]
    pub fn name(self) -> &'static str {
        SCALAR_TYPES[self as usize].2
    }
}

/// Type of a value. Text form: `u32`, `string`, `array[f32]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A single value.
    Scalar(ScalarType),
    /// Any number of values of one type; arrays do not nest.
    Array(ScalarType),
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(t) => f.write_str(t.name()),
            Self::Array(t) => write!(f, "array[{}]", t.name()),
        }
    }
}

impl FromStr for ValueType {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let element = text.strip_prefix("array[").and_then(|rest| rest.strip_suffix(']'));
        let scalar = SCALAR_TYPES.iter().find(|row| row.2 == element.unwrap_or(text)).map(|row| row.0);
        match (scalar, element) {
            (Some(t), None) => Ok(Self::Scalar(t)),
            (Some(t), Some(_)) => Ok(Self::Array(t)),
            (None, _) => Err(FormatError::Edit {
                what: "value type".into(),
                found: format!("'{text}'"),
                expected: "u8 i8 u16 i16 u32 i32 f32 bool string u64 i64 f64, or array[...] of one of them".into(),
            }),
        }
    }
}

/// A value, decoded; strings and arrays borrow from the header.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "one variant per ScalarType, documented there")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// The bytes as they stand in the file; check before taking them for UTF-8.
    String(&'a [u8]),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Decoded element by element.
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// Splits one scalar off `bytes`. None when they are too short.
    fn split_scalar(scalar: ScalarType, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        macro_rules! number {
            ($variant:ident, $type:ty) => {{
                let (head, rest) = bytes.split_first_chunk()?;
                (Self::$variant(<$type>::from_le_bytes(*head)), rest)
            }};
        }
        Some(match scalar {
            ScalarType::U8 => number!(U8, u8),
            ScalarType::I8 => number!(I8, i8),
            ScalarType::U16 => number!(U16, u16),
            ScalarType::I16 => number!(I16, i16),
            ScalarType::U32 => number!(U32, u32),
            ScalarType::I32 => number!(I32, i32),
            ScalarType::F32 => number!(F32, f32),
            ScalarType::U64 => number!(U64, u64),
            ScalarType::I64 => number!(I64, i64),
            ScalarType::F64 => number!(F64, f64),
            ScalarType::Bool => {
                let (head, rest) = bytes.split_first()?;
                (Self::Bool(*head != 0), rest)
            }
            ScalarType::String => {
                let (head, rest) = bytes.split_first_chunk()?;
                let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*head)).ok()?)?;
                (Self::String(text), rest)
            }
        })
    }

    /// Decodes what follows the type code in a file. None unless the bytes were checked when they were parsed.
    pub(crate) fn decode(value_type: ValueType, bytes: &'a [u8]) -> Option<Self> {
        match value_type {
            ValueType::Scalar(scalar) => Some(Self::split_scalar(scalar, bytes)?.0),
            ValueType::Array(element) => {
                let (_code, rest) = bytes.split_first_chunk::<4>()?;
                let (len, rest) = rest.split_first_chunk()?;
                let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
                Some(Self::Array(Array { element, len, bytes: rest }))
            }
        }
    }

    /// The value as an unsigned number, if it is a whole one of at least 0, of any integer type.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }
}

/// An array, decoded as it is walked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ScalarType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Type of the elements.
    #[must_use]
    pub fn element_type(&self) -> ScalarType {
        self.element
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, none of which is an array.
    #[must_use]
    pub fn iter(&self) -> Elements<'a> {
        Elements { array: *self }
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

/// Walks an [`Array`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    /// What is still to come.
    array: Array<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.array.len = self.array.len.checked_sub(1)?;
        let (value, rest) = Value::split_scalar(self.array.element, self.array.bytes)?;
        self.array.bytes = rest;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.array.len, Some(self.array.len))
    }
}

impl ExactSizeIterator for Elements<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_table_is_indexed_by_its_own_variants() {
        for (i, row) in SCALAR_TYPES.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(ScalarType::from_code(row.1), Some(row.0));
        }
        assert_eq!(ScalarType::from_code(ARRAY_CODE), None);
        assert_eq!(ScalarType::from_code(13), None);
    }

    #[test]
    fn value_types_survive_their_text_form() {
        for (scalar, _, name, _) in SCALAR_TYPES {
            assert_eq!(name.parse::<ValueType>().unwrap(), ValueType::Scalar(scalar));
            let array = ValueType::Array(scalar);
            assert_eq!(array.to_string().parse::<ValueType>().unwrap(), array);
        }
        for bad in ["", "U8", "array", "array[]", "array[u8", "array[array[u8]]"] {
            let message = bad.parse::<ValueType>().unwrap_err().to_string();
            assert!(message.contains(&format!("found '{bad}'")), "{message}");
        }
    }

    #[test]
    fn any_integer_type_counts_as_unsigned_when_it_is_not_negative() {
        assert_eq!(Value::I32(7).as_u64(), Some(7));
        assert_eq!(Value::U8(255).as_u64(), Some(255));
        assert_eq!(Value::I64(-1).as_u64(), None);
        assert_eq!(Value::F32(1.0).as_u64(), None);
        assert_eq!(Value::Bool(true).as_u64(), None);
    }
}
