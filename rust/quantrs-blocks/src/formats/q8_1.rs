//! Q8_1: activations in blocks of 32 with one scale, the sum of the levels and eight-bit levels.

use crate::along::{BLOCK_LEN, GROUP, abs_max, abs_max_along, decode_i8, decode_i8_ref, group_scales, inverse};
use crate::format::Rows;
use crate::lanes::MAX_LANES;
use crate::pack::{get_f16, put_f16};
use quantrs_simd::{Level, Simd, dispatch, round_half_away, trunc_i32};

const BLOCK_BYTES: usize = 36;

/// Format    32 values -> 36 bytes: d (f16), s (f16), qs[32] (i8). 9 bpw
/// Value     w ~ d * q, q in -127..=127; s = d * sum of q, which a dot product multiplies by the other side's minimum
/// Search    d = largest magnitude / 127
/// Rounding  q = round_half_away(w * id); id = 1/d in f32; s = sum of q (an integer) * d. Both with d before its f16 rounding
/// Edges     zero block: d = s = 0, all q = 0. 1/d infinite: all q = 0
/// Shapes    rows: f32[n], n % 32 == 0; out: u8[n / 32 * 36]
/// Exact     bytes equal `quantize_row_q8_1_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = abs_max(x) / 127.0;
        let id = inverse(d);
        put_f16(out, d);
        for (q, x) in out[4..].iter_mut().zip(x) {
            *q = trunc_i32(round_half_away(x * id)) as u8;
        }
        let sum: i32 = out[4..].iter().map(|&q| i32::from(q as i8)).sum();
        put_f16(&mut out[2..], sum as f32 * d);
    }
}

/// As [`quantize_ref`], along the blocks.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks(GROUP * BLOCK_LEN).zip(out.chunks_mut(GROUP * BLOCK_BYTES)) {
        let mut max = [0.0; GROUP];
        for (max, x) in max.iter_mut().zip(x.chunks_exact(BLOCK_LEN)) {
            *max = abs_max_along(s, x);
        }
        let scales = group_scales(s, &max, 127.0);
        for (b, (x, out)) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)).enumerate() {
            out[..2].copy_from_slice(&scales.f16[b]);
            let id = s.splat(scales.inverse[b]);
            let mut sum = s.isplat(0);
            for (x, q) in x.chunks_exact(S::LANES).zip(out[4..].chunks_exact_mut(S::LANES)) {
                s.store_bytes(s.round_half_away(s.mul(s.load(x), id)), q);
                // Of what was stored: where 1/d is infinite, the integers are not in the range of i8.
                sum = s.iadd(sum, s.load_i8(q));
            }
            let mut sums = [0; MAX_LANES];
            s.istore(sum, &mut sums);
            let sum: i32 = sums.iter().sum();
            put_f16(&mut out[2..], sum as f32 * (max[b] / 127.0));
        }
    }
}

/// The values; the sum is not needed for them.
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    dispatch!(level, s => dequantize_lanes(s, packed, out), scalar => dequantize_ref(packed, out));
}

#[inline(always)]
fn dequantize_lanes<S: Simd>(s: S, packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        decode_i8(s, &b[4..], out, get_f16(b));
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        decode_i8_ref(&b[4..], out, get_f16(b));
    }
}
