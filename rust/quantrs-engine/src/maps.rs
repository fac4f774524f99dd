//! The model's files, mapped into memory.

#![allow(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]

use crate::EngineError;
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// Where a tensor's bytes lie.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) bytes: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct Maps {
    files: Vec<Mmap>,
}

impl Maps {
    pub(crate) fn open<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Maps, EngineError> {
        let map = |path: &Path| {
            let file = File::open(path)?;
            // SAFETY: the bytes are only read, as numbers for which every bit pattern is allowed. Whoever truncates the file while
            // it is mapped ends this process with a bus error, as with every program that maps its model; the guide says so.
            unsafe { Mmap::map(&file) }
        };
        let files = paths.map(|path| map(path).map_err(|reason| EngineError::Map { path: path.into(), reason }));
        Ok(Maps { files: files.collect::<Result<_, _>>()? })
    }

    pub(crate) fn bytes(&self, place: &Place) -> &[u8] {
        &self.files[place.file][place.bytes.clone()]
    }

    pub(crate) fn file_len(&self, file: usize) -> usize {
        self.files[file].len()
    }
}
