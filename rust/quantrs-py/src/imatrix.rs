//! Importance matrix files.

use crate::error::Error;
use crate::gguf::text;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::path::PathBuf;

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
