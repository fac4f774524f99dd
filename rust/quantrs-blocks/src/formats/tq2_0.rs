//! TQ2_0: ternary blocks of 256, two bits each.

use super::ternary::{store_trits, trit_ref};
use crate::along::{abs_max, abs_max_along, inverse};
use crate::format::Rows;
use crate::pack::{get_f16, put_f16};
use quantrs_simd::{Level, Simd, dispatch};

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 66;
/// Where the scale lies.
const D: usize = 64;

/// Format    256 values -> 66 bytes: qs[64], d (f16); 2.0625 bpw. Bits 2n of byte m of half h are element 128h + 32n + m
/// Value     w ~ d * (t - 1), t in 0..=2
/// Search    d = largest magnitude
/// Rounding  t = round_half_away(w / d) + 1 with 1/d in f32, before d is rounded to f16
/// Edges     zero block: d = 0, all t = 1; 1/d infinite (largest magnitude below 2^-128): all t = 1
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 66]
/// Exact     bytes equal `quantize_row_tq2_0_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = abs_max(x);
        let id = inverse(d);
        for (x, qs) in x.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
            for m in 0..32 {
                qs[m] = (0..4).fold(0, |byte, n| byte | trit_ref(x[32 * n + m] * id) << (2 * n));
            }
        }
        put_f16(&mut out[D..], d);
    }
}

/// As [`quantize_ref`], along the block: nothing but the largest magnitude crosses elements.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_along(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_along<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = abs_max_along(s, x);
        let id = inverse(d);
        let mut t = [0u8; BLOCK_LEN];
        store_trits(s, x, id, 1, &mut t);
        for (t, qs) in t.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
            for m in 0..32 {
                qs[m] = t[m] | t[m + 32] << 2 | t[m + 64] << 4 | t[m + 96] << 6;
            }
        }
        put_f16(&mut out[D..], d);
    }
}

/// Inverse of [`quantize`]; a code of 3, which is never written, decodes to 2d.
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(&b[D..]);
                for (qs, out) in b[..D].chunks_exact(32).zip(out.chunks_exact_mut(128)) {
                    for (n, out) in out.chunks_exact_mut(32).enumerate() {
                        for (q, out) in qs.iter().zip(out) {
                            *out = (f32::from((q >> (2 * n)) & 3) - 1.0) * d;
                        }
                    }
                }
            }
        },
    );
}
