//! IQ4_XS: super-blocks of 256 in eight sub-blocks of 32, each with a 6-bit scale; four-bit codes of 16 uneven levels.

use crate::along::{BLOCK_LEN as SUB, decode_nibbles, inverse, pack_nibbles, store_nibbles};
use crate::format::Rows;
use crate::lanes::{MAX_LANES, load_lanes, sum_of_squares_ref, sums_of_squares};
use crate::pack::{get_f16, put_f16};
use crate::row_weights::weights;
use crate::search::{IQ4_VALUES, iq4, iq4_ref, nearest_level, nearest_level_ref, signed_max};
use quantrs_simd::{Level, Simd, dispatch, nearest_int_ggml};
use std::array::from_fn;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 136;
const N_SUB: usize = BLOCK_LEN / SUB;
/// Offset of the codes.
const QS: usize = 8;

/// Format    256 values -> 136 bytes: d (f16), scales_h (u16), scales_l[4], qs[128]; 4.25 bpw. Sub-block b: 16 bytes of qs, byte
///           j = value j (low nibble), value j+16 (high); ls = nibble b%2 of scales_l[b/2], bits 2b and 2b+1 of scales_h on top
/// Value     w ~ (d * (ls - 32)) * V[q], V = `search::IQ4_VALUES`
/// Search    `search::iq4` per sub-block, weights x^2; with importance w * sqrt(sigma2 + x^2), sigma2 = twice the mean square of
///           the block. d = the sub-blocks' scale of largest magnitude, sign kept, / -32; first one on a tie
/// Rounding  ls = 32 + clamp(nearest_int(scale / d), -32, 31); q = nearest level of w / (d * (ls - 32)), the upper on a tie. The
///           divisions are products with inverses in f32, d before it is rounded to f16
/// Edges     sub-block with ls = 32: all q = 8; zero block: d = -0, all ls = 32
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 136]
/// Exact     bytes equal `quantize_row_iq4_xs_ref` and `quantize_iq4_xs`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let x = rows.block(i, BLOCK_LEN);
        let importance = rows.block_importance(i, BLOCK_LEN);
        let sigma2 = sum_of_squares_ref(x) * (2.0 / BLOCK_LEN as f32);
        let scales = from_fn(|b| {
            let x = &x[b * SUB..][..SUB];
            let weights: [f32; SUB] = match importance {
                Some(w) => from_fn(|i| w[b * SUB + i] * (sigma2 + x[i] * x[i]).sqrt()),
                None => from_fn(|i| x[i] * x[i]),
            };
            iq4_ref(x, &weights)
        });
        let inverses = encode_scales(&scales, out);
        for ((x, id), qs) in x.chunks_exact(SUB).zip(inverses).zip(out[QS..].chunks_exact_mut(SUB / 2)) {
            pack_nibbles(&from_fn(|i| nearest_level_ref(id * x[i])), qs);
        }
    }
}

/// Write d and the sub-blocks' codes ls; returns the inverses of their scales, d not rounded to f16.
#[inline(always)]
fn encode_scales(scales: &[f32; N_SUB], out: &mut [u8]) -> [f32; N_SUB] {
    let d = -signed_max(scales) / 32.0;
    let id = inverse(d);
    put_f16(out, d);
    let levels = scales.map(|scale| nearest_int_ggml(id * scale).clamp(-32, 31));
    let codes = levels.map(|l| (l + 32) as u16);
    let high = codes.iter().enumerate().fold(0, |high, (b, code)| high | code >> 4 << (2 * b));
    out[2..4].copy_from_slice(&high.to_le_bytes());
    for (byte, codes) in out[4..QS].iter_mut().zip(codes.chunks_exact(2)) {
        *byte = ((codes[0] & 15) | (codes[1] & 15) << 4) as u8;
    }
    levels.map(|l| inverse(d * l as f32))
}

/// As [`quantize_ref`], one sub-block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    // As many blocks as lanes, so that the sums of squares fill the lanes too.
    for (batch, out) in out.chunks_mut(S::LANES * BLOCK_BYTES).enumerate() {
        let first = batch * S::LANES;
        let n = out.len() / BLOCK_BYTES;
        let mut sigma2 = [0.0; MAX_LANES];
        if rows.importance.is_some() {
            sums_of_squares(s, &rows.x[first * BLOCK_LEN..(first + n) * BLOCK_LEN], BLOCK_LEN, &mut sigma2[..n]);
            sigma2 = sigma2.map(|sum| sum * (2.0 / BLOCK_LEN as f32));
        }
        let mut scales = [0.0; MAX_LANES * N_SUB];
        for group in (0..n * N_SUB).step_by(S::LANES) {
            // Lanes past the last sub-block repeat it.
            let at = |j: usize| (group + j).min(n * N_SUB - 1);
            let x = load_lanes::<S, SUB>(s, |j| rows.block(first * N_SUB + at(j), SUB));
            let scale = if rows.importance.is_some() {
                let w =
                    load_lanes::<S, SUB>(s, |j| rows.block_importance(first * N_SUB + at(j), SUB).unwrap_or_default());
                let [sigma2] = load_lanes::<S, 1>(s, |j| &sigma2[at(j) / N_SUB..]);
                iq4(s, &x, &weights(s, &w, sigma2, &x))
            } else {
                let mut squares = x;
                for square in &mut squares {
                    *square = s.mul(*square, *square);
                }
                iq4(s, &x, &squares)
            };
            s.store(scale, &mut scales[group..]);
        }
        for (b, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            let inverses = encode_scales(&from_fn(|j| scales[b * N_SUB + j]), out);
            let x = rows.block(first + b, BLOCK_LEN);
            for ((x, id), qs) in x.chunks_exact(SUB).zip(inverses).zip(out[QS..].chunks_exact_mut(SUB / 2)) {
                let id = s.splat(id);
                store_nibbles(
                    s,
                    qs,
                    #[inline(always)]
                    |i| nearest_level(s, s.mul(id, s.load(&x[i..]))),
                );
            }
        }
    }
}

/// The scale of sub-block `j` of a block with scale `d`.
#[inline(always)]
fn sub_scale(block: &[u8], d: f32, j: usize) -> f32 {
    let high = u16::from_le_bytes([block[2], block[3]]);
    let code = (block[4 + j / 2] >> (4 * (j % 2)) & 15) | ((high >> (2 * j) & 3) << 4) as u8;
    d * (f32::from(code) - 32.0)
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    dispatch!(level, s => dequantize_lanes(s, packed, out), scalar => dequantize_ref(packed, out));
}

#[inline(always)]
fn dequantize_lanes<S: Simd>(s: S, packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let d = get_f16(b);
        for (j, (qs, out)) in b[QS..].chunks_exact(SUB / 2).zip(out.chunks_exact_mut(SUB)).enumerate() {
            let scale = s.splat(sub_scale(b, d, j));
            decode_nibbles(
                s,
                qs,
                out,
                #[inline(always)]
                |q| s.mul(scale, s.lookup32(&IQ4_VALUES, q)),
            );
        }
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let d = get_f16(b);
        for (j, (qs, out)) in b[QS..].chunks_exact(SUB / 2).zip(out.chunks_exact_mut(SUB)).enumerate() {
            let scale = sub_scale(b, d, j);
            let (low, high) = out.split_at_mut(SUB / 2);
            for ((q, low), high) in qs.iter().zip(low).zip(high) {
                *low = scale * IQ4_VALUES[usize::from(q & 15)];
                *high = scale * IQ4_VALUES[usize::from(q >> 4)];
            }
        }
    }
}
