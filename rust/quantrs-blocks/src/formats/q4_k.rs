//! Q4_K: super-blocks of 256 in eight sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum.

use crate::format::Rows;
use crate::lanes::{MAX_LANES, load_lanes, sum_of_squares_ref, sums_of_squares};
use crate::pack::{get_f16, pack_scales_mins, put_f16, unpack_scales_mins};
use crate::search::{MinMax, MinMaxFit, minmax, minmax_ref, pos_ref};
use quantrs_simd::{Level, Simd, dispatch, nearest_int_ggml};

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 144;
/// Values per sub-block.
const SUB: usize = 32;
const NMAX: i32 = 15;
const PLAIN: MinMax = MinMax { nmax: NMAX, rmin: -1.0, rdelta: 0.1, nstep: 20, mad: false };
const WEIGHTED: MinMax = MinMax { nmax: NMAX, rmin: -0.9, rdelta: 0.05, nstep: 36, mad: false };

/// What the search found for the sub-blocks of one block.
struct Fits {
    sub: [MinMaxFit; 8],
    /// Sum of the weights of each sub-block; None without importance.
    weight_sums: Option<[f32; 8]>,
}

/// Format    256 values -> 144 bytes: d (f16), dmin (f16), scales[12], qs[128]; 4.5 bpw. Nibble l of the 32 bytes of pair c is
///           element 64c + l (low) and 64c + 32 + l (high); scales as in `pack::pack_scales_mins`
/// Value     w ~ (d * sc) * q - dmin * m, q in 0..=15, sc and m in 0..=63
/// Search    `search::minmax` per sub-block, weights sqrt(mean square of the sub-block) + |x|; with importance
///           w * sqrt(sigma2 + x^2), sigma2 = twice the mean square of the block, and `search::pos` over scales and mins
/// Rounding  sc = min(63, nearest_int(63 / largest scale * scale)); then q anew from the stored d * sc and dmin * m
/// Edges     stored scale 0: the levels that the search left; all zero: d = dmin = 0
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 144]
/// Exact     bytes equal `quantize_row_q4_K_ref` and `quantize_q4_K`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let x = rows.block(i, BLOCK_LEN);
        let importance = rows.block_importance(i, BLOCK_LEN);
        let sigma2 = 2.0 * sum_of_squares_ref(x) / 256.0;
        let mut fits = Fits { sub: Default::default(), weight_sums: importance.map(|_| [0.0; 8]) };
        for (j, x) in x.chunks_exact(SUB).enumerate() {
            let mut weights = [0.0; SUB];
            if let Some(importance) = importance {
                for ((weight, x), w) in weights.iter_mut().zip(x).zip(&importance[j * SUB..]) {
                    *weight = w * (sigma2 + x * x).sqrt();
                }
            } else {
                let rms = (sum_of_squares_ref(x) / 32.0).sqrt();
                for (weight, x) in weights.iter_mut().zip(x) {
                    *weight = rms + x.abs();
                }
            }
            if let Some(sums) = &mut fits.weight_sums {
                sums[j] = weights.iter().fold(0.0, |sum, w| sum + w);
            }
            fits.sub[j] = minmax_ref(if importance.is_some() { &WEIGHTED } else { &PLAIN }, x, &weights);
        }
        encode(x, &fits, out);
    }
}

/// As [`quantize_ref`], one sub-block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    let n_blocks = out.len() / BLOCK_BYTES;
    // A batch is the fewest whole blocks that fill the lanes.
    let batch = S::LANES.div_ceil(8);
    for first in (0..n_blocks).step_by(batch) {
        let n = batch.min(n_blocks - first);
        let mut fits = [MinMaxFit::default(); MAX_LANES];
        let mut weight_sums = [0.0; MAX_LANES];
        let mut sigma2 = [0.0; 2];
        if rows.importance.is_some() {
            sums_of_squares(s, &rows.x[first * BLOCK_LEN..(first + n) * BLOCK_LEN], BLOCK_LEN, &mut sigma2[..n]);
            sigma2 = sigma2.map(|sum| 2.0 * sum / 256.0);
        }
        for group in (0..batch * 8).step_by(S::LANES) {
            // Lanes past the last block repeat it.
            let at = |j: usize| (first * 8 + (group + j).min(n * 8 - 1), (group + j).min(n * 8 - 1) / 8);
            let x = load_lanes::<S, SUB>(s, |j| rows.block(at(j).0, SUB));
            let fits = &mut fits[group..];
            if rows.importance.is_some() {
                let w = load_lanes::<S, SUB>(s, |j| rows.block_importance(at(j).0, SUB).unwrap_or_default());
                let [sigma2] = load_lanes::<S, 1>(s, |j| &sigma2[at(j).1..]);
                let weights = std::array::from_fn(|i| s.mul(w[i], s.sqrt(s.add(sigma2, s.mul(x[i], x[i])))));
                let sum = weights.iter().fold(s.splat(0.0), |sum, &w| s.add(sum, w));
                s.store(sum, &mut weight_sums[group..]);
                minmax(s, &WEIGHTED, &x, &weights, fits);
            } else {
                let sum = x.iter().fold(s.splat(0.0), |sum, &v| s.add(sum, s.mul(v, v)));
                let rms = s.sqrt(s.div(sum, s.splat(32.0)));
                let weights = x.map(|v| s.add(rms, s.abs(v)));
                minmax(s, &PLAIN, &x, &weights, fits);
            }
        }
        for b in 0..n {
            let sub = std::array::from_fn(|j| fits[b * 8 + j]);
            let weight_sums = rows.importance.map(|_| std::array::from_fn(|j| weight_sums[b * 8 + j]));
            let out = &mut out[(first + b) * BLOCK_BYTES..][..BLOCK_BYTES];
            encode(rows.block(first + b, BLOCK_LEN), &Fits { sub, weight_sums }, out);
        }
    }
}

/// Quantize the scales, then the values against the stored scales, and pack.
#[inline(always)]
fn encode(x: &[f32], fits: &Fits, out: &mut [u8]) {
    let (mut scales, mut mins) = ([0u8; 8], [0u8; 8]);
    let (d, dmin);
    if let Some(weight_sums) = &fits.weight_sums {
        d = pos_ref(63, &fits.sub.map(|f| f.scale), weight_sums, &mut scales);
        dmin = pos_ref(63, &fits.sub.map(|f| f.minus_min), weight_sums, &mut mins);
    } else {
        let largest = |f: fn(&MinMaxFit) -> f32| fits.sub.iter().map(f).fold(0.0, |a, b| if b > a { b } else { a });
        let (max_scale, max_min) = (largest(|f| f.scale), largest(|f| f.minus_min));
        let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
        let (inv_scale, inv_min) = (inverse(max_scale), inverse(max_min));
        for (j, f) in fits.sub.iter().enumerate() {
            scales[j] = (nearest_int_ggml(inv_scale * f.scale) as u8).min(63);
            mins[j] = (nearest_int_ggml(inv_min * f.minus_min) as u8).min(63);
        }
        (d, dmin) = (max_scale / 63.0, max_min / 63.0);
    }
    put_f16(out, d);
    put_f16(&mut out[2..], dmin);
    out[4..16].copy_from_slice(&pack_scales_mins(&scales, &mins));

    let (d, dmin) = (get_f16(out), get_f16(&out[2..]));
    let (scales, mins) = unpack_scales_mins(&out[4..]);
    let mut q = [0u8; BLOCK_LEN];
    for (j, (q, x)) in q.chunks_exact_mut(SUB).zip(x.chunks_exact(SUB)).enumerate() {
        let scale = d * f32::from(scales[j]);
        if scale == 0.0 {
            for (q, &x) in q.iter_mut().zip(x) {
                *q = fits.sub[j].level(x, NMAX);
            }
        } else {
            let min = dmin * f32::from(mins[j]);
            for (q, &x) in q.iter_mut().zip(x) {
                *q = nearest_int_ggml((x + min) / scale).clamp(0, NMAX) as u8;
            }
        }
    }
    for (qs, q) in out[16..].chunks_exact_mut(32).zip(q.chunks_exact(64)) {
        for l in 0..32 {
            qs[l] = q[l] | q[l + 32] << 4;
        }
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let (d, dmin) = (get_f16(b), get_f16(&b[2..]));
                let (scales, mins) = unpack_scales_mins(&b[4..]);
                for c in 0..4 {
                    let qs: &[u8; 32] = b[16 + 32 * c..][..32].try_into().expect("32 bytes");
                    let (low, high) = out[64 * c..][..64].split_at_mut(32);
                    let (d_low, m_low) = (d * f32::from(scales[2 * c]), dmin * f32::from(mins[2 * c]));
                    let (d_high, m_high) = (d * f32::from(scales[2 * c + 1]), dmin * f32::from(mins[2 * c + 1]));
                    for l in 0..32 {
                        low[l] = d_low * f32::from(qs[l] & 15) - m_low;
                        high[l] = d_high * f32::from(qs[l] >> 4) - m_high;
                    }
                }
            }
        },
    );
}
