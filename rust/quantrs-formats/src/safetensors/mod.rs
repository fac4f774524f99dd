//! safetensors: the header of a file, read and written. No tensor data is read.

mod dtype;
mod json;
mod writer;

use std::collections::HashMap;
use std::fmt::Arguments;
use std::path::{Path, PathBuf};

pub use dtype::{DTYPES, Dtype};
pub use writer::{NewTensor, write_header};

use crate::chunks::SourceFile;
use crate::error::{FormatError, Place, Result, preview};
use crate::source::ReadAt;
use json::Json;

/// Upstream's limit on the header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// NumPy's limit.
const MAX_DIMS: usize = 64;
const LENGTH_BYTES: u64 = 8;
const METADATA: &str = "__metadata__";

/// One tensor of a file; where its data lies was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafeTensor {
    /// Unique, not empty.
    pub name: String,
    /// Element type.
    pub dtype: &'static Dtype,
    /// As NumPy counts: row length last. Sizes may be 0, and there may be none of them.
    pub shape: Vec<u64>,
    /// Of the first byte, from the start of the file.
    pub offset: u64,
    /// Bytes of data.
    pub nbytes: u64,
}

/// The checked header of one file.
#[derive(Debug, Clone)]
pub struct SafeTensorsFile {
    path: PathBuf,
    file_size: u64,
    metadata: Vec<(String, String)>,
    tensors: Vec<SafeTensor>,
}

impl SafeTensorsFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`FormatError`]: the system's reason, or what is wrong with the header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let source = SourceFile::open(path)?;
        Self::parse(&source, source.path())
    }

    /// Parses any source; `path` is for messages.
    ///
    /// # Errors
    /// [`FormatError`]: the system's reason, or what is wrong with the bytes.
    pub fn parse<S: ReadAt + ?Sized>(source: &S, path: &Path) -> Result<Self> {
        let file_size = source.size();
        let text = read_text(source, path)?;
        let mut json = Json::new(&text, path, LENGTH_BYTES);
        let mut metadata = Vec::new();
        let mut tensors = Vec::new();
        let mut seen = HashMap::new();
        // Not even a space may come before it.
        if !text.starts_with('{') {
            return json.invalid(0, format_args!("header"), "'{'");
        }
        json.expect(b'{', format_args!("header"))?;
        json.items(b'}', format_args!("header"), |json| {
            let at = json.position();
            let name = json.string(format_args!("tensor name"))?;
            if let Some(first) = seen.insert(name.clone(), at) {
                let (first, name) = (LENGTH_BYTES + first as u64, preview(name.as_bytes()));
                return Err(FormatError::Duplicate { place: json.place(at, "tensor name"), name, first });
            }
            json.expect(b':', format_args!("after the name '{}'", preview(name.as_bytes())))?;
            if name == METADATA {
                metadata = parse_metadata(json)?;
            } else if name.is_empty() {
                return json.invalid(at, format_args!("tensor name"), "a name that is not empty");
            } else {
                tensors.push(parse_tensor(json, at, name)?);
            }
            Ok(())
        })?;
        json.end(format_args!("header"))?;
        let data_start = LENGTH_BYTES + text.len() as u64;
        let tensors = lay_out(tensors, data_start, file_size, |at, field| json.place(at, field))?;
        Ok(Self { path: path.into(), file_size, metadata, tensors })
    }

    /// The path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.file_size
    }

    /// What stands under `__metadata__`.
    #[must_use]
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// Tensors in the order of their data.
    #[must_use]
    pub fn tensors(&self) -> &[SafeTensor] {
        &self.tensors
    }
}

/// The header's text: bounded by the limit and by the file before anything is allocated.
fn read_text<S: ReadAt + ?Sized>(source: &S, path: &Path) -> Result<String> {
    let place = |offset, field: &str| Place { path: path.into(), offset, field: field.into() };
    let size = source.size();
    if size < LENGTH_BYTES {
        return Err(FormatError::Truncated {
            place: place(0, "length of the header"),
            needed: LENGTH_BYTES,
            left: size,
        });
    }
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_exact_at(0, &mut length).map_err(FormatError::io(path, "read"))?;
    if let Some((found, advice)) = other_kind(&length) {
        let place = place(0, "length of the header");
        return Err(FormatError::Unsupported { place, found: found.into(), expected: "a safetensors file", advice });
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        let place = place(0, "length of the header");
        return Err(FormatError::Limit { place, found: length, limit: MAX_HEADER_BYTES });
    }
    let left = size - LENGTH_BYTES;
    if length > left {
        return Err(FormatError::Truncated { place: place(LENGTH_BYTES, "header"), needed: length, left });
    }
    let mut bytes = vec![0; length as usize];
    source.read_exact_at(LENGTH_BYTES, &mut bytes).map_err(FormatError::io(path, "read"))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let found = preview(&e.as_bytes()[at..(at + 8).min(e.as_bytes().len())]);
        FormatError::BadText { place: place(LENGTH_BYTES + at as u64, "header"), found }
    })
}

/// What a file is that begins like this, and what to do with it.
fn other_kind(start: &[u8; 8]) -> Option<(&'static str, &'static str)> {
    match start {
        b"version " => Some(("a Git LFS pointer", "fetch the real file with 'git lfs pull'")),
        [b'P', b'K', 3, 4, ..] => Some(("a zip archive (PyTorch?)", "save the model as safetensors first")),
        [b'G', b'G', b'U', b'F', ..] => Some(("a GGUF file", "give it a name that ends in .gguf")),
        _ => None,
    }
}

fn parse_metadata(json: &mut Json<'_>) -> Result<Vec<(String, String)>> {
    let field = format_args!("{METADATA}");
    let mut pairs: Vec<(String, String)> = Vec::new();
    // Upstream takes null for none.
    if json.accept_word("null") {
        return Ok(pairs);
    }
    json.expect(b'{', field)?;
    json.items(b'}', field, |json| {
        let key = json.string(field)?;
        json.expect(b':', field)?;
        pairs.push((key, json.string(field)?));
        Ok(())
    })?;
    Ok(pairs)
}

/// An entry whose offsets still count from the end of the header.
struct Entry {
    tensor: SafeTensor,
    /// Where its name stands in the header.
    at: usize,
}

fn parse_tensor(json: &mut Json<'_>, at: usize, name: String) -> Result<Entry> {
    let entry = format!("tensor '{}'", preview(name.as_bytes()));
    let once = |json: &Json<'_>, at: usize, given: bool, field: &str| match given {
        false => Ok(()),
        true => json.invalid(at, format_args!("{entry}, {field}"), "each field once"),
    };
    let (mut dtype, mut shape, mut offsets) = (None, None, None);
    json.expect(b'{', format_args!("{entry}"))?;
    json.items(b'}', format_args!("{entry}"), |json| {
        let at = json.position();
        let field = json.string(format_args!("field of {entry}"))?;
        let shown = preview(field.as_bytes());
        json.expect(b':', format_args!("{entry}, {shown}"))?;
        match field.as_str() {
            "dtype" => {
                once(json, at, dtype.is_some(), &field)?;
                dtype = Some(parse_dtype(json, format_args!("{entry}, dtype"))?);
            }
            "shape" => {
                once(json, at, shape.is_some(), &field)?;
                shape = Some(parse_numbers(json, MAX_DIMS, format_args!("{entry}, shape"))?);
            }
            "data_offsets" => {
                once(json, at, offsets.is_some(), &field)?;
                offsets = Some((json.position(), parse_numbers(json, 2, format_args!("{entry}, data_offsets"))?));
            }
            _ => json.skip(format_args!("{entry}, {shown}"))?,
        }
        Ok(())
    })?;
    let missing = |field: &str| json.invalid(at, format_args!("{entry}"), format!("a field '{field}'"));
    let Some(dtype) = dtype else { return missing("dtype") };
    let Some(shape) = shape else { return missing("shape") };
    let Some((offsets_at, offsets)) = offsets else { return missing("data_offsets") };
    let invalid = |found: String, expected: String| {
        let place = json.place(offsets_at, format_args!("{entry}, data_offsets"));
        Err(FormatError::Invalid { place, found, expected })
    };
    let [start, end] = offsets[..] else {
        return invalid(format!("{} numbers", offsets.len()), "start and end".into());
    };
    let Some(nbytes) = dtype.tensor_bytes(&shape) else {
        let place = json.place(at, format_args!("{entry}, shape"));
        return Err(FormatError::Invalid {
            place,
            found: format!("{shape:?}"),
            expected: "fewer than 2^64 bytes".into(),
        });
    };
    if end.checked_sub(start) != Some(nbytes) {
        let expected = format!("{nbytes} bytes, as the shape {shape:?} of {} needs", dtype.name);
        return invalid(format!("[{start}, {end}]"), expected);
    }
    Ok(Entry { tensor: SafeTensor { name, dtype, shape, offset: start, nbytes }, at })
}

fn parse_dtype(json: &mut Json<'_>, field: Arguments<'_>) -> Result<&'static Dtype> {
    let at = json.position();
    let name = json.string(field)?;
    match Dtype::by_name(&name) {
        Some(dtype) => Ok(dtype),
        None => json.invalid(at, field, format!("one of {}", Dtype::known())),
    }
}

fn parse_numbers(json: &mut Json<'_>, limit: usize, field: Arguments<'_>) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    json.expect(b'[', field)?;
    json.items(b']', field, |json| {
        if numbers.len() == limit {
            let at = json.position();
            return json.invalid(at, field, format!("at most {limit} numbers"));
        }
        numbers.push(json.u64(field)?);
        Ok(())
    })?;
    Ok(numbers)
}

/// Checks that the data lies end to end from the header to the end of the file, as upstream demands.
fn lay_out(
    mut entries: Vec<Entry>,
    data_start: u64,
    file_size: u64,
    place: impl Fn(usize, String) -> Place,
) -> Result<Vec<SafeTensor>> {
    entries.sort_by_key(|e| (e.tensor.offset, e.tensor.nbytes));
    let data_bytes = file_size - data_start;
    let mut end = 0;
    let mut previous: Option<&SafeTensor> = None;
    for Entry { tensor, at } in &entries {
        let field = || format!("tensor '{}', data_offsets", preview(tensor.name.as_bytes()));
        // Its end does not overflow: both offsets stand in the header.
        let tensor_end = tensor.offset + tensor.nbytes;
        if tensor_end > data_bytes {
            let end = data_start.saturating_add(tensor_end);
            return Err(FormatError::OutOfFile { place: place(*at, field()), end, file_size });
        }
        match previous {
            Some(other) if tensor.offset < end => {
                return Err(FormatError::Overlap { place: place(*at, field()), other: preview(other.name.as_bytes()) });
            }
            _ if tensor.offset > end => {
                let expected = format!("{end}, where the tensor before it ends");
                let found = tensor.offset.to_string();
                return Err(FormatError::Invalid { place: place(*at, field()), found, expected });
            }
            _ => {}
        }
        end = tensor_end;
        previous = Some(tensor);
    }
    if end != data_bytes {
        let place = Place { offset: data_start + end, ..place(0, "end of the last tensor".into()) };
        let found = format!("{} bytes that no tensor describes", data_bytes - end);
        return Err(FormatError::Invalid { place, found, expected: "the end of the file".into() });
    }
    let placed = |e: Entry| SafeTensor { offset: data_start + e.tensor.offset, ..e.tensor };
    Ok(entries.into_iter().map(placed).collect())
}
