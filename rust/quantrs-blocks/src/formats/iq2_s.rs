//! IQ2_S: groups of eight from a grid of 1024 points, all eight signs, a four-bit scale per 16.

use super::grid::{self, Unpacked};
use crate::pack::get_f16;
use crate::tables::{IQ2S, SIGN_MASKS, negate};
use quantrs_simd::Level;

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
    for (i, group) in unpacked.groups.iter_mut().enumerate() {
        let high = usize::from(b[QH + i / 4]) >> (2 * (i % 4)) & 3;
        *group = negate(IQ2S[usize::from(b[2 + i]) | high << 8], SIGN_MASKS[usize::from(b[SIGNS + i])]);
    }
    unpacked
}
