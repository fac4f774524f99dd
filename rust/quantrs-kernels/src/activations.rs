//! The inputs of a product, packed once and used by several matrices.

use crate::Pool;
use quantrs_simd::Level;

/// How activations enter a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Quantized to int8 once per input. Float weights (F32, F16, BF16) are multiplied with the float32 values all the same.
    Int8,
    /// As float32; weights are decoded.
    Float,
}

/// `[n, n_cols]` float32 inputs in the forms that kernels read. The buffers are reused by the next [`pack`](Self::pack).
#[derive(Debug)]
pub struct Activations {
    pub(crate) precision: Precision,
    pub(crate) n: usize,
    pub(crate) n_cols: usize,
    /// `[n, n_cols]`
    pub(crate) x: Vec<f32>,
}

impl Default for Activations {
    fn default() -> Self {
        Activations { precision: Precision::Int8, n: 0, n_cols: 0, x: Vec::new() }
    }
}

impl Activations {
    /// No activations yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Take `x`, `[n, n_cols]` row-major. Panics when it is not whole rows.
    pub fn pack(&mut self, _pool: &Pool, _level: Level, x: &[f32], n_cols: usize, precision: Precision) {
        assert!(n_cols > 0 && x.len().is_multiple_of(n_cols), "{} values in rows of {n_cols}", x.len());
        self.precision = precision;
        self.n = x.len() / n_cols;
        self.n_cols = n_cols;
        self.x.clear();
        self.x.extend_from_slice(x);
    }

    /// Rows of the input: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Values per row.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }
}
