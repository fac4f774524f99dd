//! What a GGUF file begins with: edited as a value, then serialised.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::encode::{NewValue, encode};
use super::file::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, alignment_rule, check_alignment};
use super::tensors::{MAX_DIMS, MAX_NAME_BYTES};
use super::value::{ARRAY_CODE, Value, ValueType};
use crate::error::{FormatError, Result};
use crate::ggml_types::GgmlType;

/// The bytes after a type code, either owned or lent by the file they came from.
#[derive(Debug, Clone)]
pub(crate) struct RawValue {
    buf: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl RawValue {
    pub(crate) fn shared(buf: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Self { buf, range }
    }

    fn owned(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { buf: Arc::new(bytes), range }
    }

    fn bytes(&self) -> &[u8] {
        &self.buf[self.range.clone()]
    }
}

#[derive(Debug, Clone)]
struct HeaderTensor {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    /// From the start of the data section.
    offset: u64,
}

/// Version, key/values and tensor entries of a file to be written.
///
/// Values that came from a file keep their bytes. Tensors get their offsets in the order in which they are added.
#[derive(Debug, Clone)]
pub struct Header {
    version: u32,
    alignment: u64,
    entries: Vec<(String, ValueType, RawValue)>,
    tensors: Vec<HeaderTensor>,
    names: HashSet<String>,
    data_bytes: u64,
}

impl Header {
    /// An empty header of version 2 or 3 (which differ in the number only).
    ///
    /// # Errors
    /// [`FormatError::Edit`] for another version.
    pub fn new(version: u32) -> Result<Self> {
        if !matches!(version, 2 | 3) {
            return Err(edit("GGUF version", version, "2 or 3"));
        }
        Ok(Self::from_parts(version, DEFAULT_ALIGNMENT, Vec::new()))
    }

    pub(crate) fn from_parts(version: u32, alignment: u64, entries: Vec<(String, ValueType, RawValue)>) -> Self {
        Self { version, alignment, entries, tensors: Vec::new(), names: HashSet::new(), data_bytes: 0 }
    }

    /// 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes; `general.alignment` sets it.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Keys in the order in which they will stand.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, ..)| key.as_str())
    }

    /// A value, or None when the key is absent.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let (_, value_type, raw) = self.entries.iter().find(|(k, ..)| k == key)?;
        Value::decode(*value_type, raw.bytes())
    }

    /// Removes `key` if it is there, then appends it: the order in which llama.cpp's writer ends up.
    ///
    /// # Errors
    /// [`FormatError::Edit`]: an empty key, a value that does not fit its type, an alignment that cannot be
    /// or that comes after tensors were placed.
    pub fn set(&mut self, key: &str, value_type: ValueType, value: &NewValue) -> Result<()> {
        if key.is_empty() {
            return Err(edit("key", "an empty key", "a name"));
        }
        let bytes = encode(key, value_type, value)?;
        if key == ALIGNMENT_KEY {
            let alignment = check_alignment(value_type, &bytes)
                .map_err(|found| edit(format!("key '{key}'"), found, alignment_rule()))?;
            self.set_alignment(alignment)?;
        }
        self.entries.retain(|(k, ..)| k != key);
        self.entries.push((key.to_owned(), value_type, RawValue::owned(bytes)));
        Ok(())
    }

    /// Removes a key; false when it is not there.
    ///
    /// # Errors
    /// [`FormatError::Edit`] when that changes the alignment after tensors were placed.
    pub fn remove(&mut self, key: &str) -> Result<bool> {
        if key == ALIGNMENT_KEY {
            self.set_alignment(DEFAULT_ALIGNMENT)?;
        }
        let before = self.entries.len();
        self.entries.retain(|(k, ..)| k != key);
        Ok(self.entries.len() < before)
    }

    fn set_alignment(&mut self, alignment: u64) -> Result<()> {
        if alignment != self.alignment && !self.tensors.is_empty() {
            let found = format!("{alignment} after tensors were placed at multiples of {}", self.alignment);
            return Err(edit(
                format!("key '{ALIGNMENT_KEY}'"),
                found,
                "the alignment to be set before the first tensor",
            ));
        }
        self.alignment = alignment;
        Ok(())
    }

    /// Appends a tensor and returns its offset from the start of the data section: the running sum, padded.
    ///
    /// `dims` begins with the row length and is written as it is: `llama-quantize` drops trailing sizes of 1, the reference converter
    /// keeps them.
    ///
    /// # Errors
    /// [`FormatError::Edit`]: a name or shape that no reader accepts, a name that is there already.
    pub fn add_tensor(&mut self, name: &str, dims: &[u64], ggml_type: &GgmlType) -> Result<u64> {
        let what = || format!("tensor '{name}'");
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(edit(
                what(),
                format!("a name of {} bytes", name.len()),
                format!("1 to {MAX_NAME_BYTES} bytes"),
            ));
        }
        if dims.is_empty() || dims.len() > MAX_DIMS || dims.contains(&0) {
            return Err(edit(what(), format!("dimensions {dims:?}"), format!("1 to {MAX_DIMS} sizes of at least 1")));
        }
        let (block_len, type_name) = (ggml_type.block_len, ggml_type.name);
        if !dims[0].is_multiple_of(block_len) {
            return Err(edit(
                what(),
                format!("a row length of {}", dims[0]),
                format!("a multiple of {block_len}, the block of {type_name}"),
            ));
        }
        let offset = self.data_bytes;
        let end = ggml_type
            .tensor_bytes(dims)
            .and_then(|n| offset.checked_add(n))
            .and_then(|n| n.checked_next_multiple_of(self.alignment));
        let n_elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let (Some(end), Some(0..=0x7fff_ffff_ffff_ffff)) = (end, n_elements) else {
            return Err(edit(
                what(),
                format!("dimensions {dims:?}"),
                "fewer than 2^63 elements, and a file of fewer than 2^64 bytes",
            ));
        };
        if !self.names.insert(name.to_owned()) {
            return Err(edit(what(), "the name a second time", "unique names"));
        }
        self.tensors.push(HeaderTensor { name: name.to_owned(), dims: dims.to_vec(), type_id: ggml_type.id, offset });
        self.data_bytes = end;
        Ok(offset)
    }

    /// Bytes of the data section: every tensor padded to the alignment.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.data_bytes
    }

    /// Everything before the data section, padding included.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(self.entries.iter().map(|(key, _, raw)| 12 + key.len() + raw.range.len()).sum());
        out.extend(MAGIC);
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value_type, raw) in &self.entries {
            push_string(&mut out, key);
            let code = match value_type {
                ValueType::Scalar(scalar) => scalar.code(),
                ValueType::Array(_) => ARRAY_CODE,
            };
            out.extend(code.to_le_bytes());
            out.extend(raw.bytes());
        }
        for tensor in &self.tensors {
            push_string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
        out
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn edit(what: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> FormatError {
    FormatError::Edit { what: what.into(), found: found.to_string(), expected: expected.into() }
}
