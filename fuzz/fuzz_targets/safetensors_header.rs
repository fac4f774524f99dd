//! Any bytes: refused, or a header whose data fills the file, and that survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quantrs_formats::safetensors::{NewTensor, SafeTensor, SafeTensorsFile, write_header};
use std::path::Path;

/// What has to survive, in an order that does not depend on the places.
fn facts(file: &SafeTensorsFile) -> Vec<(String, &'static str, Vec<u64>)> {
    let row = |t: &SafeTensor| (t.name.clone(), t.dtype.name, t.shape.clone());
    let mut rows: Vec<_> = file.tensors().iter().map(row).collect();
    rows.sort();
    rows
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = SafeTensorsFile::parse(bytes, Path::new("fuzz")) else { return };
    let mut end = file.tensors().first().map_or(bytes.len() as u64, |t| t.offset);
    for tensor in file.tensors() {
        assert_eq!(tensor.offset, end);
        assert_eq!(tensor.dtype.tensor_bytes(&tensor.shape), Some(tensor.nbytes));
        end += tensor.nbytes;
    }
    assert_eq!(end, bytes.len() as u64);

    let new = |t: &SafeTensor| NewTensor { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() };
    let tensors: Vec<NewTensor> = file.tensors().iter().map(new).collect();
    let (mut written, offsets) = write_header(&tensors, file.metadata()).expect("what was read can be written");
    let data: u64 = file.tensors().iter().map(|t| t.nbytes).sum();
    written.resize(written.len() + data as usize, 0);
    let again = SafeTensorsFile::parse(written.as_slice(), Path::new("again")).expect("what was written can be read");
    assert_eq!(facts(&again), facts(&file));
    assert_eq!(again.metadata(), file.metadata());
    for (tensor, offset) in file.tensors().iter().zip(offsets) {
        let placed = again.tensors().iter().find(|t| t.name == tensor.name).expect("the same names");
        assert_eq!(placed.offset, offset);
    }
});
