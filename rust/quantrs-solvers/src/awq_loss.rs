//! The error that candidate scales make in the outputs of linears, for all candidates at once.
//!
//! A block of rows is quantized under every candidate, and the differences to the weights are stacked: `d[k, r]` for candidate k and row
//! r. One matrix product then serves all candidates, so that its right side is packed once for hundreds of rows.
//!
//! The outputs' squared error is `|d x|^2` summed over tokens. It needs no tokens where their Gram matrix `h = 2/T X^T X` is known:
//! `sum |d x|^2 / T = d h d^T / 2`, and h is symmetric, so that blocks above its diagonal are not multiplied but counted twice.

use crate::SolverError;
use crate::awq::{AwqProblem, AwqSearch};
use crate::column_major::{add_product, column_dots};
use crate::error::check_finite;
use crate::grid::Grid;
use crate::lanes::{ROWS, transpose};
use quantrs_kernels::elementwise::Activation;
use quantrs_simd::Level;
use rayon::prelude::*;

/// Values of a stack: what a thread holds at a time, 16 MB.
const STACK_LEN: usize = 1 << 22;
/// Rows of a block, before the stack limits them.
const MOST_ROWS: usize = 64;
/// Columns of h, or tokens, that are multiplied at a time.
const N_COLUMNS: usize = 256;

/// What is compared, on what inputs.
#[derive(Clone, Copy, Debug)]
pub enum Outputs<'a> {
    /// The linears' outputs, by `2/T X^T X`, `[in_features, in_features]`.
    Gram(&'a [f32]),
    /// The linears' outputs on x, `[tokens, in_features]`.
    Tokens(&'a [f32]),
    /// `activation(gate x) * up x` of two weights, gate and up, on x: `[tokens, in_features]`.
    Gated(&'a [f32], Activation),
}

impl Outputs<'_> {
    pub(crate) fn check(&self, weights: &[&[f32]], n: usize) -> Result<(), SolverError> {
        let wrong = |what, found: String, expected: String| Err(SolverError::Argument { what, found, expected });
        match self {
            Outputs::Gram(h) if h.len() != n * n => {
                wrong("hessian", format!("{} values", h.len()), format!("in_features {n} squared"))
            }
            Outputs::Gram(h) => check_finite("hessian", h, n),
            Outputs::Tokens(x) | Outputs::Gated(x, _) if x.is_empty() || !x.len().is_multiple_of(n) => {
                wrong("x", format!("{} values", x.len()), format!("at least one row of in_features {n}"))
            }
            Outputs::Gated(..) if weights.len() != 2 || weights[0].len() != weights[1].len() => {
                let found = format!("weights of {:?} values", weights.iter().map(|w| w.len()).collect::<Vec<_>>());
                wrong(
                    "weights",
                    found,
                    "a gate and an up of the same shape where gated outputs are inspected".to_owned(),
                )
            }
            Outputs::Tokens(x) | Outputs::Gated(x, _) => check_finite("x", x, n),
        }
    }
}

/// `[n_candidates]`: the mean of the squared differences over outputs and tokens.
pub(crate) fn mean_square_losses(
    level: Level,
    problem: &AwqProblem<'_>,
    search: &AwqSearch,
    candidates: &[Vec<f32>],
) -> Vec<f64> {
    let n = problem.in_features;
    let gated = matches!(problem.outputs, Outputs::Gated(..));
    let n_stacked = if gated { 2 * (candidates.len() + 1) } else { candidates.len() };
    let rows = (STACK_LEN / (n * n_stacked) / ROWS * ROWS).clamp(ROWS, MOST_ROWS);
    // Gate and up are one output: blocks are of the gate, which carries up along.
    let compared = if gated { &problem.weights[..1] } else { problem.weights };
    let block_of = |i: usize| (0..compared[i].len() / n).step_by(rows).map(move |first| (i, first));
    let blocks: Vec<(usize, usize)> = (0..compared.len()).flat_map(block_of).collect();
    let sums: Vec<Vec<f64>> = blocks
        .par_iter()
        .map_init(Scratch::default, |scratch, &(i, first)| {
            let part = |w: &[f32]| first * n..w.len().min((first + rows) * n);
            let stack = |scratch: &mut Stack, w: &[f32], keep_weights| {
                scratch.fill(level, &w[part(w)], n, rows, search, candidates, keep_weights);
            };
            stack(&mut scratch.first, compared[i], gated);
            match problem.outputs {
                Outputs::Gram(h) => scratch.first.quadratic_form(level, h, n, rows, &mut scratch.products),
                Outputs::Tokens(x) => scratch.first.outputs(level, x, n, rows, &mut scratch.products),
                Outputs::Gated(x, activation) => {
                    stack(&mut scratch.second, problem.weights[1], true);
                    scratch.gated(level, x, n, rows, activation)
                }
            }
        })
        .collect();
    let n_outputs: usize = compared.iter().map(|w| w.len() / n).sum();
    let divisor = match problem.outputs {
        Outputs::Gram(_) => 2.0 * n_outputs as f64,
        Outputs::Tokens(x) | Outputs::Gated(x, _) => n_outputs as f64 * (x.len() / n) as f64,
    };
    (0..candidates.len()).map(|k| sums.iter().map(|sum| sum[k]).sum::<f64>() / divisor).collect()
}

/// Buffers of a thread.
#[derive(Debug, Default)]
struct Scratch {
    /// Of the linear, or of the gate.
    first: Stack,
    /// Of up.
    second: Stack,
    products: Vec<f32>,
}

/// `[in_features, n_stacked * rows]`: for every column the differences of all candidates, and if asked for the weights after them.
#[derive(Debug, Default)]
struct Stack {
    d: Vec<f32>,
    columns: Vec<[f32; ROWS]>,
}

impl Stack {
    #[allow(clippy::too_many_arguments, reason = "one loop over rows, groups and candidates")]
    fn fill(
        &mut self,
        level: Level,
        w: &[f32],
        n: usize,
        rows: usize,
        search: &AwqSearch,
        candidates: &[Vec<f32>],
        keep_weights: bool,
    ) {
        let height = (candidates.len() + usize::from(keep_weights)) * rows;
        self.d.resize(n * height, 0.0);
        self.columns.resize(search.group_size, [0.0; ROWS]);
        let Stack { d, columns } = self;
        level.run(
            #[inline(always)]
            || stack_differences(w, n, rows, height, &search.grid, candidates, columns, d),
        );
    }

    /// `sum over rows of d h d^T` for every candidate.
    fn quadratic_form(&self, level: Level, h: &[f32], n: usize, rows: usize, products: &mut Vec<f32>) -> Vec<f64> {
        let height = self.d.len() / n;
        let mut sums = vec![0.0; height / rows];
        for first in (0..n).step_by(N_COLUMNS) {
            let (n_columns, last) = (N_COLUMNS.min(n - first), n.min(first + N_COLUMNS));
            products.resize(height * n_columns, 0.0);
            products.fill(0.0);
            // Rows first.. of h's columns first..last; its row i is its column i.
            let column = |i: usize| &h[i * n..];
            add_product(
                products,
                height,
                &self.d[last * height..],
                &column(first)[last..],
                n,
                n - last,
                n_columns,
                2.0,
            );
            let d = &self.d[first * height..last * height];
            add_product(products, height, d, &column(first)[first..], n, n_columns, n_columns, 1.0);
            column_dots(level, products, d, height, rows, &mut sums);
        }
        sums
    }

    /// `sum over rows and tokens of (d x)^2` for every candidate.
    fn outputs(&self, level: Level, x: &[f32], n: usize, rows: usize, products: &mut Vec<f32>) -> Vec<f64> {
        let height = self.d.len() / n;
        let mut sums = vec![0.0; height / rows];
        for x in x.chunks(N_COLUMNS * n) {
            self.multiply(x, n, products);
            column_dots(level, products, products, height, rows, &mut sums);
        }
        sums
    }

    /// `products: [tokens, height] = x d^T`
    fn multiply(&self, x: &[f32], n: usize, products: &mut Vec<f32>) {
        let (height, n_tokens) = (self.d.len() / n, x.len() / n);
        products.resize(height * n_tokens, 0.0);
        products.fill(0.0);
        add_product(products, height, &self.d, x, n, n, n_tokens, 1.0);
    }
}

impl Scratch {
    /// `sum over rows and tokens of (f(gate x) * up x - the same of the quantized weights)^2` for every candidate.
    fn gated(&mut self, level: Level, x: &[f32], n: usize, rows: usize, activation: Activation) -> Vec<f64> {
        let height = self.first.d.len() / n;
        let mut sums = vec![0.0; height / rows - 1];
        let mut up = Vec::new();
        for x in x.chunks(N_COLUMNS * n) {
            let gate = &mut self.products;
            self.first.multiply(x, n, gate);
            self.second.multiply(x, n, &mut up);
            for values in [&mut *gate, &mut up] {
                level.run(
                    #[inline(always)]
                    || differences_to_last(values, height, rows),
                );
            }
            activation.apply_gated(level, gate, &up);
            level.run(
                #[inline(always)]
                || differences_to_last(gate, height, rows),
            );
            column_dots(level, gate, gate, height, rows, &mut sums);
        }
        sums
    }
}

/// In every column `v[k] = v[last] - v[k]` for all stacked but the last.
#[inline(always)]
fn differences_to_last(values: &mut [f32], height: usize, rows: usize) {
    for column in values.chunks_exact_mut(height) {
        let (others, last) = column.split_at_mut(height - rows);
        for values in others.chunks_exact_mut(rows) {
            for (v, last) in values.iter_mut().zip(&*last) {
                *v = last - *v;
            }
        }
    }
}

/// `d[j][k * rows + r] = w[r][j] - Q(w s_k)[r][j] / s_k[j]`, and w itself after all candidates if there is room.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one loop over rows, groups and candidates")]
fn stack_differences(
    w: &[f32],
    n: usize,
    rows: usize,
    height: usize,
    grid: &Grid,
    candidates: &[Vec<f32>],
    scaled: &mut [[f32; ROWS]],
    d: &mut [f32],
) {
    let group_size = scaled.len();
    let mut columns = vec![[0.0; ROWS]; group_size];
    for tile in 0..rows / ROWS {
        let w = w.get(tile * ROWS * n..).unwrap_or(&[]);
        for group in 0..n / group_size {
            let first = group * group_size;
            let d = &mut d[first * height..(first + group_size) * height];
            transpose(w, n, first, &mut columns);
            for (k, s) in candidates.iter().enumerate() {
                let (s, at) = (&s[first..first + group_size], k * rows + tile * ROWS);
                for ((scaled, column), s) in scaled.iter_mut().zip(&columns).zip(s) {
                    for r in 0..ROWS {
                        scaled[r] = column[r] * s;
                    }
                }
                let params = grid.params(scaled);
                for (i, (scaled, column)) in scaled.iter().zip(&columns).enumerate() {
                    let value = Grid::value(&grid.code(scaled, &params), &params);
                    let out = &mut d[i * height + at..][..ROWS];
                    for r in 0..ROWS {
                        out[r] = column[r] - value[r] / s[i];
                    }
                }
            }
            let at = candidates.len() * rows + tile * ROWS;
            if at < height {
                for (i, column) in columns.iter().enumerate() {
                    d[i * height + at..][..ROWS].copy_from_slice(column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Rule, ScaleType};

    /// Numbers between -1 and 1 that look random.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let hash =
            |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) ^ 0x9e37_79b9).wrapping_mul(2_246_822_519);
        (0..n as u32).map(|i| (hash(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn search(group_size: usize) -> AwqSearch {
        let grid = Grid {
            bits: 3,
            symmetric: false,
            rule: Rule::Awq,
            scale_type: ScaleType::F32,
            mse: None,
            min_zero: 0,
            stepwise: false,
        };
        AwqSearch { grid, group_size, duo_scaling: true, n_grid: 3 }
    }

    /// More columns than are multiplied at a time, and rows that fill no block.
    #[test]
    fn gram_matrix_and_tokens_give_the_same_losses_at_every_level() {
        let (n, n_tokens) = (320, 7);
        let (a, b, x) = (numbers(70 * n, 1), numbers(3 * n, 2), numbers(n_tokens * n, 3));
        let mut h = vec![0.0; n * n];
        for token in x.chunks(n) {
            for (row, xi) in h.chunks_mut(n).zip(token) {
                row.iter_mut().zip(token).for_each(|(h, xj)| *h += 2.0 / n_tokens as f32 * xi * xj);
            }
        }
        let candidates: Vec<Vec<f32>> = (1..4).map(|k| numbers(n, k).iter().map(|v| 1.5 + v).collect()).collect();
        for level in Level::all() {
            let losses = |outputs| {
                let (weights, x_mean): (&[&[f32]], _) = (&[&a, &b], &x[..n]);
                let problem = AwqProblem { weights, in_features: n, x_mean, scale_of: None, outputs };
                mean_square_losses(level, &problem, &search(64), &candidates)
            };
            let (gram, tokens) = (losses(Outputs::Gram(&h)), losses(Outputs::Tokens(&x)));
            for (gram, tokens) in gram.iter().zip(&tokens) {
                assert!(*tokens > 0.0 && (gram / tokens - 1.0).abs() < 1e-4, "{level:?}: {gram} {tokens}");
            }
        }
    }

    #[test]
    fn a_gated_output_does_not_err_where_the_weights_lie_on_the_grid() {
        let n = 32;
        // Codes 0 to 7 with a scale of 1 after multiplication with s.
        let on_grid = |seed| -> Vec<f32> {
            let codes = numbers(20 * n, seed).into_iter().map(|v| ((v + 1.0) * 4.0).floor() - 3.0);
            codes.enumerate().map(|(i, v)| if i % n < 2 { [-3.0, 4.0][i % n] } else { v }).collect()
        };
        let (gate, up, x) = (on_grid(4), on_grid(5), numbers(5 * n, 6));
        let problem = AwqProblem {
            weights: &[&gate, &up],
            in_features: n,
            x_mean: &x[..n],
            scale_of: None,
            outputs: Outputs::Gated(&x, Activation::Silu),
        };
        let losses =
            mean_square_losses(Level::detect(), &problem, &search(n), &[vec![1.0; n], vec![1.3; n], vec![0.1; n]]);
        assert_eq!(losses[0], 0.0);
        assert!(losses[2] >= 0.0);
    }
}
