//! Scales of input channels: AWQ and SmoothQuant.

use crate::cpu::checked_threads;
use crate::error::Error;
use crate::slices::contiguous;
use crate::solvers::{checked_group_size, named, rule_named, scale_type_named};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods, ToPyArray};
use pyo3::prelude::*;
use quantrs_blocks::with_threads;
use quantrs_kernels::elementwise::Activation;
use quantrs_simd::Level;
use quantrs_solvers::{AwqClip, AwqProblem, AwqSearch, Grid, Outputs};

/// Best index, scales and losses.
type Found<'py> = (usize, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f64>>);

fn grid(bits: u32, symmetric: bool, rule: &str, scale_type: &str) -> Result<Grid, Error> {
    let (rule, scale_type) = (rule_named(rule)?, scale_type_named(scale_type)?);
    Ok(Grid { bits, symmetric, rule, scale_type, mse: None, min_zero: 0, stepwise: false })
}

fn slices<'a>(weights: &'a [PyReadonlyArray2<'_, f32>], in_features: usize) -> Result<Vec<&'a [f32]>, Error> {
    let slice = |(i, w): (usize, &'a PyReadonlyArray2<'_, f32>)| {
        if w.shape()[1] != in_features {
            let shape = w.shape();
            return Err(Error::Input(format!("weights: {i} has the shape {shape:?}, expected {in_features} columns")));
        }
        contiguous("weights", w)
    };
    weights.iter().enumerate().map(slice).collect()
}

#[pyfunction]
#[pyo3(signature = (weights, x, x_mean, *, outputs, bits, group_size, symmetric, duo_scaling, n_grid, rule="awq", scale_type="f32", scale_of=None, threads=None))]
#[allow(clippy::too_many_arguments, reason = "the Python signature")]
pub(crate) fn awq_search<'py>(
    py: Python<'py>,
    weights: Vec<PyReadonlyArray2<'py, f32>>,
    x: PyReadonlyArray2<'py, f32>,
    x_mean: PyReadonlyArray1<'py, f32>,
    outputs: &str,
    bits: u32,
    group_size: i64,
    symmetric: bool,
    duo_scaling: bool,
    n_grid: usize,
    rule: &str,
    scale_type: &str,
    scale_of: Option<PyReadonlyArray1<'py, u32>>,
    threads: Option<usize>,
) -> Result<Found<'py>, Error> {
    let (level, threads, in_features) = (Level::from_env()?, checked_threads(threads)?, x.shape()[1]);
    let (grid, group_size) = (grid(bits, symmetric, rule, scale_type)?, checked_group_size(group_size, in_features)?);
    let x = contiguous("x", &x)?;
    let table = [
        ("gram", Outputs::Gram(x)),
        ("linear", Outputs::Tokens(x)),
        ("silu", Outputs::Gated(x, Activation::Silu)),
        ("gelu_tanh", Outputs::Gated(x, Activation::GeluTanh)),
        ("relu", Outputs::Gated(x, Activation::Relu)),
    ];
    let problem = AwqProblem {
        weights: &slices(&weights, in_features)?,
        in_features,
        x_mean: contiguous("x_mean", &x_mean)?,
        scale_of: scale_of.as_ref().map(|s| contiguous("scale_of", s)).transpose()?,
        outputs: named("outputs", outputs, &table)?,
    };
    let search = AwqSearch { grid, group_size, duo_scaling, n_grid };
    let found = py.detach(|| with_threads(threads, || search.run(level, &problem)))?;
    Ok((found.best_index, found.scales.to_pyarray(py), found.losses.to_pyarray(py)))
}

#[pyfunction]
#[pyo3(signature = (w, x, *, is_gram, bits, group_size, symmetric, n_grid, n_steps, rule="awq", scale_type="f32", threads=None))]
#[allow(clippy::too_many_arguments, reason = "the Python signature")]
pub(crate) fn awq_clip<'py>(
    py: Python<'py>,
    w: PyReadonlyArray2<'py, f32>,
    x: PyReadonlyArray2<'py, f32>,
    is_gram: bool,
    bits: u32,
    group_size: i64,
    symmetric: bool,
    n_grid: usize,
    n_steps: usize,
    rule: &str,
    scale_type: &str,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let level = Level::from_env().map_err(Error::from)?;
    let (threads, [n_rows, in_features]) = (checked_threads(threads)?, [w.shape()[0], w.shape()[1]]);
    let (grid, group_size) = (grid(bits, symmetric, rule, scale_type)?, checked_group_size(group_size, in_features)?);
    if x.shape()[1] != in_features || x.shape()[0] == 0 || (is_gram && x.shape()[0] != in_features) {
        return Err(Error::Input(format!("x has the shape {:?}, w {:?}", x.shape(), w.shape())).into());
    }
    let (w, x) = (contiguous("w", &w)?, contiguous("x", &x)?);
    let clip = AwqClip { grid, group_size, n_grid, n_steps };
    let blocks = if is_gram { quantrs_solvers::diagonal_blocks } else { quantrs_solvers::group_grams };
    let search = || clip.run(level, w, in_features, &blocks(x, in_features, group_size));
    let thresholds = py.detach(|| with_threads(threads, search)).map_err(Error::from)?;
    thresholds.to_pyarray(py).reshape([n_rows, in_features / group_size])
}

#[pyfunction]
#[pyo3(signature = (x_max, weights, *, alpha=0.5, threads=None))]
pub(crate) fn smooth_scales<'py>(
    py: Python<'py>,
    x_max: PyReadonlyArray1<'py, f32>,
    weights: Vec<PyReadonlyArray2<'py, f32>>,
    alpha: f32,
    threads: Option<usize>,
) -> Result<Bound<'py, PyArray1<f32>>, Error> {
    let (level, threads) = (Level::from_env()?, checked_threads(threads)?);
    let x_max = contiguous("x_max", &x_max)?;
    let weights = slices(&weights, x_max.len())?;
    let scales =
        py.detach(|| with_threads(threads, || quantrs_solvers::smooth_scales(level, x_max, &weights, alpha)))?;
    Ok(scales.to_pyarray(py))
}
