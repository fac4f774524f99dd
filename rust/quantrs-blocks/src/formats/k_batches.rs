//! The loop that the K-quants share: batches of blocks, their sub-blocks one per lane.

use crate::format::Rows;
use crate::lanes::{load_lanes, sum_of_squares_ref, sums_of_squares};
use quantrs_simd::{Simd, nearest_int_ggml};
use std::array::from_fn;

/// Values per block of every K-quant.
pub(crate) const BLOCK_LEN: usize = 256;
/// Most blocks of a batch. Numbers of lanes divide it, or at least the number of its sub-blocks.
pub(crate) const BATCH: usize = 32;
/// Entries of a table that has one per sub-block of a batch.
pub(crate) const MAX_BATCH: usize = BATCH * 16;

/// How importance `w` becomes the weight of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weighting {
    /// `w * sqrt(sigma2 + x^2)`; sigma2 is this factor times the mean square of the block.
    Sigma(f32),
    /// `w` itself.
    Plain,
}

impl Weighting {
    #[inline(always)]
    fn sigma2(self, sum_of_squares: f32) -> f32 {
        match self {
            Weighting::Sigma(factor) => factor * sum_of_squares / BLOCK_LEN as f32,
            Weighting::Plain => 0.0,
        }
    }
}

/// The weights of one block under importance.
pub(crate) fn block_weights_ref(weighting: Weighting, x: &[f32], importance: &[f32]) -> [f32; BLOCK_LEN] {
    let sigma2 = weighting.sigma2(sum_of_squares_ref(x));
    from_fn(|i| match weighting {
        Weighting::Sigma(_) => importance[i] * (sigma2 + x[i] * x[i]).sqrt(),
        Weighting::Plain => importance[i],
    })
}

/// Take `n_blocks` blocks in batches of up to [`BATCH`]. In a batch, `search(table, at, x, weights)` is called for every
/// `S::LANES` sub-blocks of `SUB` values, `at` being the place of the first in the batch's list of sub-blocks; then
/// `finish(table, first_block, n)`.
///
/// Lanes past the last sub-block repeat it. `weights` is there when the rows have importance.
#[inline(always)]
pub(crate) fn for_batches<S: Simd, const SUB: usize, T>(
    s: S,
    rows: Rows<'_>,
    n_blocks: usize,
    weighting: Weighting,
    table: &mut T,
    search: impl Fn(&mut T, usize, &[S::F; SUB], Option<&[S::F; SUB]>),
    mut finish: impl FnMut(&mut T, usize, usize),
) {
    let n_sub = BLOCK_LEN / SUB;
    for first in (0..n_blocks).step_by(BATCH) {
        let n = BATCH.min(n_blocks - first);
        let mut sigma2 = [0.0; BATCH];
        if let (Some(_), Weighting::Sigma(_)) = (rows.importance, weighting) {
            sums_of_squares(s, &rows.x[first * BLOCK_LEN..(first + n) * BLOCK_LEN], BLOCK_LEN, &mut sigma2[..n]);
            sigma2 = sigma2.map(|sum| weighting.sigma2(sum));
        }
        for group in (0..n * n_sub).step_by(S::LANES) {
            let at = |j: usize| (group + j).min(n * n_sub - 1);
            let x = load_lanes::<S, SUB>(s, |j| rows.block(first * n_sub + at(j), SUB));
            if rows.importance.is_some() {
                let w =
                    load_lanes::<S, SUB>(s, |j| rows.block_importance(first * n_sub + at(j), SUB).unwrap_or_default());
                let weights = match weighting {
                    Weighting::Sigma(_) => {
                        let [sigma2] = load_lanes::<S, 1>(s, |j| &sigma2[at(j) / n_sub..]);
                        let mut weights = w;
                        for (weight, &x) in weights.iter_mut().zip(&x) {
                            *weight = s.mul(*weight, s.sqrt(s.add(sigma2, s.mul(x, x))));
                        }
                        weights
                    }
                    Weighting::Plain => w,
                };
                search(table, group, &x, Some(&weights));
            } else {
                search(table, group, &x, None);
            }
        }
        finish(table, first, n);
    }
}

/// The levels of a block against its stored scales: `clamp(nearest_int((x + mins) / scales), lo, hi) - lo`. Those of a
/// sub-block whose scale is 0 are of no use.
pub(crate) fn requantize_ref<const N_SUB: usize>(
    x: &[f32],
    scales: &[f32; N_SUB],
    mins: &[f32; N_SUB],
    (lo, hi): (i32, i32),
) -> [u8; BLOCK_LEN] {
    let sub = BLOCK_LEN / N_SUB;
    from_fn(|i| (nearest_int_ggml((x[i] + mins[i / sub]) / scales[i / sub]).clamp(lo, hi) - lo) as u8)
}

/// As [`requantize_ref`], `S::LANES` values of a sub-block at a time.
#[inline(always)]
pub(crate) fn requantize<S: Simd, const N_SUB: usize>(
    s: S,
    x: &[f32],
    scales: &[f32; N_SUB],
    mins: &[f32; N_SUB],
    (lo, hi): (i32, i32),
) -> [u8; BLOCK_LEN] {
    let sub = BLOCK_LEN / N_SUB;
    let mut q = [0u8; BLOCK_LEN];
    for (j, (q, x)) in q.chunks_exact_mut(sub).zip(x.chunks_exact(sub)).enumerate() {
        let (scale, min) = (s.splat(scales[j]), s.splat(mins[j]));
        for (q, x) in q.chunks_exact_mut(S::LANES).zip(x.chunks_exact(S::LANES)) {
            let level = s.nearest_int(s.div(s.add(s.load(x), min), scale));
            let level = s.imin(s.imax(level, s.isplat(lo)), s.isplat(hi));
            s.store_bytes(s.isub(level, s.isplat(lo)), q);
        }
    }
    q
}

/// 16 times `a`, then 16 times `b`: the scales of 32 values, so that decoders loop over 32 values at a time. Loops over 16 are
/// unrolled before the compiler tries to vectorize them.
#[inline(always)]
pub(crate) fn repeat_each(a: f32, b: f32) -> [f32; 32] {
    let mut out = [a; 32];
    out[16..].fill(b);
    out
}
