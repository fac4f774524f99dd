//! Linears and their inputs: packed once, used by several.

use crate::maps::Maps;
use crate::weights::{Linear, Norm};
use quantrs_kernels::{Activations, Form, Pool, Precision, elementwise, for_rows, matmul, matmul_each};
use quantrs_simd::Level;
use std::ops::Range;

/// What can be watched while a model runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The input of the linears named: `x: [n, n_cols]`.
    LinearInput {
        /// Name of the tensor.
        tensor: &'a str,
        /// Which of a tensor's experts, where it has several; then `x` holds the tokens routed to it.
        expert: Option<usize>,
        /// The values.
        x: &'a [f32],
        /// Values per token.
        n_cols: usize,
    },
    /// What goes into block `block`, and, with the number of blocks, what comes out of the last: `x: [n, n_embd]`.
    Hidden {
        /// The block.
        block: usize,
        /// The values.
        x: &'a [f32],
    },
}

/// A watcher.
pub(crate) type Watch<'w> = dyn FnMut(Event<'_>) + 'w;

/// What every computation needs.
pub(crate) struct Run<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) level: Level,
    pub(crate) maps: &'a Maps,
    pub(crate) precision: Precision,
}

/// Packed inputs; each form is made when the first linear asks for it.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    forms: [Activations; Form::ALL.len()],
    packed: [bool; Form::ALL.len()],
}

impl Inputs {
    /// Other values come: forget the packed ones.
    pub(crate) fn renew(&mut self) {
        self.packed.fill(false);
    }
}

/// The first `n` values of a buffer that is kept; what they were is unspecified.
pub(crate) fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

impl Run<'_> {
    /// `y = w x + bias` for the rows of `x`, with the matrix of one expert.
    pub(crate) fn linear(&self, linear: &Linear, expert: usize, inputs: &mut Inputs, x: &[f32], y: &mut [f32]) {
        self.linear_rows(linear, expert, 0..linear.n_rows, inputs, x, y);
    }

    /// Likewise, with some rows of the matrix.
    pub(crate) fn linear_rows(
        &self,
        linear: &Linear,
        expert: usize,
        rows: Range<usize>,
        inputs: &mut Inputs,
        x: &[f32],
        y: &mut [f32],
    ) {
        let activations = self.packed(linear, inputs, x);
        matmul(self.pool, self.level, &linear.matrix(self.maps, expert).rows(rows.clone()), activations, y);
        self.add_bias(linear, expert, rows, y);
    }

    /// Several linears with the same input, in one go where they take it in the same form.
    pub(crate) fn linears(&self, expert: usize, inputs: &mut Inputs, x: &[f32], linears: &mut [(&Linear, &mut [f32])]) {
        for form in Form::ALL {
            let mut products = Vec::with_capacity(linears.len());
            let mut first = None;
            for (linear, y) in linears.iter_mut().filter(|(linear, _)| linear.form(self.precision) == form) {
                first = first.or(Some(*linear));
                products.push((linear.matrix(self.maps, expert), &mut **y));
            }
            if let Some(first) = first {
                matmul_each(self.pool, self.level, self.packed(first, inputs, x), &mut products);
            }
        }
        for (linear, y) in linears {
            self.add_bias(linear, expert, 0..linear.n_rows, y);
        }
    }

    /// The input in the form that the linear takes.
    fn packed<'i>(&self, linear: &Linear, inputs: &'i mut Inputs, x: &[f32]) -> &'i Activations {
        let form = linear.form(self.precision);
        let (activations, packed) = (&mut inputs.forms[form as usize], &mut inputs.packed[form as usize]);
        if !*packed {
            activations.pack(self.pool, self.level, x, linear.n_cols, form);
            *packed = true;
        }
        activations
    }

    fn add_bias(&self, linear: &Linear, expert: usize, rows: Range<usize>, y: &mut [f32]) {
        if let Some(bias) = linear.bias(expert) {
            for_rows(self.pool, y, rows.len(), |_, y| elementwise::add_bias(self.level, y, &bias[rows.clone()]));
        }
    }

    pub(crate) fn norm(&self, norm: &Norm, x: &[f32], out: &mut [f32]) {
        let len = norm.len();
        for_rows(self.pool, out, len, |first, out| norm.apply(self.level, &x[first * len..][..out.len()], out));
    }

    pub(crate) fn norm_in_place(&self, norm: Option<&Norm>, x: &mut [f32]) {
        if let Some(norm) = norm {
            for_rows(self.pool, x, norm.len(), |_, x| norm.apply_in_place(self.level, x));
        }
    }

    /// `x += factor * y`, rows of `row_len`.
    pub(crate) fn add_scaled(&self, x: &mut [f32], y: &[f32], factor: f32, row_len: usize) {
        for_rows(self.pool, x, row_len, |first, x| {
            elementwise::add_scaled(self.level, x, &y[first * row_len..][..x.len()], factor);
        });
    }
}
