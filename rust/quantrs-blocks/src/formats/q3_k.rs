//! Q3_K: super-blocks of 256 in sixteen sub-blocks of 16, each with a signed 6-bit scale.

use super::k_batches::{
    BATCH, BLOCK_LEN, MAX_BATCH, Weighting, block_weights_ref, for_batches, repeat_each, requantize, requantize_ref,
};
use crate::format::Rows;
use crate::lanes::load_lanes;
use crate::pack::{get_f16, put_f16, put_two_bit_planes};
use crate::search::{SymFit, q3iter, q3iter_ref, signed_max, sym, sym_ref};
use quantrs_simd::{Level, Simd, Twice, dispatch, nearest_int_ggml};

const BLOCK_BYTES: usize = 110;
/// Values per sub-block.
const SUB: usize = 16;
const N_SUB: usize = 16;
const NMAX: i32 = 4;
/// Smallest and largest level before the bias.
const LEVELS: (i32, i32) = (-NMAX, NMAX - 1);
/// The scale codes are signed scales plus this.
const SCALE_BIAS: i32 = 32;
const WEIGHTING: Weighting = Weighting::Sigma(2.0);

/// What the search found, one entry per sub-block.
struct Fits<const N: usize> {
    scale: [f32; N],
    /// As in [`SymFit`], with importance only.
    iscale: [f32; N],
    /// Sum of the weights, with importance only.
    weight_sum: [f32; N],
}

impl<const N: usize> Fits<N> {
    fn new() -> Self {
        Fits { scale: [0.0; N], iscale: [0.0; N], weight_sum: [0.0; N] }
    }

    /// The levels that the search left for sub-block `j`.
    fn levels(&self, j: usize, weighted: bool, x: &[f32], q: &mut [u8]) {
        if weighted {
            let fit = SymFit { scale: self.scale[j], iscale: self.iscale[j] };
            for (q, &x) in q.iter_mut().zip(x) {
                *q = fit.level(x, NMAX);
            }
        } else {
            q3iter_ref(NMAX, x, q);
        }
    }
}

/// Format    256 values -> 110 bytes: hmask[32], qs[64], scales[12], d (f16); 3.4375 bpw. The low two bits are in qs
///           (`pack::put_two_bit_planes`), the third of element e is bit e / 32 of hmask[e % 32]; scales as in `pack_scales`
/// Value     w ~ (d * (sc - 32)) * (q - 4), q in 0..=7, sc in 0..=63
/// Search    `search::q3iter` per sub-block; with importance `search::sym`, weights w * sqrt(sigma2 + x^2), sigma2 = twice the mean
///           square of the block, and `search::sym` over the scales
/// Rounding  sc = clamp(nearest_int(-32 / scale of largest magnitude * scale), -32, 31) + 32; then q anew from the stored d * (sc - 32)
/// Edges     stored scale 0: the levels that the search left; all scales 0: d = 0, all sc = 0
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 110]
/// Exact     bytes equal `quantize_row_q3_K_ref` and `quantize_q3_K`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let x = rows.block(i, BLOCK_LEN);
        let weights = rows.block_importance(i, BLOCK_LEN).map(|w| block_weights_ref(WEIGHTING, x, w));
        let mut fits = Fits::<N_SUB>::new();
        for (j, x) in x.chunks_exact(SUB).enumerate() {
            if let Some(weights) = &weights {
                let weights = &weights[j * SUB..][..SUB];
                fits.weight_sum[j] = weights.iter().fold(0.0, |sum, w| sum + w);
                let fit = sym_ref(NMAX, x, weights);
                (fits.scale[j], fits.iscale[j]) = (fit.scale, fit.iscale);
            } else {
                fits.scale[j] = q3iter_ref(NMAX, x, &mut [0; SUB]);
            }
        }
        let (d, codes) = match weights {
            Some(_) => weighted_codes(sym_ref(SCALE_BIAS, &fits.scale, &fits.weight_sum), &fits.scale),
            None => quantize_scales(&fits.scale),
        };
        put_scales(d, &codes, out);
        encode(
            x,
            |scales| requantize_ref(x, scales, &[0.0; N_SUB], LEVELS),
            |j, x, q| fits.levels(j, weights.is_some(), x, q),
            out,
        );
    }
}

/// As [`quantize_ref`], one sub-block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() { quantize_weighted(s, rows, out) } else { quantize_plain(s, rows, out) }
}

#[inline(always)]
fn quantize_plain<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    // Each step of this search waits for a division and for the step before: it takes four vectors to fill the time.
    let lanes = Twice(Twice(s));
    let n_blocks = out.len() / BLOCK_BYTES;
    for_batches(
        lanes,
        rows,
        n_blocks,
        WEIGHTING,
        &mut Fits::<MAX_BATCH>::new(),
        #[inline(always)]
        |fits, at, x: &[_; SUB], _| lanes.store(q3iter(lanes, NMAX, x), &mut fits.scale[at..]),
        #[inline(always)]
        |fits, first, n| {
            encode_batch(
                s,
                rows,
                first,
                n,
                fits,
                #[inline(always)]
                |_, scales| quantize_scales(scales),
                out,
            );
        },
    );
}

#[inline(always)]
fn quantize_weighted<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    let lanes = Twice(s);
    let n_blocks = out.len() / BLOCK_BYTES;
    for_batches(
        lanes,
        rows,
        n_blocks,
        WEIGHTING,
        &mut Fits::<MAX_BATCH>::new(),
        #[inline(always)]
        |fits, at, x: &[_; SUB], weights| {
            let Some(weights) = weights else { return };
            let mut sum = lanes.splat(0.0);
            for &w in weights {
                sum = lanes.add(sum, w);
            }
            lanes.store(sum, &mut fits.weight_sum[at..]);
            let fit = sym(lanes, NMAX, x, weights);
            lanes.store(fit.scale, &mut fits.scale[at..]);
            lanes.store(fit.iscale, &mut fits.iscale[at..]);
        },
        #[inline(always)]
        |fits, first, n| {
            // The same search over the scales, one block per lane.
            let mut of_blocks = SymFit { scale: [0.0; BATCH], iscale: [0.0; BATCH] };
            for group in (0..n).step_by(<Twice<S>>::LANES) {
                let at = |lane: usize| (group + lane).min(n - 1) * N_SUB;
                let x = load_lanes::<_, N_SUB>(lanes, |lane| &fits.scale[at(lane)..]);
                let w = load_lanes::<_, N_SUB>(lanes, |lane| &fits.weight_sum[at(lane)..]);
                let fit = sym(lanes, SCALE_BIAS, &x, &w);
                lanes.store(fit.scale, &mut of_blocks.scale[group..]);
                lanes.store(fit.iscale, &mut of_blocks.iscale[group..]);
            }
            encode_batch(
                s,
                rows,
                first,
                n,
                fits,
                #[inline(always)]
                |b, scales| weighted_codes(SymFit { scale: of_blocks.scale[b], iscale: of_blocks.iscale[b] }, scales),
                out,
            );
        },
    );
}

/// Encode the `n` blocks from `first` on; `quantize_scales(b, scales)` gives d and the codes of the scales of block b of the batch.
#[inline(always)]
fn encode_batch<S: Simd>(
    s: S,
    rows: Rows<'_>,
    first: usize,
    n: usize,
    fits: &Fits<MAX_BATCH>,
    quantize_scales: impl Fn(usize, &[f32; N_SUB]) -> (f32, [u8; N_SUB]),
    out: &mut [u8],
) {
    for (b, out) in out[first * BLOCK_BYTES..].chunks_exact_mut(BLOCK_BYTES).take(n).enumerate() {
        let x = rows.block(first + b, BLOCK_LEN);
        let scales = fits.scale[b * N_SUB..].first_chunk().expect("a table holds a batch");
        let (d, codes) = quantize_scales(b, scales);
        put_scales(d, &codes, out);
        encode(
            x,
            #[inline(always)]
            |scales| requantize(s, x, scales, &[0.0; N_SUB], LEVELS),
            |j, x, q| fits.levels(b * N_SUB + j, rows.importance.is_some(), x, q),
            out,
        );
    }
}

/// Quantize the values against the stored scales with `requantize(scales)` and pack; sub-blocks whose stored scale is 0 get what
/// `kept(j, x, q)` writes.
#[inline(always)]
fn encode(
    x: &[f32],
    requantize: impl Fn(&[f32; N_SUB]) -> [u8; BLOCK_LEN],
    kept: impl Fn(usize, &[f32], &mut [u8]),
    out: &mut [u8],
) {
    let scales = get_scales(out);
    let mut q = requantize(&scales);
    for j in (0..N_SUB).filter(|&j| scales[j] == 0.0) {
        kept(j, &x[j * SUB..][..SUB], &mut q[j * SUB..][..SUB]);
    }
    let (hmask, qs) = out.split_at_mut(32);
    for l in 0..32 {
        hmask[l] = (0..8).fold(0, |mask, plane| mask | (q[32 * plane + l] >> 2) << plane);
    }
    put_two_bit_planes(&q, qs);
}

/// The value of one step and the codes that the search over the scales found.
#[inline(always)]
fn weighted_codes(fit: SymFit, scales: &[f32; N_SUB]) -> (f32, [u8; N_SUB]) {
    (fit.scale, scales.map(|scale| fit.level(scale, SCALE_BIAS)))
}

/// The value of one step and the codes of signed scales against the one of largest magnitude.
#[inline(always)]
fn quantize_scales(scales: &[f32; N_SUB]) -> (f32, [u8; N_SUB]) {
    let max_scale = signed_max(scales);
    if max_scale == 0.0 {
        return (0.0, [0; N_SUB]);
    }
    let inverse = -(SCALE_BIAS as f32) / max_scale;
    let codes = scales.map(|scale| {
        // ggml keeps the integer in 8 bits before it clamps.
        let low = nearest_int_ggml(inverse * scale) as i8;
        (i32::from(low).clamp(-SCALE_BIAS, SCALE_BIAS - 1) + SCALE_BIAS) as u8
    });
    (1.0 / inverse, codes)
}

/// Sixteen 6-bit codes in 12 bytes: four low bits as nibbles of bytes 0..8 (code j and j + 8), two high bits of code j at
/// bits 2 * (j / 4) of byte 8 + j % 4.
#[inline(always)]
fn pack_scales(codes: &[u8; N_SUB]) -> [u8; 12] {
    let mut out = [0; 12];
    for j in 0..8 {
        out[j] = (codes[j] & 15) | codes[j + 8] << 4;
    }
    for j in 0..4 {
        let high = |k: usize| codes[4 * k + j] >> 4 & 3;
        out[8 + j] = high(0) | high(1) << 2 | high(2) << 4 | high(3) << 6;
    }
    out
}

/// Inverse of [`pack_scales`].
#[inline(always)]
fn unpack_scales(packed: &[u8; 12]) -> [u8; N_SUB] {
    let mut codes = [0; N_SUB];
    for j in 0..N_SUB {
        let low = if j < 8 { packed[j] & 15 } else { packed[j - 8] >> 4 };
        codes[j] = low | (packed[8 + j % 4] >> (2 * (j / 4)) & 3) << 4;
    }
    codes
}

/// Write d and the codes of the scales.
#[inline(always)]
fn put_scales(d: f32, codes: &[u8; N_SUB], block: &mut [u8]) {
    put_f16(&mut block[108..], d);
    block[96..108].copy_from_slice(&pack_scales(codes));
}

/// d * scale of every sub-block, as stored.
#[inline(always)]
fn get_scales(block: &[u8]) -> [f32; N_SUB] {
    let d = get_f16(&block[108..]);
    let codes = unpack_scales(block[96..].first_chunk().expect("12 bytes"));
    codes.map(|code| d * (i32::from(code) - SCALE_BIAS) as f32)
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let scales = get_scales(b);
                let hmask: &[u8; 32] = b.first_chunk().expect("32 bytes");
                for (i, out) in out.chunks_exact_mut(32).enumerate() {
                    let qs: &[u8; 32] = b[32 + 32 * (i / 4)..].first_chunk().expect("32 bytes");
                    let scales = repeat_each(scales[2 * i], scales[2 * i + 1]);
                    for l in 0..32 {
                        let low = i32::from(qs[l]) >> (2 * (i % 4)) & 3;
                        let high = i32::from(hmask[l]) >> i & 1;
                        out[l] = scales[l] * ((low | high << 2) - 4) as f32;
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_codes_come_back() {
        for seed in 0..64u8 {
            let codes = std::array::from_fn(|j| (seed.wrapping_mul(7).wrapping_add(j as u8 * 11)) & 63);
            assert_eq!(unpack_scales(&pack_scales(&codes)), codes);
        }
    }
}
