//! IQ1_M: groups of eight from a ternary grid of 2048 points; a shift per group and a three-bit scale per 16.

use super::grid::{self, Unpacked};
use super::iq1_s::shifted;
use crate::pack::get_f16;
use quantrs_simd::Level;

const BLOCK_BYTES: usize = 56;
/// Where the high bits and the scales lie.
const QH: usize = 32;
const SCALES: usize = 48;

/// Format    256 values -> 56 bytes: qs[32] (low index bytes), qh[16] (a nibble per group: index bits 8..11, then 8: shift down),
///           scales[4] (u16: scale s of elements 64t + 16k.. in bits 3k.., a nibble of d, an f16, on top); 1.75 bpw
/// Value     w = (d * (2s + 1)) * (point - 1 + shift), shift +-0.125, point in 0..=2
/// Shapes    packed: u8[n / 256 * 56]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq1_m`, ggml 0.25.3
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    grid::dequantize(level, packed, BLOCK_BYTES, out, unpack);
}

/// One block as small integers and scales; `b` is one block.
#[inline(always)]
pub fn unpack(b: &[u8]) -> Unpacked {
    let b: &[u8; BLOCK_BYTES] = b.try_into().expect("one block");
    let mut unpacked = Unpacked { groups: [0; 32], scales: [0.0; 16] };
    let s = &b[SCALES..];
    let d = get_f16(&[s[1] >> 4 | (s[3] & 0xf0), s[5] >> 4 | (s[7] & 0xf0)]);
    for t in 0..16 {
        let word = u16::from_le_bytes([s[t / 4 * 2], s[t / 4 * 2 + 1]]);
        unpacked.scales[t] = d * f32::from(2 * (word >> (3 * (t % 4)) & 7) + 1) * 0.125;
        for k in 0..2 {
            let nibble = usize::from(b[QH + t]) >> (4 * k);
            let index = usize::from(b[2 * t + k]) | (nibble & 7) << 8;
            unpacked.groups[2 * t + k] = shifted(index, nibble & 8 != 0);
        }
    }
    unpacked
}
