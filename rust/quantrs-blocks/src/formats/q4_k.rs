//! Q4_K: super-blocks of 256 in eight sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum.

use super::k_batches::{BLOCK_LEN, Weighting};
use super::k_minmax::{self, MinMaxK};
use crate::format::Rows;
use crate::pack::{get_f16, pack_scales_mins, put_f16, unpack_scales_mins};
use crate::search::MinMax;
use quantrs_simd::{Level, dispatch};

const BLOCK_BYTES: usize = 144;
/// Values per sub-block.
const SUB: usize = 32;
const N_SUB: usize = 8;

struct Q4K;

impl MinMaxK<SUB, N_SUB> for Q4K {
    const BLOCK_BYTES: usize = BLOCK_BYTES;
    const PLAIN: MinMax = MinMax { nmax: 15, rmin: -1.0, rdelta: 0.1, nstep: 20, mad: false };
    const ADDS_RMS: bool = true;
    const WEIGHTED: MinMax = MinMax { nmax: 15, rmin: -0.9, rdelta: 0.05, nstep: 36, mad: false };
    const WEIGHTING: Weighting = Weighting::Sigma(2.0);
    const SCALE_MAX: i32 = 63;
    const SCALE_CLIP: u8 = 63;

    #[inline(always)]
    fn put_scales(d: f32, dmin: f32, scales: &[u8; N_SUB], mins: &[u8; N_SUB], block: &mut [u8]) {
        put_f16(block, d);
        put_f16(&mut block[2..], dmin);
        block[4..16].copy_from_slice(&pack_scales_mins(scales, mins));
    }

    #[inline(always)]
    fn get_scales(block: &[u8]) -> ([f32; N_SUB], [f32; N_SUB]) {
        let (d, dmin) = (get_f16(block), get_f16(&block[2..]));
        let (scales, mins) = unpack_scales_mins(&block[4..]);
        (scales.map(|sc| d * f32::from(sc)), mins.map(|m| dmin * f32::from(m)))
    }

    #[inline(always)]
    fn put_levels(q: &[u8; BLOCK_LEN], block: &mut [u8]) {
        for (qs, q) in block[16..].chunks_exact_mut(32).zip(q.chunks_exact(64)) {
            for l in 0..32 {
                qs[l] = q[l] | q[l + 32] << 4;
            }
        }
    }
}

/// Format    256 values -> 144 bytes: d (f16), dmin (f16), scales[12], qs[128]; 4.5 bpw. Nibble l of the 32 bytes of pair c is
///           element 64c + l (low) and 64c + 32 + l (high); scales as in `pack::pack_scales_mins`
/// Value     w ~ (d * sc) * q - dmin * m, q in 0..=15, sc and m in 0..=63
/// Search    `search::minmax` per sub-block, weights sqrt(mean square of the sub-block) + |x|; with importance
///           w * sqrt(sigma2 + x^2), sigma2 = twice the mean square of the block, and `search::pos` over scales and mins
/// Rounding  sc = min(63, nearest_int(63 / largest scale * scale)); then q anew from the stored d * sc and dmin * m
/// Edges     stored scale 0: the levels that the search left; all zero: d = dmin = 0
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 144]
/// Exact     bytes equal `quantize_row_q4_K_ref` and `quantize_q4_K`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    k_minmax::quantize_ref::<Q4K, SUB, N_SUB>(rows, out);
}

/// As [`quantize_ref`], one sub-block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => k_minmax::quantize_lanes::<_, Q4K, SUB, N_SUB>(s, rows, out), scalar => quantize_ref(rows, out));
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let (scales, mins) = Q4K::get_scales(b);
                for c in 0..4 {
                    let qs: &[u8; 32] = b[16 + 32 * c..][..32].try_into().expect("32 bytes");
                    let (low, high) = out[64 * c..][..64].split_at_mut(32);
                    for l in 0..32 {
                        low[l] = scales[2 * c] * f32::from(qs[l] & 15) - mins[2 * c];
                        high[l] = scales[2 * c + 1] * f32::from(qs[l] >> 4) - mins[2 * c + 1];
                    }
                }
            }
        },
    );
}
