//! GGUF headers: read and edited.

use crate::assembly::{AssembledTensor, NewSource, Part};
use crate::error::Error;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};
use quantrs_blocks::with_threads;
use quantrs_formats::{GgmlType, NewValue, Value, ValueType};
use rayon::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Bytes as text; what is not UTF-8 comes as surrogate escapes, so that it can go back unchanged.
pub(crate) fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => PyString::from_encoded_object(&PyBytes::new(py, bytes), Some(c"utf-8"), Some(c"surrogateescape")),
    }
}

fn to_python<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    macro_rules! number {
        ($v:expr) => {
            $v.into_pyobject(py)?.into_any()
        };
    }
    Ok(match value {
        Value::U8(v) => number!(v),
        Value::I8(v) => number!(v),
        Value::U16(v) => number!(v),
        Value::I16(v) => number!(v),
        Value::U32(v) => number!(v),
        Value::I32(v) => number!(v),
        Value::U64(v) => number!(v),
        Value::I64(v) => number!(v),
        Value::F32(v) => number!(f64::from(v)),
        Value::F64(v) => number!(v),
        Value::Bool(v) => PyBool::new(py, v).to_owned().into_any(),
        Value::String(v) => text(py, v)?.into_any(),
        Value::Array(array) => {
            let list = PyList::empty(py);
            for element in &array {
                list.append(to_python(py, element)?)?;
            }
            list.into_any()
        }
    })
}

fn from_python(value: &Bound<'_, PyAny>) -> PyResult<NewValue> {
    if value.is_instance_of::<PyBool>() {
        Ok(NewValue::Bool(value.extract()?))
    } else if value.is_instance_of::<PyInt>() {
        Ok(NewValue::Int(value.extract()?))
    } else if value.is_instance_of::<PyFloat>() {
        Ok(NewValue::Float(value.extract()?))
    } else if value.is_instance_of::<PyString>() {
        let bytes = value.call_method1("encode", ("utf-8", "surrogateescape"))?;
        Ok(NewValue::Bytes(bytes.extract()?))
    } else if let Ok(list) = value.cast::<PyList>() {
        Ok(NewValue::List(list.iter().map(|v| from_python(&v)).collect::<PyResult<_>>()?))
    } else {
        let kind = value.get_type().name()?;
        Err(PyTypeError::new_err(format!("a {kind} cannot be a GGUF value; expected bool, int, float, str or a list")))
    }
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct TensorInfo {
    pub(crate) inner: quantrs_formats::TensorInfo,
    dims: Py<PyTuple>,
    file: OsString,
}

#[pymethods]
impl TensorInfo {
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    #[getter]
    fn dims(&self, py: Python<'_>) -> Py<PyTuple> {
        self.dims.clone_ref(py)
    }

    #[getter]
    fn type_id(&self) -> u32 {
        self.inner.type_id
    }

    #[getter]
    fn type_name(&self) -> Option<&'static str> {
        self.inner.ggml_type().map(|t| t.name)
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.inner.offset
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.inner.nbytes
    }

    #[getter]
    fn file(&self) -> &OsString {
        &self.file
    }

    #[getter]
    fn parts(&self) -> Vec<Part> {
        self.inner.assembly.iter().flat_map(|assembly| &assembly.parts).map(|part| Part { inner: *part }).collect()
    }

    #[getter]
    fn add(&self) -> f32 {
        self.inner.assembly.as_ref().map_or(0.0, |assembly| assembly.add)
    }
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct Gguf {
    pub(crate) inner: quantrs_formats::Gguf,
    /// Python objects, so that asking twice gives the same ones.
    tensors: Py<PyList>,
}

impl Gguf {
    fn new(py: Python<'_>, inner: quantrs_formats::Gguf) -> PyResult<Gguf> {
        let names: Vec<OsString> = inner.sources().iter().map(quantrs_formats::Source::name).collect();
        let tensors = PyList::empty(py);
        for t in inner.tensors() {
            let dims = PyTuple::new(py, &t.dims)?.unbind();
            tensors.append(TensorInfo { inner: t.clone(), dims, file: names[t.file].clone() })?;
        }
        Ok(Gguf { inner, tensors: tensors.unbind() })
    }
}

#[pymethods]
impl Gguf {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Gguf> {
        Gguf::new(py, py.detach(|| quantrs_formats::Gguf::open(path)).map_err(Error::from)?)
    }

    #[staticmethod]
    #[pyo3(signature = (header, sources, tensors, /))]
    fn assembled(
        py: Python<'_>,
        header: &GgufHeader,
        sources: Vec<NewSource<'_>>,
        tensors: Vec<PyRef<'_, AssembledTensor>>,
    ) -> PyResult<Gguf> {
        let sources = sources.into_iter().map(NewSource::into_source).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<_> = tensors.iter().map(|t| t.inner.clone()).collect();
        let header = header.lock().clone();
        Gguf::new(py, py.detach(|| quantrs_formats::Gguf::assembled(&header, sources, tensors)).map_err(Error::from)?)
    }

    #[pyo3(signature = (names, sources=vec![], tensors=vec![], /))]
    fn selected(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        sources: Vec<NewSource<'_>>,
        tensors: Vec<PyRef<'_, AssembledTensor>>,
    ) -> PyResult<Gguf> {
        let sources = sources.into_iter().map(NewSource::into_source).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<_> = tensors.iter().map(|t| t.inner.clone()).collect();
        Gguf::new(py, py.detach(|| self.inner.selected(&names, sources, &tensors)).map_err(Error::from)?)
    }

    #[getter]
    fn is_assembled(&self) -> bool {
        self.inner.is_assembled()
    }

    #[getter]
    fn version(&self) -> u32 {
        self.inner.version()
    }

    #[getter]
    fn alignment(&self) -> u64 {
        self.inner.alignment()
    }

    #[getter]
    fn data_offset(&self) -> u64 {
        self.inner.data_offset()
    }

    #[getter]
    fn file_size(&self) -> u64 {
        self.inner.file_size()
    }

    #[getter]
    fn files(&self) -> Vec<OsString> {
        self.inner.paths().map(|p| p.as_os_str().to_owned()).collect()
    }

    #[getter]
    fn sources(&self) -> Vec<OsString> {
        self.inner.sources().iter().map(quantrs_formats::Source::name).collect()
    }

    fn memory_checksums(&self, py: Python<'_>) -> Vec<(OsString, u32)> {
        let checksum = |s: &quantrs_formats::Source| Some((s.name(), s.memory_checksum()?));
        py.detach(|| self.inner.sources().iter().filter_map(checksum).collect())
    }

    #[getter]
    fn split_sizes(&self) -> Vec<usize> {
        self.inner.split_sizes()
    }

    #[getter]
    fn notices(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.inner.notices())
    }

    #[getter]
    fn tensors(&self, py: Python<'_>) -> Py<PyList> {
        self.tensors.clone_ref(py)
    }

    fn keys(&self) -> Vec<&str> {
        self.inner.keys().collect()
    }

    #[pyo3(signature = (key, /))]
    fn get<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.value(key).map(|value| to_python(py, value)).transpose()
    }

    #[pyo3(signature = (key, /))]
    fn value_type(&self, key: &str) -> Option<String> {
        self.inner.value_type(key).map(|t| t.to_string())
    }

    #[pyo3(signature = (key, /))]
    fn array_len(&self, key: &str) -> Option<usize> {
        self.inner.array_len(key)
    }

    fn containing_types(&self, py: Python<'_>) -> Result<Vec<Vec<&'static str>>, Error> {
        let sources = self.inner.open_sources();
        let types = |tensor: &quantrs_formats::TensorInfo| quantrs_convert::containing_types(&sources, tensor);
        Ok(py.detach(|| with_threads(None, || self.inner.tensors().par_iter().map(types).collect::<Result<_, _>>()))?)
    }

    fn header(&self) -> GgufHeader {
        GgufHeader { inner: Mutex::new(self.inner.header()) }
    }
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct GgufHeader {
    inner: Mutex<quantrs_formats::Header>,
}

impl GgufHeader {
    fn lock(&self) -> std::sync::MutexGuard<'_, quantrs_formats::Header> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl GgufHeader {
    #[staticmethod]
    #[pyo3(signature = (version=3))]
    fn new(version: u32) -> Result<GgufHeader, Error> {
        Ok(GgufHeader { inner: Mutex::new(quantrs_formats::Header::new(version)?) })
    }

    fn keys(&self) -> Vec<String> {
        self.lock().keys().map(str::to_owned).collect()
    }

    #[pyo3(signature = (key, value, value_type, /))]
    fn set(&self, key: &str, value: &Bound<'_, PyAny>, value_type: &str) -> PyResult<()> {
        let value_type: ValueType = value_type.parse().map_err(Error::Format)?;
        let value = from_python(value)?;
        Ok(self.lock().set(key, value_type, &value).map_err(Error::Format)?)
    }

    #[pyo3(signature = (key, /))]
    fn remove(&self, key: &str) -> Result<bool, Error> {
        Ok(self.lock().remove(key)?)
    }

    #[pyo3(signature = (name, dims, type_name, /))]
    fn add_tensor(&self, name: &str, dims: Vec<u64>, type_name: &str) -> Result<u64, Error> {
        let ggml_type =
            GgmlType::by_name(type_name).ok_or_else(|| Error::Input(format!("unknown tensor type {type_name:?}")))?;
        Ok(self.lock().add_tensor(name, &dims, ggml_type)?)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock().to_bytes())
    }

    #[getter]
    fn data_len(&self) -> u64 {
        self.lock().data_len()
    }
}
