//! GGUF, versions 2 and 3: reading, splits, and the header of a file to be written.

mod cursor;
mod encode;
mod file;
mod key_values;
mod split;
mod tensors;
mod value;
mod writer;

use std::path::Path;

pub use encode::NewValue;
pub use file::GgufFile;
pub use tensors::TensorInfo;
pub use value::{Array, Elements, ScalarType, Value, ValueType};
pub use writer::Header;

use crate::error::Result;

/// A whole model: one file, or all files of a split one. No tensor data is read.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// At least one; the first carries the metadata.
    files: Vec<GgufFile>,
    /// Of all files, file after file; `TensorInfo::file` is set.
    tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Opens a file; the first file of a split model opens all of them.
    ///
    /// # Errors
    /// [`FormatError`](crate::FormatError): the system's reason, or what is wrong with a file, naming it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let first = GgufFile::open(path)?;
        let rest = split::open_rest(&first)?;
        let mut files = vec![first];
        files.extend(rest);
        let mut tensors = Vec::new();
        for (i, file) in files.iter_mut().enumerate() {
            tensors.extend(std::mem::take(&mut file.tensors).into_iter().map(|t| TensorInfo { file: i, ..t }));
        }
        Ok(Self { files, tensors })
    }

    fn first(&self) -> &GgufFile {
        &self.files[0]
    }

    /// GGUF version of the first file.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.first().version()
    }

    /// Alignment of the first file.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.first().alignment()
    }

    /// Where the data section of the first file starts.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.first().data_offset()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.files.iter().map(GgufFile::file_size).sum()
    }

    /// Paths of the files; one unless the model is split.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(GgufFile::path)
    }

    /// Number of tensors in each file.
    #[must_use]
    pub fn split_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.files.len()];
        self.tensors.iter().for_each(|t| sizes[t.file] += 1);
        sizes
    }

    /// Keys of the first file, in file order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.first().keys()
    }

    /// A value of the first file, or None when the key is absent.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        self.first().value(key)
    }

    /// The type of a value, or None when the key is absent.
    #[must_use]
    pub fn value_type(&self, key: &str) -> Option<ValueType> {
        self.first().value_type(key)
    }

    /// Number of elements of an array, or None when the key is absent or no array.
    #[must_use]
    pub fn array_len(&self, key: &str) -> Option<usize> {
        match self.value(key)? {
            Value::Array(array) => Some(array.len()),
            _ => None,
        }
    }

    /// Tensors of all files, in file order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What was accepted but is odd, one sentence each. String values are looked at only here: it costs a pass over them.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let many = self.files.len() > 1;
        let named = |file: &GgufFile, notice: String| {
            if many { format!("{}: {notice}", file.path().display()) } else { notice }
        };
        self.files.iter().flat_map(|file| file.notices().into_iter().map(|n| named(file, n))).collect()
    }

    /// Version and key/values of the first file, to edit; no tensors.
    #[must_use]
    pub fn header(&self) -> Header {
        self.first().header()
    }
}
