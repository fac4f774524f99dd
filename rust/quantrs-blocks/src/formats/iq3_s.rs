//! IQ3_S: groups of four from a grid of 512 points, all signs, a four-bit scale per 32.

use crate::pack::get_f16;
use crate::tables::{IQ3S, put_signed};
use quantrs_simd::Level;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 110;
/// Where the fields after `d` and the low index bytes lie.
const QH: usize = 66;
const SIGNS: usize = 74;
const SCALES: usize = 106;

/// Format    256 values -> 110 bytes: d (f16), qs[64] (low index bytes), qh[8] (bit k of byte b: index bit 8 of group 8b + k),
///           signs[32] (one byte per eight values), scales[4] (byte b: low nibble elements 64b..64b+32, high nibble the next 32);
///           3.4375 bpw
/// Value     w = (d * (1 + 2s)) * point, signs from their byte
/// Shapes    packed: u8[n / 256 * 110]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq3_s`, ggml 0.25.3
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                for (i, out) in out.chunks_exact_mut(32).enumerate() {
                    let (low, signs): (&[u8], &[u8]) = (&b[2 + 8 * i..][..8], &b[SIGNS + 4 * i..][..4]);
                    let (high, s) = (usize::from(b[QH + i]), b[SCALES + i / 2] >> (4 * (i % 2)) & 15);
                    let scale = d * f32::from(1 + 2 * s);
                    let point = |k: usize| IQ3S[usize::from(low[k]) | (high >> k & 1) << 8];
                    for (l, out) in out.chunks_exact_mut(8).enumerate() {
                        let pair = [point(2 * l), point(2 * l + 1)];
                        let values = pair.as_flattened().try_into().expect("8 values");
                        put_signed(out, scale, values, signs[l]);
                    }
                }
            }
        },
    );
}
