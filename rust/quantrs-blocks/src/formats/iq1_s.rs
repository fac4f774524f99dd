//! IQ1_S: groups of eight from a ternary grid of 2048 points; a three-bit scale and a shift per 32.

use super::grid::{self, Unpacked};
use crate::pack::get_f16;
use crate::tables::{IQ1S, add_bytes};
use quantrs_simd::Level;

const BLOCK_BYTES: usize = 50;
/// Where the high bits lie.
const QH: usize = 34;

/// Format    256 values -> 50 bytes: d (f16), qs[32] (low index bytes), qh[8] (u16 per 32 values: index bits 8..11 of group l in
///           bits 3l.. , scale s in bits 12..15, bit 15: shift down); 1.5625 bpw
/// Value     w = (d * (2s + 1)) * (point - 1 + shift), shift +-0.125, point in 0..=2
/// Shapes    packed: u8[n / 256 * 50]; out: f32[n], n % 256 == 0
/// Exact     values equal `dequantize_row_iq1_s`, ggml 0.25.3
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
    for (i, qh) in b[QH..].chunks_exact(2).enumerate() {
        let qh = usize::from(u16::from_le_bytes([qh[0], qh[1]]));
        unpacked.scales[2 * i..][..2].fill(d * (2 * (qh >> 12 & 7) + 1) as f32 * 0.125);
        for l in 0..4 {
            let index = usize::from(b[2 + 4 * i + l]) | (qh >> (3 * l) & 7) << 8;
            unpacked.groups[4 * i + l] = shifted(index, qh >> 15 != 0);
        }
    }
    unpacked
}

/// Point `index`, times eight and shifted; scales are divided by eight to match, which is exact for any multiple of an f16.
#[inline(always)]
pub(super) fn shifted(index: usize, down: bool) -> u64 {
    /// -2 in every byte: from +1/8 to -1/8.
    const DOWN: u64 = 0xfefe_fefe_fefe_fefe;
    add_bytes(IQ1S[index], if down { DOWN } else { 0 })
}
