//! The weights of Q4_0, Q4_1, Q5_0 and Q5_1 with importance: `w * sqrt(sigma2 + x^2)`, sigma2 the mean square of the whole row.

use crate::along::BLOCK_LEN;
use crate::format::Rows;
use crate::lanes::{load_lanes, sum_of_squares_ref, sums_of_squares};
use quantrs_simd::Simd;
use std::array::from_fn;

/// Call `encode(x, weights, out)` for every block of `rows`.
pub(crate) fn for_each_block_ref(
    rows: Rows<'_>,
    importance: &[f32],
    out: &mut [u8],
    block_bytes: usize,
    encode: impl Fn(&[f32], &[f32; BLOCK_LEN], &mut [u8]),
) {
    let row_bytes = rows.n_cols / BLOCK_LEN * block_bytes;
    for (row, out) in rows.x.chunks_exact(rows.n_cols).zip(out.chunks_exact_mut(row_bytes)) {
        let sigma2 = sum_of_squares_ref(row) / rows.n_cols as f32;
        let blocks = row.chunks_exact(BLOCK_LEN).zip(importance.chunks_exact(BLOCK_LEN));
        for ((x, w), out) in blocks.zip(out.chunks_exact_mut(block_bytes)) {
            encode(x, &from_fn(|i| w[i] * (sigma2 + x[i] * x[i]).sqrt()), out);
        }
    }
}

/// `w * sqrt(sigma2 + x^2)`. A loop and not `from_fn`, which is not always inlined.
#[inline(always)]
pub(crate) fn weights<S: Simd, const N: usize>(s: S, w: &[S::F; N], sigma2: S::F, x: &[S::F; N]) -> [S::F; N] {
    let mut weights = *w;
    for (weight, &x) in weights.iter_mut().zip(x) {
        *weight = s.mul(*weight, s.sqrt(s.add(sigma2, s.mul(x, x))));
    }
    weights
}

/// Call `search(x, weights)` with one block per lane, then `encode(lane, x, fit, out)` for every block.
#[inline(always)]
pub(crate) fn for_each_block<S: Simd, Fit>(
    s: S,
    rows: Rows<'_>,
    out: &mut [u8],
    block_bytes: usize,
    search: impl Fn(&[S::F; BLOCK_LEN], &[S::F; BLOCK_LEN]) -> Fit,
    encode: impl Fn(&[f32], &Fit, usize, &mut [u8]),
) {
    let n_blocks = out.len() / block_bytes;
    let blocks_per_row = rows.n_cols / BLOCK_LEN;
    let mut sigma2 = vec![0.0; n_blocks / blocks_per_row];
    sums_of_squares(s, rows.x, rows.n_cols, &mut sigma2);
    for sigma2 in &mut sigma2 {
        *sigma2 /= rows.n_cols as f32;
    }
    for (group, out) in out.chunks_mut(S::LANES * block_bytes).enumerate() {
        let first = group * S::LANES;
        // Lanes past the last block repeat it.
        let block = |lane: usize| (first + lane).min(n_blocks - 1);
        let x = load_lanes::<S, BLOCK_LEN>(s, |j| rows.block(block(j), BLOCK_LEN));
        let w = load_lanes::<S, BLOCK_LEN>(s, |j| rows.block_importance(block(j), BLOCK_LEN).unwrap_or_default());
        let [sigma2] = load_lanes::<S, 1>(s, |j| &sigma2[block(j) / blocks_per_row..]);
        let weights = weights(s, &w, sigma2, &x);
        let fit = search(&x, &weights);
        for (lane, out) in out.chunks_exact_mut(block_bytes).enumerate() {
            encode(rows.block(first + lane, BLOCK_LEN), &fit, lane, out);
        }
    }
}
