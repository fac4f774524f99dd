//! Q2_0: ternary blocks of 64, two bits each.

use super::ternary::store_trits;
use crate::along::{GROUP, abs_max, abs_max_along, group_scales, inverse};
use crate::format::Rows;
use crate::pack::{get_f16, put_f16};
use quantrs_simd::{Level, Simd, dispatch, round_half_away, trunc_i32};

const BLOCK_LEN: usize = 64;
const BLOCK_BYTES: usize = 18;

/// Format    64 values -> 18 bytes: d (f16), qs[16]; 2.25 bpw. Bits 2k of byte j are element 4j + k
/// Value     w ~ d * (q - 1), q in 0..=3 (3 is never written)
/// Search    d = largest magnitude
/// Rounding  q = clamp(round_half_away(w / d) + 1, 0, 3) with 1/d in f32, before d is rounded to f16
/// Edges     zero block: d = 0, all q = 1; 1/d infinite (largest magnitude below 2^-128): all q = 0
/// Shapes    rows: f32[n], n % 64 == 0; out: u8[n / 64 * 18]
/// Exact     bytes equal `quantize_row_q2_0_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = abs_max(x);
        let id = inverse(d);
        put_f16(out, d);
        for (x, byte) in x.chunks_exact(4).zip(&mut out[2..]) {
            *byte = 0;
            for (k, x) in x.iter().enumerate() {
                *byte |= (trunc_i32(round_half_away(x * id)).wrapping_add(1).clamp(0, 3) as u8) << (2 * k);
            }
        }
    }
}

/// As [`quantize_ref`], along the blocks: nothing but the largest magnitude crosses elements.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_along(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_along<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks(GROUP * BLOCK_LEN).zip(out.chunks_mut(GROUP * BLOCK_BYTES)) {
        let mut largest = [0.0; GROUP];
        for (largest, x) in largest.iter_mut().zip(x.chunks_exact(BLOCK_LEN)) {
            *largest = abs_max_along(s, x);
        }
        let scales = group_scales(s, &largest, 1.0);
        for (b, (x, out)) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)).enumerate() {
            out[..2].copy_from_slice(&scales.f16[b]);
            let mut q = [0u8; BLOCK_LEN];
            // Infinite and NaN quotients cast to the smallest int, which clamps to 0.
            store_trits(s, x, scales.inverse[b], 0, &mut q);
            for (q, byte) in q.chunks_exact(4).zip(&mut out[2..]) {
                let w = u32::from_le_bytes([q[0], q[1], q[2], q[3]]);
                *byte = (w | w >> 6 | w >> 12 | w >> 18) as u8;
            }
        }
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                for (q, out) in b[2..].iter().zip(out.chunks_exact_mut(4)) {
                    for (k, out) in out.iter_mut().enumerate() {
                        *out = (f32::from((q >> (2 * k)) & 3) - 1.0) * d;
                    }
                }
            }
        },
    );
}
