//! IQ1_S: groups of eight from a ternary grid of 2048 points; a three-bit scale and a shift per 32.

use crate::pack::get_f16;
use crate::tables::IQ1S;
use quantrs_simd::Level;

const BLOCK_LEN: usize = 256;
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
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                let groups = b[2..QH].chunks_exact(4).zip(b[QH..].chunks_exact(2));
                for ((qs, qh), out) in groups.zip(out.chunks_exact_mut(32)) {
                    let qh = usize::from(u16::from_le_bytes([qh[0], qh[1]]));
                    let scale = d * (2 * (qh >> 12 & 7) + 1) as f32;
                    for (l, (q, out)) in qs.iter().zip(out.chunks_exact_mut(8)).enumerate() {
                        put_shifted(out, scale, IQ1S[usize::from(*q) | (qh >> (3 * l) & 7) << 8], qh >> 15 != 0);
                    }
                }
            }
        },
    );
}

/// Eight values of IQ1_S or IQ1_M: `scale * (digit - 1 +- 0.125)`; the sum is exact.
#[inline(always)]
pub(super) fn put_shifted(out: &mut [f32], scale: f32, digits: [u8; 8], down: bool) {
    let out: &mut [f32; 8] = out.try_into().expect("8 values");
    let offset = if down { -1.125 } else { -0.875 };
    for (out, digit) in out.iter_mut().zip(digits) {
        *out = scale * (f32::from(digit) + offset);
    }
}
