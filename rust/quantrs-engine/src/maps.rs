//! Where the model's bytes are: files mapped into memory, memory that somebody lends, and copies of what lies otherwise.

#![allow(unsafe_code, reason = "mapping a file is unsafe: another process may change it")]

use crate::EngineError;
use memmap2::Mmap;
use quantrs_formats::Source;
use quantrs_formats::sources::Bytes;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Where a tensor's bytes lie.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a source.
    Source { index: usize, bytes: Range<usize> },
    /// In a copy, made when the model was loaded.
    Owned(Arc<Vec<u8>>),
}

enum Map {
    File(Mmap),
    Memory(Bytes),
}

pub(crate) struct Maps {
    /// One for each source.
    maps: Vec<Map>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("sources", &self.maps.len()).finish()
    }
}

impl Maps {
    pub(crate) fn open(sources: &[Source]) -> Result<Maps, EngineError> {
        let map = |path: &Path| {
            let file = File::open(path)?;
            // SAFETY: the bytes are only read, as numbers for which every bit pattern is allowed. Whoever truncates the file while
            // it is mapped ends this process with a bus error, as with every program that maps its model; the guide says so.
            unsafe { Mmap::map(&file) }
        };
        let maps = sources.iter().map(|source| match source {
            Source::File(path) => {
                map(path).map(Map::File).map_err(|reason| EngineError::Map { path: path.into(), reason })
            }
            Source::Memory { bytes, .. } => Ok(Map::Memory(bytes.clone())),
        });
        Ok(Maps { maps: maps.collect::<Result<_, _>>()? })
    }

    fn source(&self, index: usize) -> &[u8] {
        match &self.maps[index] {
            Map::File(map) => map,
            Map::Memory(bytes) => (**bytes).as_ref(),
        }
    }

    pub(crate) fn bytes<'m>(&'m self, place: &'m Place) -> &'m [u8] {
        match place {
            Place::Source { index, bytes } => &self.source(*index)[bytes.clone()],
            Place::Owned(bytes) => bytes,
        }
    }

    pub(crate) fn source_len(&self, index: usize) -> usize {
        self.source(index).len()
    }
}
