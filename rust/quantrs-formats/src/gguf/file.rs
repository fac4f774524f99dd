//! One GGUF file: its header, parsed and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursor::Cursor;
use super::key_values::{Index, KeyValues};
use super::tensors::{self, Section, TensorInfo};
use super::value::{ScalarType, Value, ValueType};
use super::writer::{Header, RawValue};
use crate::chunks::SourceFile;
use crate::error::{FormatError, Place, Result, preview};
use crate::source::ReadAt;

pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// Padding is written and held in memory, so it is bounded; huge pages (2 MiB) are the largest sensible wish.
pub(crate) const MAX_ALIGNMENT: u64 = 16 << 20;

/// The checked header of one file. No tensor data is read.
#[derive(Debug, Clone)]
pub struct GgufFile {
    path: PathBuf,
    version: u32,
    alignment: u64,
    data_offset: u64,
    file_size: u64,
    pub(super) key_values: KeyValues,
    pub(super) tensors: Vec<TensorInfo>,
    notices: Vec<String>,
}

impl GgufFile {
    /// Opens one file, whether or not it is part of a split model.
    ///
    /// # Errors
    /// [`FormatError`]: the system's reason, or what is wrong with the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let source = SourceFile::open(path)?;
        Self::parse(&source, source.path())
    }

    /// Parses bytes in memory.
    ///
    /// # Errors
    /// [`FormatError`]: what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes, Path::new("<bytes>"))
    }

    /// Parses any source; `path` is for messages.
    ///
    /// # Errors
    /// [`FormatError`]: the system's reason, or what is wrong with the bytes.
    pub fn parse<S: ReadAt + ?Sized>(source: &S, path: &Path) -> Result<Self> {
        let mut cursor = Cursor::new(source, path);
        let version = parse_version(&mut cursor)?;
        let n_tensors = cursor.u64(format_args!("tensor count"))?;
        let n_key_values = cursor.u64(format_args!("key/value count"))?;
        let index = Index::parse(&mut cursor, n_key_values)?;
        let key_values_end = cursor.position() as usize;
        let alignment = parse_alignment(&index, &cursor, key_values_end)?;

        let mut notices = Vec::new();
        let raw_tensors = tensors::parse(&mut cursor, n_tensors, &mut notices)?;
        let file_size = source.size();
        let section = Section { offset: cursor.position().next_multiple_of(alignment), alignment, file_size };
        if raw_tensors.is_empty() && file_size < section.offset {
            notices.push("the padding after the header is missing".into());
        }
        let place = |offset, field| Place { path: path.into(), offset, field };
        let tensors = tensors::lay_out(raw_tensors, &section, &mut notices, place)?;
        Ok(Self {
            path: path.into(),
            version,
            alignment,
            data_offset: section.offset,
            file_size,
            key_values: index.finish(cursor.into_bytes()),
            tensors,
            notices,
        })
    }

    /// The path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes; tensor data starts at multiples of it.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the data section starts.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Keys in file order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.key_values.keys()
    }

    /// A value, or None when the key is absent.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        Some(self.key_values.value(self.key_values.get(key)?))
    }

    /// The type of a value, or None when the key is absent.
    #[must_use]
    pub fn value_type(&self, key: &str) -> Option<ValueType> {
        Some(self.key_values.get(key)?.value_type)
    }

    /// Tensors in file order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What was accepted but is odd, one sentence each. String values are looked at only here: it costs a pass over them.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut all = self.notices.clone();
        all.extend(self.bad_utf8_values());
        all
    }

    /// One sentence for every key with strings that are not UTF-8.
    #[must_use]
    pub fn bad_utf8_values(&self) -> Vec<String> {
        self.key_values.bad_utf8_values()
    }

    /// Version and key/values to edit; no tensors. The bytes of the values are shared, not copied.
    #[must_use]
    pub fn header(&self) -> Header {
        let table = &self.key_values;
        let value = |range: &std::ops::Range<usize>| RawValue::shared(Arc::clone(&table.buf), range.clone());
        let entries = table.entries.iter().map(|e| (table.key(e).to_owned(), e.value_type, value(&e.value)));
        Header::from_parts(self.version, self.alignment, entries.collect())
    }
}

fn parse_version<S: ReadAt + ?Sized>(cursor: &mut Cursor<'_, S>) -> Result<u32> {
    let magic = cursor.take(4, format_args!("magic"))?;
    let magic = cursor.bytes(magic);
    if magic != MAGIC {
        let (found, advice) = match magic {
            b"vers" => ("a Git LFS pointer".into(), "fetch the real file with 'git lfs pull'"),
            b"PK\x03\x04" => ("a zip archive (PyTorch?)".into(), "convert the model to GGUF first"),
            b"tjgg" | b"fmgg" | b"lmgg" => {
                ("a model of the time before GGUF".into(), "convert the original model again with a current tool")
            }
            other => (format!("\"{}\"", other.escape_ascii()), "give a GGUF file"),
        };
        return Err(FormatError::Unsupported { place: cursor.place(0, "magic"), found, expected: "\"GGUF\"", advice });
    }
    let version = cursor.u32(format_args!("version"))?;
    let (found, advice) = match version {
        2 | 3 => return Ok(version),
        1 => ("1".into(), "convert the original model again with a current tool"),
        v if v != 0 && v & 0xffff == 0 => {
            (format!("{} in big-endian bytes", v.swap_bytes()), "convert it with 'gguf_convert_endian.py FILE little'")
        }
        v => (v.to_string(), "get the file again, or a newer quantrs if it is intact"),
    };
    Err(FormatError::Unsupported {
        place: cursor.place(4, "version"),
        found,
        expected: "2 or 3, little-endian",
        advice,
    })
}

fn parse_alignment<S: ReadAt + ?Sized>(index: &Index, cursor: &Cursor<'_, S>, end: usize) -> Result<u64> {
    let Some((value_type, bytes, offset)) = index.raw(cursor.bytes(0..end), ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    check_alignment(value_type, bytes).map_err(|found| FormatError::Invalid {
        place: cursor.place(offset, format_args!("value of key '{ALIGNMENT_KEY}'")),
        found,
        expected: alignment_rule(),
    })
}

/// The alignment that a value stands for, or what is wrong with it.
pub(crate) fn check_alignment(value_type: ValueType, bytes: &[u8]) -> std::result::Result<u64, String> {
    match (value_type, Value::decode(value_type, bytes)) {
        (ValueType::Scalar(ScalarType::U32), Some(Value::U32(n)))
            if n.is_power_of_two() && u64::from(n) <= MAX_ALIGNMENT =>
        {
            Ok(n.into())
        }
        (ValueType::Scalar(ScalarType::U32), Some(Value::U32(n))) => Err(n.to_string()),
        (other, _) => Err(format!("a value of type {other} ({})", preview(bytes))),
    }
}

/// For messages.
pub(crate) fn alignment_rule() -> String {
    format!("a u32 that is a power of two of at most {MAX_ALIGNMENT}")
}
