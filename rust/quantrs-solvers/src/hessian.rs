//! The Gram matrix of a layer's inputs, summed up while they pass by.

use crate::product::{PANEL, tile};
use crate::{SolverError, check_finite};
use quantrs_simd::{Fused, Level, dispatch_fused};
use rayon::prelude::*;

/// Tokens whose products are summed in float32 before they are added in float64.
const DEPTH: usize = 256;
/// Tokens that are gathered before their products are computed: enough that reading and writing the sums costs little.
const GATHERED: usize = 2 * DEPTH;
/// Panels in a task.
const TASK: usize = 8;

/// `X^T X` of inputs X: `[n_tokens, n]` that come in pieces.
///
/// Columns are cut into panels of 48, one to four register tiles. Only the blocks of a panel with itself and with later ones
/// are kept: half of the n^2 multiply-adds per token, and half of the memory, 4 n^2 bytes.
///
/// Sums over 256 tokens are float32, their sums float64: a diagonal entry is off by at most 255 * 2^-24 of itself, in
/// practice by much less. The result depends neither on the number of threads nor on how tokens are cut into pieces.
#[derive(Clone, Debug)]
pub struct Hessian {
    level: Level,
    n: usize,
    n_tokens: u64,
    /// Block (p, q >= p) of panels, rows p first: `[PANEL, PANEL]`, entry `[column of p][column of q]`.
    blocks: Vec<f64>,
    /// Tokens whose products are not in `blocks` yet: per panel `[GATHERED, PANEL]`.
    pending: Vec<f32>,
    n_pending: usize,
}

impl Hessian {
    /// Of layers with n inputs.
    pub fn new(level: Level, n: usize) -> Result<Hessian, SolverError> {
        if n == 0 || n > 1 << 17 {
            return Err(SolverError::Argument { what: "n", found: n.to_string(), expected: "1 to 131072".to_owned() });
        }
        let n_panels = n.div_ceil(PANEL);
        Ok(Hessian {
            level,
            n,
            n_tokens: 0,
            blocks: vec![0.0; n_panels * (n_panels + 1) / 2 * PANEL * PANEL],
            pending: vec![0.0; n_panels * GATHERED * PANEL],
            n_pending: 0,
        })
    }

    /// Inputs of the layer.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Tokens so far.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// Add the tokens of x: `[tokens, n]`. Nothing is added where a value is not finite.
    pub fn add(&mut self, x: &[f32]) -> Result<(), SolverError> {
        if !x.len().is_multiple_of(self.n) {
            let expected = format!("a multiple of n = {} values", self.n);
            return Err(SolverError::Argument { what: "x", found: x.len().to_string(), expected });
        }
        check_finite("x", x, self.n)?;
        let mut rest = x;
        while !rest.is_empty() {
            let n_rows = (GATHERED - self.n_pending).min(rest.len() / self.n);
            let (rows, later) = rest.split_at(n_rows * self.n);
            self.gather(rows);
            rest = later;
        }
        Ok(())
    }

    /// Add what another one has seen.
    pub fn merge(&mut self, other: &Hessian) -> Result<(), SolverError> {
        if other.n != self.n {
            let expected = format!("n = {}", self.n);
            return Err(SolverError::Argument { what: "merge", found: format!("n = {}", other.n), expected });
        }
        self.blocks.par_iter_mut().zip(&other.blocks).for_each(|(sum, v)| *sum += v);
        self.n_tokens += other.n_tokens - other.n_pending as u64;
        for token in 0..other.n_pending {
            let row = (0..self.n).map(|i| other.pending[(i / PANEL * GATHERED + token) * PANEL + i % PANEL]);
            self.gather(&row.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Put rows, no more than there is room for, into the panels; multiply when they are full.
    fn gather(&mut self, rows: &[f32]) {
        let (n, first) = (self.n, self.n_pending);
        self.pending.par_chunks_mut(GATHERED * PANEL).enumerate().for_each(|(p, panel)| {
            let columns = p * PANEL..n.min((p + 1) * PANEL);
            for (to, row) in panel[first * PANEL..].chunks_exact_mut(PANEL).zip(rows.chunks_exact(n)) {
                to[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
        });
        self.n_pending += rows.len() / n;
        self.n_tokens += (rows.len() / n) as u64;
        if self.n_pending == GATHERED {
            self.multiply();
            self.n_pending = 0;
        }
    }

    /// Add the products of the pending tokens to the blocks.
    fn multiply(&mut self) {
        let level = self.level;
        let n_panels = self.n.div_ceil(PANEL);
        let mut tasks = Vec::new();
        let mut rest = self.blocks.as_mut_slice();
        for p in 0..n_panels {
            for q in (p..n_panels).step_by(TASK) {
                let (blocks, later) = rest.split_at_mut(TASK.min(n_panels - q) * PANEL * PANEL);
                tasks.push((p, q, blocks));
                rest = later;
            }
        }
        let pending = &self.pending;
        tasks.into_par_iter().for_each(|(p, first, blocks)| {
            for (block, q) in blocks.chunks_exact_mut(PANEL * PANEL).zip(first..) {
                let (a, b) = (panel(pending, q), panel(pending, p));
                dispatch_fused!(level, s => add_products(s, block, a, b));
            }
        });
    }

    /// `2 / T * X^T X`, `[n, n]`, both triangles.
    pub fn matrix(&self) -> Vec<f32> {
        let n = self.n;
        let n_panels = n.div_ceil(PANEL);
        let factor = if self.n_tokens == 0 { 0.0 } else { 2.0 / self.n_tokens as f64 };
        let mut out = vec![0.0f32; n * n];
        // A task has the rows of one panel. Those left of the diagonal are transposed blocks of earlier panels, whose pending
        // products are computed again: there are few of them, and none as a rule.
        out.par_chunks_mut(PANEL * n).enumerate().for_each(|(p, rows)| {
            let mut block = vec![0.0f64; PANEL * PANEL];
            for q in 0..n_panels {
                self.complete_block(p.min(q), p.max(q), &mut block);
                let columns = q * PANEL..n.min((q + 1) * PANEL);
                for (i, row) in rows.chunks_exact_mut(n).enumerate() {
                    for (j, v) in row[columns.clone()].iter_mut().enumerate() {
                        let sum = if p <= q { block[i * PANEL + j] } else { block[j * PANEL + i] };
                        *v = (sum * factor) as f32;
                    }
                }
            }
        });
        out
    }

    /// Block (p, q >= p) with the pending tokens.
    fn complete_block(&self, p: usize, q: usize, block: &mut [f64]) {
        let n_panels = self.n.div_ceil(PANEL);
        // Rows before p have n_panels, n_panels - 1, .. blocks.
        let index = p * n_panels - p * p.saturating_sub(1) / 2 + q - p;
        block.copy_from_slice(&self.blocks[index * PANEL * PANEL..][..PANEL * PANEL]);
        if self.n_pending > 0 {
            let rows = self.n_pending * PANEL;
            let (a, b) = (&panel(&self.pending, q)[..rows], &panel(&self.pending, p)[..rows]);
            dispatch_fused!(self.level, s => add_products(s, block, a, b));
        }
    }
}

fn panel(pending: &[f32], p: usize) -> &[f32] {
    &pending[p * GATHERED * PANEL..][..GATHERED * PANEL]
}

/// `block[j][i] += sum over tokens of b[token][j] * a[token][i]`.
#[inline(always)]
fn add_products<S: Fused>(s: S, block: &mut [f64], a: &[f32], b: &[f32]) {
    let n_tokens = a.len() / PANEL;
    for first in (0..n_tokens).step_by(DEPTH) {
        let depth = DEPTH.min(n_tokens - first);
        let (a, b) = (&a[first * PANEL..], &b[first * PANEL..]);
        if S::LANES == 16 {
            add_sums::<S, 3, 8>(s, depth, block, a, b);
        } else {
            add_sums::<S, 2, 4>(s, depth, block, a, b);
        }
    }
}

#[inline(always)]
fn add_sums<S: Fused, const M: usize, const N: usize>(s: S, depth: usize, block: &mut [f64], a: &[f32], b: &[f32]) {
    for first in (0..PANEL).step_by(N) {
        for left in (0..PANEL).step_by(M * S::LANES) {
            let sums = tile::<S, M, N>(s, depth, &a[left..], &b[first..], PANEL);
            for j in 0..N {
                let row = &mut block[(first + j) * PANEL + left..][..M * S::LANES];
                let mut values = [0.0; PANEL];
                for i in 0..M {
                    s.store(sums[j][i], &mut values[i * S::LANES..]);
                }
                for i in 0..M * S::LANES {
                    row[i] += f64::from(values[i]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 from an integer hash, some columns louder.
    fn inputs(n_tokens: usize, n: usize) -> Vec<f32> {
        let hash =
            |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(12_345).rotate_left(13).wrapping_mul(40_503);
        (0..n_tokens * n).map(|i| (hash(i) as f32 / u32::MAX as f32 - 0.4) * (1 + i % n % 5) as f32).collect()
    }

    #[test]
    fn every_level_agrees_with_float64() {
        for (n_tokens, n) in [(1, 1), (3, 5), (700, 50), (513, 97), (1024, 144)] {
            let x = inputs(n_tokens, n);
            for level in Level::all() {
                let mut h = Hessian::new(level, n).unwrap();
                h.add(&x).unwrap();
                let matrix = h.matrix();
                for i in 0..n {
                    for j in 0..n {
                        let (mut want, mut size) = (0.0f64, 0.0f64);
                        for row in x.chunks_exact(n) {
                            let product = f64::from(row[i]) * f64::from(row[j]);
                            want += product;
                            size += product.abs();
                        }
                        let (want, size) = (2.0 * want / n_tokens as f64, 2.0 * size / n_tokens as f64);
                        let got = f64::from(matrix[i * n + j]);
                        assert!(
                            (got - want).abs() <= 1e-5 * size,
                            "({i}, {j}) of {n}: {got}, not {want}, {}",
                            level.name()
                        );
                        assert_eq!(matrix[i * n + j].to_bits(), matrix[j * n + i].to_bits(), "symmetric");
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_threads_and_a_look_in_between_change_no_bit() {
        let (n_tokens, n) = (1500, 60);
        let x = inputs(n_tokens, n);
        let mut whole = Hessian::new(Level::detect(), n).unwrap();
        whole.add(&x).unwrap();
        for (piece, threads) in [(1, 1), (7, 2), (256, 3), (1000, 1)] {
            quantrs_blocks::with_threads(Some(threads), || {
                let mut parts = Hessian::new(Level::detect(), n).unwrap();
                for x in x.chunks(piece * n) {
                    parts.add(x).unwrap();
                    if parts.n_tokens().is_multiple_of(3) && piece > 1 {
                        _ = parts.matrix();
                    }
                }
                assert_eq!(parts.n_tokens(), n_tokens as u64);
                assert_eq!(parts.matrix(), whole.matrix(), "pieces of {piece}");
            });
        }
    }

    #[test]
    fn merged_ones_have_seen_the_tokens_of_both() {
        let (n_tokens, n) = (1300, 60);
        let x = inputs(n_tokens, n);
        let (mut a, mut b, mut both) = (
            Hessian::new(Level::detect(), n).unwrap(),
            Hessian::new(Level::detect(), n).unwrap(),
            Hessian::new(Level::detect(), n).unwrap(),
        );
        a.add(&x[..600 * n]).unwrap();
        b.add(&x[600 * n..]).unwrap();
        both.add(&x).unwrap();
        a.merge(&b).unwrap();
        assert_eq!(a.n_tokens(), both.n_tokens());
        for (a, b) in a.matrix().iter().zip(both.matrix()) {
            assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{a} and {b}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_and_nothing_is_added() {
        let n = 60;
        let mut x = inputs(900, n);
        x[811 * n + 7] = f32::NAN;
        let mut h = Hessian::new(Level::detect(), n).unwrap();
        let error = h.add(&x).unwrap_err().to_string();
        assert!(error.contains("row 811, column 7"), "{error}");
        assert_eq!(h.n_tokens(), 0);
        assert!(h.add(&x[..n + 1]).is_err());
    }
}
