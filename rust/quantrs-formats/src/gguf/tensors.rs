//! Tensor entries of a file, and the check that their data lies where it may.

use std::sync::Arc;

use super::cursor::Cursor;
use crate::assembly::Assembly;
use crate::error::{FormatError, Result, preview};
use crate::ggml_types::{GgmlType, REMOVED_TYPE_IDS};
use crate::source::ReadAt;

/// ggml's limit: 64 with the terminator.
pub(crate) const MAX_NAME_BYTES: usize = 63;
/// ggml's limit.
pub(crate) const MAX_DIMS: usize = 4;
/// The shortest entry: name length, a one-byte name, dimension count, type, offset.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 4 + 8;

/// One tensor of a model; where its data lies was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Unique, 1 to 63 bytes; of an assembled model of any length.
    pub name: String,
    /// 1 to 4 sizes (of an assembled model any number), none 0, row length first (the reverse of NumPy's shape).
    pub dims: Vec<u64>,
    /// ggml type id; [`TensorInfo::ggml_type`] is None for one that is not known.
    pub type_id: u32,
    /// Of the first byte, from the start of the file.
    pub offset: u64,
    /// Bytes of data, without padding (of an unknown type: up to the next tensor or the end of the file).
    pub nbytes: u64,
    /// Which source holds the data: a file of a split model.
    pub file: usize,
    /// What it is put together from; `offset` and `file` are then those of its first part. None for what lies as it is.
    pub assembly: Option<Arc<Assembly>>,
}

impl TensorInfo {
    /// The type, if this build knows it.
    #[must_use]
    pub fn ggml_type(&self) -> Option<&'static GgmlType> {
        GgmlType::by_id(self.type_id)
    }
}

/// A tensor entry whose `offset` still counts from the data section and whose `nbytes` is open for unknown types.
pub(crate) struct RawTensor {
    info: TensorInfo,
    /// Where its fields begin in the file.
    entry_at: u64,
    type_at: u64,
    offset_at: u64,
}

/// How the data section lies in the file.
pub(crate) struct Section {
    /// Start, from the start of the file.
    pub(crate) offset: u64,
    pub(crate) alignment: u64,
    pub(crate) file_size: u64,
}

pub(crate) fn parse<S: ReadAt + ?Sized>(
    cursor: &mut Cursor<'_, S>,
    count: u64,
    notices: &mut Vec<String>,
) -> Result<Vec<RawTensor>> {
    cursor.check_count(count, MIN_ENTRY_BYTES, format_args!("the {count} tensor entries"))?;
    let mut tensors = Vec::new();
    let mut without_dims = 0;
    for i in 0..count {
        let tensor = parse_entry(cursor, i, &mut without_dims)?;
        tensors.push(tensor);
    }
    check_names(cursor, &tensors)?;
    // One sentence for all of them: a damaged file must not fill the screen.
    let mut unknown = tensors.iter().filter(|t| t.info.ggml_type().is_none());
    if let Some(first) = unknown.next() {
        let (name, id) = (&first.info.name, first.info.type_id);
        let total = 1 + unknown.count();
        notices.push(format!(
            "{total} tensors have a type id that is not known (the first is '{name}', type id {id}); their data is kept as opaque bytes"
        ));
    }
    if without_dims > 0 {
        notices.push(format!("{without_dims} tensors have no dimensions; each is taken as one element"));
    }
    Ok(tensors)
}

fn check_names<S: ReadAt + ?Sized>(cursor: &Cursor<'_, S>, tensors: &[RawTensor]) -> Result<()> {
    let mut by_name: Vec<&RawTensor> = tensors.iter().collect();
    by_name.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    match by_name.windows(2).find(|pair| pair[0].info.name == pair[1].info.name) {
        Some(pair) => Err(FormatError::Duplicate {
            place: cursor.place(pair[1].entry_at, "tensor name"),
            name: pair[1].info.name.clone(),
            first: pair[0].entry_at,
        }),
        None => Ok(()),
    }
}

fn parse_entry<S: ReadAt + ?Sized>(cursor: &mut Cursor<'_, S>, i: u64, without_dims: &mut u64) -> Result<RawTensor> {
    let entry_at = cursor.position();
    let name_bytes = cursor.string(format_args!("name of tensor {i}"))?;
    let name_place = |cursor: &Cursor<'_, S>| cursor.place(entry_at, format_args!("name of tensor {i}"));
    if name_bytes.is_empty() || name_bytes.len() > MAX_NAME_BYTES {
        return Err(FormatError::Invalid {
            place: name_place(cursor),
            found: format!("{} bytes", name_bytes.len()),
            expected: format!("1 to {MAX_NAME_BYTES} bytes"),
        });
    }
    let Ok(name) = std::str::from_utf8(cursor.bytes(name_bytes.clone())) else {
        return Err(FormatError::BadText { place: name_place(cursor), found: preview(cursor.bytes(name_bytes)) });
    };
    let name = name.to_owned();

    let dims_at = cursor.position();
    let n_dims = cursor.u32(format_args!("dimension count of tensor '{name}'"))?;
    if n_dims as usize > MAX_DIMS {
        return Err(FormatError::Invalid {
            place: cursor.place(dims_at, format_args!("dimension count of tensor '{name}'")),
            found: n_dims.to_string(),
            expected: format!("at most {MAX_DIMS}"),
        });
    }
    let mut dims = Vec::with_capacity(MAX_DIMS);
    for j in 0..n_dims {
        dims.push(cursor.u64(format_args!("dimension {j} of tensor '{name}'"))?);
    }
    let shape_error = |cursor: &Cursor<'_, S>, dims: &[u64], expected: String| FormatError::Invalid {
        place: cursor.place(dims_at, format_args!("dimensions of tensor '{name}'")),
        found: format!("{dims:?}"),
        expected,
    };
    if dims.contains(&0) {
        return Err(shape_error(cursor, &dims, "sizes of at least 1".into()));
    }
    let n_elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    if n_elements.is_none_or(|n| n > i64::MAX as u64) {
        return Err(shape_error(cursor, &dims, "fewer than 2^63 elements".into()));
    }
    if dims.is_empty() {
        *without_dims += 1;
        dims.push(1);
    }

    let type_at = cursor.position();
    let type_id = cursor.u32(format_args!("type of tensor '{name}'"))?;
    if REMOVED_TYPE_IDS.contains(&type_id) {
        return Err(FormatError::Unsupported {
            place: cursor.place(type_at, format_args!("type of tensor '{name}'")),
            found: format!("{type_id}, which ggml has removed"),
            expected: "a current type",
            advice: "convert the original model again with a current tool",
        });
    }
    let nbytes = match GgmlType::by_id(type_id) {
        None => 0,
        Some(t) if dims[0] % t.block_len != 0 => {
            let expected = format!("a row length that is a multiple of {} (the block of {})", t.block_len, t.name);
            return Err(shape_error(cursor, &dims, expected));
        }
        Some(t) => match t.tensor_bytes(&dims) {
            Some(n) => n,
            None => return Err(shape_error(cursor, &dims, "fewer than 2^64 bytes".into())),
        },
    };
    let offset_at = cursor.position();
    let offset = cursor.u64(format_args!("offset of tensor '{name}'"))?;
    Ok(RawTensor {
        info: TensorInfo { name, dims, type_id, offset, nbytes, file: 0, assembly: None },
        entry_at,
        type_at,
        offset_at,
    })
}

/// Checks all ranges and turns them into ranges of the file. `place` tells an offset and field of the header as a place.
pub(crate) fn lay_out(
    mut tensors: Vec<RawTensor>,
    section: &Section,
    notices: &mut Vec<String>,
    place: impl Fn(u64, String) -> crate::error::Place,
) -> Result<Vec<TensorInfo>> {
    let data_bytes = section.file_size.saturating_sub(section.offset);
    let out_of_file = |t: &RawTensor, end: Option<u64>| FormatError::OutOfFile {
        place: place(t.offset_at, format!("offset of tensor '{}'", t.info.name)),
        end: end.and_then(|n| n.checked_add(section.offset)).unwrap_or(u64::MAX),
        file_size: section.file_size,
    };

    let mut by_offset: Vec<usize> = (0..tensors.len()).collect();
    by_offset.sort_by_key(|i| tensors[*i].info.offset);
    let mut previous: Option<usize> = None;
    let mut previous_end = 0;
    let mut contiguous = by_offset.is_sorted();
    for (rank, &i) in by_offset.iter().enumerate() {
        let t = &tensors[i];
        let offset = t.info.offset;
        if !offset.is_multiple_of(section.alignment) {
            return Err(FormatError::Invalid {
                place: place(t.offset_at, format!("offset of tensor '{}'", t.info.name)),
                found: offset.to_string(),
                expected: format!("a multiple of the alignment, {}", section.alignment),
            });
        }
        let nbytes = if t.info.ggml_type().is_some() {
            t.info.nbytes
        } else {
            let next = by_offset.get(rank + 1).map_or(data_bytes, |j| tensors[*j].info.offset);
            next.checked_sub(offset).ok_or_else(|| out_of_file(t, Some(offset)))?
        };
        let end = offset.checked_add(nbytes);
        if section.file_size < section.offset || end.is_none_or(|end| end > data_bytes) {
            return Err(out_of_file(t, end));
        }
        // Every tensor has data, so two that start together overlap even where the size is a guess.
        if let Some(p) = previous
            && (offset < previous_end || offset == tensors[p].info.offset)
        {
            return Err(FormatError::Overlap {
                place: place(t.offset_at, format!("offset of tensor '{}'", t.info.name)),
                other: tensors[p].info.name.clone(),
            });
        }
        if nbytes == 0 {
            return Err(FormatError::Invalid {
                place: place(t.type_at, format!("type of tensor '{}'", t.info.name)),
                found: "an unknown type without data".into(),
                expected: "at least one byte up to the next tensor or the end of the file".into(),
            });
        }
        contiguous &= offset == previous_end.next_multiple_of(section.alignment);
        previous = Some(i);
        previous_end = offset + nbytes;
        tensors[i].info.nbytes = nbytes;
    }
    if !contiguous {
        notices.push(
            "tensor data is not laid out in the order of the entries without gaps; llama.cpp refuses such a file"
                .into(),
        );
    }
    if previous.is_some() {
        let padded_end = previous_end.next_multiple_of(section.alignment);
        if padded_end > data_bytes {
            notices
                .push(format!("the padding after the last tensor is cut short by {} bytes", padded_end - data_bytes));
        } else if padded_end < data_bytes {
            notices.push(format!("{} bytes follow the last tensor; no entry describes them", data_bytes - padded_end));
        }
    }
    Ok(tensors.into_iter().map(|t| TensorInfo { offset: section.offset + t.info.offset, ..t.info }).collect())
}
