//! IQ2_XXS: groups of eight from a grid of 256 points, seven-bit sign codes, a four-bit scale per 32.

use crate::pack::get_f16;
use crate::tables::{EVEN_SIGNS, IQ2XXS, put_signed};
use quantrs_simd::Level;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 66;

/// Format    256 values -> 66 bytes: d (f16), then per 32 values four u8 grid indices and a u32: the sign code of group k in
///           bits 7k.. , scale s in bits 28..; 2.0625 bpw
/// Value     w = ((d * (0.5 + s)) * 0.25) * point, signs by `EVEN_SIGNS`
/// Shapes    packed: u8[n / 256 * 66]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq2_xxs`, ggml 0.25.3
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                for (b, out) in b[2..].chunks_exact(8).zip(out.chunks_exact_mut(32)) {
                    let word = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
                    let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
                    for (k, out) in out.chunks_exact_mut(8).enumerate() {
                        let signs = EVEN_SIGNS[(word >> (7 * k)) as usize & 127];
                        put_signed(out, scale, IQ2XXS[usize::from(b[k])], signs);
                    }
                }
            }
        },
    );
}
