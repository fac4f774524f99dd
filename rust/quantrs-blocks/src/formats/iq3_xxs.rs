//! IQ3_XXS: groups of four from a grid of 256 points, seven-bit sign codes per eight values, a four-bit scale per 32.

use crate::pack::get_f16;
use crate::tables::{EVEN_SIGNS, IQ3XXS, put_signed};
use quantrs_simd::Level;

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 98;
/// Where the words of sign codes and scales lie.
const WORDS: usize = 66;

/// Format    256 values -> 98 bytes: d (f16), qs[64] (grid indices), then per 32 values a u32: the sign code of elements 8k..8k+8 in
///           bits 7k.. , scale s in bits 28..; 3.0625 bpw
/// Value     w = ((d * (0.5 + s)) * 0.5) * point, signs by `EVEN_SIGNS`
/// Shapes    packed: u8[n / 256 * 98]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq3_xxs`, ggml 0.25.3
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                let groups = b[2..WORDS].chunks_exact(8).zip(b[WORDS..].chunks_exact(4));
                for ((qs, word), out) in groups.zip(out.chunks_exact_mut(32)) {
                    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
                    for (k, (q, out)) in qs.chunks_exact(2).zip(out.chunks_exact_mut(8)).enumerate() {
                        let pair = [IQ3XXS[usize::from(q[0])], IQ3XXS[usize::from(q[1])]];
                        let values = pair.as_flattened().try_into().expect("8 values");
                        put_signed(out, scale, values, EVEN_SIGNS[(word >> (7 * k)) as usize & 127]);
                    }
                }
            }
        },
    );
}
