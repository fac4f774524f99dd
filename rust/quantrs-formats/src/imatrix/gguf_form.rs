//! The GGUF form: for every weight `NAME` the tensors `NAME.in_sum2` and `NAME.counts`.

use std::collections::HashMap;

use super::{Imatrix, check_statistics, read_statistics};
use crate::error::{FormatError, Place, Result};
use crate::gguf::{GgufFile, TensorInfo, Value};
use crate::source::ReadAt;

const SUMS_SUFFIX: &str = ".in_sum2";
const COUNTS_SUFFIX: &str = ".counts";
const F32_ID: u32 = 0;

pub(super) fn read<S: ReadAt + ?Sized>(source: &S, file: &GgufFile) -> Result<Imatrix> {
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
    let mut imatrix = Imatrix { names: Vec::new(), weights: HashMap::new(), datasets, chunk_count };
    for tensor in file.tensors() {
        if let Some(name) = tensor.name.strip_suffix(SUMS_SUFFIX) {
            let counts = by_name.get(format!("{name}{COUNTS_SUFFIX}").as_str());
            let counts = counts.ok_or_else(|| missing(file, tensor, name, COUNTS_SUFFIX))?;
            imatrix.insert(name.to_owned(), column_weights(source, file, tensor, counts)?);
        } else if let Some(name) = tensor.name.strip_suffix(COUNTS_SUFFIX)
            && !by_name.contains_key(format!("{name}{SUMS_SUFFIX}").as_str())
        {
            return Err(missing(file, tensor, name, SUMS_SUFFIX));
        }
    }
    if imatrix.names.is_empty() {
        return Err(FormatError::Invalid {
            place: Place { path: file.path().into(), offset: 0, field: "tensors".into() },
            found: format!("{} tensors, none named *{SUMS_SUFFIX}", file.tensors().len()),
            expected: "statistics, as the imatrix tool writes them".into(),
        });
    }
    Ok(imatrix)
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

/// Mean square of each column: sums / count, expert by expert; 1 for an expert that saw no token.
fn column_weights<S: ReadAt + ?Sized>(
    source: &S,
    file: &GgufFile,
    sums: &TensorInfo,
    counts: &TensorInfo,
) -> Result<Vec<f32>> {
    let mut weights = read_tensor(source, file, sums)?;
    let counts_read = read_tensor(source, file, counts)?;
    if weights.len() % counts_read.len() != 0 {
        return Err(FormatError::Invalid {
            place: place(file, counts),
            found: format!("{} counts for {} sums", counts_read.len(), weights.len()),
            expected: "a whole number of sums for each count".into(),
        });
    }
    let per_count = weights.len() / counts_read.len();
    for (expert, count) in weights.chunks_exact_mut(per_count).zip(counts_read) {
        // Half away from zero, as C's lround does; counts are whole in sound files.
        let count = count.round();
        if count > 0.0 {
            expert.iter_mut().for_each(|v| *v /= count);
        } else {
            expert.fill(1.0);
        }
    }
    check_statistics(&place(file, sums), &weights)?;
    Ok(weights)
}
