//! The GGUF form: for every weight `NAME` the tensors `NAME.in_sum2` and `NAME.counts`.

use std::collections::HashMap;

use super::raw::{Raw, RawEntry};
use super::read_statistics;
use super::sums::ImatrixSums;
use crate::error::{FormatError, Place, Result};
use crate::ggml_types::GgmlType;
use crate::gguf::{GgufFile, Header, NewValue, TensorInfo, Value};
use crate::source::ReadAt;

const SUMS_SUFFIX: &str = ".in_sum2";
const COUNTS_SUFFIX: &str = ".counts";
const F32_ID: u32 = 0;

pub(super) fn read<S: ReadAt + ?Sized>(source: &S, file: &GgufFile) -> Result<Raw> {
    let chunk_count = metadata(file, "imatrix.chunk_count", |v| match v {
        Value::U32(n) => Some(n),
        _ => None,
    })?;
    metadata(file, "imatrix.chunk_size", |v| matches!(v, Value::U32(_)).then_some(()))?;
    let datasets = metadata(file, "imatrix.datasets", |v| match v {
        Value::Array(array) => {
            array.iter().map(|item| if let Value::String(text) = item { Some(text.to_vec()) } else { None }).collect()
        }
        _ => None,
    })?;

    let by_name: HashMap<&str, &TensorInfo> = file.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    let mut raw = Raw { entries: Vec::new(), datasets, chunk_count, is_legacy: false };
    for tensor in file.tensors() {
        if let Some(name) = tensor.name.strip_suffix(SUMS_SUFFIX) {
            let counts = by_name.get(format!("{name}{COUNTS_SUFFIX}").as_str());
            let counts = counts.ok_or_else(|| missing(file, tensor, name, COUNTS_SUFFIX))?;
            raw.entries.push(read_entry(source, file, name, tensor, counts)?);
        } else if let Some(name) = tensor.name.strip_suffix(COUNTS_SUFFIX)
            && !by_name.contains_key(format!("{name}{SUMS_SUFFIX}").as_str())
        {
            return Err(missing(file, tensor, name, SUMS_SUFFIX));
        }
    }
    if raw.entries.is_empty() {
        return Err(FormatError::Invalid {
            place: Place { path: file.path().into(), offset: 0, field: "tensors".into() },
            found: format!("{} tensors, none named *{SUMS_SUFFIX}", file.tensors().len()),
            expected: "statistics, as the imatrix tool writes them".into(),
        });
    }
    Ok(raw)
}

/// A key that the file must have with a value that `read` understands.
fn metadata<'f, T>(file: &'f GgufFile, key: &str, read: impl FnOnce(Value<'f>) -> Option<T>) -> Result<T> {
    file.value(key).and_then(read).ok_or_else(|| FormatError::Invalid {
        place: Place { path: file.path().into(), offset: 0, field: format!("key '{key}'") },
        found: file.value_type(key).map_or_else(|| "no such key".into(), |t| format!("a value of type {t}")),
        expected: "a GGUF imatrix: imatrix.datasets (array[string]), imatrix.chunk_count and imatrix.chunk_size (u32)"
            .into(),
    })
}

fn place(file: &GgufFile, tensor: &TensorInfo) -> Place {
    Place { path: file.path().into(), offset: tensor.offset, field: format!("tensor '{}'", tensor.name) }
}

fn missing(file: &GgufFile, tensor: &TensorInfo, name: &str, suffix: &str) -> FormatError {
    let found = format!("no tensor '{name}{suffix}' to go with it");
    FormatError::Invalid {
        place: place(file, tensor),
        found,
        expected: format!("'{name}{SUMS_SUFFIX}' and '{name}{COUNTS_SUFFIX}'"),
    }
}

fn read_tensor<S: ReadAt + ?Sized>(source: &S, file: &GgufFile, tensor: &TensorInfo) -> Result<Vec<f32>> {
    if tensor.type_id != F32_ID {
        let found =
            tensor.ggml_type().map_or_else(|| format!("type id {}", tensor.type_id), |t| format!("type {}", t.name));
        return Err(FormatError::Invalid { place: place(file, tensor), found, expected: "type F32".into() });
    }
    read_statistics(source, &place(file, tensor), tensor.nbytes / 4)
}

fn read_entry<S: ReadAt + ?Sized>(
    source: &S,
    file: &GgufFile,
    name: &str,
    sums: &TensorInfo,
    counts: &TensorInfo,
) -> Result<RawEntry> {
    let (values, counts_read) = (read_tensor(source, file, sums)?, read_tensor(source, file, counts)?);
    if values.len() % counts_read.len() != 0 {
        return Err(FormatError::Invalid {
            place: place(file, counts),
            found: format!("{} counts for {} sums", counts_read.len(), values.len()),
            expected: "a whole number of sums for each count".into(),
        });
    }
    // Half away from zero, as C's lround does; counts are whole in sound files.
    let counts = counts_read.into_iter().map(f32::round).collect();
    Ok(RawEntry { name: name.to_owned(), sums: values, counts, place: place(file, sums) })
}

/// A file of these sums, entries in this order, as the imatrix tool writes it.
pub(super) fn write(sums: &ImatrixSums) -> Result<Vec<u8>> {
    let mut header = Header::new(3)?;
    let datasets = NewValue::List(sums.datasets.iter().map(|d| NewValue::Bytes(d.clone())).collect());
    let number = |n: u32| NewValue::Int(i128::from(n));
    header.set("general.type", "string".parse()?, &NewValue::Bytes(b"imatrix".to_vec()))?;
    header.set("imatrix.datasets", "array[string]".parse()?, &datasets)?;
    header.set("imatrix.chunk_count", "u32".parse()?, &number(sums.chunk_count()))?;
    header.set("imatrix.chunk_size", "u32".parse()?, &number(sums.chunk_size))?;
    let f32_type = GgmlType::by_id(F32_ID).expect("the first type of all");
    let mut data = Vec::new();
    for (name, entry) in &sums.entries {
        let n_counts = entry.counts.len();
        let tensors = [
            (SUMS_SUFFIX, entry.sums.len() / n_counts, entry.sums.iter().map(|v| *v as f32).collect::<Vec<_>>()),
            (COUNTS_SUFFIX, 1, entry.counts.iter().map(|n| *n as f32).collect()),
        ];
        for (suffix, n_cols, values) in tensors {
            // Trailing sizes of 1 are not written.
            let dims = [n_cols as u64, n_counts as u64];
            let offset =
                header.add_tensor(&format!("{name}{suffix}"), &dims[..if n_counts > 1 { 2 } else { 1 }], f32_type)?;
            data.resize(offset as usize, 0);
            data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    data.resize(header.data_len() as usize, 0);
    Ok([header.to_bytes(), data].concat())
}
