//! Files: positioned reads, and the output while it is being written.

use crate::cpu::{checked_threads, format_named};
use crate::error::Error;
use crate::imatrix::Imatrix;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quantrs_blocks::with_threads;
use quantrs_convert::{ConvertError, TensorSource, Writeback, Written};
use quantrs_formats::ReadAt;
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
pub(crate) struct SourceFile {
    inner: quantrs_formats::SourceFile,
}

#[pymethods]
impl SourceFile {
    #[new]
    fn new(path: PathBuf) -> Result<SourceFile, Error> {
        Ok(SourceFile { inner: quantrs_formats::SourceFile::open(path)? })
    }

    #[pyo3(signature = (offset, length, /))]
    fn read<'py>(&self, py: Python<'py>, offset: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        // Before the bytes are allocated: no length can ask for more than the file holds.
        if offset.checked_add(length as u64).is_none_or(|end| end > self.inner.size()) {
            let (path, size) = (self.inner.path().display(), self.inner.size());
            return Err(Error::Input(format!("{path}: {length} bytes at {offset} are past its end at {size}")).into());
        }
        PyBytes::new_with(py, length, |out| Ok(self.inner.read_at(offset, out).map_err(Error::from)?))
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
        offset, dst_type, src, src_offset, src_type, n_rows, n_cols, *,
        name, imatrix=None, threads=None, measure=false, progress=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "the Python signature")]
    fn write_tensor(
        &self,
        py: Python<'_>,
        offset: u64,
        dst_type: &str,
        src: &SourceFile,
        src_offset: u64,
        src_type: &str,
        n_rows: usize,
        n_cols: usize,
        name: &str,
        imatrix: Option<&Imatrix>,
        threads: Option<usize>,
        measure: bool,
        progress: Option<&Progress>,
    ) -> Result<TensorWritten, Error> {
        let (level, threads) = (Level::from_env()?, checked_threads(threads)?);
        let format = format_named(dst_type)?;
        let source = TensorSource {
            name,
            file: &src.inner,
            offset: src_offset,
            format: format_named(src_type)?,
            n_rows,
            n_cols,
        };
        let importance = imatrix.and_then(|im| im.inner.values(name));
        let unwatched = quantrs_convert::Progress::default();
        let progress = progress.map_or(&unwatched, |p| &p.inner);
        self.with(py, |Open { file, writeback }| {
            let write = || {
                quantrs_convert::write_tensor(
                    level, &source, format, importance, file, offset, measure, writeback, progress,
                )
            };
            Ok(with_threads(threads, write)?.into())
        })
    }

    #[pyo3(signature = (offset, src, src_offset, nbytes, *, progress=None))]
    fn copy_bytes(
        &self,
        py: Python<'_>,
        offset: u64,
        src: &SourceFile,
        src_offset: u64,
        nbytes: u64,
        progress: Option<&Progress>,
    ) -> Result<TensorWritten, Error> {
        let unwatched = quantrs_convert::Progress::default();
        let progress = progress.map_or(&unwatched, |p| &p.inner);
        self.with(py, |Open { file, writeback }| {
            let copy =
                || quantrs_convert::copy_bytes(&src.inner, src_offset, nbytes, file, offset, writeback, progress);
            Ok(with_threads(None, copy)?.into())
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
#[pyo3(signature = (path, offset, type_name, n_rows, n_cols, *, threads=None))]
pub(crate) fn check_rows(
    py: Python<'_>,
    path: PathBuf,
    offset: u64,
    type_name: &str,
    n_rows: usize,
    n_cols: usize,
    threads: Option<usize>,
) -> Result<Option<String>, Error> {
    let (format, threads) = (format_named(type_name)?, checked_threads(threads)?);
    let file = quantrs_formats::SourceFile::open(path)?;
    let source = TensorSource { name: "", file: &file, offset, format, n_rows, n_cols };
    match py.detach(|| with_threads(threads, || quantrs_convert::check_tensor(&source))) {
        Ok(()) => Ok(None),
        Err(ConvertError::Values { source, .. }) => Ok(Some(source.to_string())),
        Err(error) => Err(error.into()),
    }
}
