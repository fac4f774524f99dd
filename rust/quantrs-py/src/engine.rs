//! A model at work.

use crate::cpu::checked_threads;
use crate::error::Error;
use crate::gguf::Gguf;
use crate::imatrix::{ImatrixSums, make_room};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use quantrs_engine::spec::GraphSpec;
use quantrs_engine::{Compared, EngineError, Event, Model, Settings, Wanted};
use quantrs_kernels::{KvType, Precision};
use quantrs_simd::Level;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One of `choices`, or an error that lists them.
fn chosen<T: Copy>(what: &str, value: &str, choices: &[(&str, T)]) -> Result<T, Error> {
    choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(value)).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Error::Input(format!("{what} is {value:?}; expected one of {}", names.join(", ")))
    })
}

fn token_ids(ids: Vec<i64>) -> Result<Vec<u32>, Error> {
    let id = |(i, id): (usize, &i64)| {
        u32::try_from(*id).map_err(|_| Error::Input(format!("token {i} is {id}; expected an id of the vocabulary")))
    };
    ids.iter().enumerate().map(id).collect()
}

/// Inputs and hidden states by name: values, and how many there are per token.
#[derive(Default)]
struct Traced {
    values: BTreeMap<String, (Vec<f32>, usize)>,
    /// The first linear whose input is not finite.
    not_finite: Option<String>,
}

impl Traced {
    fn keep(&mut self, name: String, x: &[f32], n_cols: usize) {
        if self.not_finite.is_none() && !x.iter().all(|x| x.is_finite()) {
            self.not_finite = Some(name.clone());
        }
        self.values.entry(name).or_insert_with(|| (Vec::new(), n_cols)).0.extend_from_slice(x);
    }

    /// Keep the input of a linear if it is one of `tensors`.
    fn keep_input(&mut self, event: Event<'_>, tensors: &[String]) {
        let Event::LinearInput { tensor, expert, x, n_cols } = event else { return };
        if tensors.iter().any(|t| t == tensor) {
            self.keep(expert.map_or_else(|| tensor.to_owned(), |e| format!("{tensor}[{e}]")), x, n_cols);
        }
    }

    /// The error names the first tensor of these whose input was not finite, in place of the block.
    fn precise(&mut self, error: EngineError) -> EngineError {
        match (error, self.not_finite.take()) {
            (EngineError::NotFinite { .. }, Some(tensor)) => {
                EngineError::NotFinite { place: format!("input of {tensor}") }
            }
            (error, _) => error,
        }
    }

    fn into_dict(self, py: Python<'_>) -> Result<Bound<'_, PyDict>, Error> {
        let dict = PyDict::new(py);
        for (name, (values, n_cols)) in self.values {
            let n_rows = values.len() / n_cols;
            dict.set_item(name, rows(py, values, n_rows)?).map_err(|e| Error::Input(e.to_string()))?;
        }
        Ok(dict)
    }
}

/// -ln of the model's and the reference's probabilities, divergences, and whether the likeliest token is the same.
type Comparison<'py> =
    (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<bool>>);

#[pyclass(frozen, module = "quantrs._native")]
pub(crate) struct Engine {
    inner: Mutex<quantrs_engine::Engine>,
}

impl Engine {
    pub(crate) fn lock(&self) -> MutexGuard<'_, quantrs_engine::Engine> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both of two engines. In the order of their addresses, so that two threads that want the same ones do not wait for each
    /// other.
    fn lock_with<'a>(
        &'a self,
        other: &'a Engine,
    ) -> (MutexGuard<'a, quantrs_engine::Engine>, MutexGuard<'a, quantrs_engine::Engine>) {
        if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
            let first = self.lock();
            (first, other.lock())
        } else {
            let first = other.lock();
            (self.lock(), first)
        }
    }
}

#[pymethods]
impl Engine {
    #[staticmethod]
    #[pyo3(signature = (gguf, graph, *, n_ctx, threads=None, activations="int8", kv_type="f16"))]
    fn load(
        py: Python<'_>,
        gguf: &Gguf,
        graph: &str,
        n_ctx: usize,
        threads: Option<usize>,
        activations: &str,
        kv_type: &str,
    ) -> Result<Engine, Error> {
        let threads = checked_threads(threads)?.unwrap_or_else(quantrs_blocks::default_threads);
        let precisions = [("int8", Precision::Int8), ("float", Precision::Float)];
        let kv_types = KvType::ALL.map(|t| (t.name(), t));
        let settings = Settings {
            threads,
            level: Level::from_env()?,
            precision: chosen("activations", activations, &precisions)?,
            kv_type: chosen("kv_type", kv_type, &kv_types)?,
            n_ctx,
        };
        let engine = py.detach(|| {
            let spec = GraphSpec::from_json(graph)?;
            let model = Model::load(&gguf.inner, &spec, settings.level)?;
            quantrs_engine::Engine::new(Arc::new(model), settings)
        })?;
        Ok(Engine { inner: Mutex::new(engine) })
    }

    #[getter]
    fn n_past(&self, py: Python<'_>) -> usize {
        py.detach(|| self.lock().n_past())
    }

    #[getter]
    fn n_ctx(&self) -> usize {
        self.lock().settings().n_ctx
    }

    #[getter]
    fn n_vocab(&self) -> usize {
        self.lock().model().n_vocab()
    }

    #[getter]
    fn n_embd(&self) -> usize {
        self.lock().model().n_embd()
    }

    #[getter]
    fn n_blocks(&self) -> usize {
        self.lock().model().n_blocks()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.lock().settings().threads
    }

    #[getter]
    fn cache_bytes(&self) -> usize {
        self.lock().cache_bytes()
    }

    #[pyo3(signature = (n, /))]
    fn truncate(&self, py: Python<'_>, n: usize) {
        py.detach(|| self.lock().truncate(n));
    }

    fn reset(&self, py: Python<'_>) {
        self.truncate(py, 0);
    }

    #[pyo3(signature = (ids, wanted="last"))]
    fn forward<'py>(&self, py: Python<'py>, ids: Vec<i64>, wanted: &str) -> Result<Bound<'py, PyArray2<f32>>, Error> {
        let choices = [("last", Wanted::Last), ("all", Wanted::All), ("hidden", Wanted::Hidden)];
        let wanted = chosen("wanted", wanted, &choices)?;
        let ids = token_ids(ids)?;
        let out = py.detach(|| {
            let mut engine = self.lock();
            let mut out = vec![0.0; engine.output_len(ids.len(), wanted)];
            engine.forward(&ids, wanted, &mut out, &mut |_| {}).map(|()| out)
        })?;
        let n_rows = if wanted == Wanted::Last { 1 } else { ids.len() };
        rows(py, out, n_rows)
    }

    #[pyo3(signature = (ids, /))]
    fn n_shared(&self, py: Python<'_>, ids: Vec<i64>) -> Result<usize, Error> {
        let ids = token_ids(ids)?;
        Ok(py.detach(|| self.lock().n_shared(&ids)))
    }

    #[pyo3(signature = (ids, /))]
    fn next_logits<'py>(&self, py: Python<'py>, ids: Vec<i64>) -> Result<Bound<'py, PyArray1<f32>>, Error> {
        let ids = token_ids(ids)?;
        let out = py.detach(|| {
            let mut engine = self.lock();
            let mut out = vec![0.0; engine.output_len(1, Wanted::Last)];
            engine.next_logits(&ids, &mut out).map(|()| out)
        })?;
        Ok(PyArray1::from_vec(py, out))
    }

    #[pyo3(signature = (ids, first, /))]
    fn score<'py>(&self, py: Python<'py>, ids: Vec<i64>, first: usize) -> Result<Bound<'py, PyArray1<f64>>, Error> {
        let ids = token_ids(ids)?;
        let scores = py.detach(|| self.lock().score(&ids, first))?;
        Ok(PyArray1::from_vec(py, scores))
    }

    #[pyo3(signature = (reference, ids, first, /))]
    fn compare<'py>(
        &self,
        py: Python<'py>,
        reference: &Engine,
        ids: Vec<i64>,
        first: usize,
    ) -> Result<Comparison<'py>, Error> {
        if std::ptr::eq(self, reference) {
            return Err(Error::Input("reference is the engine itself; load the model a second time".to_owned()));
        }
        let ids = token_ids(ids)?;
        let compared = py.detach(|| {
            let (mut engine, mut reference) = self.lock_with(reference);
            engine.compare(&mut reference, &ids, first)
        })?;
        let column = |of: fn(&Compared) -> f64| PyArray1::from_iter(py, compared.iter().map(of));
        let same_top = PyArray1::from_iter(py, compared.iter().map(|c| c.same_top));
        Ok((column(|c| c.nll), column(|c| c.reference_nll), column(|c| c.divergence), same_top))
    }

    #[pyo3(signature = (block, x, /))]
    fn block_forward<'py>(
        &self,
        py: Python<'py>,
        block: usize,
        x: PyReadonlyArray2<'_, f32>,
    ) -> Result<Bound<'py, PyArray2<f32>>, Error> {
        let n_rows = x.as_array().nrows();
        let mut x: Vec<f32> = x.as_array().iter().copied().collect();
        py.detach(|| self.lock().block_forward(block, &mut x, &mut |_| {}))?;
        rows(py, x, n_rows)
    }

    #[pyo3(signature = (block, x, tensors, /))]
    fn block_trace<'py>(
        &self,
        py: Python<'py>,
        block: usize,
        x: PyReadonlyArray2<'_, f32>,
        tensors: Vec<String>,
    ) -> Result<(Bound<'py, PyDict>, Bound<'py, PyArray2<f32>>), Error> {
        let n_rows = x.as_array().nrows();
        let mut x: Vec<f32> = x.as_array().iter().copied().collect();
        let mut traced = Traced::default();
        py.detach(|| self.lock().block_forward(block, &mut x, &mut |event| traced.keep_input(event, &tensors)))
            .map_err(|error| traced.precise(error))?;
        Ok((traced.into_dict(py)?, rows(py, x, n_rows)?))
    }

    #[pyo3(signature = (ids, sums, /, *, with_output=false))]
    fn sum_squares(&self, py: Python<'_>, ids: Vec<i64>, sums: &ImatrixSums, with_output: bool) -> Result<(), Error> {
        let ids = token_ids(ids)?;
        py.detach(|| {
            let (mut engine, mut sums) = (self.lock(), sums.lock());
            make_room(&mut sums, engine.model(), with_output)?;
            let mut not_finite = None;
            let result = engine.watch_inputs(&ids, with_output, &mut |event| {
                let Event::LinearInput { tensor, expert, x, .. } = event else { return };
                if !sums.add_rows(tensor, expert.unwrap_or(0), x) && not_finite.is_none() {
                    not_finite = Some(tensor.to_owned());
                }
            });
            if let Some(tensor) = not_finite {
                return Err(EngineError::NotFinite { place: format!("input of {tensor}") }.into());
            }
            result?;
            sums.end_sequence();
            Ok(())
        })
    }

    #[pyo3(signature = (ids, /))]
    fn embed<'py>(&self, py: Python<'py>, ids: Vec<i64>) -> Result<Bound<'py, PyArray2<f32>>, Error> {
        let ids = token_ids(ids)?;
        let x = py.detach(|| self.lock().embeddings(&ids))?;
        rows(py, x, ids.len())
    }

    #[pyo3(signature = (ids, *, tensors, hidden=false))]
    fn trace<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<i64>,
        tensors: Vec<String>,
        hidden: bool,
    ) -> Result<Bound<'py, PyDict>, Error> {
        let ids = token_ids(ids)?;
        let mut traced = Traced::default();
        py.detach(|| {
            let mut engine = self.lock();
            let n_embd = engine.model().n_embd();
            let mut out = vec![0.0; engine.output_len(ids.len(), Wanted::Last)];
            engine.forward(&ids, Wanted::Last, &mut out, &mut |event| match event {
                Event::Hidden { block, x } if hidden => traced.keep(format!("blk.{block}"), x, n_embd),
                event => traced.keep_input(event, &tensors),
            })
        })?;
        traced.into_dict(py)
    }
}

/// `[n_rows, rest]`
fn rows(py: Python<'_>, values: Vec<f32>, n_rows: usize) -> Result<Bound<'_, PyArray2<f32>>, Error> {
    let shape = [n_rows, values.len() / n_rows.max(1)];
    PyArray1::from_vec(py, values).reshape(shape).map_err(|e| Error::Input(e.to_string()))
}
