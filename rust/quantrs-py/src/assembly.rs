//! What a model is assembled from.

use crate::error::Error;
use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use quantrs_formats::{At, Codes, GgmlType, Less, Packed, RowOrder, ScaleType, Scales, Source, Stored, Values, Zeros};
use std::path::PathBuf;
use std::sync::Arc;

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct Part {
    pub(crate) inner: quantrs_formats::Part,
}

/// Index of a source, and where in it.
type PlaceOf = (usize, u64);

fn order_named(order: &str, n_heads: u64) -> Result<RowOrder, Error> {
    RowOrder::by_name(order, n_heads).ok_or_else(|| {
        let known = "as_stored, halves_to_pairs, pairs_to_halves or transposed";
        Error::Input(format!("order is {order:?}; expected {known}"))
    })
}

fn zeros_named(kind: &str, at: Option<PlaceOf>) -> Result<Zeros, Error> {
    let at = at.map(|(source, offset)| At { source, offset });
    Ok(match (kind, at) {
        ("middle", None) => Zeros::Middle,
        ("columns", Some(at)) => Zeros::Columns { at, less: Less::Nothing },
        ("columns_borrowed", Some(at)) => Zeros::Columns { at, less: Less::OneBorrowing },
        ("columns_wrapped", Some(at)) => Zeros::Columns { at, less: Less::OneWrapping },
        ("awq", Some(at)) => Zeros::Awq(at),
        ("rows", Some(at)) => Zeros::Rows(at),
        ("i8", Some(at)) => Zeros::I8(at),
        _ => {
            let known = "middle, or, with a place, columns, columns_borrowed, columns_wrapped, awq, rows or i8";
            return Err(Error::Input(format!("zeros is {kind:?}; expected {known}")));
        }
    })
}

#[pymethods]
impl Part {
    #[staticmethod]
    #[pyo3(signature = (codes, at, n_rows, *, scales, scale_type, group_size, bits=8, group_rows=1, scales_transposed=false,
        divisor=None, zeros="middle", zeros_at=None, g_idx=None, order="as_stored", n_heads=0))]
    #[allow(clippy::too_many_arguments, reason = "the Python signature")]
    fn packed(
        codes: &str,
        at: PlaceOf,
        n_rows: u64,
        scales: PlaceOf,
        scale_type: &str,
        group_size: u64,
        bits: u32,
        group_rows: u64,
        scales_transposed: bool,
        divisor: Option<PlaceOf>,
        zeros: &str,
        zeros_at: Option<PlaceOf>,
        g_idx: Option<PlaceOf>,
        order: &str,
        n_heads: u64,
    ) -> Result<Part, Error> {
        let place = |(source, offset): PlaceOf| At { source, offset };
        let codes = Codes::by_name(codes, bits).ok_or_else(|| {
            Error::Input(format!("codes is {codes:?}; expected rows, columns, awq, i8, f8_e4m3 or f4_e2m1"))
        })?;
        let scale_type = ScaleType::by_name(scale_type).ok_or_else(|| {
            Error::Input(format!("scale_type is {scale_type:?}; expected F32, F16, BF16, F8_E4M3 or F8_E8M0"))
        })?;
        let (transposed, divisor) = (scales_transposed, divisor.map(place));
        let scales = Scales { at: place(scales), scale_type, group_rows, transposed, divisor };
        let packed =
            Packed { codes, group_size, scales, zeros: zeros_named(zeros, zeros_at)?, g_idx: g_idx.map(place) };
        let (source, offset) = at;
        let order = order_named(order, n_heads)?;
        Ok(Part { inner: quantrs_formats::Part { source, offset, values: Values::Packed(packed), n_rows, order } })
    }

    #[new]
    #[pyo3(signature = (source, offset, stored, n_rows, order="as_stored", n_heads=0))]
    fn new(source: usize, offset: u64, stored: &str, n_rows: u64, order: &str, n_heads: u64) -> Result<Part, Error> {
        let order = order_named(order, n_heads)?;
        let stored = Stored::by_name(stored).ok_or_else(|| {
            Error::Input(format!("stored is {stored:?}; expected a ggml type, or a dtype of safetensors"))
        })?;
        Ok(Part { inner: quantrs_formats::Part { source, offset, values: Values::Stored(stored), n_rows, order } })
    }

    #[getter]
    fn source(&self) -> usize {
        self.inner.source
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.inner.offset
    }

    #[getter]
    fn stored(&self) -> &'static str {
        match &self.inner.values {
            Values::Stored(stored) => stored.name,
            Values::Packed(packed) => packed.codes.name(),
        }
    }

    #[getter]
    fn is_packed(&self) -> bool {
        matches!(self.inner.values, Values::Packed(_))
    }

    #[getter]
    fn places(&self) -> Vec<PlaceOf> {
        self.inner.places().map(|at| (at.source, at.offset)).collect()
    }

    #[getter]
    fn n_rows(&self) -> u64 {
        self.inner.n_rows
    }

    #[getter]
    fn order(&self) -> &'static str {
        self.inner.order.name()
    }

    #[getter]
    fn n_heads(&self) -> u64 {
        self.inner.order.n_heads()
    }

    fn __repr__(&self) -> String {
        let quantrs_formats::Part { source, offset, values, n_rows, order } = self.inner;
        let (name, n_heads) = (order.name(), order.n_heads());
        match values {
            Values::Stored(Stored { name: stored, .. }) => {
                format!("Part({source}, {offset}, '{stored}', {n_rows}, '{name}', {n_heads})")
            }
            // All that tells one from another, for fingerprints.
            Values::Packed(packed) => format!("Part({source}, {offset}, {packed:?}, {n_rows}, '{name}', {n_heads})"),
        }
    }
}

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct AssembledTensor {
    pub(crate) inner: quantrs_formats::AssembledTensor,
}

#[pymethods]
impl AssembledTensor {
    #[new]
    #[pyo3(signature = (name, dims, type_name, parts, add=0.0))]
    fn new(
        name: String,
        dims: Vec<u64>,
        type_name: &str,
        parts: Vec<PyRef<'_, Part>>,
        add: f32,
    ) -> Result<AssembledTensor, Error> {
        let ggml_type = GgmlType::by_name(type_name)
            .ok_or_else(|| Error::Input(format!("{name}: unknown tensor type {type_name:?}")))?;
        let parts = parts.iter().map(|part| part.inner).collect();
        let assembly = Arc::new(quantrs_formats::Assembly { parts, add });
        Ok(AssembledTensor { inner: quantrs_formats::AssembledTensor { name, dims, ggml_type, assembly } })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    #[getter]
    fn dims(&self) -> Vec<u64> {
        self.inner.dims.clone()
    }

    #[getter]
    fn type_name(&self) -> &'static str {
        self.inner.ggml_type.name
    }

    #[getter]
    fn parts(&self) -> Vec<Part> {
        self.inner.assembly.parts.iter().map(|part| Part { inner: *part }).collect()
    }

    #[getter]
    fn add(&self) -> f32 {
        self.inner.assembly.add
    }

    fn __repr__(&self) -> String {
        let quantrs_formats::AssembledTensor { name, dims, ggml_type, .. } = &self.inner;
        format!("AssembledTensor({name:?}, {dims:?}, '{}')", ggml_type.name)
    }
}

/// A path, or bytes in memory with what to call them.
#[derive(FromPyObject)]
pub(crate) enum NewSource<'py> {
    Memory(String, Bound<'py, PyArray1<u8>>),
    File(PathBuf),
}

impl NewSource<'_> {
    pub(crate) fn into_source(self) -> Result<Source, Error> {
        match self {
            NewSource::File(path) => Ok(Source::File(path)),
            NewSource::Memory(label, array) if array.is_contiguous() => {
                Ok(Source::Memory { label, bytes: Arc::new(Lent::new(&array)) })
            }
            NewSource::Memory(label, _) => {
                Err(Error::Input(format!("{label}: its bytes are not contiguous; pass numpy.ascontiguousarray of it")))
            }
        }
    }
}

/// The bytes of an array that stays alive.
struct Lent {
    start: *const u8,
    len: usize,
    /// Owns the bytes.
    _array: Py<PyArray1<u8>>,
}

// SAFETY: the bytes are only read, and a reference to a Python object may be moved and dropped by any thread.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// `array` is contiguous.
    fn new(array: &Bound<'_, PyArray1<u8>>) -> Lent {
        Lent { start: array.data(), len: array.len(), _array: array.clone().unbind() }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the array is contiguous and has `len` bytes; it is kept alive, and NumPy refuses to resize an array that somebody
        // else refers to. That nobody writes to it meanwhile is asked for where the source is handed in, and every value is allowed.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}
