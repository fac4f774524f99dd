//! Rounding to grids, Hessians and GPTQ.

use crate::cpu::checked_threads;
use crate::error::Error;
use crate::slices::contiguous;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use quantrs_blocks::with_threads;
use quantrs_simd::Level;
use quantrs_solvers::{Factor, Gptq, Grid, GroupCodes, Order, Rule, ScaleType};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Codes, scales and zero points as arrays.
type Arrays<'py> = (Bound<'py, PyArray2<u8>>, Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<u8>>);

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

fn arrays<'py>(py: Python<'py>, out: GroupCodes, codes: [usize; 2], group_size: usize) -> PyResult<Arrays<'py>> {
    let groups = [codes[0], codes[1] / group_size];
    Ok((
        PyArray1::from_vec(py, out.codes).reshape(codes)?,
        PyArray1::from_vec(py, out.scales).reshape(groups)?,
        PyArray1::from_vec(py, out.zeros).reshape(groups)?,
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
    let w = contiguous("w", &w)?;
    let out = py
        .detach(|| with_threads(threads, || quantrs_solvers::quantize_groups(level, w, in_features, &grid, group_size)))
        .map_err(Error::from)?;
    arrays(py, out, [n_rows, in_features], group_size)
}

/// What a factor depends on besides the tokens.
type FactorKey = (Order, u64);

struct State {
    sums: quantrs_solvers::Hessian,
    /// The last factor that was asked for: layers that share an input share it.
    factor: Option<(FactorKey, Arc<Factor>)>,
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct Hessian(Mutex<State>);

impl Hessian {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The factor of the present sums. Not to be called on a thread of the pool: while it waits for others, such a thread may take up
    /// another call for the same Hessian, and wait for the lock that it holds itself.
    fn factor(&self, order: Order, damp_percent: f64, threads: Option<usize>) -> Result<Arc<Factor>, Error> {
        let (mut state, key) = (self.lock(), (order, damp_percent.to_bits()));
        if let Some((known, factor)) = &state.factor
            && *known == key
        {
            return Ok(factor.clone());
        }
        state.factor = None;
        let sums = &state.sums;
        let factor = with_threads(threads, || Factor::new(sums.matrix(), sums.n(), order, damp_percent))?;
        let factor = Arc::new(factor);
        state.factor = Some((key, factor.clone()));
        Ok(factor)
    }
}

#[pymethods]
impl Hessian {
    #[new]
    fn new(n: usize) -> Result<Hessian, Error> {
        let sums = quantrs_solvers::Hessian::new(Level::from_env()?, n)?;
        Ok(Hessian(Mutex::new(State { sums, factor: None })))
    }

    #[getter]
    fn n(&self, py: Python<'_>) -> usize {
        py.detach(|| self.lock().sums.n())
    }

    #[getter]
    fn n_tokens(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.lock().sums.n_tokens())
    }

    #[pyo3(signature = (x, *, threads=None))]
    fn add(&self, py: Python<'_>, x: PyReadonlyArray2<'_, f32>, threads: Option<usize>) -> Result<(), Error> {
        let (threads, n) = (checked_threads(threads)?, x.shape()[1]);
        let x = contiguous("x", &x)?;
        py.detach(|| {
            let mut state = self.lock();
            if n != state.sums.n() {
                return Err(Error::Input(format!("x: found {n} columns, expected {}", state.sums.n())));
            }
            state.factor = None;
            let sums = &mut state.sums;
            Ok(with_threads(threads, || sums.add(x))?)
        })
    }

    #[pyo3(signature = (other, *, threads=None))]
    fn merge(&self, py: Python<'_>, other: &Hessian, threads: Option<usize>) -> Result<(), Error> {
        let threads = checked_threads(threads)?;
        py.detach(|| {
            // A copy, so that one lock at a time is held: `a.merge(a)` and `a.merge(b)` beside `b.merge(a)` finish.
            let other = other.lock().sums.clone();
            let mut state = self.lock();
            state.factor = None;
            let sums = &mut state.sums;
            Ok(with_threads(threads, || sums.merge(&other))?)
        })
    }

    #[pyo3(signature = (*, threads=None))]
    fn matrix<'py>(&self, py: Python<'py>, threads: Option<usize>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let threads = checked_threads(threads)?;
        let (n, matrix) = py.detach(|| {
            let state = self.lock();
            (state.sums.n(), with_threads(threads, || state.sums.matrix()))
        });
        PyArray1::from_vec(py, matrix).reshape([n, n])
    }
}

/// Codes, scales, zero points, group of every column, damping that was used, loss.
type Solved<'py> = (
    Bound<'py, PyArray2<u8>>,
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray2<u8>>,
    Bound<'py, PyArray1<i32>>,
    f64,
    f64,
);

#[pyfunction]
#[pyo3(signature = (w, hessian, *, bits, group_size, symmetric, order="natural", static_groups=false, damp_percent=0.01,
    block_size=128, rule="gptq", scale_type="f32", mse=None, min_zero=0, threads=None))]
#[allow(clippy::too_many_arguments, reason = "the Python signature")]
pub(crate) fn gptq<'py>(
    py: Python<'py>,
    w: PyReadonlyArray2<'py, f32>,
    hessian: &Hessian,
    bits: u32,
    group_size: i64,
    symmetric: bool,
    order: &str,
    static_groups: bool,
    damp_percent: f64,
    block_size: usize,
    rule: &str,
    scale_type: &str,
    mse: Option<f32>,
    min_zero: u8,
    threads: Option<usize>,
) -> PyResult<Solved<'py>> {
    let level = Level::from_env().map_err(Error::from)?;
    let (threads, shape) = (checked_threads(threads)?, [w.shape()[0], w.shape()[1]]);
    let (rule, scale_type) = (rule_named(rule)?, scale_type_named(scale_type)?);
    let grid = Grid { bits, symmetric, rule, scale_type, mse, min_zero, stepwise: false };
    grid.check().map_err(Error::from)?;
    let group_size = checked_group_size(group_size, shape[1])?;
    let orders = [
        ("natural", Order::Natural),
        ("activation", Order::Activation),
        ("group-aware", Order::GroupAware(group_size)),
    ];
    let order = named("order", order, &orders)?;
    let gptq = Gptq { grid, group_size, block_size, order, static_groups };
    let w = contiguous("w", &w)?;
    let solve = || {
        let factor = hessian.factor(order, damp_percent, threads)?;
        let solution = with_threads(threads, || gptq.solve(level, w, &factor))?;
        Ok::<_, Error>((solution, factor.damp_percent))
    };
    let (solution, damp_percent) = py.detach(solve)?;
    let (codes, scales, zeros) = arrays(py, solution.codes, shape, group_size)?;
    Ok((codes, scales, zeros, PyArray1::from_vec(py, solution.g_idx), damp_percent, solution.loss))
}
