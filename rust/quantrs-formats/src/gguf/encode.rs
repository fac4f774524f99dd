//! From a value that somebody wants to set to the bytes of a GGUF header.

use super::value::{ScalarType, ValueType};
use crate::error::{FormatError, Result, preview};

/// A value to be written, in the few kinds that callers have; the wanted [`ValueType`] decides its bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum NewValue {
    /// For `bool`.
    Bool(bool),
    /// For every integer type that holds it, and for floats.
    Int(i128),
    /// For `f32` (rounded to nearest) and `f64`.
    Float(f64),
    /// For `string`; kept as they are.
    Bytes(Vec<u8>),
    /// For arrays.
    List(Vec<NewValue>),
}

impl NewValue {
    fn describe(&self) -> String {
        match self {
            Self::Bool(v) => v.to_string(),
            Self::Int(v) => v.to_string(),
            Self::Float(v) => format!("{v:?}"),
            Self::Bytes(v) => format!("the string '{}'", preview(v)),
            Self::List(v) => format!("a list of {}", v.len()),
        }
    }
}

/// The bytes that follow the type code in a file.
pub(crate) fn encode(key: &str, value_type: ValueType, value: &NewValue) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match (value_type, value) {
        (ValueType::Scalar(scalar), _) => append(&mut out, scalar, value),
        (ValueType::Array(element), NewValue::List(items)) => {
            out.extend(element.code().to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().try_for_each(|item| append(&mut out, element, item))
        }
        (ValueType::Array(_), _) => Err(value),
    }
    .map_err(|misfit| FormatError::Edit {
        what: format!("key '{key}'"),
        found: misfit.describe(),
        expected: format!("a value that fits {value_type}"),
    })?;
    Ok(out)
}

/// Appends one scalar; the value itself comes back when it does not fit.
fn append<'v>(out: &mut Vec<u8>, scalar: ScalarType, value: &'v NewValue) -> std::result::Result<(), &'v NewValue> {
    macro_rules! int {
        ($type:ty) => {
            match value {
                NewValue::Int(v) => out.extend(<$type>::try_from(*v).map_err(|_| value)?.to_le_bytes()),
                _ => return Err(value),
            }
        };
    }
    match scalar {
        ScalarType::U8 => int!(u8),
        ScalarType::I8 => int!(i8),
        ScalarType::U16 => int!(u16),
        ScalarType::I16 => int!(i16),
        ScalarType::U32 => int!(u32),
        ScalarType::I32 => int!(i32),
        ScalarType::U64 => int!(u64),
        ScalarType::I64 => int!(i64),
        ScalarType::F32 => {
            let wide = as_float(value)?;
            let narrow = wide as f32;
            if wide.is_finite() && !narrow.is_finite() {
                return Err(value);
            }
            out.extend(narrow.to_le_bytes());
        }
        ScalarType::F64 => out.extend(as_float(value)?.to_le_bytes()),
        ScalarType::Bool => match value {
            NewValue::Bool(v) => out.push(u8::from(*v)),
            _ => return Err(value),
        },
        ScalarType::String => match value {
            NewValue::Bytes(v) => {
                out.extend((v.len() as u64).to_le_bytes());
                out.extend(v);
            }
            _ => return Err(value),
        },
    }
    Ok(())
}

fn as_float(value: &NewValue) -> std::result::Result<f64, &NewValue> {
    match value {
        NewValue::Float(v) => Ok(*v),
        NewValue::Int(v) => Ok(*v as f64),
        _ => Err(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value_type: &str, value: NewValue) -> Result<Vec<u8>> {
        encode("k", value_type.parse().unwrap(), &value)
    }

    #[test]
    fn integers_keep_their_limits() {
        assert_eq!(bytes("u8", NewValue::Int(255)).unwrap(), [255]);
        assert_eq!(bytes("i16", NewValue::Int(-2)).unwrap(), [0xfe, 0xff]);
        assert_eq!(bytes("u64", NewValue::Int(u64::MAX.into())).unwrap(), [0xff; 8]);
        for (value_type, value) in [("u8", 256), ("u32", -1), ("i64", 1 << 63)] {
            let message = bytes(value_type, NewValue::Int(value)).unwrap_err().to_string();
            assert_eq!(message, format!("key 'k': found {value}, expected a value that fits {value_type}"));
        }
    }

    #[test]
    fn floats_round_to_nearest_and_refuse_overflow() {
        assert_eq!(bytes("f32", NewValue::Float(0.1)).unwrap(), 0.1f32.to_le_bytes());
        assert_eq!(bytes("f64", NewValue::Int(3)).unwrap(), 3.0f64.to_le_bytes());
        assert!(bytes("f32", NewValue::Float(1e39)).is_err());
        assert_eq!(bytes("f32", NewValue::Float(f64::INFINITY)).unwrap(), f32::INFINITY.to_le_bytes());
    }

    #[test]
    fn strings_keep_nul_and_invalid_utf8() {
        assert_eq!(bytes("string", NewValue::Bytes(b"a\0\xff".to_vec())).unwrap(), b"\x03\0\0\0\0\0\0\0a\0\xff");
    }

    #[test]
    fn arrays_carry_their_element_type_and_length_and_do_not_nest() {
        let list = NewValue::List(vec![NewValue::Bool(true), NewValue::Bool(false)]);
        assert_eq!(bytes("array[bool]", list.clone()).unwrap(), b"\x07\0\0\0\x02\0\0\0\0\0\0\0\x01\0");
        assert!(bytes("bool", list.clone()).is_err());
        assert!(bytes("array[bool]", NewValue::List(vec![list])).is_err());
        assert!(bytes("array[bool]", NewValue::Bool(true)).is_err());
        assert!(bytes("array[bool]", NewValue::List(vec![NewValue::Int(1)])).is_err());
    }
}
