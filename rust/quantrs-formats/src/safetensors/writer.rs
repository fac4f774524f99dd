//! What a safetensors file begins with.

use std::collections::HashSet;

use super::dtype::Dtype;
use super::json::quoted;
use super::{LENGTH_BYTES, MAX_HEADER_BYTES, METADATA};
use crate::error::{FormatError, Result};

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct NewTensor {
    /// Unique, not empty.
    pub name: String,
    /// Element type.
    pub dtype: &'static Dtype,
    /// Row length last.
    pub shape: Vec<u64>,
}

/// The bytes before the data, and where each of `tensors` begins, from the start of the file.
///
/// Data lies as upstream's writer lays it: by type, widest first, then by name; the header is padded to 8 bytes.
///
/// # Errors
/// [`FormatError::Edit`]: a name that is empty, reserved or there twice, or more bytes than a file or a header can have.
pub fn write_header(tensors: &[NewTensor], metadata: &[(String, String)]) -> Result<(Vec<u8>, Vec<u64>)> {
    let mut names = HashSet::new();
    for tensor in tensors {
        if tensor.name.is_empty() || tensor.name == METADATA || !names.insert(tensor.name.as_str()) {
            let expected = format!("unique names, neither empty nor '{METADATA}'");
            return Err(edit(format!("tensor '{}'", tensor.name), "this name", expected));
        }
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(tensors[i].dtype.rank()), tensors[i].name.as_str()));

    let mut entries = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        let pairs: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
        entries.push(format!("\"{METADATA}\":{{{}}}", pairs.join(",")));
    }
    let mut offsets = vec![0; tensors.len()];
    let mut end = 0u64;
    for i in order {
        let NewTensor { name, dtype, shape } = &tensors[i];
        offsets[i] = end;
        // Room is left for the header, so that adding it below cannot overflow.
        let next = dtype.tensor_bytes(shape).and_then(|n| end.checked_add(n)).filter(|n| *n <= i64::MAX as u64);
        end = next.ok_or_else(|| {
            edit(format!("tensor '{name}'"), format!("the shape {shape:?}"), "a file of fewer than 2^63 bytes".into())
        })?;
        let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
        entries.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{end}]}}",
            quoted(name),
            dtype.name,
            shape.join(","),
            offsets[i]
        ));
    }
    let text = format!("{{{}}}", entries.join(","));
    let length = (text.len() as u64).next_multiple_of(8);
    if length > MAX_HEADER_BYTES {
        return Err(edit("header".into(), format!("{length} bytes"), format!("at most {MAX_HEADER_BYTES}")));
    }
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize((LENGTH_BYTES + length) as usize, b' ');
    let start = bytes.len() as u64;
    offsets.iter_mut().for_each(|offset| *offset += start);
    Ok((bytes, offsets))
}

fn edit(what: String, found: impl ToString, expected: String) -> FormatError {
    FormatError::Edit { what, found: found.to_string(), expected }
}
