//! What Q2_K, Q4_K and Q5_K share: sub-blocks with a scale and a minimum, both quantized against one f16 each.

use super::k_batches::{BLOCK_LEN, MAX_BATCH, Weighting, block_weights_ref, for_batches, requantize};
use crate::format::Rows;
use crate::lanes::sum_of_squares_ref;
use crate::search::{MinMax, MinMaxFit, minmax, minmax_ref, pos_ref};
use quantrs_simd::{Simd, nearest_int_ggml};
use std::array::from_fn;

/// A format of this kind: `N_SUB` sub-blocks of `SUB` values.
pub(crate) trait MinMaxK<const SUB: usize, const N_SUB: usize> {
    /// Bytes per block.
    const BLOCK_BYTES: usize;
    /// The search without importance.
    const PLAIN: MinMax;
    /// Whether the weights without importance are rms of the sub-block + |x|, or just |x|.
    const ADDS_RMS: bool;
    /// The search with importance.
    const WEIGHTED: MinMax;
    /// The weights with importance.
    const WEIGHTING: Weighting;
    /// Largest quantized scale and minimum.
    const SCALE_MAX: i32;
    /// Where codes of scales and mins without importance are cut off: they are taken modulo 256 before.
    const SCALE_CLIP: u8;

    /// Write d, dmin and the codes of scales and mins.
    fn put_scales(d: f32, dmin: f32, scales: &[u8; N_SUB], mins: &[u8; N_SUB], block: &mut [u8]);
    /// d * scale and dmin * min of every sub-block, as stored.
    fn get_scales(block: &[u8]) -> ([f32; N_SUB], [f32; N_SUB]);
    /// Pack the levels.
    fn put_levels(q: &[u8; BLOCK_LEN], block: &mut [u8]);
}

/// What the search found, one entry per sub-block.
struct Fits<const N: usize> {
    fit: MinMaxFit<[f32; N]>,
    /// Sum of the weights of the sub-block, with importance only.
    weight_sum: [f32; N],
}

impl<const N: usize> Fits<N> {
    fn new() -> Self {
        let zero = [0.0; N];
        let fit = MinMaxFit { scale: zero, minus_min: zero, iscale: zero, level_min: zero };
        Fits { fit, weight_sum: zero }
    }
}

/// The plain quantizer.
pub(crate) fn quantize_ref<K: MinMaxK<SUB, N_SUB>, const SUB: usize, const N_SUB: usize>(
    rows: Rows<'_>,
    out: &mut [u8],
) {
    for (i, out) in out.chunks_exact_mut(K::BLOCK_BYTES).enumerate() {
        let x = rows.block(i, BLOCK_LEN);
        let weights = rows.block_importance(i, BLOCK_LEN).map(|w| block_weights_ref(K::WEIGHTING, x, w));
        let mut fits = Fits::<N_SUB>::new();
        for (j, x) in x.chunks_exact(SUB).enumerate() {
            let fit = if let Some(weights) = &weights {
                let weights = &weights[j * SUB..][..SUB];
                fits.weight_sum[j] = weights.iter().fold(0.0, |sum, w| sum + w);
                minmax_ref(&K::WEIGHTED, x, weights)
            } else {
                let rms = if K::ADDS_RMS { (sum_of_squares_ref(x) / SUB as f32).sqrt() } else { 0.0 };
                let weights: [f32; SUB] = from_fn(|i| rms + x[i].abs());
                minmax_ref(&K::PLAIN, x, &weights)
            };
            fits.fit.scale[j] = fit.scale;
            fits.fit.minus_min[j] = fit.minus_min;
            fits.fit.iscale[j] = fit.iscale;
            fits.fit.level_min[j] = fit.level_min;
        }
        encode::<K, SUB, N_SUB, N_SUB>(x, weights.is_some(), &fits, 0, out);
    }
}

/// As [`quantize_ref`], one sub-block per lane.
#[inline(always)]
pub(crate) fn quantize_lanes<S: Simd, K: MinMaxK<SUB, N_SUB>, const SUB: usize, const N_SUB: usize>(
    s: S,
    rows: Rows<'_>,
    out: &mut [u8],
) {
    let n_blocks = out.len() / K::BLOCK_BYTES;
    for_batches(
        s,
        rows,
        n_blocks,
        K::WEIGHTING,
        &mut Fits::<MAX_BATCH>::new(),
        #[inline(always)]
        |fits, at, x: &[S::F; SUB], weights| {
            let fit = if let Some(weights) = weights {
                let sum = weights.iter().fold(s.splat(0.0), |sum, &w| s.add(sum, w));
                s.store(sum, &mut fits.weight_sum[at..]);
                minmax(s, &K::WEIGHTED, x, weights)
            } else {
                let weights = if K::ADDS_RMS {
                    let sum = x.iter().fold(s.splat(0.0), |sum, &v| s.add(sum, s.mul(v, v)));
                    let rms = s.sqrt(s.div(sum, s.splat(SUB as f32)));
                    x.map(|v| s.add(rms, s.abs(v)))
                } else {
                    x.map(|v| s.abs(v))
                };
                minmax(s, &K::PLAIN, x, &weights)
            };
            s.store(fit.scale, &mut fits.fit.scale[at..]);
            s.store(fit.minus_min, &mut fits.fit.minus_min[at..]);
            s.store(fit.iscale, &mut fits.fit.iscale[at..]);
            s.store(fit.level_min, &mut fits.fit.level_min[at..]);
        },
        #[inline(always)]
        |fits, first, n| {
            for (b, out) in out[first * K::BLOCK_BYTES..].chunks_exact_mut(K::BLOCK_BYTES).take(n).enumerate() {
                let x = rows.block(first + b, BLOCK_LEN);
                encode::<K, SUB, N_SUB, MAX_BATCH>(x, rows.importance.is_some(), fits, b * N_SUB, out);
            }
        },
    );
}

/// Quantize the scales of the block whose fits begin at `at`, then its values against the stored scales, and pack.
#[inline(always)]
fn encode<K: MinMaxK<SUB, N_SUB>, const SUB: usize, const N_SUB: usize, const N: usize>(
    x: &[f32],
    weighted: bool,
    fits: &Fits<N>,
    at: usize,
    out: &mut [u8],
) {
    let fit_scales: &[f32; N_SUB] = fits.fit.scale[at..][..N_SUB].try_into().expect("N_SUB fits");
    let fit_mins: &[f32; N_SUB] = fits.fit.minus_min[at..][..N_SUB].try_into().expect("N_SUB fits");
    let (mut scales, mut mins) = ([0u8; N_SUB], [0u8; N_SUB]);
    let (d, dmin);
    if weighted {
        let weight_sums = &fits.weight_sum[at..][..N_SUB];
        d = pos_ref(K::SCALE_MAX, fit_scales, weight_sums, &mut scales);
        dmin = pos_ref(K::SCALE_MAX, fit_mins, weight_sums, &mut mins);
    } else {
        d = quantize_scales(K::SCALE_MAX, K::SCALE_CLIP, fit_scales, &mut scales);
        dmin = quantize_scales(K::SCALE_MAX, K::SCALE_CLIP, fit_mins, &mut mins);
    }
    K::put_scales(d, dmin, &scales, &mins, out);
    let (scales, mins) = K::get_scales(out);
    let q = requantize(
        x,
        &scales,
        &mins,
        (0, K::PLAIN.nmax),
        #[inline(always)]
        |j, x, q| {
            let (iscale, level_min) = (fits.fit.iscale[at + j], fits.fit.level_min[at + j]);
            let fit = MinMaxFit { iscale, level_min, ..Default::default() };
            for (q, &x) in q.iter_mut().zip(x) {
                *q = fit.level(x, K::PLAIN.nmax);
            }
        },
    );
    K::put_levels(&q, out);
}

/// Codes of non-negative `values` against the largest of them; returns the value of code 1.
#[inline(always)]
fn quantize_scales(max_code: i32, clip: u8, values: &[f32], codes: &mut [u8]) -> f32 {
    let max = values.iter().fold(0.0, |a, &b| if b > a { b } else { a });
    let inverse = if max > 0.0 { max_code as f32 / max } else { 0.0 };
    for (code, &v) in codes.iter_mut().zip(values) {
        *code = (nearest_int_ggml(inverse * v) as u8).min(clip);
    }
    max / max_code as f32
}
