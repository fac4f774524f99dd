//! IQ3_S: groups of four from a grid of 512 points, all signs, a four-bit scale per 32.

use super::grid::{self, Unpacked};
use crate::pack::get_f16;
use crate::tables::{IQ3S, SIGN_MASKS, negate};
use quantrs_simd::Level;

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
    grid::dequantize(level, packed, BLOCK_BYTES, out, unpack);
}

/// One block as small integers and scales; `b` is one block.
#[inline(always)]
pub fn unpack(b: &[u8]) -> Unpacked {
    let b: &[u8; BLOCK_BYTES] = b.try_into().expect("one block");
    let mut unpacked = Unpacked { groups: [0; 32], scales: [0.0; 16] };
    let d = get_f16(b);
    for i in 0..8 {
        let s = b[SCALES + i / 2] >> (4 * (i % 2)) & 15;
        unpacked.scales[2 * i..][..2].fill(d * f32::from(1 + 2 * s));
        let high = usize::from(b[QH + i]);
        let point = |k: usize| u64::from(IQ3S[usize::from(b[2 + 8 * i + k]) | (high >> k & 1) << 8]);
        for l in 0..4 {
            let mask = SIGN_MASKS[usize::from(b[SIGNS + 4 * i + l])];
            unpacked.groups[4 * i + l] = negate(point(2 * l) | point(2 * l + 1) << 32, mask);
        }
    }
    unpacked
}
