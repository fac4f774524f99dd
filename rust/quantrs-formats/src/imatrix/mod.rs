//! Importance matrices: per weight tensor, one number a column that says how much an error in it hurts.

mod gguf_form;
mod legacy;
mod raw;
mod sums;

use std::collections::HashMap;
use std::path::Path;

use crate::chunks::SourceFile;
use crate::error::{FormatError, Place, Result};
use crate::gguf::GgufFile;
use crate::source::ReadAt;
use raw::Raw;

pub use sums::ImatrixSums;

/// An importance matrix file: GGUF, or the legacy `.dat` (whatever does not begin with the GGUF magic).
#[derive(Debug, Clone)]
pub struct Imatrix {
    names: Vec<String>,
    /// Column weights of all experts of a tensor, concatenated.
    weights: HashMap<String, Vec<f32>>,
    datasets: Vec<Vec<u8>>,
    chunk_count: u32,
}

impl Imatrix {
    /// Opens a file and reads all of it.
    ///
    /// # Errors
    /// [`FormatError`]: the system's reason, or what is wrong with the file (NaN, infinite and negative statistics included).
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

    fn parse<S: ReadAt + ?Sized>(source: &S, path: &Path) -> Result<Self> {
        let raw = read_raw(source, path)?;
        let (datasets, chunk_count) = (raw.datasets.clone(), raw.chunk_count);
        let mut imatrix = Imatrix { names: Vec::new(), weights: HashMap::new(), datasets, chunk_count };
        for entry in raw.entries {
            let weights = entry.column_weights(raw.is_legacy)?;
            imatrix.names.push(entry.name.clone());
            imatrix.weights.insert(entry.name, weights);
        }
        Ok(imatrix)
    }

    /// Names of the weight tensors, in the file's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Column weights of a tensor, all its experts concatenated; None when it has no entry.
    #[must_use]
    pub fn values(&self, name: &str) -> Option<&[f32]> {
        self.weights.get(name).map(Vec::as_slice)
    }

    /// The texts it was computed from, as bytes: file names need not be UTF-8.
    #[must_use]
    pub fn datasets(&self) -> &[Vec<u8>] {
        &self.datasets
    }

    /// Number of text chunks; 0 when the file does not say.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.chunk_count
    }
}

/// A file as it lies, in either form.
fn read_raw<S: ReadAt + ?Sized>(source: &S, path: &Path) -> Result<Raw> {
    let mut magic = [0; 4];
    let is_gguf = source.size() >= 4 && {
        source.read_exact_at(0, &mut magic).map_err(FormatError::io(path, "read"))?;
        &magic == b"GGUF"
    };
    if is_gguf { gguf_form::read(source, &GgufFile::parse(source, path)?) } else { legacy::read(source, path) }
}

/// Reads `n` little-endian f32 that are known to lie within the source; refuses what no statistic can be.
fn read_statistics<S: ReadAt + ?Sized>(source: &S, place: &Place, n: u64) -> Result<Vec<f32>> {
    let mut bytes = vec![0; 4 * n as usize];
    source.read_exact_at(place.offset, &mut bytes).map_err(FormatError::io(&place.path, "read"))?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    check_statistics(place, &values)?;
    Ok(values)
}

fn check_statistics(place: &Place, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
        Some(i) => Err(FormatError::BadStatistic { place: place.clone(), index: i as u64, found: values[i] }),
        None => Ok(()),
    }
}
