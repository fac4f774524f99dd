//! Where tensor data lies: files, and bytes in memory.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::chunks::SourceFile;
use crate::error::{FormatError, Result};
use crate::source::ReadAt;

/// Bytes in memory, kept alive as long as somebody may read them.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One file, or one stretch of memory.
#[derive(Clone)]
pub enum Source {
    /// A file, opened when it is first read.
    File(PathBuf),
    /// Bytes that somebody else owns.
    Memory {
        /// For messages.
        label: String,
        /// The bytes.
        bytes: Bytes,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Memory { label, bytes } => {
                f.debug_struct("Memory").field("label", label).field("nbytes", &(**bytes).as_ref().len()).finish()
            }
        }
    }
}

impl Source {
    /// The path, or what the memory is called.
    #[must_use]
    pub fn label(&self) -> std::path::Display<'_> {
        self.as_path().display()
    }

    /// The file's path; None for memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Memory { .. } => None,
        }
    }

    /// The label, for those who hand it on as a path.
    #[must_use]
    pub fn name(&self) -> OsString {
        self.as_path().as_os_str().to_owned()
    }

    /// CRC-32 of bytes in memory; None for a file.
    #[must_use]
    pub fn memory_checksum(&self) -> Option<u32> {
        match self {
            Self::File(_) => None,
            Self::Memory { bytes, .. } => Some(crc32fast::hash((**bytes).as_ref())),
        }
    }

    fn as_path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Memory { label, .. } => Path::new(label),
        }
    }

    /// Bytes in it.
    ///
    /// # Errors
    /// [`FormatError::Io`]: a file cannot be opened.
    pub fn size(&self) -> Result<u64> {
        match self {
            Self::File(path) => Ok(SourceFile::open(path)?.size()),
            Self::Memory { bytes, .. } => Ok((**bytes).as_ref().len() as u64),
        }
    }
}

/// All sources of a model, for reading by many threads. Files are opened when they are first read and then stay open.
#[derive(Debug)]
pub struct OpenSources {
    sources: Vec<(Source, OnceLock<SourceFile>)>,
}

impl OpenSources {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(sources: &[Source]) -> Self {
        Self { sources: sources.iter().map(|s| (s.clone(), OnceLock::new())).collect() }
    }

    /// Fills `out` from `offset` of source `index` on.
    ///
    /// # Errors
    /// [`FormatError::Io`], also when the source ends before `out` is full.
    ///
    /// # Panics
    /// When there is no such source.
    pub fn read_at(&self, index: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.sources[index] {
            (Source::File(path), file) => {
                let file = match file.get() {
                    Some(file) => file,
                    None => {
                        let opened = SourceFile::open(path)?;
                        // Another thread may have been faster; its file serves as well.
                        file.get_or_init(|| opened)
                    }
                };
                file.read_at(offset, out)
            }
            (Source::Memory { label, bytes }, _) => {
                let bytes: &[u8] = (**bytes).as_ref();
                let read: io::Result<()> = bytes.read_exact_at(offset, out);
                read.map_err(FormatError::io(label, "read"))
            }
        }
    }

    /// Whether source `index` is one of them.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        index < self.sources.len()
    }
}
