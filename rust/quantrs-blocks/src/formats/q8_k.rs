//! Q8_K: activations in blocks of 256 with an f32 scale, eight-bit levels and the sums of 16 levels each.

use crate::along::signed_max_along;
use crate::format::Rows;
use crate::search::signed_max;
use quantrs_simd::{Level, Simd, dispatch, nearest_int_ggml};

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 292;
/// Offset of the sums.
const SUMS: usize = 4 + BLOCK_LEN;

/// Format    256 values -> 292 bytes: d (f32), qs[256] (i8), sums[16] (i16): sum j is that of q 16j..16j+16. 9.125 bpw
/// Value     w ~ d * q, q in -127..=127
/// Search    iscale = -127 / the value of largest magnitude, sign kept, first one on a tie; d = 1 / iscale
/// Rounding  q = min(127, nearest_int(iscale * w)), its low 8 bits
/// Edges     zero block: all bytes 0. iscale infinite: d = -0 or 0, all q = 0
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 292]
/// Exact     bytes equal `quantize_row_q8_K_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let max = signed_max(x);
        if max == 0.0 {
            out.fill(0);
            continue;
        }
        let iscale = -127.0 / max;
        for (q, x) in out[4..SUMS].iter_mut().zip(x) {
            *q = nearest_int_ggml(iscale * x).min(127) as u8;
        }
        finish(out, iscale);
    }
}

/// Write d, and the sums from the levels.
#[inline(always)]
fn finish(block: &mut [u8], iscale: f32) {
    block[..4].copy_from_slice(&(1.0 / iscale).to_le_bytes());
    let (qs, sums) = block[4..].split_at_mut(BLOCK_LEN);
    for (sum, qs) in sums.chunks_exact_mut(2).zip(qs.chunks_exact(16)) {
        let total: i16 = qs.iter().map(|&q| i16::from(q as i8)).sum();
        sum.copy_from_slice(&total.to_le_bytes());
    }
}

/// As [`quantize_ref`], along the blocks.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let max = signed_max_along(s, x);
        if max == 0.0 {
            out.fill(0);
            continue;
        }
        let iscale = -127.0 / max;
        for (x, q) in x.chunks_exact(S::LANES).zip(out[4..SUMS].chunks_exact_mut(S::LANES)) {
            let q_i32 = s.nearest_int(s.mul(s.splat(iscale), s.load(x)));
            s.store_bytes(s.imin(q_i32, s.isplat(127)), q);
        }
        finish(out, iscale);
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                let qs: &[u8; BLOCK_LEN] = b[4..SUMS].try_into().expect("256 bytes");
                for (out, &q) in out.iter_mut().zip(qs) {
                    *out = d * f32::from(q as i8);
                }
            }
        },
    );
}
