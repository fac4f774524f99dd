//! Integer codes to words of packed bits and back.

use crate::cpu::checked_threads;
use crate::error::Error;
use crate::slices::contiguous;
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use quantrs_convert::{PackError, pack_rows, unpack_rows, words_per_row};

fn words_of(n_cols: usize, bits: u32) -> Result<usize, Error> {
    let n_words = words_per_row(n_cols, bits).filter(|_| (2..=8).contains(&bits));
    Ok(n_words.ok_or(PackError::Bits(bits))?)
}

fn shaped<T>(n_rows: usize, n_cols: usize, values: Vec<T>) -> Array2<T> {
    Array2::from_shape_vec((n_rows, n_cols), values).expect("as many values as the shape has")
}

#[pyfunction]
#[pyo3(signature = (codes, bits, *, threads=None))]
pub(crate) fn pack_codes<'py>(
    py: Python<'py>,
    codes: PyReadonlyArray2<'py, u8>,
    bits: u32,
    threads: Option<usize>,
) -> Result<Bound<'py, PyArray2<i32>>, Error> {
    let [n_rows, n_cols] = [codes.shape()[0], codes.shape()[1]];
    let (threads, n_words) = (checked_threads(threads)?, words_of(n_cols, bits)?);
    let codes = contiguous("codes", &codes)?;
    let mut words = vec![0; n_rows * n_words];
    py.detach(|| pack_rows(codes, n_cols, bits, &mut words, threads))?;
    Ok(shaped(n_rows, n_words, words).into_pyarray(py))
}

#[pyfunction]
#[pyo3(signature = (words, bits, n_cols, *, threads=None))]
pub(crate) fn unpack_codes<'py>(
    py: Python<'py>,
    words: PyReadonlyArray2<'py, i32>,
    bits: u32,
    n_cols: usize,
    threads: Option<usize>,
) -> Result<Bound<'py, PyArray2<u8>>, Error> {
    let [n_rows, found] = [words.shape()[0], words.shape()[1]];
    let (threads, expected) = (checked_threads(threads)?, words_of(n_cols, bits)?);
    if found != expected {
        return Err(PackError::Words { found, expected, n_cols, bits }.into());
    }
    let words = contiguous("words", &words)?;
    let mut codes = vec![0; n_rows * n_cols];
    py.detach(|| unpack_rows(words, n_cols, bits, &mut codes, threads))?;
    Ok(shaped(n_rows, n_cols, codes).into_pyarray(py))
}
