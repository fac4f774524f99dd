//! What Q2_K, Q4_K and Q5_K share: sub-blocks with a scale and a minimum, both quantized against one f16 each.

use super::k_batches::{
    BATCH, BLOCK_LEN, MAX_BATCH, Weighting, block_weights_ref, for_batches, requantize, requantize_ref,
};
use crate::format::Rows;
use crate::lanes::{load_lanes, sum_of_squares_ref};
use crate::search::{MinMax, MinMaxFit, minmax, minmax_ref, pos, pos_ref};
use quantrs_simd::{Simd, Twice, nearest_int_ggml};
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

impl<const N: usize> Fits<N> {
    /// The levels that the search left for sub-block `j`.
    #[inline(always)]
    fn levels(&self, j: usize, x: &[f32], nmax: i32, q: &mut [u8]) {
        let fit = MinMaxFit { iscale: self.fit.iscale[j], level_min: self.fit.level_min[j], ..Default::default() };
        for (q, &x) in q.iter_mut().zip(x) {
            *q = fit.level(x, nmax);
        }
    }
}

/// Codes of the scales or mins of one block, and the value of code 1.
struct Codes<const N_SUB: usize> {
    codes: [u8; N_SUB],
    unit: f32,
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
        let quantize_scales = |values: &[f32; N_SUB]| match weights {
            Some(_) => {
                let mut codes = [0; N_SUB];
                let unit = pos_ref(K::SCALE_MAX, values, &fits.weight_sum, &mut codes);
                Codes { codes, unit }
            }
            None => quantize_scales(K::SCALE_MAX, K::SCALE_CLIP, values),
        };
        let (scales, mins) = (quantize_scales(&fits.fit.scale), quantize_scales(&fits.fit.minus_min));
        encode::<K, SUB, N_SUB>(
            x,
            &scales,
            &mins,
            |scales, mins| requantize_ref(x, scales, mins, (0, K::PLAIN.nmax)),
            |j, x, q| fits.levels(j, x, K::PLAIN.nmax, q),
            out,
        );
    }
}

/// As [`quantize_ref`], one sub-block per lane.
#[inline(always)]
pub(crate) fn quantize_lanes<S: Simd, K: MinMaxK<SUB, N_SUB>, const SUB: usize, const N_SUB: usize>(
    s: S,
    rows: Rows<'_>,
    out: &mut [u8],
) {
    let twice = Twice(s);
    let n_blocks = out.len() / K::BLOCK_BYTES;
    for_batches(
        twice,
        rows,
        n_blocks,
        K::WEIGHTING,
        &mut Fits::<MAX_BATCH>::new(),
        #[inline(always)]
        |fits, at, x: &[_; SUB], weights| search::<_, K, SUB, N_SUB>(twice, fits, at, x, weights),
        #[inline(always)]
        |fits, first, n| {
            let MinMaxFit { scale, minus_min, .. } = &fits.fit;
            // Calls, not a closure for both: closures called twice are not inlined, and vector operations outside are slow.
            let weighted = if rows.importance.is_some() {
                let scales = weighted_codes::<_, N_SUB>(twice, K::SCALE_MAX, scale, &fits.weight_sum, n);
                let mins = weighted_codes::<_, N_SUB>(twice, K::SCALE_MAX, minus_min, &fits.weight_sum, n);
                Some((scales, mins))
            } else {
                None
            };
            for (b, out) in out[first * K::BLOCK_BYTES..].chunks_exact_mut(K::BLOCK_BYTES).take(n).enumerate() {
                let at = b * N_SUB;
                let (scales, mins) = match &weighted {
                    Some((scales, mins)) => (scales.block(b), mins.block(b)),
                    None => {
                        let plain = |table: &[f32; MAX_BATCH]| {
                            let values = table[at..].first_chunk().expect("a table holds a batch");
                            quantize_scales(K::SCALE_MAX, K::SCALE_CLIP, values)
                        };
                        (plain(scale), plain(minus_min))
                    }
                };
                let x = rows.block(first + b, BLOCK_LEN);
                encode::<K, SUB, N_SUB>(
                    x,
                    &scales,
                    &mins,
                    #[inline(always)]
                    |scales, mins| requantize(s, x, scales, mins, (0, K::PLAIN.nmax)),
                    |j, x, q| fits.levels(at + j, x, K::PLAIN.nmax, q),
                    out,
                );
            }
        },
    );
}

/// Search `S::LANES` sub-blocks; their fits go to `at` and on.
#[inline(always)]
fn search<S: Simd, K: MinMaxK<SUB, N_SUB>, const SUB: usize, const N_SUB: usize>(
    s: S,
    fits: &mut Fits<MAX_BATCH>,
    at: usize,
    x: &[S::F; SUB],
    weights: Option<&[S::F; SUB]>,
) {
    let zero = s.splat(0.0);
    let fit = if let Some(weights) = weights {
        let mut sum = zero;
        for &w in weights {
            sum = s.add(sum, w);
        }
        s.store(sum, &mut fits.weight_sum[at..]);
        minmax(s, &K::WEIGHTED, x, weights)
    } else {
        let mut weights = [zero; SUB];
        let mut rms = zero;
        if K::ADDS_RMS {
            let mut sum = zero;
            for &v in x {
                sum = s.add(sum, s.mul(v, v));
            }
            rms = s.sqrt(s.div(sum, s.splat(SUB as f32)));
        }
        for (w, &v) in weights.iter_mut().zip(x) {
            // Adding the rms 0 changes nothing: |x| is no negative zero.
            *w = s.add(rms, s.abs(v));
        }
        minmax(s, &K::PLAIN, x, &weights)
    };
    s.store(fit.scale, &mut fits.fit.scale[at..]);
    s.store(fit.minus_min, &mut fits.fit.minus_min[at..]);
    s.store(fit.iscale, &mut fits.fit.iscale[at..]);
    s.store(fit.level_min, &mut fits.fit.level_min[at..]);
}

/// [`Codes`] of a batch: `codes[j][b]` is that of sub-block j of block b.
struct BatchCodes<const N_SUB: usize> {
    codes: [[u8; BATCH]; N_SUB],
    units: [f32; BATCH],
}

impl<const N_SUB: usize> BatchCodes<N_SUB> {
    #[inline(always)]
    fn block(&self, b: usize) -> Codes<N_SUB> {
        Codes { codes: self.codes.each_ref().map(|codes| codes[b]), unit: self.units[b] }
    }
}

/// Quantize the `values` (scales or mins) of the first `n` blocks of a batch under their weights, one block per lane.
#[inline(always)]
fn weighted_codes<S: Simd, const N_SUB: usize>(
    s: S,
    max_code: i32,
    values: &[f32; MAX_BATCH],
    weights: &[f32; MAX_BATCH],
    n: usize,
) -> BatchCodes<N_SUB> {
    let mut batch = BatchCodes { codes: [[0; BATCH]; N_SUB], units: [0.0; BATCH] };
    for group in (0..n).step_by(S::LANES) {
        let at = |lane: usize| (group + lane).min(n - 1) * N_SUB;
        let x = load_lanes::<S, N_SUB>(s, |lane| &values[at(lane)..]);
        let w = load_lanes::<S, N_SUB>(s, |lane| &weights[at(lane)..]);
        let (unit, levels) = pos(s, max_code, &x, &w);
        s.store(unit, &mut batch.units[group..]);
        for (codes, &level) in batch.codes.iter_mut().zip(&levels) {
            s.store_bytes(level, &mut codes[group..]);
        }
    }
    batch
}

/// Write the scales, then quantize the values against the stored scales with `requantize(scales, mins)`; sub-blocks whose stored
/// scale is 0 get what `kept(j, x, q)` writes.
#[inline(always)]
fn encode<K: MinMaxK<SUB, N_SUB>, const SUB: usize, const N_SUB: usize>(
    x: &[f32],
    scales: &Codes<N_SUB>,
    mins: &Codes<N_SUB>,
    requantize: impl Fn(&[f32; N_SUB], &[f32; N_SUB]) -> [u8; BLOCK_LEN],
    kept: impl Fn(usize, &[f32], &mut [u8]),
    out: &mut [u8],
) {
    K::put_scales(scales.unit, mins.unit, &scales.codes, &mins.codes, out);
    let (scales, mins) = K::get_scales(out);
    let mut q = requantize(&scales, &mins);
    for j in (0..N_SUB).filter(|&j| scales[j] == 0.0) {
        kept(j, &x[j * SUB..][..SUB], &mut q[j * SUB..][..SUB]);
    }
    K::put_levels(&q, out);
}

/// Codes of non-negative `values` against the largest of them.
#[inline(always)]
fn quantize_scales<const N_SUB: usize>(max_code: i32, clip: u8, values: &[f32; N_SUB]) -> Codes<N_SUB> {
    let max = values.iter().fold(0.0, |a, &b| if b > a { b } else { a });
    let inverse = if max > 0.0 { max_code as f32 / max } else { 0.0 };
    let codes = values.map(|v| (nearest_int_ggml(inverse * v) as u8).min(clip));
    Codes { codes, unit: max / max_code as f32 }
}
