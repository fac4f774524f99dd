//! Products of packed rows with float32 columns, and of integers.

use crate::cpu::{checked_threads, format_named};
use crate::error::Error;
use crate::slices::{contiguous, contiguous_mut};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use quantrs_kernels::{Activations, Form, Matrix, Pool, Precision};
use quantrs_simd::Level;
use std::sync::Arc;

fn pool(threads: Option<usize>) -> Result<Arc<Pool>, Error> {
    Ok(Pool::shared(checked_threads(threads)?.unwrap_or_else(quantrs_blocks::default_threads)))
}

#[pyfunction]
#[pyo3(signature = (packed, packed_type, x, out, *, exact=false, threads=None))]
pub(crate) fn matmul(
    py: Python<'_>,
    packed: PyReadonlyArray1<'_, u8>,
    packed_type: &str,
    x: PyReadonlyArray2<'_, f32>,
    mut out: PyReadwriteArray2<'_, f32>,
    exact: bool,
    threads: Option<usize>,
) -> Result<(), Error> {
    let (level, pool) = (Level::from_env()?, pool(threads)?);
    let [n, n_cols] = [x.shape()[0], x.shape()[1]];
    let n_rows = out.shape()[1];
    if out.shape()[0] != n || n_cols == 0 {
        return Err(Error::Input(format!("x has the shape {:?}, out {:?}", x.shape(), out.shape())));
    }
    let w = Matrix::new(format_named(packed_type)?, contiguous("packed", &packed)?, n_rows, n_cols)?;
    let (x, out) = (contiguous("x", &x)?, contiguous_mut("out", &mut out)?);
    let form = Form::of(w.format(), if exact { Precision::Float } else { Precision::Int8 });
    py.detach(|| {
        let mut activations = Activations::new();
        activations.pack(&pool, level, x, n_cols, form);
        quantrs_kernels::matmul(&pool, level, &w, &activations, out);
    });
    Ok(())
}

#[pyfunction]
#[pyo3(signature = (a, b, out, *, threads=None))]
pub(crate) fn matmul_i8(
    py: Python<'_>,
    a: PyReadonlyArray2<'_, i8>,
    b: PyReadonlyArray2<'_, i8>,
    mut out: PyReadwriteArray2<'_, i32>,
    threads: Option<usize>,
) -> Result<(), Error> {
    let (level, pool) = (Level::from_env()?, pool(threads)?);
    let k = a.shape()[1];
    if b.shape()[1] != k || out.shape() != [a.shape()[0], b.shape()[0]] {
        return Err(Error::Input(format!("a has the shape {:?}, b {:?}, out {:?}", a.shape(), b.shape(), out.shape())));
    }
    let (a, b) = (contiguous("a", &a)?, contiguous("b", &b)?);
    let out = contiguous_mut("out", &mut out)?;
    py.detach(|| quantrs_kernels::matmul_i8(&pool, level, a, b, k, out));
    Ok(())
}
