//! Q2_K: super-blocks of 256 in sixteen sub-blocks of 16, each with a 4-bit scale and a 4-bit minimum.

use super::k_batches::{BLOCK_LEN, Weighting, repeat_each};
use super::k_minmax::{self, MinMaxK};
use crate::format::Rows;
use crate::pack::{get_f16, put_f16, put_two_bit_planes};
use crate::search::MinMax;
use quantrs_simd::{Level, dispatch};

const BLOCK_BYTES: usize = 84;
/// Values per sub-block.
const SUB: usize = 16;
const N_SUB: usize = 16;

struct Q2K;

impl MinMaxK<SUB, N_SUB> for Q2K {
    const BLOCK_BYTES: usize = BLOCK_BYTES;
    const PLAIN: MinMax = MinMax { nmax: 3, rmin: -0.5, rdelta: 0.1, nstep: 15, mad: true };
    const ADDS_RMS: bool = false;
    const WEIGHTED: MinMax = MinMax { nmax: 3, rmin: -0.9, rdelta: 0.05, nstep: 36, mad: false };
    const WEIGHTING: Weighting = Weighting::Sigma(1.0);
    const SCALE_MAX: i32 = 15;
    const SCALE_CLIP: u8 = 255;

    #[inline(always)]
    fn put_scales(d: f32, dmin: f32, scales: &[u8; N_SUB], mins: &[u8; N_SUB], block: &mut [u8]) {
        for (byte, (sc, m)) in block.iter_mut().zip(scales.iter().zip(mins)) {
            *byte = sc | m << 4;
        }
        put_f16(&mut block[80..], d);
        put_f16(&mut block[82..], dmin);
    }

    #[inline(always)]
    fn get_scales(block: &[u8]) -> ([f32; N_SUB], [f32; N_SUB]) {
        let codes: &[u8; N_SUB] = block[..N_SUB].try_into().expect("16 bytes");
        let (d, dmin) = (get_f16(&block[80..]), get_f16(&block[82..]));
        (codes.map(|c| d * f32::from(c & 15)), codes.map(|c| dmin * f32::from(c >> 4)))
    }

    #[inline(always)]
    fn put_levels(q: &[u8; BLOCK_LEN], block: &mut [u8]) {
        put_two_bit_planes(q, &mut block[16..]);
    }
}

/// Format    256 values -> 84 bytes: scales[16] (scale in the low nibble, min in the high), qs[64] (`pack::put_two_bit_planes`),
///           d (f16), dmin (f16); 2.625 bpw
/// Value     w ~ (d * sc) * q - dmin * m, q in 0..=3, sc and m in 0..=15
/// Search    `search::minmax` per sub-block on absolute errors, weights |x|; with importance on squared errors, weights
///           w * sqrt(sigma2 + x^2), sigma2 = the mean square of the block, and `search::pos` over scales and mins
/// Rounding  sc = nearest_int(15 / largest scale * scale); then q anew from the stored d * sc and dmin * m
/// Edges     stored scale 0: the levels that the search left; all zero: d = dmin = 0
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 84]
/// Exact     bytes equal `quantize_row_q2_K_ref` and `quantize_q2_K`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    k_minmax::quantize_ref::<Q2K, SUB, N_SUB>(rows, out);
}

/// As [`quantize_ref`], one sub-block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => k_minmax::quantize_lanes::<_, Q2K, SUB, N_SUB>(s, rows, out), scalar => quantize_ref(rows, out));
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let (scales, mins) = Q2K::get_scales(b);
                for (i, out) in out.chunks_exact_mut(32).enumerate() {
                    let qs: &[u8; 32] = b[16 + 32 * (i / 4)..].first_chunk().expect("32 bytes");
                    let scales = repeat_each(scales[2 * i], scales[2 * i + 1]);
                    let mins = repeat_each(mins[2 * i], mins[2 * i + 1]);
                    for l in 0..32 {
                        let q = i32::from(qs[l]) >> (2 * (i % 4)) & 3;
                        out[l] = scales[l] * q as f32 - mins[l];
                    }
                }
            }
        },
    );
}
