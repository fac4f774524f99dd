//! IQ3_XXS: groups of four from a grid of 256 points, seven-bit sign codes per eight values, a four-bit scale per 32.

use super::grid::{self, Unpacked};
use crate::pack::get_f16;
use crate::tables::{EVEN_SIGN_MASKS, IQ3XXS, negate};
use quantrs_simd::Level;

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
    grid::dequantize(level, packed, BLOCK_BYTES, out, unpack);
}

/// One block as small integers and scales; `b` is one block.
#[inline(always)]
pub fn unpack(b: &[u8]) -> Unpacked {
    let b: &[u8; BLOCK_BYTES] = b.try_into().expect("one block");
    let mut unpacked = Unpacked { groups: [0; 32], scales: [0.0; 16] };
    let d = get_f16(b);
    for (i, word) in b[WORDS..].chunks_exact(4).enumerate() {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        unpacked.scales[2 * i..][..2].fill(d * (0.5 + (word >> 28) as f32) * 0.5);
        for k in 0..4 {
            let at = 2 + 8 * i + 2 * k;
            let point = |at: usize| u64::from(IQ3XXS[usize::from(b[at])]);
            let mask = EVEN_SIGN_MASKS[(word >> (7 * k)) as usize & 127];
            unpacked.groups[4 * i + k] = negate(point(at) | point(at + 1) << 32, mask);
        }
    }
    unpacked
}
