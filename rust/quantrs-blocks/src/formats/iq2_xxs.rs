//! IQ2_XXS: groups of eight from a grid of 256 points, seven-bit sign codes, a four-bit scale per 32.

use super::grid::{self, Unpacked};
use crate::pack::get_f16;
use crate::tables::{EVEN_SIGN_MASKS, IQ2XXS, negate};
use quantrs_simd::Level;

const BLOCK_BYTES: usize = 66;

/// Format    256 values -> 66 bytes: d (f16), then per 32 values four u8 grid indices and a u32: the sign code of group k in
///           bits 7k.. , scale s in bits 28..; 2.0625 bpw
/// Value     w = ((d * (0.5 + s)) * 0.25) * point, signs by `EVEN_SIGNS`
/// Shapes    packed: u8[n / 256 * 66]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq2_xxs`, ggml 0.25.3
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
    for (i, b) in b[2..].chunks_exact(8).enumerate() {
        let word = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
        unpacked.scales[2 * i..][..2].fill(d * (0.5 + (word >> 28) as f32) * 0.25);
        for k in 0..4 {
            let mask = EVEN_SIGN_MASKS[(word >> (7 * k)) as usize & 127];
            unpacked.groups[4 * i + k] = negate(IQ2XXS[usize::from(b[k])], mask);
        }
    }
    unpacked
}
