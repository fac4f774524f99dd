//! IQ2_S: groups of eight from a grid of 1024 points, all eight signs, a four-bit scale per 16.

use crate::pack::get_f16;
use crate::tables::{IQ2S, put_signed};
use quantrs_simd::Level;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 82;
/// Where the fields after `d` and the low index bytes lie.
const SIGNS: usize = 34;
const QH: usize = 66;
const SCALES: usize = 74;

/// Format    256 values -> 82 bytes: d (f16), qs[32] (low index bytes), signs[32], qh[8] (bits 2l.. of byte b: index bits 8 and 9
///           of group 4b + l), scales[8] (byte b: low nibble elements 32b..32b+16, high nibble the next 16); 2.5625 bpw
/// Value     w = ((d * (0.5 + s)) * 0.25) * point, signs from their byte
/// Shapes    packed: u8[n / 256 * 82]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq2_s`, ggml 0.25.3
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                for (i, out) in out.chunks_exact_mut(32).enumerate() {
                    let (low, signs): (&[u8], &[u8]) = (&b[2 + 4 * i..][..4], &b[SIGNS + 4 * i..][..4]);
                    let (high, scale) = (usize::from(b[QH + i]), b[SCALES + i]);
                    let scales = [scale & 15, scale >> 4].map(|s| d * (0.5 + f32::from(s)) * 0.25);
                    for (l, out) in out.chunks_exact_mut(8).enumerate() {
                        let index = usize::from(low[l]) | (high >> (2 * l) & 3) << 8;
                        put_signed(out, scales[l / 2], IQ2S[index], signs[l]);
                    }
                }
            }
        },
    );
}
