//! GGUF, versions 2 and 3: reading, splits, and the header of a file to be written.

mod cursor;
mod encode;
mod file;
mod key_values;
mod split;
mod tensors;
mod value;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

pub use encode::NewValue;
pub use file::GgufFile;
pub use tensors::TensorInfo;
pub use value::{Array, Elements, ScalarType, Value, ValueType};
pub use writer::Header;

use crate::assembly::AssembledTensor;
use crate::error::{FormatError, Result};
use crate::sources::{OpenSources, Source};

/// A whole model: one file, all files of a split one, or an assembly of tensors that lie elsewhere. No tensor data is read.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// At least one; the first carries the metadata.
    files: Vec<GgufFile>,
    /// Where tensor data lies: the files, but for an assembly.
    sources: Vec<Source>,
    /// Of all sources.
    source_bytes: u64,
    /// Of all files, file after file; `TensorInfo::file` is an index of `sources`.
    tensors: Vec<TensorInfo>,
    assembled: bool,
}

impl Gguf {
    /// Opens a file; the first file of a split model opens all of them.
    ///
    /// # Errors
    /// [`FormatError`]: the system's reason, or what is wrong with a file, naming it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let first = GgufFile::open(path)?;
        let rest = split::open_rest(&first)?;
        let mut files = vec![first];
        files.extend(rest);
        let mut tensors = Vec::new();
        for (i, file) in files.iter_mut().enumerate() {
            tensors.extend(std::mem::take(&mut file.tensors).into_iter().map(|t| TensorInfo { file: i, ..t }));
        }
        let sources = files.iter().map(|file| Source::File(file.path().into())).collect();
        let source_bytes = files.iter().map(GgufFile::file_size).sum();
        Ok(Self { files, sources, source_bytes, tensors, assembled: false })
    }

    /// Makes a model of key/values and of tensors whose rows lie in `sources`.
    ///
    /// # Errors
    /// [`FormatError`]: a source that cannot be opened, a header with tensors, or a tensor whose parts do not make it up or do not
    /// lie within their source.
    pub fn assembled(header: &Header, sources: Vec<Source>, tensors: Vec<AssembledTensor>) -> Result<Self> {
        if header.data_len() > 0 {
            let (found, expected) = ("a header that has tensors".into(), "one of key/values alone".into());
            return Err(FormatError::Edit { what: "assembly".into(), found, expected });
        }
        let sizes = sources.iter().map(Source::size).collect::<Result<Vec<u64>>>()?;
        let mut names = HashSet::new();
        let mut infos = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            if !names.insert(tensor.name.as_str()) {
                let what = format!("tensor '{}'", tensor.name);
                let (found, expected) = ("the name a second time".into(), "unique names".into());
                return Err(FormatError::Edit { what, found, expected });
            }
            infos.push(tensor.placed(&sources, &sizes)?);
        }
        let path = sources.first().map(|s| PathBuf::from(s.name())).unwrap_or_default();
        let bytes = header.to_bytes();
        let files = vec![GgufFile::parse(bytes.as_slice(), &path)?];
        Ok(Self { files, sources, source_bytes: sizes.iter().sum(), tensors: infos, assembled: true })
    }

    /// A model of some tensors of this one, where they lie, and of `added` ones, whose parts count `sources` on after those of this
    /// one; with the same key/values.
    ///
    /// # Errors
    /// [`FormatError`]: a name that this model lacks or that comes twice, or what [`assembled`](Self::assembled) refuses.
    pub fn selected(&self, names: &[String], sources: Vec<Source>, added: &[AssembledTensor]) -> Result<Self> {
        let all: HashMap<&str, &TensorInfo> = self.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        let fail = |name: &str, found: &str, expected: &str| FormatError::Edit {
            what: format!("tensor '{name}'"),
            found: found.into(),
            expected: expected.into(),
        };
        let mut tensors = Vec::with_capacity(names.len() + added.len());
        for name in names {
            let tensor = all.get(name.as_str()).ok_or_else(|| fail(name, "no such tensor", "one of the model's"))?;
            tensors.push((*tensor).clone());
        }
        let sources = [self.sources.clone(), sources].concat();
        let sizes = sources.iter().map(Source::size).collect::<Result<Vec<u64>>>()?;
        for tensor in added {
            tensors.push(tensor.placed(&sources, &sizes)?);
        }
        let mut seen = HashSet::new();
        if let Some(twice) = tensors.iter().find(|t| !seen.insert(t.name.as_str())) {
            return Err(fail(&twice.name, "the name a second time", "unique names"));
        }
        let source_bytes = sizes.iter().sum();
        Ok(Self { files: self.files.clone(), sources, source_bytes, tensors, assembled: true })
    }

    /// Whether it was assembled, and exists as no file.
    #[must_use]
    pub fn is_assembled(&self) -> bool {
        self.assembled
    }

    /// Where tensor data lies.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The sources, to be read.
    #[must_use]
    pub fn open_sources(&self) -> OpenSources {
        OpenSources::new(&self.sources)
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

    /// Bytes of all sources: of the files, but for an assembly.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.source_bytes
    }

    /// Paths of the files that are read; one unless the model is split or assembled.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(Source::path)
    }

    /// Number of tensors in each source (that begin in it).
    #[must_use]
    pub fn split_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.sources.len()];
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
