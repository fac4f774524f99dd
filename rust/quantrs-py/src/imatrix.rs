//! Importance matrix files.

use crate::engine::Engine;
use crate::error::Error;
use crate::gguf::text;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use quantrs_engine::Model;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct Imatrix {
    pub(crate) inner: quantrs_formats::Imatrix,
}

#[pymethods]
impl Imatrix {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> Result<Imatrix, Error> {
        Ok(Imatrix { inner: py.detach(|| quantrs_formats::Imatrix::open(path))? })
    }

    #[getter]
    fn names(&self) -> &[String] {
        self.inner.names()
    }

    #[getter]
    fn datasets<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyString>>> {
        self.inner.datasets().iter().map(|name| text(py, name)).collect()
    }

    #[getter]
    fn chunk_count(&self) -> u32 {
        self.inner.chunk_count()
    }

    #[pyo3(signature = (name, /))]
    fn values(&self, name: &str) -> Option<&[f32]> {
        self.inner.values(name)
    }

    #[pyo3(signature = (name, /))]
    fn length(&self, name: &str) -> Option<usize> {
        self.inner.values(name).map(<[f32]>::len)
    }
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct ImatrixSums {
    inner: Mutex<quantrs_formats::ImatrixSums>,
}

impl ImatrixSums {
    pub(crate) fn lock(&self) -> MutexGuard<'_, quantrs_formats::ImatrixSums> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For every linear of the blocks, and `with_output` for the output matrix, which is the last.
pub(crate) fn make_room(
    sums: &mut quantrs_formats::ImatrixSums,
    model: &Model,
    with_output: bool,
) -> Result<(), Error> {
    let n_linears = model.linears().count() - usize::from(!with_output);
    for (name, n_experts, n_cols) in model.linears().take(n_linears) {
        sums.expect(name, n_experts, n_cols)?;
    }
    Ok(())
}

#[pymethods]
impl ImatrixSums {
    #[new]
    #[pyo3(signature = (chunk_size, /))]
    fn new(chunk_size: u32) -> ImatrixSums {
        ImatrixSums { inner: Mutex::new(quantrs_formats::ImatrixSums::new(chunk_size)) }
    }

    #[pyo3(signature = (name, /))]
    fn add_dataset(&self, name: &Bound<'_, PyString>) -> PyResult<()> {
        let bytes = name.call_method1("encode", ("utf-8", "surrogateescape"))?.extract()?;
        self.lock().add_dataset(bytes);
        Ok(())
    }

    #[getter]
    fn datasets<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyString>>> {
        self.lock().datasets().iter().map(|name| text(py, name)).collect()
    }

    #[getter]
    fn chunk_count(&self) -> u32 {
        self.lock().chunk_count()
    }

    #[getter]
    fn n_sequences(&self) -> u64 {
        self.lock().n_sequences()
    }

    #[pyo3(signature = (engine, /, *, with_output=false))]
    fn expect(&self, py: Python<'_>, engine: &Engine, with_output: bool) -> Result<(), Error> {
        py.detach(|| {
            let engine = engine.lock();
            make_room(&mut self.lock(), engine.model(), with_output)
        })
    }

    #[pyo3(signature = (n, /))]
    fn assume_sequences(&self, n: u32) {
        self.lock().assume_sequences(n);
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, counts) in self.lock().counts() {
            dict.set_item(name, counts)?;
        }
        Ok(dict)
    }

    #[pyo3(signature = (path, /))]
    fn merge(&self, py: Python<'_>, path: PathBuf) -> Result<(), Error> {
        Ok(py.detach(|| self.lock().merge(path))?)
    }

    fn state<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let state = py.detach(|| self.lock().state());
        PyBytes::new(py, &state)
    }

    #[pyo3(signature = (state, /))]
    fn restore(&self, py: Python<'_>, state: &[u8]) -> bool {
        py.detach(|| self.lock().restore(state))
    }

    #[pyo3(signature = (*, legacy=false))]
    fn to_bytes<'py>(&self, py: Python<'py>, legacy: bool) -> Result<Bound<'py, PyBytes>, Error> {
        let bytes = py.detach(|| if legacy { Ok(self.lock().to_legacy()) } else { self.lock().to_gguf() })?;
        Ok(PyBytes::new(py, &bytes))
    }
}
