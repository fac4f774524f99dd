//! IQ2_XS: groups of eight from a grid of 512 points, seven-bit sign codes, a four-bit scale per 16.

use crate::pack::get_f16;
use crate::tables::{EVEN_SIGNS, IQ2XS, put_signed};
use quantrs_simd::Level;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 74;
/// Where the scales lie.
const SCALES: usize = 66;

/// Format    256 values -> 74 bytes: d (f16), qs[32] (u16: grid index in bits 0..9, sign code in bits 9..16), scales[8] (byte b:
///           low nibble elements 32b..32b+16, high nibble the next 16); 2.3125 bpw
/// Value     w = ((d * (0.5 + s)) * 0.25) * point, signs by `EVEN_SIGNS`
/// Shapes    packed: u8[n / 256 * 74]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq2_xs`, ggml 0.25.3
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                let groups = b[2..SCALES].chunks_exact(8).zip(&b[SCALES..]);
                for ((qs, scale), out) in groups.zip(out.chunks_exact_mut(32)) {
                    let scales = [scale & 15, scale >> 4].map(|s| d * (0.5 + f32::from(s)) * 0.25);
                    for (k, (q, out)) in qs.chunks_exact(2).zip(out.chunks_exact_mut(8)).enumerate() {
                        let q = usize::from(u16::from_le_bytes([q[0], q[1]]));
                        put_signed(out, scales[k / 2], IQ2XS[q & 511], EVEN_SIGNS[q >> 9]);
                    }
                }
            }
        },
    );
}
