//! Tensors of the model, looked up by name and checked against what the graph expects.

use crate::EngineError;
use crate::maps::{Maps, Place};
use crate::spec::{LinearSpec, NormKind, NormSpec};
use quantrs_blocks::{BlockFormat, by_id, with_threads};
use quantrs_convert::TensorReader;
use quantrs_formats::{Gguf, OpenSources, RowOrder, TensorInfo, Values};
use quantrs_kernels::{Form, Matrix, Precision, norms};
use quantrs_simd::Level;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The model's tensors by name, and which of them were asked for.
pub(crate) struct Tensors<'a> {
    by_name: HashMap<&'a str, &'a TensorInfo>,
    maps: &'a Maps,
    level: Level,
    used: RefCell<HashSet<String>>,
    /// For tensors that cannot be used where they lie.
    sources: OpenSources,
    copies: RefCell<HashMap<String, Arc<Vec<u8>>>>,
}

/// A matrix of the model, or some rows of one, or one per expert.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// Of the tensor.
    pub(crate) name: String,
    pub(crate) n_rows: usize,
    pub(crate) n_cols: usize,
    format: &'static BlockFormat,
    place: Place,
    tensor_rows: usize,
    first_row: usize,
    pub(crate) n_matrices: usize,
    /// `[n_matrices * n_rows]`
    bias: Option<Vec<f32>>,
}

/// A norm with its weights.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    kind: NormKind,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    eps: f32,
}

impl<'a> Tensors<'a> {
    pub(crate) fn new(gguf: &'a Gguf, maps: &'a Maps, level: Level) -> Self {
        let by_name = gguf.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
        let sources = gguf.open_sources();
        Tensors { by_name, maps, level, used: RefCell::default(), sources, copies: RefCell::default() }
    }

    /// The tensor with exactly these dimensions, row length first; a last dimension of 1 may be left out, as writers do.
    fn find(&self, name: &str, expected: &[usize]) -> Result<(&'static BlockFormat, Place), EngineError> {
        let info = self.by_name.get(name).ok_or_else(|| EngineError::MissingTensor { tensor: name.to_owned() })?;
        self.used.borrow_mut().insert(name.to_owned());
        let expected: Vec<u64> = expected.iter().map(|n| *n as u64).collect();
        let trimmed = |dims: &[u64]| {
            let n = dims.iter().rposition(|n| *n != 1).map_or(0, |i| i + 1);
            dims[..n].to_vec()
        };
        if trimmed(&info.dims) != trimmed(&expected) {
            let (found, expected) = (trimmed(&info.dims), trimmed(&expected));
            return Err(EngineError::Shape { tensor: name.to_owned(), found, expected });
        }
        let format = by_id(info.type_id).filter(|f| f.dequantize.is_some()).ok_or_else(|| EngineError::Type {
            tensor: name.to_owned(),
            found: by_id(info.type_id).map_or_else(|| format!("number {}", info.type_id), |f| f.name.to_owned()),
        })?;
        Ok((format, self.place(info)?))
    }

    /// Where the tensor's bytes are: in its source if they lie there as they are needed, else in a copy.
    fn place(&self, info: &TensorInfo) -> Result<Place, EngineError> {
        let in_place = info.assembly.as_ref().is_none_or(|assembly| {
            let part = &assembly.parts[0];
            assembly.parts.len() == 1
                && assembly.add == 0.0
                && part.order == RowOrder::AsStored
                && matches!(part.values, Values::Stored(stored) if stored.type_id == Some(info.type_id))
        });
        if !in_place {
            return Ok(Place::Owned(self.copy(info)?));
        }
        let bytes = info.offset as usize..(info.offset + info.nbytes) as usize;
        // The header was checked against the file's size when it was read; the file may have changed since.
        let found = self.maps.source_len(info.file);
        if bytes.end > found {
            return Err(EngineError::Size { what: "bytes of the file", found, expected: bytes.end });
        }
        Ok(Place::Source { index: info.file, bytes })
    }

    /// The tensor's bytes, read once however many parts of the graph use it.
    fn copy(&self, info: &TensorInfo) -> Result<Arc<Vec<u8>>, EngineError> {
        if let Some(copy) = self.copies.borrow().get(&info.name) {
            return Ok(copy.clone());
        }
        let (level, sources) = (self.level, &self.sources);
        let mut bytes = vec![0; info.nbytes as usize];
        with_threads(None, || TensorReader::new(level, sources, info)?.read_all(&mut bytes))?;
        let copy = Arc::new(bytes);
        self.copies.borrow_mut().insert(info.name.clone(), copy.clone());
        Ok(copy)
    }

    /// A copy in float32 of a small tensor, all finite.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        self.values(name, &[len])
    }

    /// Likewise, of any dimensions.
    fn values(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, EngineError> {
        let (format, place) = self.find(name, dims)?;
        let mut values = vec![0.0; dims.iter().product()];
        format.dequantize.expect("checked by find")(self.level, self.maps.bytes(&place), &mut values);
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(EngineError::BadValue { tensor: name.to_owned(), index, value: values[index] }),
            None => Ok(values),
        }
    }

    /// The length of a one-dimensional tensor.
    pub(crate) fn len_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|info| info.dims[0] as usize)
    }

    pub(crate) fn norm(&self, spec: &NormSpec, len: usize) -> Result<Norm, EngineError> {
        let bias = spec.bias.as_ref().map(|name| self.vector(name, len)).transpose()?;
        Ok(Norm { kind: spec.kind, weight: self.vector(&spec.weight, len)?, bias, eps: spec.eps })
    }

    pub(crate) fn linear(&self, spec: &LinearSpec) -> Result<Linear, EngineError> {
        let LinearSpec { n_cols, n_rows, tensor_rows, first_row, n_matrices, .. } = *spec;
        let (format, place) = self.find(&spec.tensor, &[n_cols, tensor_rows, n_matrices])?;
        let bias = match &spec.bias {
            None => None,
            Some(name) => {
                let all = self.values(name, &[tensor_rows, n_matrices])?;
                Some(all.chunks_exact(tensor_rows).flat_map(|b| &b[first_row..first_row + n_rows]).copied().collect())
            }
        };
        let name = spec.tensor.clone();
        let linear = Linear { name, n_rows, n_cols, format, place, tensor_rows, first_row, n_matrices, bias };
        Matrix::new(format, self.maps.bytes(&linear.place), tensor_rows * n_matrices, n_cols)
            .map_err(|reason| EngineError::Tensor { tensor: spec.tensor.clone(), reason })?;
        Ok(linear)
    }

    /// Refuse tensors that nothing asked for, but for tables that only other readers need.
    pub(crate) fn check_all_used(&self) -> Result<(), EngineError> {
        let used = self.used.borrow();
        let harmless =
            |name: &str| name.starts_with("rope_f") || name.ends_with(".rope.freqs") || name.contains("attn_rot_embd");
        let mut unused: Vec<&str> =
            self.by_name.keys().copied().filter(|name| !used.contains(*name) && !harmless(name)).collect();
        unused.sort_unstable();
        match unused.first() {
            Some(first) => Err(EngineError::UnusedTensors { count: unused.len(), first: (*first).to_owned() }),
            None => Ok(()),
        }
    }
}

impl Linear {
    /// The form in which it takes its input.
    pub(crate) fn form(&self, precision: Precision) -> Form {
        Form::of(self.format, precision)
    }

    /// The weights of one expert; 0 where there is but one matrix.
    pub(crate) fn matrix<'m>(&'m self, maps: &'m Maps, expert: usize) -> Matrix<'m> {
        debug_assert!(expert < self.n_matrices);
        let all = Matrix::new(self.format, maps.bytes(&self.place), self.tensor_rows * self.n_matrices, self.n_cols);
        let first = expert * self.tensor_rows + self.first_row;
        all.expect("checked when the model was loaded").rows(first..first + self.n_rows)
    }

    pub(crate) fn bias(&self, expert: usize) -> Option<&[f32]> {
        self.bias.as_ref().map(|b| &b[expert * self.n_rows..][..self.n_rows])
    }

    /// Row `row` in float32.
    pub(crate) fn read_row(&self, level: Level, maps: &Maps, row: usize, out: &mut [f32]) {
        let matrix = self.matrix(maps, 0).rows(row..row + 1);
        self.format.dequantize.expect("checked when the model was loaded")(level, matrix.data(), out);
    }
}

impl Norm {
    /// Of every row of `x`.
    pub(crate) fn apply(&self, level: Level, x: &[f32], out: &mut [f32]) {
        match self.kind {
            NormKind::Rms => norms::rms_norm(level, x, &self.weight, self.eps, out),
            NormKind::Layer => norms::layer_norm(level, x, &self.weight, self.bias.as_deref(), self.eps, out),
        }
    }

    /// Of every row of `x`, in place.
    pub(crate) fn apply_in_place(&self, level: Level, x: &mut [f32]) {
        match self.kind {
            NormKind::Rms => norms::rms_norm_in_place(level, x, &self.weight, self.eps),
            NormKind::Layer => {
                let copy = x.to_vec();
                norms::layer_norm(level, &copy, &self.weight, self.bias.as_deref(), self.eps, x);
            }
        }
    }

    /// Values that are normed together.
    pub(crate) fn len(&self) -> usize {
        self.weight.len()
    }
}
