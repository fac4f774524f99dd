//! Rounding to grids, Hessians and GPTQ.

use crate::cpu::checked_threads;
use crate::error::Error;
use numpy::{PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods, ToPyArray};
use pyo3::prelude::*;
use quantrs_blocks::with_threads;
use quantrs_simd::Level;
use quantrs_solvers::{Grid, GroupCodes, Rule, ScaleType};

/// Codes, scales and zero points as arrays.
type Arrays<'py> = (Bound<'py, PyArray2<u8>>, Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<u8>>);

pub(crate) fn contiguous<T>(what: &str, slice: Result<T, impl Sized>) -> Result<T, Error> {
    slice.map_err(|_| Error::Input(format!("{what} is not C-contiguous; pass numpy.ascontiguousarray of it")))
}

pub(crate) fn named<T: Copy>(what: &str, name: &str, table: &[(&str, T)]) -> Result<T, Error> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|(known, _)| *known).collect();
        Error::Input(format!("{what}: found {name:?}, expected one of {}", known.join(", ")))
    })
}

/// The rule of this name.
pub(crate) fn rule_named(name: &str) -> Result<Rule, Error> {
    let rules = [("gptq", Rule::Gptq), ("gptq-wide", Rule::GptqWide), ("minmax", Rule::MinMax), ("awq", Rule::Awq)];
    named("rule", name, &rules)
}

/// The type of scales of this name.
pub(crate) fn scale_type_named(name: &str) -> Result<ScaleType, Error> {
    named("scale_type", name, &[("f32", ScaleType::F32), ("f16", ScaleType::F16), ("bf16", ScaleType::Bf16)])
}

/// Columns in a group: all of them for -1.
pub(crate) fn checked_group_size(group_size: i64, in_features: usize) -> Result<usize, Error> {
    if group_size == -1 {
        return Ok(in_features);
    }
    let valid = usize::try_from(group_size).ok().filter(|g| *g > 0 && in_features.is_multiple_of(*g));
    valid.ok_or_else(|| {
        let expected = format!("a divisor of in_features {in_features}, or -1 for one group per row");
        Error::Input(format!("group_size: found {group_size}, expected {expected}"))
    })
}

fn arrays<'py>(py: Python<'py>, out: &GroupCodes, codes: [usize; 2], group_size: usize) -> PyResult<Arrays<'py>> {
    let groups = [codes[0], codes[1] / group_size];
    Ok((
        out.codes.to_pyarray(py).reshape(codes)?,
        out.scales.to_pyarray(py).reshape(groups)?,
        out.zeros.to_pyarray(py).reshape(groups)?,
    ))
}

#[pyfunction]
#[pyo3(signature = (w, *, bits, group_size, symmetric, rule="gptq", scale_type="f32", mse=None, min_zero=0, threads=None))]
#[allow(clippy::too_many_arguments, reason = "the Python signature")]
pub(crate) fn quantize_groups<'py>(
    py: Python<'py>,
    w: PyReadonlyArray2<'py, f32>,
    bits: u32,
    group_size: i64,
    symmetric: bool,
    rule: &str,
    scale_type: &str,
    mse: Option<f32>,
    min_zero: u8,
    threads: Option<usize>,
) -> PyResult<Arrays<'py>> {
    let level = Level::from_env().map_err(Error::from)?;
    let (threads, n_rows, in_features) = (checked_threads(threads)?, w.shape()[0], w.shape()[1]);
    let (rule, scale_type) = (rule_named(rule)?, scale_type_named(scale_type)?);
    let grid = Grid { bits, symmetric, rule, scale_type, mse, min_zero, stepwise: true };
    let group_size = checked_group_size(group_size, in_features)?;
    let w = contiguous("w", w.as_slice())?;
    let out = py
        .detach(|| with_threads(threads, || quantrs_solvers::quantize_groups(level, w, in_features, &grid, group_size)))
        .map_err(Error::from)?;
    arrays(py, &out, [n_rows, in_features], group_size)
}
