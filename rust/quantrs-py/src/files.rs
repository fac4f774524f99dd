//! Tensors: read where they lie, and the output while it is being written.

use crate::cpu::{checked_threads, format_named};
use crate::error::Error;
use crate::gguf::{Gguf, TensorInfo};
use crate::imatrix::Imatrix;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quantrs_blocks::with_threads;
use quantrs_convert::{ConvertError, ReadBuffers, TensorReader, Writeback, Written};
use quantrs_simd::Level;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[pyclass(frozen, module = "quantrs._native")]
#[derive(Default)]
pub(crate) struct Progress {
    inner: quantrs_convert::Progress,
}

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Progress {
        Progress::default()
    }

    #[getter]
    fn done(&self) -> u64 {
        self.inner.done()
    }

    fn cancel(&self) {
        self.inner.cancel();
    }
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct Sources {
    inner: quantrs_formats::OpenSources,
}

impl Sources {
    fn reader<'a>(&'a self, level: Level, tensor: &'a TensorInfo) -> Result<TensorReader<'a>, Error> {
        let info = &tensor.inner;
        let of_assembly =
            info.assembly.iter().flat_map(|assembly| &assembly.parts).flat_map(quantrs_formats::Part::places);
        if of_assembly.map(|at| at.source).chain([info.file]).any(|source| !self.inner.has(source)) {
            return Err(Error::Input(format!("{}: a tensor of another model", info.name)));
        }
        Ok(TensorReader::new(level, &self.inner, info)?)
    }
}

#[pymethods]
impl Sources {
    #[new]
    fn new(gguf: &Gguf) -> Sources {
        Sources { inner: gguf.inner.open_sources() }
    }

    #[pyo3(signature = (tensor, /))]
    fn read<'py>(&self, py: Python<'py>, tensor: &TensorInfo) -> PyResult<Bound<'py, PyBytes>> {
        let level = Level::from_env().map_err(Error::from)?;
        // A type that this build does not know is still so many bytes.
        let unknown = tensor.inner.ggml_type().is_none();
        PyBytes::new_with(py, tensor.inner.nbytes as usize, |out| {
            let read = || match unknown {
                true => Ok(self.inner.read_at(tensor.inner.file, tensor.inner.offset, out)?),
                false => Ok(self.reader(level, tensor)?.read_all(out)?),
            };
            Ok(py.detach(|| with_threads(None, read)).map_err(|e: Error| e)?)
        })
    }

    #[pyo3(signature = (tensor, first_row, n_rows, /))]
    fn read_rows<'py>(
        &self,
        py: Python<'py>,
        tensor: &TensorInfo,
        first_row: usize,
        n_rows: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let level = Level::from_env().map_err(Error::from)?;
        let all_rows = tensor.inner.dims[1..].iter().product::<u64>() as usize;
        if first_row.checked_add(n_rows).is_none_or(|end| end > all_rows) || tensor.inner.ggml_type().is_none() {
            let what = format!("rows {first_row}..+{n_rows} of {all_rows} cannot be read");
            return Err(Error::Input(format!("{}: {what}", tensor.inner.name)).into());
        }
        let row_bytes = tensor.inner.nbytes as usize / all_rows.max(1);
        PyBytes::new_with(py, n_rows * row_bytes, |out| {
            let read = || -> Result<(), Error> {
                let reader = self.reader(level, tensor)?;
                Ok(reader.read_at(first_row * row_bytes, out, &mut ReadBuffers::default())?)
            };
            Ok(py.detach(read)?)
        })
    }
}

#[pyclass(frozen, get_all, module = "quantrs._native")]
pub(crate) struct TensorWritten {
    crc32: u32,
    clipped_blocks: usize,
    sum_squared_error: f64,
    sum_squared: f64,
    max_error: f64,
}

impl From<Written> for TensorWritten {
    fn from(written: Written) -> TensorWritten {
        let of = |f: fn(quantrs_blocks::RowErrors) -> f64| written.errors.map_or(f64::NAN, f);
        TensorWritten {
            crc32: written.crc32,
            clipped_blocks: written.clipped_blocks,
            sum_squared_error: of(|e| e.squared_error),
            sum_squared: of(|e| e.squared),
            max_error: of(|e| e.max_error),
        }
    }
}

struct Open {
    file: Arc<quantrs_formats::PartFile>,
    writeback: Writeback,
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct PartFile {
    /// None once closed.
    open: Mutex<Option<Open>>,
}

impl PartFile {
    fn new(file: quantrs_formats::PartFile) -> PartFile {
        let file = Arc::new(file);
        PartFile { open: Mutex::new(Some(Open { writeback: Writeback::start(file.clone()), file })) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Run `f` on the open file without the GIL.
    fn with<R: Send>(&self, py: Python<'_>, f: impl FnOnce(&Open) -> Result<R, Error> + Send) -> Result<R, Error> {
        py.detach(|| match &*self.lock() {
            Some(open) => f(open),
            None => Err(Error::Input("the part file is closed".to_owned())),
        })
    }
}

#[pymethods]
impl PartFile {
    #[staticmethod]
    fn create(py: Python<'_>, path: PathBuf, size: u64) -> Result<PartFile, Error> {
        Ok(PartFile::new(py.detach(|| quantrs_formats::PartFile::create(path, size))?))
    }

    #[staticmethod]
    fn reopen(path: PathBuf, size: u64) -> Result<PartFile, Error> {
        Ok(PartFile::new(quantrs_formats::PartFile::reopen(path, size)?))
    }

    #[pyo3(signature = (offset, data, /))]
    fn write(&self, py: Python<'_>, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.with(py, |open| Ok(open.file.write_at(offset, data)?))
    }

    #[pyo3(signature = (
        offset, dst_type, sources, tensor, *, name, imatrix=None, threads=None, measure=false, progress=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "the Python signature")]
    fn write_tensor(
        &self,
        py: Python<'_>,
        offset: u64,
        dst_type: &str,
        sources: &Sources,
        tensor: &TensorInfo,
        name: &str,
        imatrix: Option<&Imatrix>,
        threads: Option<usize>,
        measure: bool,
        progress: Option<&Progress>,
    ) -> Result<TensorWritten, Error> {
        let (level, threads) = (Level::from_env()?, checked_threads(threads)?);
        let format = format_named(dst_type)?;
        let importance = imatrix.and_then(|im| im.inner.values(name));
        let unwatched = quantrs_convert::Progress::default();
        let progress = progress.map_or(&unwatched, |p| &p.inner);
        self.with(py, |Open { file, writeback }| {
            let write = || {
                let source = sources.reader(level, tensor)?;
                Ok::<_, Error>(quantrs_convert::write_tensor(
                    level, &source, format, importance, file, offset, measure, writeback, progress,
                )?)
            };
            Ok(with_threads(threads, write)?.into())
        })
    }

    #[pyo3(signature = (offset, nbytes, /))]
    fn checksum(&self, py: Python<'_>, offset: u64, nbytes: u64) -> Result<u32, Error> {
        self.with(py, |open| Ok(open.file.checksum(offset, nbytes)?))
    }

    fn sync(&self, py: Python<'_>) -> Result<(), Error> {
        self.with(py, |open| Ok(open.file.sync()?))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

#[pyfunction]
#[pyo3(signature = (sources, tensor, *, threads=None))]
pub(crate) fn check_tensor(
    py: Python<'_>,
    sources: &Sources,
    tensor: &TensorInfo,
    threads: Option<usize>,
) -> Result<Option<String>, Error> {
    let (level, threads) = (Level::from_env()?, checked_threads(threads)?);
    let check = || Ok(quantrs_convert::check_tensor(&sources.reader(level, tensor)?)?);
    match py.detach(|| with_threads(threads, check)) {
        Ok(()) => Ok(None),
        Err(Error::Convert(ConvertError::Values { source, .. })) => Ok(Some(source.to_string())),
        Err(error) => Err(error),
    }
}
