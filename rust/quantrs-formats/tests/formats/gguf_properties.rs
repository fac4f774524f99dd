//! Whatever the bytes, the parsers return; whatever header is written, it is read back equal.

use proptest::prelude::*;

use crate::common::golden_bytes;
use quantrs_formats::{GGML_TYPES, GgufFile, Header, Imatrix, NewValue, ScalarType, Value, ValueType};

fn scalar_type() -> impl Strategy<Value = ScalarType> {
    use ScalarType::*;
    proptest::sample::select(vec![U8, I8, U16, I16, U32, I32, F32, Bool, String, U64, I64, F64])
}

fn scalar_value(scalar: ScalarType) -> BoxedStrategy<NewValue> {
    match scalar {
        ScalarType::U8 => any::<u8>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::I8 => any::<i8>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::U16 => any::<u16>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::I16 => any::<i16>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::U32 => any::<u32>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::I32 => any::<i32>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::U64 => any::<u64>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::I64 => any::<i64>().prop_map(|v| NewValue::Int(v.into())).boxed(),
        ScalarType::F32 => any::<f32>().prop_map(|v| NewValue::Float(v.into())).boxed(),
        ScalarType::F64 => any::<f64>().prop_map(NewValue::Float).boxed(),
        ScalarType::Bool => any::<bool>().prop_map(NewValue::Bool).boxed(),
        ScalarType::String => proptest::collection::vec(any::<u8>(), 0..20).prop_map(NewValue::Bytes).boxed(),
    }
}

fn typed_value() -> impl Strategy<Value = (ValueType, NewValue)> {
    scalar_type().prop_flat_map(|scalar| {
        let single = scalar_value(scalar).prop_map(move |v| (ValueType::Scalar(scalar), v));
        let list = proptest::collection::vec(scalar_value(scalar), 0..6);
        prop_oneof![single, list.prop_map(move |v| (ValueType::Array(scalar), NewValue::List(v)))]
    })
}

/// Name, number of blocks in a row, outer sizes, position in the type table.
fn tensors() -> impl Strategy<Value = Vec<(String, u64, Vec<u64>, usize)>> {
    let tensor = ("[a-zé.]{1,12}", 1u64..4, proptest::collection::vec(1u64..5, 0..4), 0..GGML_TYPES.len());
    proptest::collection::vec(tensor, 0..6)
}

/// Did the reader decode what was set?
fn same(value: Value<'_>, set: &NewValue) -> bool {
    match (value, set) {
        (Value::U8(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::I8(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::U16(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::I16(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::U32(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::I32(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::U64(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::I64(v), NewValue::Int(s)) => i128::from(v) == *s,
        (Value::F32(v), NewValue::Float(s)) => f64::from(v) == *s,
        (Value::F64(v), NewValue::Float(s)) => v == *s,
        (Value::Bool(v), NewValue::Bool(s)) => v == *s,
        (Value::String(v), NewValue::Bytes(s)) => v == s.as_slice(),
        (Value::Array(v), NewValue::List(s)) => v.len() == s.len() && v.iter().zip(s).all(|(v, s)| same(v, s)),
        _ => false,
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = GgufFile::from_bytes(&bytes);
        let _ = Imatrix::from_bytes(&bytes);
    }

    #[test]
    fn any_bytes_after_a_sound_beginning_are_parsed_or_refused(
        counts in (0u64..4, 0u64..4), bytes in proptest::collection::vec(0u8..12, 0..300),
    ) {
        let head = [b"GGUF\x03\0\0\0", &counts.0.to_le_bytes()[..], &counts.1.to_le_bytes(), &bytes].concat();
        if let Ok(file) = GgufFile::from_bytes(&head) {
            let _ = file.notices();
        }
    }

    #[test]
    fn damaged_real_files_are_parsed_or_refused(
        name in proptest::sample::select(vec!["split-00001-of-00003.gguf", "tiny.imatrix.gguf", "tiny.imatrix.dat"]),
        patches in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u64>(), 1usize..9), 1..4),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = golden_bytes(name);
        for (at, value, n) in patches {
            let start = at.index(bytes.len());
            let end = bytes.len().min(start + n);
            bytes[start..end].copy_from_slice(&value.to_le_bytes()[..end - start]);
        }
        let _ = GgufFile::from_bytes(&bytes);
        let _ = Imatrix::from_bytes(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = GgufFile::from_bytes(&bytes);
        let _ = Imatrix::from_bytes(&bytes);
    }

    #[test]
    fn any_header_that_is_written_is_read_back_equal(
        version in 2u32..4,
        alignment in proptest::option::of(0u32..13),
        entries in proptest::collection::vec(("[a-zé._]{1,16}", typed_value()), 0..12),
        tensors in tensors(),
    ) {
        let mut header = Header::new(version).unwrap();
        if let Some(shift) = alignment {
            header.set("general.alignment", "u32".parse().unwrap(), &NewValue::Int(1 << shift)).unwrap();
        }
        for (key, (value_type, value)) in &entries {
            header.set(key, *value_type, value).unwrap();
        }
        let mut added = Vec::new();
        for (name, blocks, outer, which) in tensors {
            let ggml_type = &GGML_TYPES[which];
            let dims: Vec<u64> = std::iter::once(blocks * ggml_type.block_len).chain(outer).collect();
            if let Ok(offset) = header.add_tensor(&name, &dims, ggml_type) {
                added.push((name, dims, ggml_type.id, offset));
            }
        }
        let head = header.to_bytes();
        let mut bytes = head.clone();
        bytes.resize(head.len() + header.data_len() as usize, 0);

        let read = GgufFile::from_bytes(&bytes).unwrap();
        prop_assert_eq!(read.version(), version);
        prop_assert_eq!(read.alignment(), alignment.map_or(32, |shift| 1 << shift));
        prop_assert!(read.keys().eq(header.keys()));
        for (i, (key, (value_type, value))) in entries.iter().enumerate() {
            if entries[i + 1..].iter().any(|(later, _)| later == key) {
                continue;
            }
            prop_assert_eq!(read.value_type(key), Some(*value_type));
            prop_assert!(same(read.value(key).unwrap(), value), "{}: {:?}", key, value);
        }
        prop_assert_eq!(read.tensors().len(), added.len());
        let mut again = read.header();
        for (tensor, (name, dims, type_id, offset)) in read.tensors().iter().zip(&added) {
            prop_assert_eq!(&tensor.name, name);
            prop_assert_eq!(tensor.type_id, *type_id);
            prop_assert_eq!(tensor.offset, read.data_offset() + offset);
            prop_assert_eq!(&tensor.dims[..], &dims[..]);
            again.add_tensor(&tensor.name, &tensor.dims, tensor.ggml_type().unwrap()).unwrap();
        }
        prop_assert!(again.to_bytes() == head);
    }
}
