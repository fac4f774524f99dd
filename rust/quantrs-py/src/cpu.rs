//! The CPU level, the threads and the table of formats.

use crate::error::Error;
use pyo3::prelude::*;
use quantrs_blocks::FORMATS;
use quantrs_kernels::Pool;
use quantrs_simd::Level;

#[pyfunction]
pub(crate) fn levels() -> Vec<&'static str> {
    Level::all().into_iter().map(Level::name).collect()
}

#[pyfunction]
pub(crate) fn level() -> Result<&'static str, Error> {
    Ok(Level::from_env()?.name())
}

#[pyfunction]
pub(crate) fn default_threads() -> usize {
    quantrs_blocks::default_threads()
}

#[pyfunction]
#[pyo3(signature = (n_bytes, *, threads=None, passes=5))]
pub(crate) fn read_bandwidth(
    py: Python<'_>,
    n_bytes: usize,
    threads: Option<usize>,
    passes: usize,
) -> Result<f64, Error> {
    let threads = checked_threads(threads)?.unwrap_or_else(quantrs_blocks::default_threads);
    let level = Level::from_env()?;
    Ok(py.detach(|| quantrs_kernels::read_bandwidth(&Pool::new(threads), level, n_bytes, passes)))
}

/// The format with this name, or an error that lists the names.
pub(crate) fn format_named(name: &str) -> Result<&'static quantrs_blocks::BlockFormat, Error> {
    quantrs_blocks::by_name(name).ok_or_else(|| {
        let known: Vec<_> = FORMATS.iter().map(|f| f.name.to_ascii_lowercase()).collect();
        Error::Input(format!("unknown type {name:?}; expected one of {}", known.join(", ")))
    })
}

/// Thread counts are at least 1.
pub(crate) fn checked_threads(threads: Option<usize>) -> Result<Option<usize>, Error> {
    match threads {
        Some(0) => Err(Error::Input("threads is 0; expected at least 1, or None for one per CPU".to_owned())),
        _ => Ok(threads),
    }
}

#[pyclass(frozen, get_all, module = "quantrs._native")]
pub(crate) struct BlockFormat {
    name: &'static str,
    id: u32,
    block_len: usize,
    block_bytes: usize,
    importance: &'static str,
    can_quantize: bool,
    can_dequantize: bool,
}

#[pyfunction]
pub(crate) fn block_formats() -> Vec<BlockFormat> {
    FORMATS
        .iter()
        .map(|f| BlockFormat {
            name: f.name,
            id: f.id,
            block_len: f.block_len,
            block_bytes: f.block_bytes,
            importance: f.importance.name(),
            can_quantize: f.quantize.is_some(),
            can_dequantize: f.dequantize.is_some(),
        })
        .collect()
}
