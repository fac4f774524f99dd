//! safetensors headers: read and written.

use crate::error::Error;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use quantrs_formats::SafeTensorsFile;
use quantrs_formats::safetensors::{Dtype, NewTensor, write_header};
use std::path::PathBuf;

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct SafeTensors {
    inner: SafeTensorsFile,
}

/// Name, dtype, shape, offset, bytes.
type Row<'py> = (String, &'static str, Bound<'py, PyTuple>, u64, u64);

#[pymethods]
impl SafeTensors {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> Result<SafeTensors, Error> {
        Ok(SafeTensors { inner: py.detach(|| SafeTensorsFile::open(path))? })
    }

    #[getter]
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Vec<Row<'py>>> {
        let row = |t: &quantrs_formats::safetensors::SafeTensor| {
            Ok((t.name.clone(), t.dtype.name, PyTuple::new(py, &t.shape)?, t.offset, t.nbytes))
        };
        self.inner.tensors().iter().map(row).collect()
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.inner.metadata().iter().try_for_each(|(key, value)| dict.set_item(key, value))?;
        Ok(dict)
    }

    #[getter]
    fn file_size(&self) -> u64 {
        self.inner.file_size()
    }
}

#[pyfunction]
#[pyo3(signature = (tensors, metadata, /))]
pub(crate) fn safetensors_header<'py>(
    py: Python<'py>,
    tensors: Vec<(String, String, Vec<u64>)>,
    metadata: Bound<'py, PyDict>,
) -> PyResult<(Bound<'py, PyBytes>, Vec<u64>)> {
    let new = |(name, dtype, shape): (String, String, Vec<u64>)| match Dtype::by_name(&dtype) {
        Some(dtype) => Ok(NewTensor { name, dtype, shape }),
        None => Err(Error::Input(format!("{name}: found the dtype {dtype:?}, expected one of {}", Dtype::known()))),
    };
    let tensors = tensors.into_iter().map(new).collect::<Result<Vec<_>, _>>()?;
    let metadata: Vec<(String, String)> =
        metadata.iter().map(|(key, value)| Ok((key.extract()?, value.extract()?))).collect::<PyResult<_>>()?;
    let (bytes, offsets) = write_header(&tensors, &metadata).map_err(Error::from)?;
    Ok((PyBytes::new(py, &bytes), offsets))
}
