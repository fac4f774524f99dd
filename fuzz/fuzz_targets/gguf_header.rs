//! Any bytes: refused, or a header that survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quantrs_formats::{GgufFile, TensorInfo, Value};

/// Equal bit for bit: NaN payloads must survive as well, so values are compared as text of their bits.
fn bits(value: Value<'_>) -> String {
    match value {
        Value::F32(v) => format!("f32 {:08x}", v.to_bits()),
        Value::F64(v) => format!("f64 {:016x}", v.to_bits()),
        Value::Array(array) => array.iter().map(bits).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

fn whole_within(tensor: &TensorInfo, file: &GgufFile) -> bool {
    tensor.nbytes > 0 && tensor.offset >= file.data_offset() && tensor.offset + tensor.nbytes <= file.file_size()
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = GgufFile::from_bytes(bytes) else { return };
    let _ = file.notices();
    assert!(file.tensors().iter().all(|t| whole_within(t, &file)));

    let mut header = file.header();
    // Unknown types can be read, not written; they need not survive.
    let known: Vec<&TensorInfo> = file.tensors().iter().filter(|t| t.ggml_type().is_some()).collect();
    for tensor in &known {
        if let Some(ggml_type) = tensor.ggml_type() {
            header.add_tensor(&tensor.name, &tensor.dims, ggml_type).expect("a tensor that was read can be written");
        }
    }
    let mut written = header.to_bytes();
    let canonical = known.len() == file.tensors().len()
        && known.iter().zip(offsets(&known, &file)).all(|(t, offset)| t.offset == offset)
        && known.iter().all(|t| t.dims.len() == 1 || t.dims.last() != Some(&1))
        && file.notices().is_empty();
    if canonical {
        let end = written.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        assert!(bytes.starts_with(&written[..end]), "a canonical header changed");
    }

    written.resize(written.len() + header.data_len() as usize, 0);
    let again = GgufFile::from_bytes(&written).expect("a header that was written can be read");
    assert_eq!((again.version(), again.alignment()), (file.version(), file.alignment()));
    assert!(again.keys().eq(file.keys()));
    for key in file.keys() {
        assert_eq!(again.value(key).map(bits), file.value(key).map(bits), "{key}");
    }
    let names = |tensors: &[TensorInfo]| tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(again.tensors()), known.iter().map(|t| t.name.clone()).collect::<Vec<_>>());
});

/// Where the tensors lie in a canonical file.
fn offsets(tensors: &[&TensorInfo], file: &GgufFile) -> Vec<u64> {
    let mut next = file.data_offset();
    let mut place = |t: &&TensorInfo| {
        let offset = next;
        next = (offset + t.nbytes).next_multiple_of(file.alignment());
        offset
    };
    tensors.iter().map(&mut place).collect()
}
