//! Conversions between NumPy arrays.

use crate::cpu::{checked_threads, format_named};
use crate::error::Error;
use crate::slices::{contiguous, contiguous_mut};
use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn, PyReadwriteArray1};
use pyo3::prelude::*;
use quantrs_blocks::{BlockError, BlockFormat, Converter, RowErrors, with_threads};
use quantrs_simd::Level;

/// Rows in a buffer of whole rows; its size is checked.
fn n_rows(what: &'static str, format: &BlockFormat, n_bytes: usize, n_cols: usize) -> Result<usize, Error> {
    let row_bytes = format.row_bytes(n_cols).ok_or(BlockError::RowLength {
        n_cols,
        block_len: format.block_len,
        format: format.name,
    })?;
    let n_rows = n_bytes.checked_div(row_bytes).unwrap_or(0);
    if n_rows * row_bytes != n_bytes {
        return Err(BlockError::Size { what, found: n_bytes, expected: (n_rows + 1) * row_bytes }.into());
    }
    Ok(n_rows)
}

#[pyfunction]
#[pyo3(signature = (src, src_type, dst, dst_type, n_cols, *, importance=None, threads=None))]
#[allow(clippy::too_many_arguments, reason = "the Python signature")]
pub(crate) fn convert_rows(
    py: Python<'_>,
    src: PyReadonlyArray1<'_, u8>,
    src_type: &str,
    mut dst: PyReadwriteArray1<'_, u8>,
    dst_type: &str,
    n_cols: usize,
    importance: Option<PyReadonlyArrayDyn<'_, f32>>,
    threads: Option<usize>,
) -> Result<usize, Error> {
    let (level, threads) = (Level::from_env()?, checked_threads(threads)?);
    let (from, to) = (format_named(src_type)?, format_named(dst_type)?);
    let src = contiguous("src", &src)?;
    let dst = contiguous_mut("dst", &mut dst)?;
    let importance = importance.as_ref().map(|w| contiguous("importance", w)).transpose()?;
    let rows = n_rows("src", from, src.len(), n_cols)?;
    let converter = Converter::new(level, from, to, rows, n_cols, importance)?;
    let expected = rows * to.row_bytes(n_cols).unwrap_or(0);
    if dst.len() != expected {
        return Err(BlockError::Size { what: "dst", found: dst.len(), expected }.into());
    }
    Ok(py.detach(|| with_threads(threads, || converter.convert(src, dst)))?)
}

#[pyfunction]
#[pyo3(signature = (packed, packed_type, reference, reference_type, n_cols, *, threads=None))]
pub(crate) fn row_errors(
    py: Python<'_>,
    packed: PyReadonlyArray1<'_, u8>,
    packed_type: &str,
    reference: PyReadonlyArray1<'_, u8>,
    reference_type: &str,
    n_cols: usize,
    threads: Option<usize>,
) -> Result<(f64, f64, f64), Error> {
    let (level, threads) = (Level::from_env()?, checked_threads(threads)?);
    let (from, to) = (format_named(reference_type)?, format_named(packed_type)?);
    let packed = contiguous("packed", &packed)?;
    let reference = contiguous("reference", &reference)?;
    let rows = n_rows("reference", from, reference.len(), n_cols)?;
    let found = n_rows("packed", to, packed.len(), n_cols)?;
    if found != rows {
        return Err(Error::Input(format!("packed has {found} rows of {n_cols} values, the reference {rows}")));
    }
    let converter = Converter::comparing(level, from, to, rows, n_cols)?;
    let RowErrors { squared_error, squared, max_error } =
        py.detach(|| with_threads(threads, || converter.errors(reference, packed)));
    Ok((squared_error, squared, max_error))
}
