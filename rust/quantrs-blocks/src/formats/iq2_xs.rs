//! IQ2_XS: groups of eight from a grid of 512 points, seven-bit sign codes, a four-bit scale per 16.

use super::grid::{self, Unpacked};
use crate::pack::get_f16;
use crate::tables::{EVEN_SIGN_MASKS, IQ2XS, negate};
use quantrs_simd::Level;

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
    grid::dequantize(level, packed, BLOCK_BYTES, out, unpack);
}

/// One block as small integers and scales; `b` is one block.
#[inline(always)]
pub fn unpack(b: &[u8]) -> Unpacked {
    let b: &[u8; BLOCK_BYTES] = b.try_into().expect("one block");
    let mut unpacked = Unpacked { groups: [0; 32], scales: [0.0; 16] };
    let d = get_f16(b);
    for (i, scale) in b[SCALES..].iter().enumerate() {
        unpacked.scales[2 * i] = d * (0.5 + f32::from(scale & 15)) * 0.25;
        unpacked.scales[2 * i + 1] = d * (0.5 + f32::from(scale >> 4)) * 0.25;
    }
    for (group, q) in unpacked.groups.iter_mut().zip(b[2..SCALES].chunks_exact(2)) {
        let q = usize::from(u16::from_le_bytes([q[0], q[1]]));
        *group = negate(IQ2XS[q & 511], EVEN_SIGN_MASKS[q >> 9]);
    }
    unpacked
}
