//! Files that the real tools wrote, read and written back.

use crate::common::{golden, golden_bytes};
use quantrs_formats::{Gguf, GgufFile, Header, Value};

const WHOLE_FILES: [&str; 8] = [
    "tiny-f16.gguf",
    "tiny-Q4_K_M.gguf",
    "tiny-Q3_K_S-imat.gguf",
    "tiny-IQ2_XXS-imat.gguf",
    "tiny.imatrix.gguf",
    "split-00001-of-00003.gguf",
    "split-00002-of-00003.gguf",
    "split-00003-of-00003.gguf",
];

/// The header with all tensors added anew.
fn rewritten(file: &GgufFile) -> Header {
    let mut header = file.header();
    for tensor in file.tensors() {
        let offset = header.add_tensor(&tensor.name, &tensor.dims, tensor.ggml_type().unwrap()).unwrap();
        assert_eq!(file.data_offset() + offset, tensor.offset, "{}", tensor.name);
    }
    header
}

#[test]
fn headers_of_real_files_come_back_byte_for_byte() {
    for name in WHOLE_FILES {
        let bytes = golden_bytes(name);
        let file = GgufFile::from_bytes(&bytes).unwrap();
        let header = rewritten(&file);
        let out = header.to_bytes();
        assert_eq!(out.len() as u64, file.data_offset(), "{name}");
        assert!(out == bytes[..out.len()], "{name}: header differs");
        assert_eq!(file.data_offset() + header.data_len(), bytes.len() as u64, "{name}: data section");
        assert_eq!(file.notices(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn version_2_stays_version_2() {
    let mut bytes = golden_bytes("tiny-f16.gguf");
    bytes[4] = 2;
    let file = GgufFile::from_bytes(&bytes).unwrap();
    assert_eq!(file.version(), 2);
    let out = rewritten(&file).to_bytes();
    assert!(out == bytes[..out.len()]);
}

#[test]
fn every_value_type_is_read_from_the_file_of_the_real_tool() {
    let gguf = Gguf::open(golden("tiny-f16.gguf")).unwrap();
    let mut types: Vec<String> = gguf.keys().map(|k| gguf.value_type(k).unwrap().to_string()).collect();
    types.sort();
    types.dedup();
    for scalar in ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "u64", "i64", "f64"] {
        assert!(types.iter().any(|t| t == scalar), "{scalar} is not in {types:?}");
    }
    assert!(types.iter().filter(|t| t.starts_with("array[")).count() >= 4, "{types:?}");
    assert_eq!(gguf.value("general.architecture"), Some(Value::String(b"llama")));
    assert_eq!(gguf.value("no.such.key"), None);
    assert_eq!(gguf.array_len("general.architecture"), None);
    let arrays = gguf.keys().filter(|k| gguf.array_len(k).is_some());
    for key in arrays {
        let Some(Value::Array(array)) = gguf.value(key) else { unreachable!() };
        assert_eq!(array.iter().count(), array.len(), "{key}");
        assert_eq!(Some(array.len()), gguf.array_len(key));
    }
}

#[test]
fn tensors_of_a_real_file_lie_where_its_tool_put_them() {
    let gguf = Gguf::open(golden("tiny-Q4_K_M.gguf")).unwrap();
    assert_eq!((gguf.version(), gguf.alignment(), gguf.tensors().len()), (3, 32, 12));
    let mut end = gguf.data_offset();
    for tensor in gguf.tensors() {
        assert_eq!(tensor.offset, end, "{}", tensor.name);
        end = (tensor.offset + tensor.nbytes).next_multiple_of(32);
    }
    assert_eq!(end, gguf.file_size());
    assert_eq!(gguf.split_sizes(), [12]);
}
